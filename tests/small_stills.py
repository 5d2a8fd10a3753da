"""Raw images of the tiny simulated shots, with the geometry in the file, and what `bayesbragg stills-process` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from small_run import GAIN, PHIL, SmallShot, write_factors, write_image

from bayesbragg.io.detectors import detector_to_document
from bayesbragg.model import Beam, Detector

STILLS_PHIL = f"""
spotfinder.threshold.algorithm = dispersion
spotfinder.threshold.dispersion {{ gain = {GAIN:g}; kernel_size = 3 3; global_threshold = 60; sigma_strong = 2 }}
spotfinder.filter.min_spot_size = 2
indexing.known_symmetry {{ unit_cell = 79.1 79.1 38.4 90 90 90; space_group = P43212 }}
indexing.stills.rmsd_min_px = 4
integration.summation.detector_gain = {GAIN:g}
dispatch.hit_finder.enable = False
output.composite_output = False
predictions.resolution_range = 3.1 999
{PHIL}
"""


def write_geometry(path: Path, detector: Detector, beam: Beam) -> None:
    """Add the attributes that state the geometry to an image file."""
    document = {
        "__id__": "monochromatic",
        "direction": (-beam.direction).tolist(),
        "wavelength": beam.wavelength_A,
        "polarization_normal": np.asarray(beam.polarization_normal).tolist(),
        "polarization_fraction": beam.polarization_fraction,
        "divergence": 0.0,
        "sigma_divergence": 0.0,
        "flux": 0.0,
        "transmission": 1.0,
    }
    with h5py.File(path, "r+") as file:
        file["images"].attrs["dxtbx_detector_string"] = str(detector_to_document(detector))
        file["images"].attrs["dxtbx_beam_string"] = str(document)


def write_raw(shots: Sequence[SmallShot], path: Path) -> None:
    """One image file with the shots, in HDF5 with its geometry."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(shots, path)
    write_geometry(path, shots[0].world.detector, shots[0].world.beam)


def write_inputs(folder: Path) -> None:
    """``factors.mtz`` and ``process.phil``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_factors(folder / "factors.mtz")
    (folder / "process.phil").write_text(STILLS_PHIL)

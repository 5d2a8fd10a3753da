"""The truth of simulated stills: JSON with units in its names, and the files that DIALS and `refine` read."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bayesbragg.forward import Parameters
from bayesbragg.io.experiments import write_experiments
from bayesbragg.io.files import write_bytes
from bayesbragg.io.reflections import write_reflections
from bayesbragg.io.symmetry import lookup_space_group
from bayesbragg.model import Beam, Crystal, Experiment, ImageReference, Reflections, Spectrum
from bayesbragg.pipeline.simulate_settings import SimulateSettings
from bayesbragg.stills.simulation import Still

__all__ = ["describe", "write_truth"]


def describe(
    number: int,
    place: int,
    path: Path,
    spectrum: Spectrum,
    parameters: Parameters,
    crystals: Sequence[Crystal],
    settings: SimulateSettings,
) -> dict[str, Any]:
    """The truth of a shot as plain numbers with units in their names."""
    return {
        "number": number,
        "image": path.name,
        "index": place,
        "seed": settings.seed,
        "real_space_A": [c.real_space_A.tolist() for c in crystals],
        "U": [c.U.tolist() for c in crystals],
        "cell_A_deg": crystals[0].cell.tolist(),
        "space_group": crystals[0].space_group,
        "G": np.asarray(parameters.scale.G).tolist(),
        "n_abc": np.asarray(parameters.mosaic.n_abc).tolist(),
        "n_def": np.asarray(parameters.mosaic.n_def).tolist(),
        "eta_deg": np.asarray(parameters.mosaic.eta_deg).tolist(),
        "eta_def_deg": np.asarray(parameters.mosaic.eta_def_deg).tolist(),
        "wavelengths_A": spectrum.wavelengths_A.tolist(),
        "photons": spectrum.photons.tolist(),
        "gain_adu_per_photon": settings.camera.gain,
        "readout_adu": settings.camera.readout_adu,
        "calibration_sd": settings.camera.calibration_sd,
    }


def write_truth(folder: Path, name: str, beam: Beam, still: Still, truth: dict[str, Any], path: Path) -> None:
    """The truth as JSON, and as experiment list and reflection table with the true detector and crystals."""
    write_bytes(folder / f"{name}.json", (json.dumps(truth, indent=1) + "\n").encode())
    group = lookup_space_group(truth["space_group"])
    crystals = [
        Crystal(np.array(vectors), group.hm, group.number, group.hall, group.to_primitive)
        for vectors in truth["real_space_A"]
    ]
    place = truth["index"]
    names = [
        str(uuid.uuid5(uuid.NAMESPACE_URL, f"{path.name}#{place}/{i}/{truth['seed']}")) for i in range(len(crystals))
    ]
    experiments = [
        Experiment(identifier, beam, still.detector, crystal, ImageReference(path, place))
        for identifier, crystal in zip(names, crystals, strict=True)
    ]
    write_experiments(experiments, folder / f"{name}.expt")
    table = still.reflections
    table = table.with_columns(**{"photons.truth": still.photons[still.strong]})
    write_reflections(Reflections(table.columns, dict(enumerate(names)), table.types), folder / f"{name}.refl")

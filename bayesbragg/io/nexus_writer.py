"""The NeXus (NXmx) view of an HDF5 image file that we write: groups that lead DIALS and others to the same pixels.

Panels are stacked along the slow axis by a virtual data set, so that nothing is stored twice; each is a module with its
own offset and directions in the NeXus frame, which the half turn about y makes of ours. Lengths are millimetre.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from bayesbragg.model import Beam, Detector

__all__ = ["add_nexus_view"]

FROM_LABORATORY = np.array([-1.0, 1.0, -1.0])


def add_nexus_view(
    file: Any,
    detector: Detector,
    beam: Beam,
    spectra: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None,
) -> None:
    """Add ``/entry`` to an open file with the data set ``images``, ``(n_images, n_panels, slow, fast)``.

    Args:
        spectra: wavelengths (angstrom) and photons, ``(n_images, n_channels)`` each, or None.
    """
    entry = _group(file, "entry", "NXentry")
    entry["definition"] = "NXmx"
    _group(_group(entry, "source", "NXsource"), "note", "NXnote")
    entry["source/name"] = "simulated"
    sample = _group(entry, "sample", "NXsample")
    sample["name"], sample["depends_on"] = "simulated", "."
    instrument = _group(entry, "instrument", "NXinstrument")
    _beam(_group(instrument, "beam", "NXbeam"), beam, spectra)
    made = _group(instrument, "detector", "NXdetector")
    images = file["images"]
    n_images, n_panels, n_slow, n_fast = images.shape
    made["description"], made["depends_on"], made["sensor_material"] = "simulated", ".", "Si"
    # DIALS asks for a sensor; a thin one of a nanometre moves no spot.
    _length(made, "sensor_thickness", max(float(detector.thickness_mm[0]), 1e-6))
    low, high = detector.trusted_range[:, 0].max(), detector.trusted_range[:, 1].min()
    made["underload_value"] = int(np.clip(low, -(2**31) + 1, 2**31 - 1))
    made["saturation_value"] = int(np.clip(high, -(2**31) + 1, 2**31 - 1))
    for panel in range(n_panels):
        _module(made, detector, panel, (n_slow, n_fast))
    layout = h5py.VirtualLayout((n_images, n_panels * n_slow, n_fast), images.dtype)
    source = h5py.VirtualSource(".", "images", images.shape)
    for panel in range(n_panels):
        layout[:, panel * n_slow : (panel + 1) * n_slow, :] = source[:, panel]
    data = _group(entry, "data", "NXdata")
    data.create_virtual_dataset("data", layout)
    data.attrs["signal"] = "data"


def _group(parent: Any, name: str, kind: str) -> Any:
    made = parent.create_group(name)
    made.attrs["NX_class"] = kind
    return made


def _length(parent: Any, name: str, value: float, **attributes: Any) -> None:
    item = parent.create_dataset(name, data=value, track_times=False)
    item.attrs["units"] = "mm"
    for key, attribute in attributes.items():
        item.attrs[key] = attribute


def _module(made: Any, detector: Detector, panel: int, shape: tuple[int, int]) -> None:
    module = _group(made, f"panel_{panel:04d}", "NXdetector_module")
    module["data_origin"], module["data_size"] = np.array([panel * shape[0], 0]), np.array(shape)
    origin = FROM_LABORATORY * detector.origin_mm[panel]
    distance = float(np.linalg.norm(origin))
    translation = {"transformation_type": "translation"}
    _length(module, "module_offset", distance, vector=origin / max(distance, 1e-300), depends_on=".", **translation)
    for axis, vector, size in (
        ("fast", detector.fast[panel], detector.pixel_size_mm[panel, 0]),
        ("slow", detector.slow[panel], detector.pixel_size_mm[panel, 1]),
    ):
        direction = {"vector": FROM_LABORATORY * vector, "depends_on": f"{module.name}/module_offset"}
        _length(module, f"{axis}_pixel_direction", float(size), **direction, **translation)


def _beam(group: Any, beam: Beam, spectra: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None) -> None:
    mean: Any = beam.wavelength_A
    if spectra is not None:
        wavelengths, photons = spectra
        mean = np.sum(wavelengths * photons, axis=1) / photons.sum(axis=1)
        group["incident_wavelength_spectrum"] = wavelengths
        group["incident_wavelength_spectrum"].attrs["units"] = "angstrom"
        group["incident_wavelength_spectrum_weight"] = photons
    group["incident_wavelength"] = mean
    group["incident_wavelength"].attrs["units"] = "angstrom"
    if spectra is not None:
        group["incident_wavelength"].attrs["variant"] = "incident_wavelength_spectrum"

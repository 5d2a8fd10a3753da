"""Images in NeXus files of the application definition NXmx, as Eiger and Jungfrau detectors write them.

A master file points to the pixels: a data set, a virtual one, or links ``data_000001``, ``data_000002``, ... to other
files, whose images count through. Shapes are ``(n_images, slow, fast)`` or ``(n_images, n_modules, slow, fast)``; a
module is the part that ``data_origin`` and ``data_size`` state. A pixel is untrusted where ``pixel_mask`` is not 0 (its
two lower bytes), outside ``underload_value`` to ``saturation_value``, or at the largest number of an unsigned type,
which these detectors write for pixels without a reading. ``data_offset`` and ``data_scale_factor`` turn what is stored
into what is read. Wavelengths (angstrom) are one for all images, one for each, or a spectrum with weights, one or each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from bayesbragg.io.beams import beam_from_document
from bayesbragg.io.detectors import detector_from_document
from bayesbragg.io.files import reason_of
from bayesbragg.io.hdf5_files import heaps_end, looks_like_hdf5, opened_hdf5
from bayesbragg.io.nexus_geometry import children, detector_document, modules_of, scalar, text
from bayesbragg.model.beam import WAVELENGTH_ENERGY_A_EV, Spectrum
from bayesbragg.model.errors import InputError
from bayesbragg.model.experiment import Experiment, ImageReference

__all__ = ["NexusReader"]

WHAT = "a NeXus image file (NXmx)"
BAD_PIXEL = 0xFFFF
"""Bits of ``pixel_mask`` that make a pixel unusable; the upper ones only describe it."""

Array = npt.NDArray[Any]
BoolArray = npt.NDArray[np.bool_]


class NexusReader:
    """Reads NXmx master files."""

    def accepts(self, path: Path) -> bool:
        """Whether the file is HDF5 with an entry that has data and an instrument."""
        if not path.is_file() or not looks_like_hdf5(path) or not heaps_end(path):
            return False
        try:
            with h5py.File(path, "r") as file:
                return "images" not in file and bool(children(file, "NXentry"))
        except Exception:
            # A damaged file is refused by the reader that takes it, with a reason.
            return False

    def count(self, path: Path) -> int:
        """Number of images."""
        with opened_hdf5(path, WHAT) as file:
            return sum(_length(data) for data in _parts(_entry(file, path), path)[1])

    def read(self, path: Path, index: int) -> tuple[list[Array], Spectrum | None]:
        """The panels of one image, ``(slow, fast)`` each, and its spectrum.

        Raises:
            InputError: missing or damaged file, missing data or external file, wrong index.
        """
        with opened_hdf5(path, WHAT) as file:
            entry = _entry(file, path)
            frame, data, count = _frame(entry, path, index)
            frame = _scaled(frame, data, index)
            panels = [np.array(frame[place]) for place in _places(_detector(entry, path), frame.shape, path)]
            return panels, _beam(entry, path, index, count)[1]

    def mask(self, path: Path, index: int) -> list[BoolArray] | None:
        """Pixels that may be trusted, by panel."""
        with opened_hdf5(path, WHAT) as file:
            entry = _entry(file, path)
            frame, _, _ = _frame(entry, path, index)
            detector = _detector(entry, path)
            good = np.ones(frame.shape, dtype=bool)
            if frame.dtype.kind == "u":
                good &= frame != np.iinfo(frame.dtype).max
            for low, name in ((True, "underload_value"), (False, "saturation_value")):
                limit = scalar(detector, name)
                if limit is not None:
                    good &= frame >= limit if low else frame <= limit
            for name in detector:
                if re.fullmatch(r"pixel_mask(_\d+)?", name):
                    good &= _mask_values(detector[name], frame.shape, index, path)
            return [good[place] for place in _places(detector, frame.shape, path)]

    def experiment(self, path: Path, index: int) -> Experiment:
        """Beam and detector that the file states.

        Raises:
            InputError: damaged file, wrong index, or no geometry; the message says what is missing.
        """
        with opened_hdf5(path, WHAT) as file:
            entry = _entry(file, path)
            part, count = _part(entry, path, index)
            wavelength, _ = _beam(entry, path, index, count)
            shape = part.data.shape[-2:]
            try:
                document = detector_document(_detector(entry, path), index, wavelength, shape)
                detector = detector_from_document(document)
            except Exception as error:
                # Whatever wrong units, shapes and links lead to in h5py, nxmx and numpy.
                raise InputError(
                    f"{path}: the geometry is not known: {reason_of(error)}; give an experiment list (.expt) for this "
                    "image, or complete the file"
                ) from None
        beam = {"direction": [0.0, 0.0, 1.0], "wavelength": wavelength, "polarization_normal": [0.0, 1.0, 0.0]}
        beam |= {"polarization_fraction": 0.999}
        return Experiment("", beam_from_document(beam), detector, None, ImageReference(path, index))


def _entry(file: Any, path: Path) -> Any:
    entries = children(file, "NXentry")
    if not entries:
        raise InputError(f"{path}: no group of class NXentry (there are: {', '.join(file)}); expected {WHAT}")
    return entries[0]


def _detector(entry: Any, path: Path) -> Any:
    found = [d for i in children(entry, "NXinstrument") for d in children(i, "NXdetector")]
    if not found:
        raise InputError(f"{path}: no NXdetector in {entry.name}; give an experiment list (.expt) for this image")
    return found[0]


@dataclass(frozen=True)
class _Part:
    """Where an image is: the group that lists its data set, which may be in another file, and its number there."""

    group: Any
    data: Any
    at: int


def _parts(entry: Any, path: Path) -> tuple[Any, list[Any]]:
    """The group that lists the images, and the data sets that hold them, in order."""
    groups = children(entry, "NXdata") + [d for i in children(entry, "NXinstrument") for d in children(i, "NXdetector")]
    for group in groups:
        signal = text(group.attrs.get("signal", "data"))
        names = [signal] if signal in group or isinstance(group.get(signal, getlink=True), h5py.ExternalLink) else []
        names = names or sorted(n for n in group if re.fullmatch(r"data_\d+", n))
        # Masters are made for more files than there are; the first ones count, as far as they go.
        found: list[Any] = []
        for name in names:
            link = group.get(name, getlink=True)
            data = group.get(name)
            if data is None and not found:
                where = link.filename if isinstance(link, h5py.ExternalLink) else name
                raise InputError(
                    f"{path}: its pixels are in {where}, which is not there; copy that file beside this one"
                )
            if data is None:
                break
            if isinstance(data, h5py.Dataset) and data.ndim >= 2:
                found.append(data)
        if found:
            return group, found
    raise InputError(f"{path}: no images in {entry.name} (NXdata with 'data' or 'data_000001'); expected {WHAT}")


def _length(data: Any) -> int:
    return 1 if data.ndim == 2 else int(data.shape[0])


def _part(entry: Any, path: Path, index: int) -> tuple[_Part, int]:
    """Where an image is, and how many images there are."""
    group, parts = _parts(entry, path)
    count = sum(_length(p) for p in parts)
    if not 0 <= index < count:
        raise InputError(f"{path}: image {index} was asked for, the file has {count} (the first is 0)")
    at = index
    for data in parts:
        if at < _length(data):
            return _Part(group, data, at), count
        at -= _length(data)
    raise AssertionError


def _frame(entry: Any, path: Path, index: int) -> tuple[Array, _Part, int]:
    """Stored pixels of an image, where they come from, and the number of images."""
    part, count = _part(entry, path, index)
    data = part.data
    if data.is_virtual:
        folder = Path(data.file.filename).parent
        for source in {s.file_name for s in data.virtual_sources()} - {"."}:
            # HDF5 fills in zeros for files that are missing, without a word.
            if not (folder / source).is_file():
                raise InputError(
                    f"{path}: its pixels are in {source}, which is not there; copy that file beside this one"
                )
    frame = np.asarray(data[()] if data.ndim == 2 else data[part.at])
    if frame.dtype.kind not in "iuf" or frame.ndim not in (2, 3):
        raise InputError(f"{path}: images of shape {frame.shape} and type {frame.dtype}; expected numbers (slow, fast)")
    return frame, part, count


def _scaled(frame: Array, part: _Part, index: int) -> Array:
    """Values after ``data_offset`` and ``data_scale_factor``, one number, one per pixel, or one of these per image.

    The master's count before those that stand beside the pixels in another file.
    """
    result = frame
    for name, add in (("data_offset", True), ("data_scale_factor", False)):
        for group, at in ((part.group, index), (part.data.parent, part.at)):
            item = group.get(name)
            if isinstance(item, h5py.Dataset) and item.size > 0:
                value = np.asarray(item[at] if item.ndim > frame.ndim else item[()], dtype=np.float64)
                result = result + value if add else result * value
                break
    return result


def _mask_values(item: Any, shape: tuple[int, ...], index: int, path: Path) -> BoolArray:
    if not isinstance(item, h5py.Dataset) or item.size == 0:
        return np.ones(shape, dtype=bool)
    values = np.asarray(item[min(index, len(item) - 1)] if item.ndim > len(shape) else item[()])
    if values.shape != shape or values.dtype.kind not in "iub":
        raise InputError(
            f"{path}: {item.name} of shape {values.shape} and type {values.dtype}; expected whole numbers {shape}"
        )
    return np.asarray((values.astype(np.int64) & BAD_PIXEL) == 0)


def _places(detector: Any, shape: tuple[int, ...], path: Path) -> list[tuple[Any, ...]]:
    """Where the panels lie in an image of this shape."""
    places: list[tuple[Any, ...]] = []
    for module in modules_of(detector):
        if "data_origin" not in module or "data_size" not in module:
            places.append((..., slice(None), slice(None)))
            continue
        start, size = (np.asarray(module[n][()], dtype=np.int64).ravel() for n in ("data_origin", "data_size"))
        if len(start) != len(shape) or len(size) != len(shape) or np.any(start < 0) or np.any(start + size > shape):
            raise InputError(
                f"{path}: {module.name} begins at {start.tolist()} with {size.tolist()} pixels; the images are {shape}"
            )
        # Of a third index, the module's number, one layer is taken.
        layers = tuple(int(s) for s in start[:-2])
        places.append((*layers, *(slice(int(s), int(s + n)) for s, n in zip(start[-2:], size[-2:], strict=True))))
    if not places:
        places = [(..., slice(None), slice(None))]
    if len(shape) == 3 and any(p[0] is ... for p in places):
        return [(layer, slice(None), slice(None)) for layer in range(shape[0])]
    return places


def _beam(entry: Any, path: Path, index: int, count: int) -> tuple[float, Spectrum | None]:
    """Wavelength (angstrom) and spectrum of an image."""
    holders = [*children(entry, "NXinstrument"), *children(entry, "NXsample")]
    found = [b for h in holders for b in children(h, "NXbeam")] + children(entry, "NXbeam")
    beam = next((b for b in found if "incident_wavelength" in b or "incident_energy" in b), None)
    try:
        if beam is None:
            raise KeyError("incident_wavelength in any NXbeam")
        values, weights = _wavelengths(beam, index, count)
        if weights is None:
            return float(values[0]), None
        spectrum = Spectrum(values, weights)
        return spectrum.mean_wavelength_A, spectrum
    except Exception as error:
        # Whatever wrong units, shapes and links lead to in h5py, nxmx and numpy.
        raise InputError(
            f"{path}: the wavelength is not known: {reason_of(error)}; give an experiment list (.expt)"
        ) from None


def _wavelengths(beam: Any, index: int, count: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
    """Wavelengths and, where there is a spectrum, weights, of one image."""
    if "incident_wavelength" not in beam:
        energy = np.atleast_1d(_in_unit(beam["incident_energy"], "eV"))
        return WAVELENGTH_ENERGY_A_EV / energy[[min(index, len(energy) - 1)]], None
    name, seen = "incident_wavelength", set[str]()
    weights = None
    while name not in seen and name in beam:
        seen.add(name)
        weights = next((beam[n] for n in (f"{name}_weights", f"{name}_weight") if n in beam), None)
        if weights is not None:
            break
        name = text(beam[name].attrs.get("variant", ""))
    if weights is None:
        values = np.atleast_1d(_in_unit(beam["incident_wavelength"], "angstrom"))
        if len(values) not in (1, count):
            raise ValueError(f"{len(values)} wavelengths for {count} images, and no incident_wavelength_weights")
        return values[[index if len(values) > 1 else 0]], None
    rows = []
    for array in (_in_unit(beam[name], "angstrom"), np.asarray(weights[()], dtype=np.float64)):
        rows.append(array[min(index, len(array) - 1)] if array.ndim == 2 else np.atleast_1d(array))
    return rows[0], rows[1]


def _in_unit(item: Any, unit: str) -> npt.NDArray[np.float64]:
    """Values of a data set in a unit, which is also the one that they have if the file states none."""
    import nxmx

    values = np.asarray(item[()], dtype=np.float64)
    stated = text(item.attrs.get("units", unit))
    stated = "angstrom" if stated.lower() in ("a", "angstrom", "angstroms") else stated
    return np.asarray((values * nxmx.ureg.Unit(stated)).to(unit).magnitude)

"""Images of any format that a reader knows, and images put together from the shoeboxes of a reflection table.

A reader is an object with ``accepts(path)`` and ``read(path, index)``, which returns the panels and the spectrum of an
image. Readers of other packages are found through the entry point group ``bayesbragg.image_readers`` and asked first.
What else a format knows, a reader tells by further methods, each of them optional:

    experiment(path, index)   beam, detector and image, where the format states the geometry
    count(path)               number of images in the file; 1 for a reader that has no such method
    mask(path, index)         pixels that may be trusted, one array per panel, or None
    gain(path, index)         detector units per photon of each panel, or None
    readout_sd(path, index)   standard deviation of each pixel's readout noise, detector units, per panel, or None
"""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bayesbragg.io.cbf_images import CbfReader
from bayesbragg.io.dxtbx_images import DxtbxReader
from bayesbragg.io.fabio_images import FabioReader
from bayesbragg.io.hdf5_images import Hdf5Reader
from bayesbragg.io.masks import read_mask
from bayesbragg.io.nexus import NexusReader
from bayesbragg.model.beam import Spectrum
from bayesbragg.model.detector import Detector
from bayesbragg.model.errors import InputError
from bayesbragg.model.experiment import Experiment, ImageReference
from bayesbragg.model.image import Image
from bayesbragg.model.reflections import Reflections, Shoebox

__all__ = [
    "ImageReader",
    "count_images",
    "image_from_shoeboxes",
    "image_readers",
    "read_image",
    "read_image_experiment",
]

ENTRY_POINTS = "bayesbragg.image_readers"
VALID = 1
"""Bit of a shoebox mask that says that the pixel may be trusted."""

log = logging.getLogger(__name__)


class ImageReader(Protocol):
    """Reads one kind of image file."""

    def accepts(self, path: Path) -> bool:
        """Whether the file is of this kind."""

    def read(self, path: Path, index: int) -> tuple[list[npt.NDArray[Any]], Spectrum | None]:
        """The panels ``(slow, fast)`` of image number `index`, and its spectrum; raises `InputError`."""


@lru_cache(maxsize=1)
def image_readers() -> tuple[ImageReader, ...]:
    """Every reader there is: those of other packages first, then ours, then dxtbx, which may not be installed."""
    found: list[ImageReader] = []
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            reader = entry.load()
            found.append(reader() if isinstance(reader, type) else reader)
        except Exception as error:
            # A broken plug-in must not keep the others from being used.
            log.warning("image reader %s cannot be used: %s", entry.name, error)
    return (*found, NexusReader(), Hdf5Reader(), CbfReader(), FabioReader(), DxtbxReader())


def _cut(data: npt.NDArray[Any], detector: Detector, path: Path) -> list[npt.NDArray[Any]]:
    """Panels out of one large frame, by the offsets that the detector's file states."""
    panels = (detector.document or {}).get("panels", [])
    places = [tuple(int(x) for x in panel.get("raw_image_offset", (0, 0))) for panel in panels]
    if len(set(places)) < detector.n_panels:
        raise InputError(
            f"{path}: one frame for the experiment's {detector.n_panels} panels, which have no places in it "
            "(raw_image_offset); give the image's own experiment list"
        )
    sizes = detector.image_size.tolist()
    return [data[s : s + n_slow, f : f + n_fast] for (n_fast, n_slow), (f, s) in zip(sizes, places, strict=True)]


def _reader_of(path: Path) -> ImageReader:
    reader = next((r for r in image_readers() if r.accepts(path)), None)
    if reader is None:
        if not path.is_file():
            raise InputError(f"{path}: no such file; expected an image; check the image path in the experiment list")
        raise InputError(
            f"{path}: no reader knows this format; expected NeXus, HDF5 with 'images', CBF, TIFF, EDF, ..."
        )
    return reader


def read_image_experiment(path: str | os.PathLike[str], index: int = 0) -> Experiment:
    """The experiment (beam, detector, image; no crystal) that an image file describes itself.

    Args:
        path: image file.
        index: number of the image, 0 for the first.

    Raises:
        InputError: missing or damaged file, wrong index, or a format or header without geometry.
    """
    path = Path(os.path.abspath(path))
    _reader_of(path)
    refusals: list[InputError] = []
    for reader in image_readers():
        describe = getattr(reader, "experiment", None)
        if describe is None or not reader.accepts(path):
            continue
        try:
            experiment: Experiment = describe(path, index)
            return experiment
        except InputError as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]
    raise InputError(
        f"{path}: this format states no detector geometry (distance, pixel size, beam centre, wavelength are "
        "missing); give an experiment list (.expt) for the image"
    )


def count_images(path: str | os.PathLike[str]) -> int:
    """How many images a file holds.

    Raises:
        InputError: missing or damaged file, or unknown format.
    """
    path = Path(os.path.abspath(path))
    count = getattr(_reader_of(path), "count", None)
    return 1 if count is None else int(count(path))


def _told(reader: ImageReader, what: str, path: Path, index: int) -> Any:
    """What a reader says of an image by one of its optional methods, or None."""
    tell = getattr(reader, what, None)
    return None if tell is None else tell(path, index)


def read_image(reference: ImageReference, detector: Detector) -> Image:
    """The image that an experiment refers to.

    Pixels without a number (NaN, infinite) are untrusted; so are those that the mask of the reference leaves out.

    Args:
        reference: the file, number of the image, and mask.
        detector: the detector; its panels must be those of the file.

    Raises:
        InputError: missing or damaged file, unknown format, wrong number of the image, panels that do not fit the
            detector, or an image without a single number.
    """
    path = Path(reference.path)
    reader = _reader_of(path)
    panels, spectrum = reader.read(path, reference.index)
    expected = [(int(slow), int(fast)) for fast, slow in detector.image_size]
    if len(panels) == 1 and len(expected) > 1:
        panels = _cut(panels[0], detector, path)
    found = [p.shape for p in panels]
    if found != expected:
        bad = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), 0)
        has, wants = (x[bad] if bad < len(x) else "missing" for x in (found, expected))
        raise InputError(
            f"{path}: {len(found)} panels, panel {bad} of shape {has}; the experiment's detector has {len(expected)}, "
            f"that one of {wants} (slow, fast); give the image's own experiment list"
        )
    mask = None if reference.mask is None else tuple(read_mask(reference.mask, detector))
    own = _told(reader, "mask", path, reference.index)
    if own is not None:
        own = _cut(own[0], detector, path) if len(own) == 1 and len(expected) > 1 else own
        mask = tuple(own) if mask is None else tuple(a & b for a, b in zip(mask, own, strict=True))
    finite = [np.isfinite(p) for p in panels]
    if not any(bool(f.any()) for f in finite):
        raise InputError(f"{path}: image {reference.index} has no pixel with a number (all NaN); leave this shot out")
    if not all(bool(f.all()) for f in finite):
        log.warning("%s: %d pixels without a number are masked", path, sum(int((~f).sum()) for f in finite))
        mask = tuple(f if mask is None else f & mask[i] for i, f in enumerate(finite))
    raw = tuple(np.where(f, p, 0).astype(np.float64) for f, p in zip(finite, panels, strict=True))
    gain, noise = (_told(reader, what, path, reference.index) for what in ("gain", "readout_sd"))
    gain = None if gain is None else np.broadcast_to(np.asarray(gain, dtype=np.float64), (len(raw),))
    try:
        return Image(raw, mask, spectrum, gain, None if noise is None else tuple(np.asarray(x, float) for x in noise))
    except ValueError as error:
        raise InputError(f"{path}: {error}; its reader is at fault") from None


def image_from_shoeboxes(reflections: Reflections, detector: Detector) -> Image:
    """An image made of the pixels that a reflection table holds in its shoeboxes (``load_data_from_refls``).

    Pixels in no shoebox are 0 and untrusted; pixels in one are trusted where its mask says valid. Parts of shoeboxes
    beyond the panel are left out, and frames beyond the first are added up.

    Raises:
        InputError: no column ``shoebox``, or none with pixels; a shoebox on a panel that the detector lacks.
    """
    if "shoebox" not in reflections:
        raise InputError("the reflection table has no shoeboxes; keep them when processing, or give the image file")
    raw = [np.zeros((int(slow), int(fast))) for fast, slow in detector.image_size]
    mask = [np.zeros(x.shape, dtype=bool) for x in raw]
    boxes: list[Shoebox] = [b for b in reflections["shoebox"] if b.data.size]
    if not boxes:
        raise InputError("the shoeboxes of the reflection table are empty; keep their pixels, or give the image file")
    for box in boxes:
        if not 0 <= box.panel < detector.n_panels:
            raise InputError(f"a shoebox on panel {box.panel}; the detector has {detector.n_panels} panels")
        x0, x1, y0, y1 = box.bbox[:4]
        n_slow, n_fast = raw[box.panel].shape
        f0, f1, s0, s1 = max(x0, 0), min(x1, n_fast), max(y0, 0), min(y1, n_slow)
        if f0 >= f1 or s0 >= s1:
            continue
        inside = slice(s0 - y0, s1 - y0), slice(f0 - x0, f1 - x0)
        values = box.data.astype(np.float64).sum(axis=0)[inside]
        valid = np.all((box.mask & VALID) != 0, axis=0)[inside] & np.isfinite(values)
        place = slice(s0, s1), slice(f0, f1)
        raw[box.panel][place] = np.where(valid, values, raw[box.panel][place])
        mask[box.panel][place] |= valid
    return Image(raw=tuple(raw), mask=tuple(mask))

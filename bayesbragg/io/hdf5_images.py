"""Images in HDF5 with the geometry in attributes, as nanoBragg writes its simulations.

The data set ``images`` is ``(n_images, n_panels, slow, fast)``, or ``(n_images, slow, fast)`` for one panel. Its
attributes ``dxtbx_detector_string`` and ``dxtbx_beam_string`` are Python literals of the JSON objects of an experiment
list. ``wavelengths`` (angstrom) and ``spectrum`` (photons) are one spectrum for all images, or one row per image.
"""

from __future__ import annotations

import ast
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from bayesbragg.io.beams import beam_from_document
from bayesbragg.io.detectors import detector_from_document
from bayesbragg.io.files import MALFORMED_JSON, reason_of
from bayesbragg.io.hdf5_files import looks_like_hdf5, opened_hdf5
from bayesbragg.model.beam import Spectrum
from bayesbragg.model.errors import InputError
from bayesbragg.model.experiment import Experiment, ImageReference

__all__ = ["Hdf5Reader"]

WHAT = "an image file (HDF5 with the data set 'images')"


def _images(file: Any, path: Path, index: int) -> Any:
    if not isinstance(file.get("images"), h5py.Dataset):
        there = ", ".join(sorted(file.keys())) or "nothing"
        raise InputError(f"{path}: no data set 'images' (there are: {there}); expected {WHAT}")
    images = file["images"]
    if images.ndim not in (3, 4):
        raise InputError(f"{path}: 'images' has shape {images.shape}; expected (images, panels, slow, fast)")
    if not 0 <= index < images.shape[0]:
        raise InputError(f"{path}: image {index} was asked for, the file has {images.shape[0]} (the first is 0)")
    return images


def _spectrum(file: Any, path: Path, index: int, n_images: int) -> Spectrum | None:
    found: list[npt.NDArray[np.float64]] = []
    for name in ("wavelengths", "spectrum"):
        if name not in file:
            return None
        values = np.asarray(file[name][()], dtype=np.float64)
        if values.ndim == 2:
            if values.shape[0] != n_images:
                raise InputError(f"{path}: {name!r} has {values.shape[0]} rows for {n_images} images")
            values = values[index]
        found.append(np.atleast_1d(values))
    try:
        return Spectrum(*found)
    except ValueError as error:
        raise InputError(f"{path}: {error}; write the spectrum again, or give one in a .lam file") from None


class Hdf5Reader:
    """Reads HDF5 files with the data set ``images``."""

    def accepts(self, path: Path) -> bool:
        """Whether this looks like HDF5, by content."""
        return looks_like_hdf5(path)

    def read(self, path: Path, index: int) -> tuple[list[npt.NDArray[Any]], Spectrum | None]:
        """The panels of one image, ``(slow, fast)`` each, and its spectrum.

        Raises:
            InputError: missing or damaged file, missing data set, wrong index.
        """
        with opened_hdf5(path, WHAT) as file:
            images = _images(file, path, index)
            data = np.asarray(images[index])
            panels = [data] if data.ndim == 2 else list(data)
            return panels, _spectrum(file, path, index, images.shape[0])

    def count(self, path: Path) -> int:
        """Number of images."""
        with opened_hdf5(path, WHAT) as file:
            return int(_images(file, path, 0).shape[0])

    def experiment(self, path: Path, index: int) -> Experiment:
        """Beam and detector that the attributes ``dxtbx_detector_string`` and ``dxtbx_beam_string`` state.

        Raises:
            InputError: missing or damaged file, wrong index, or no geometry in it.
        """
        with opened_hdf5(path, WHAT) as file:
            images = _images(file, path, index)
            documents = [_literal(images, f"dxtbx_{name}_string", path) for name in ("detector", "beam")]
        try:
            detector, beam = detector_from_document(documents[0]), beam_from_document(documents[1])
        except MALFORMED_JSON as error:
            raise InputError(
                f"{path}: geometry in the attributes: {reason_of(error)}; give an experiment list (.expt)"
            ) from None
        return Experiment("", beam, detector, None, ImageReference(path, index))


@lru_cache(maxsize=8)
def _as_json(literal: str) -> str:
    """A Python literal as JSON. The images of a run state the same detector, and parsing a literal is slow."""
    return json.dumps(ast.literal_eval(literal))


def _literal(images: Any, key: str, path: Path) -> Any:
    text = images.attrs.get(key)
    if text is None:
        raise InputError(f"{path}: 'images' has no attribute {key!r}; give an experiment list (.expt) for this image")
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    try:
        return json.loads(_as_json(str(text)))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        reason = " ".join(str(error).split())[:80]
        raise InputError(f"{path}: attribute {key!r} is no Python literal ({reason}); write the file again") from None

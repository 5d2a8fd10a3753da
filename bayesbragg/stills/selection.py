"""Which reflections of a table may have a box, by what the table says about them. Lengths in pixels and angstrom."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bayesbragg.model import Beam, Detector, Reflections
from bayesbragg.model.errors import InputError
from bayesbragg.stills.boxes import BoxSettings, parse_ranges

__all__ = ["duplicates", "inverse_spacing", "lattice_numbers", "outside_ranges", "spot_positions"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def spot_positions(reflections: Reflections, settings: BoxSettings) -> FloatArray:
    """Fast and slow position of every reflection, pixels from the outer corner, ``(n, 2)``.

    Raises:
        InputError: a column is missing.
    """
    column = {"obs": "xyzobs.px.value", "cal": "xyzcal.px", "bbox": "bbox"}[settings.centroid]
    for needed in (column, "panel", "miller_index"):
        if needed not in reflections:
            there = ", ".join(sorted(reflections.columns))
            raise InputError(f"reflections have no column {needed!r} (there are: {there}); index the shot first")
    values = np.asarray(reflections[column], dtype=float)
    if settings.centroid == "bbox":
        return np.asarray(0.5 * (values[:, [0, 2]] + values[:, [1, 3]]))
    return np.asarray(values[:, :2])


def inverse_spacing(
    reflections: Reflections, position: FloatArray, detector: Detector, beam: Beam | None
) -> FloatArray:
    """1/d of every reflection, 1/angstrom, ``(n,)``: from the column ``rlp``, or else from where the spot lies.

    Raises:
        InputError: there is no ``rlp`` and no beam.
    """
    if "rlp" in reflections:
        return np.asarray(np.linalg.norm(np.asarray(reflections["rlp"], dtype=float), axis=1))
    if beam is None:
        raise InputError("reflections have no column 'rlp': hand over the beam, or leave out deltaQ and res_ranges")
    ray = detector.lab_mm(np.asarray(reflections["panel"], dtype=np.int64), position[:, 0], position[:, 1])
    ray = ray / np.linalg.norm(ray, axis=1, keepdims=True)
    return np.asarray(np.linalg.norm(ray - beam.direction, axis=1) / beam.wavelength_A)


def lattice_numbers(reflections: Reflections) -> IntArray:
    """0, 1, 2, ... for the experiments that indexed reflections belong to, ``(n,)``; 0 without an ``id`` column."""
    if "id" not in reflections:
        return np.zeros(len(reflections), dtype=np.int64)
    experiment = np.asarray(reflections["id"], dtype=np.int64)
    return np.asarray(
        np.maximum(np.searchsorted(np.unique(experiment[experiment >= 0]), experiment), 0), dtype=np.int64
    )


def duplicates(reflections: Reflections) -> BoolArray:
    """Reflections whose index occurs more than once in their lattice, all copies of it, ``(n,)``."""
    index = np.asarray(reflections["miller_index"], dtype=np.int64).reshape(-1, 3)
    keys = np.column_stack([lattice_numbers(reflections), index])
    _, inverse, number = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    return np.asarray(number[inverse.ravel()] > 1)


def outside_ranges(value: FloatArray | IntArray, ranges: str, name: str, half_open: bool = False) -> BoolArray:
    """Values that no range of a list such as ``"0-8,10"`` holds; its upper end is inside unless ``half_open``."""
    inside = np.zeros(len(value), dtype=bool)
    for low, high in parse_ranges(ranges, name):
        inside |= (value >= low) & ((value < high) if half_open else (value <= high))
    return np.asarray(~inside)

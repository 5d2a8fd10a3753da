"""The spots that one would find on a simulated still, as an indexed DIALS reflection table.

A reflection is found if two or more of its pixels stand well above the background; its centroid is that of their
photons above the background, with the error that DIALS states: that of the mean of so many photons, and 1/12 for the
position in a pixel. Positions are in pixels from the outer corner of the first pixel, intensities in detector units.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bayesbragg.model import Beam, Detector, Reflections
from bayesbragg.stills.prediction import Predictions

__all__ = ["spot_table"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_FLAGS = 1 | 4 | 32
"""Predicted, indexed and strong in the DIALS column ``flags``."""


def spot_table(
    predictions: Predictions,
    lattice: IntArray,
    centroid: FloatArray,
    bounds: IntArray,
    grid: FloatArray,
    mine: BoolArray,
    excess: FloatArray,
    noise: FloatArray,
    detector: Detector,
    beam: Beam,
    gain: float,
) -> tuple[IntArray, Reflections]:
    """The spots that are found, and their table.

    Args:
        predictions: excited reflections, ``(n,)``.
        lattice: lattice of each, ``(n,)``; the column ``id``.
        centroid: calculated fast and slow position of each, ``(n, 2)``; the column ``xyzcal.px``.
        bounds: f1, f2, s1, s2 of each box, ``(n, 4)``.
        grid: fast and slow position of the middle of each pixel, ``(n, n_pixels, 2)``.
        mine: pixels that belong to the reflection rather than to a neighbour, ``(n, n_pixels)``.
        excess: photons above the background, same shape.
        noise: variance of the background's photons with readout noise, same shape.
        gain: detector units per photon.

    Returns:
        rows of the predictions that are found ``(n_strong,)``, and their reflections.
    """
    bright = mine & (excess > 3.0 * np.sqrt(noise) + 1.0)
    weight = np.where(bright, excess, 0.0)
    total = weight.sum(axis=1)
    strong = np.flatnonzero((bright.sum(axis=1) >= 2) & (total > 6.0 * np.sqrt(np.sum(bright * noise, axis=1)) + 6.0))
    weight, total, grid = weight[strong], total[strong, None], grid[strong]
    position = np.einsum("np,npk->nk", weight, grid) / total
    spread = np.einsum("np,npk->nk", weight, (grid - position[:, None]) ** 2) / total
    # The variance of a centroid of photons, and that of a position within a pixel, as DIALS adds them.
    variance = spread / total + 1.0 / 12.0
    panel, rows = predictions.panel[strong], len(strong)
    pixel = detector.pixel_size_mm[panel]
    ray = detector.lab_mm(panel, position[:, 0], position[:, 1])
    s1 = ray / np.linalg.norm(ray, axis=1, keepdims=True) / beam.wavelength_A
    none = np.zeros((rows, 1))
    box = np.column_stack([bounds[strong], np.zeros(rows, np.int64), np.ones(rows, np.int64)])
    columns: dict[str, npt.NDArray[Any]] = {
        "miller_index": predictions.miller_index[strong],
        "id": lattice[strong],
        "imageset_id": np.zeros(rows, np.int64),
        "panel": panel,
        "flags": np.full(rows, _FLAGS, np.int64),
        "bbox": box,
        "xyzobs.px.value": np.hstack([position, none]),
        "xyzobs.px.variance": np.hstack([variance, none]),
        "xyzobs.mm.value": np.hstack([position * pixel, none]),
        "xyzobs.mm.variance": np.hstack([variance * pixel**2, none]),
        "xyzcal.px": np.hstack([centroid[strong], none]),
        "xyzcal.mm": np.hstack([centroid[strong] * pixel, none]),
        "intensity.sum.value": total[:, 0] * gain,
        "intensity.sum.variance": (total[:, 0] + np.sum(bright[strong] * noise[strong], axis=1)) * gain**2,
        "s1": s1,
        "rlp": s1 - beam.direction / beam.wavelength_A,
    }
    return strong, Reflections(columns)

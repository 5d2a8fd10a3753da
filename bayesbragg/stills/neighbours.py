"""Which other predicted spots reach into a spot's box, and what they look like there.

Every pixel of a box is looked up in the boxes of the spots nearby. Positions are in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from bayesbragg.stills.spot_shapes import SpotShapes

__all__ = ["Neighbours", "find_neighbours"]

FloatArray = npt.NDArray[np.float64]

SLOTS = 3
"""Neighbours that are told apart in one box, the brightest there."""
LEAST = 1e-3
"""Share of a neighbour that must lie in the box for it to count."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Other spots in the boxes of ``n`` spots.

    Attributes:
        shapes: shape of each neighbour in the box, scaled to sum 1 over its own box, zeros in empty slots,
            ``(n, SLOTS, n_pixels)``.
        brighter: pixels where some other spot is expected to be brighter than the own one, ``(n, n_pixels)``.
        count: neighbours that reach into the box, ``(n,)``.
    """

    shapes: FloatArray
    brighter: npt.NDArray[np.bool_]
    count: npt.NDArray[np.int64]


def find_neighbours(shapes: SpotShapes) -> Neighbours:
    """The neighbours of every spot among all of them."""
    n, p = shapes.photons.shape
    result = np.zeros((n, SLOTS, p))
    strongest = np.zeros((n, p))
    count = np.zeros(n, dtype=np.int64)
    place = np.column_stack([shapes.centroid, shapes.panel * 1e6])
    reach = shapes.side * np.sqrt(2.0)
    pairs = cKDTree(place).query_pairs(reach, output_type="ndarray")
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    if len(pairs):
        box, other = pairs.T
        grid = shapes.grid[box] - 0.5
        local = np.rint(grid - shapes.bounds[other][:, None, [0, 2]]).astype(np.int64)
        inside = np.all((local >= 0) & (local < shapes.side), axis=2)
        flat = np.where(inside, local[..., 1] * shapes.side + local[..., 0], 0)
        seen = np.where(inside, np.take_along_axis(shapes.photons[other], flat, axis=1), 0.0)
        np.maximum.at(strongest, box, seen)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(shapes.total[other] > 0, seen.sum(axis=1) / shapes.total[other], 0.0)
        keep = np.flatnonzero(share > LEAST)
        keep = keep[np.lexsort((-seen[keep].sum(axis=1), box[keep]))]
        count = np.bincount(box[keep], minlength=n)
        rank = np.arange(len(keep)) - np.repeat(np.cumsum(count) - count, count)
        keep, rank = keep[rank < SLOTS], rank[rank < SLOTS]
        result[box[keep], rank] = seen[keep] / shapes.total[other[keep], None]
    return Neighbours(result, strongest > shapes.photons, count)

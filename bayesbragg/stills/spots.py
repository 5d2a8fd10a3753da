"""Strong pixels to spots: connected regions, their centroids and shoeboxes, as DIALS defines them.

Strong pixels that share an edge are one spot. Its centroid is that of its counts, with the middle of the first pixel
at 0.5; the variance of the centroid is the unbiased weighted variance of the pixels' positions over the counts, plus
1/12 for the position within a pixel. Units are pixels and detector units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bayesbragg.model import Reflections, Shoebox

__all__ = ["SpotList", "spot_list", "spots_to_reflections"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

STRONG = 32
"""Bit of the DIALS column ``flags``."""
STRONG_PIXEL = 5
"""Valid and foreground in the mask of a shoebox."""


@dataclass(frozen=True, eq=False)
class SpotList:
    """Spots as arrays, with the pixels that each is made of.

    Attributes:
        panel: ``(n,)``.
        centroid, variance: fast and slow, ``(n, 2)``.
        size: number of strong pixels, ``(n,)``.
        counts: sum of the strong pixels, ``(n,)``.
        peak: brightest pixel's middle, fast and slow, ``(n, 2)``.
        bbox: fast and slow bounds, half open, ``(n, 4)``.
        pixel_fast, pixel_slow, pixel_value: the strong pixels, ``(n_pixels,)``, in the order of spots.
    """

    panel: IntArray
    centroid: FloatArray
    variance: FloatArray
    size: IntArray
    counts: FloatArray
    peak: FloatArray
    bbox: IntArray
    pixel_fast: IntArray
    pixel_slow: IntArray
    pixel_value: FloatArray

    def __len__(self) -> int:
        return len(self.panel)


def spot_list(values: FloatArray, strong: npt.NDArray[np.bool_], panels: IntArray) -> SpotList:
    """The spots of panels of one shape.

    Args:
        values: counts, ``(n_panels, n_slow, n_fast)``.
        strong: which pixels are strong, same shape.
        panels: number of each panel on the detector, ``(n_panels,)``.
    """
    pixels = np.flatnonzero(strong)
    where, slow, fast = (x.astype(np.int64) for x in np.unravel_index(pixels, strong.shape))
    n, spot = _connected(pixels, slow, fast, strong.shape[2])
    order = np.argsort(spot, kind="stable")
    where, slow, fast, spot = where[order], slow[order], fast[order], spot[order]
    value = values[where, slow, fast]
    size = np.bincount(spot, minlength=n)
    first = np.cumsum(size) - size
    counts: FloatArray = np.bincount(spot, value, n).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        middle = np.column_stack([fast, slow]) + 0.5
        centroid = np.column_stack([np.bincount(spot, value * x, n) for x in middle.T]) / counts[:, None]
        square = np.column_stack([np.bincount(spot, value * x**2, n) for x in (middle - centroid[spot]).T])
        # Unbiased for weights: the sum of squares is divided by what one of the pixels leaves free.
        free = counts**2 - np.bincount(spot, value**2, n)
        variance = square / np.where(size > 1, free, 1.0)[:, None] + 1.0 / 12.0
    # Sorted by spot and then by value, the last of each spot is its peak.
    by_value = np.lexsort((-np.arange(len(value)), value, spot))
    peak = middle[by_value[first + size - 1]] if n else np.empty((0, 2))
    ends = (fast, fast + 1, slow, slow + 1)
    bounds = (
        [ufunc.reduceat(x, first) for ufunc, x in zip((np.minimum, np.maximum) * 2, ends, strict=True)] if n else []
    )
    bbox = np.column_stack(bounds) if n else np.empty((0, 4), np.int64)
    return SpotList(
        panels[where[first]] if n else np.empty(0, np.int64),
        centroid,
        variance,
        size,
        counts,
        peak,
        bbox,
        fast,
        slow,
        value,
    )


def _connected(pixels: IntArray, slow: IntArray, fast: IntArray, n_fast: int) -> tuple[int, IntArray]:
    """Number of regions whose pixels share edges, and each pixel's region, in the order of their first pixels.

    Args:
        pixels: numbers of the strong pixels in the stack of panels, ascending, ``(n_pixels,)``.
        slow, fast: their places on the panels, ``(n_pixels,)``.
        n_fast: pixels in a row.
    """
    n = len(pixels)
    pairs = []
    for step, starts in ((1, fast > 0), (n_fast, slow > 0)):
        before = np.searchsorted(pixels, pixels - step)
        linked = np.flatnonzero(starts & (pixels[np.minimum(before, n - 1)] == pixels - step))
        pairs.append((before[linked], linked))
    first, second = (np.concatenate(x) for x in zip(*pairs, strict=True))
    graph = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(n, n))
    count, label = connected_components(graph, directed=False)
    _, start, label = np.unique(label, return_index=True, return_inverse=True)
    return int(count), np.argsort(np.argsort(start))[label].astype(np.int64)


def spots_to_reflections(spots: SpotList, keep: npt.NDArray[np.bool_], *, shoeboxes: bool = True) -> Reflections:
    """Chosen spots as a DIALS table of strong spots, in the order of the list.

    Args:
        keep: which spots to take, ``(n,)``.
        shoeboxes: whether to add the column ``shoebox``, with zero in pixels that are not strong.
    """
    rows = np.flatnonzero(keep)
    n = len(rows)
    none = np.zeros((n, 1))
    columns = {
        "id": np.zeros(n, np.int64),
        "panel": spots.panel[rows],
        "flags": np.full(n, STRONG, np.int64),
        "bbox": np.column_stack([spots.bbox[rows], np.zeros(n, np.int64), np.ones(n, np.int64)]),
        "intensity.sum.value": spots.counts[rows],
        "intensity.sum.variance": spots.counts[rows],
        "xyzobs.px.value": np.hstack([spots.centroid[rows], none]),
        "xyzobs.px.variance": np.hstack([spots.variance[rows], none + 1.0 / 12.0]),
    }
    if shoeboxes:
        boxes = np.empty(n, dtype=object)
        stop = np.cumsum(spots.size)
        for number, row in enumerate(rows):
            pixels = slice(stop[row] - spots.size[row], stop[row])
            f0, f1, s0, s1 = (int(x) for x in spots.bbox[row])
            data = np.zeros((1, s1 - s0, f1 - f0), np.float32)
            mask = np.zeros(data.shape, np.int32)
            at = 0, spots.pixel_slow[pixels] - s0, spots.pixel_fast[pixels] - f0
            data[at], mask[at] = spots.pixel_value[pixels], STRONG_PIXEL
            boxes[number] = Shoebox(
                int(spots.panel[row]), (f0, f1, s0, s1, 0, 1), data, mask, np.zeros(data.shape, np.float32)
            )
        columns["shoebox"] = boxes
    return Reflections(columns)

"""A whole detector as boxes: square tiles that cover every pixel, some hundred at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bayesbragg.model import Detector, Shot
from bayesbragg.stills.boxes import PanelLayout

__all__ = ["Tiles", "boxes_only"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

TILE = 16
"""Side of a tile, pixels."""
AT_ONCE = 512


def boxes_only(panel: IntArray, bounds: IntArray, side: int, lattice: IntArray | None = None) -> Shot:
    """A shot of boxes without data, for `bayesbragg.forward.build_scene`."""
    n, p = len(panel), side * side
    zeros, index = np.zeros((n, p)), np.zeros((n, 3), np.int64)
    lattice = np.zeros(n, np.int64) if lattice is None else lattice
    trusted = np.ones((n, p), dtype=bool)
    return Shot(
        panel, bounds, (side, side), zeros, zeros, trusted, np.asarray(1.0), index, np.arange(n), lattice,
        np.zeros((n, 3)),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Tiles:
    """The tiles of a detector.

    Attributes:
        layout: where the pixels of its panels lie in a flat array.
        corners: panel, f1, f2, s1, s2 of each tile, ``(n_tiles, 5)``.
    """

    layout: PanelLayout
    corners: IntArray

    @classmethod
    def of_detector(cls, detector: Detector) -> Tiles:
        layout = PanelLayout.of_sizes(detector.image_size)
        corners = [
            (number, f, min(f + TILE, n_fast), s, min(s + TILE, n_slow))
            for number, (n_fast, n_slow) in enumerate(layout.size.tolist())
            for s in range(0, n_slow, TILE)
            for f in range(0, n_fast, TILE)
        ]
        return cls(layout, np.array(corners, dtype=np.int64))

    @property
    def n_pixels(self) -> int:
        return int(self.layout.offset[-1])

    def shots(self) -> Iterator[tuple[Shot, IntArray]]:
        """Tiles by the hundred as shots without data, and which tiles they are.

        Copies of the first tile fill up the last shot, so that all have one shape.
        """
        at_once = min(AT_ONCE, len(self.corners))
        for first in range(0, len(self.corners), at_once):
            part = self.corners[first : first + at_once]
            full = np.concatenate([part, np.repeat(part[:1], at_once - len(part), axis=0)])
            yield boxes_only(full[:, 0], full[:, 1:], TILE), np.arange(first, first + len(part))

    def put(self, flat: FloatArray, values: FloatArray, tiles: IntArray) -> None:
        """Write values of a shot, ``(n_boxes, n_pixels)``, to the flat pixels of its tiles."""
        part = self.corners[tiles]
        index, inside = self.layout.box_pixels(part[:, 0], part[:, 1:], (TILE, TILE))
        flat[index[inside]] = values.reshape(-1, TILE, TILE)[: len(part)][inside]

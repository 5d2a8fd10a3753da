"""The shape of each predicted spot: photons of one reflection alone, per squared unit of its structure factor.

The forward model of the shot is evaluated in a box about each prediction with all other reflections left out, so that a
shape knows nothing of structure factors. Its sum is what turns an intensity into photons. Boxes are worked through in
pieces of one size: shots share a compiled program, and memory does not grow with the number of predictions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bayesbragg.forward import Options, Parameters, Scene, expected_photons
from bayesbragg.forward.centroid import own_reflections
from bayesbragg.model import Detector, Shot
from bayesbragg.stills.boxes import PanelLayout, centroid_boxes
from bayesbragg.stills.prediction import Predictions
from bayesbragg.stills.tiles import boxes_only

__all__ = ["SpotShapes", "spot_shapes"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

AT_ONCE = 256
"""Boxes in one piece."""


@dataclass(frozen=True, eq=False)
class SpotShapes:
    """Shapes of spots in boxes of one side, row by row as in the predictions.

    Attributes:
        panel: ``(n,)``.
        bounds: f1, f2, s1, s2 of each box, pixels, ``(n, 4)``.
        side: of the padded boxes, pixels.
        photons: photons per squared electron in each pixel of the padded box, slow outer, 0 where padded,
            ``(n, side * side)``.
        total: their sums, ``(n,)``.
        centroid: of the shapes, fast and slow, pixels, ``(n, 2)``; the predicted position where a shape is empty.
    """

    panel: IntArray
    bounds: IntArray
    side: int
    photons: FloatArray
    total: FloatArray
    centroid: FloatArray

    def select(self, rows: npt.ArrayLike) -> SpotShapes:
        """The rows of a mask or an index array."""
        rows = np.asarray(rows)
        names = ("panel", "bounds", "photons", "total", "centroid")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    @property
    def grid(self) -> FloatArray:
        """Fast and slow position of the middle of every pixel, ``(n, side * side, 2)``."""
        slow, fast = np.divmod(np.arange(self.side * self.side), self.side)
        offset = np.stack([fast, slow], axis=-1) + 0.5
        return np.asarray(self.bounds[:, None, [0, 2]] + offset)


def spot_shapes(
    predictions: Predictions,
    lattice: IntArray,
    side: int,
    detector: Detector,
    scene_of: Callable[[Shot], Scene],
    parameters: Parameters,
    options: Options,
) -> SpotShapes:
    """Shapes of predicted spots.

    Args:
        predictions: ``n`` reflections; boxes are laid about their positions.
        lattice: lattice of each, ``(n,)``.
        side: of a box, pixels.
        scene_of: the scene of a shot of boxes (only panels and bounds of the shot matter).
        parameters, options: of the model. Diffuse scattering takes no part.
    """
    n, p = len(predictions), side * side
    layout = PanelLayout.of_sizes(detector.image_size)
    bounds, _ = centroid_boxes(predictions.position, layout.size[predictions.panel], side)
    plain = replace(options, diffuse=False, diffuse_stencil=0, complex_factors=False, point_spread=False)
    photons = np.zeros((n, p))
    for first in range(0, n, AT_ONCE):
        rows = np.arange(first, min(first + AT_ONCE, n))
        # Copies of the first box fill the last piece.
        full = np.concatenate([rows, np.repeat(rows[:1], AT_ONCE - len(rows))])
        scene = scene_of(boxes_only(predictions.panel[full], bounds[full], side, lattice[full]))
        alone = own_reflections(scene, predictions.primitive_index[full], lattice[full])
        photons[rows] = np.asarray(expected_photons(parameters, alone, plain))[: len(rows)]
    _, inside = layout.box_pixels(predictions.panel, bounds, (side, side))
    photons = np.where(inside.reshape(n, p) & np.isfinite(photons), photons, 0.0)
    shapes = SpotShapes(predictions.panel, bounds, side, photons, photons.sum(axis=1), predictions.position)
    with np.errstate(invalid="ignore", divide="ignore"):
        centroid = np.einsum("np,npk->nk", photons, shapes.grid) / shapes.total[:, None]
    return replace(shapes, centroid=np.where(np.isfinite(centroid), centroid, predictions.position))

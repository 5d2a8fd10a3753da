"""Where the model puts each reflection: the centroid of its own photons, whatever its neighbours do.

The window of structure factors is reduced to the box's own reflection, so that a neighbouring spot does not pull the
centroid. It is taken over the pixels of the box, where the observed spot was seen too: a spot that the panel's edge
cuts has both its centroids on the panel.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from bayesbragg.forward.exact import expected_photons
from bayesbragg.forward.options import Options
from bayesbragg.forward.parameters import Parameters
from bayesbragg.forward.scene import Scene

__all__ = ["own_reflection_centroids", "own_reflections"]


def own_reflections(scene: Scene, hkl: npt.ArrayLike, lattice: npt.ArrayLike) -> Scene:
    """The scene in which each box scatters from one reflection alone, with unit structure factor.

    Args:
        hkl: Miller index of each box in the primitive basis, ``(n_boxes, 3)``.
        lattice: lattice of each box, ``(n_boxes,)``.
    """
    windows = scene.factors
    low, extent = np.asarray(windows.low), np.asarray(windows.extent)
    box, lattice = np.arange(low.shape[1]), np.asarray(lattice)
    position = np.asarray(hkl) - low[lattice, box]
    inside = np.all((position >= 0) & (position < extent), axis=1)
    flat = (position[:, 0] * extent[1] + position[:, 1]) * extent[2] + position[:, 2]
    table = np.zeros(np.shape(windows.real))
    table[lattice[inside], box[inside], flat[inside]] = 1.0
    return replace(scene, factors=replace(windows, real=table))


def own_reflection_centroids(
    parameters: Parameters,
    scene: Scene,
    options: Options,
    hkl: npt.ArrayLike,
    lattice: npt.ArrayLike,
    valid: npt.ArrayLike,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Centroids of each box's own reflection over the pixels of the scene.

    Args:
        scene: the boxes; see `own_reflections` for ``hkl`` and ``lattice``.
        valid: pixels inside their box, ``(n_boxes, n_pixels)``.

    Returns:
        fast and slow pixel coordinates (pixel centres at 0.5), ``(n_boxes, 2)``, not a number where the model puts no
        photon; and the photons per squared amplitude unit, ``(n_boxes,)``.
    """
    plain = replace(options, diffuse=False, diffuse_stencil=0, complex_factors=False, point_spread=False)
    photons = np.asarray(expected_photons(parameters, own_reflections(scene, hkl, lattice), plain), dtype=np.float64)
    photons = np.where(np.asarray(valid), photons, 0.0)
    total = photons.sum(axis=1)
    boxes = scene.boxes
    with np.errstate(invalid="ignore", divide="ignore"):
        offset = [np.sum(photons * (np.asarray(px) + 0.5), axis=1) / total for px in (boxes.fast_px, boxes.slow_px)]
    return np.asarray(boxes.centre_px) + np.stack(offset, axis=-1), total

"""How well a still's model predicts spots that it has not seen: fits without some of the boxes, and where those fall.

Boxes are dealt into folds. Each fold is predicted by a fit to the others, from the same start; its boxes stay in the
arrays, untrusted, so that all fits share their compiled programs. A prediction is the centroid of the photons that the
model puts into the box. Boxes should be cut about calculated positions (``roi.centroid=cal``): one that is cut about
the observed spot would tell where it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import numpy as np
import numpy.typing as npt

from bayesbragg.forward import window_holds
from bayesbragg.inference.density import LogDensity
from bayesbragg.inference.map import fit_map
from bayesbragg.model.errors import InputError
from bayesbragg.model.fit import Fit
from bayesbragg.pipeline.lattice_form import form_holds
from bayesbragg.pipeline.prepare import Prepared, around
from bayesbragg.pipeline.refine import MAX_WINDOW_ROUNDS

__all__ = ["HeldOut", "box_centroids", "deal", "hold_out", "without"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Predictions of spots that took no part in the fit.

    Attributes:
        centroid_px: fast and slow of each box's spot, predicted without it, ``(n_boxes, 2)``.
        seen_px: the same by a fit to all boxes, ``(n_boxes, 2)``.
        fold: which fit left out each box, ``(n_boxes,)``.
        whole: the fit to all boxes.
        fits: those without a fold.
    """

    centroid_px: FloatArray
    seen_px: FloatArray
    fold: IntArray
    whole: Fit
    fits: tuple[Fit, ...]


def deal(n_boxes: int, n_folds: int, seed: int) -> IntArray:
    """Numbers 0 to n_folds - 1, equally often and at random, ``(n_boxes,)``.

    Raises:
        InputError: fewer boxes than folds.
    """
    if not 2 <= n_folds <= n_boxes:
        raise InputError(f"{n_folds} folds of {n_boxes} boxes: expected at least 2 folds and a box in each")
    return np.asarray(np.random.default_rng(seed).permutation(n_boxes) % n_folds, dtype=np.int64)


def without(density: LogDensity, hidden: npt.ArrayLike) -> LogDensity:
    """The same density without some boxes: their pixels are not trusted.

    Args:
        hidden: number of each box that takes no part.
    """
    pixels = density.problem.pixels
    trusted = np.asarray(pixels.trusted).copy()
    trusted[np.asarray(hidden)] = False
    return density.with_pixels(replace(pixels, trusted=trusted))


def box_centroids(prepared: Prepared, fit: Fit) -> FloatArray:
    """Centroid of the Bragg photons of each box at a fit, fast and slow pixel on the panel, ``(n_boxes, 2)``."""
    shot = prepared.shot
    bragg = np.asarray(prepared.density.bragg(fit.x), dtype=np.float64)[: shot.n_boxes]
    photons = np.where(shot.valid, bragg, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        middle = [np.sum(photons * (px + 0.5), axis=1) / photons.sum(axis=1) for px in (shot.fast, shot.slow)]
    return np.stack(middle, axis=1)


def hold_out(prepared: Prepared, *, n_folds: int = 5, seed: int = 0) -> HeldOut:
    """Predict every spot of a still by a fit that has not seen it.

    Args:
        prepared: the still; each box must scatter from its own reflection alone (``intensities=wilson``).
        n_folds: fits; 5 leave out a fifth of the spots each.
        seed: of the dealing.

    Raises:
        InputError: a fit that ends where its lists of reflections do not serve, however often they are made anew.
    """
    if prepared.density.problem.pixels.intensities is None:
        raise InputError("held-out prediction takes each box's own reflection; set intensities=wilson")
    there, whole = _fitted(prepared)
    seen = box_centroids(there, whole)
    fold = deal(prepared.shot.n_boxes, n_folds, seed)
    centroid, fits = np.full((prepared.shot.n_boxes, 2), np.nan), []
    for k in range(n_folds):
        hidden = np.flatnonzero(fold == k)
        part = replace(prepared, density=without(prepared.density, hidden))
        there, fit = _fitted(part)
        fits.append(fit)
        centroid[hidden] = box_centroids(there, fit)[hidden]
    return HeldOut(centroid, seen, fold, whole, tuple(fits))


def _fitted(prepared: Prepared) -> tuple[Prepared, Fit]:
    """The best fit, with reflections listed where it ends."""
    options = prepared.settings.fit
    for _ in range(MAX_WINDOW_ROUNDS):
        fit = fit_map(prepared.density, options)
        parameters = jax.tree.map(np.asarray, prepared.density.parameters(fit.x))
        if window_holds(parameters, prepared.scene) and form_holds(
            prepared.form, parameters, prepared.density, prepared.options
        ):
            return prepared, fit
        prepared = around(prepared, fit.values)
        options = replace(options, start_scale=False, start_blocks=False)
    raise InputError(f"{prepared.still.tag}: the fit goes farther from its start each time; start nearer")

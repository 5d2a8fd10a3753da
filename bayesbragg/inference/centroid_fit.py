"""Joint fits of spot positions, whose spreads are found from the residuals as the fit goes on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from bayesbragg.inference.centroid_likelihood import CentroidNoise, CentroidTerm
from bayesbragg.inference.joint import JointFit, JointOptions, fit_joint
from bayesbragg.priors.panels import SharedPrior

__all__ = ["fit_centroids"]

FloatArray = npt.NDArray[np.float64]


def fit_centroids(
    term: CentroidTerm,
    prior: SharedPrior,
    options: JointOptions | None = None,
    *,
    rounds: int = 6,
    for_rmsd: bool = False,
) -> tuple[JointFit, CentroidNoise]:
    """Joint fit of positions, with spreads that the residuals themselves tell.

    After each fit the spreads are set to what the residuals show, with the degrees of freedom that the stills' own
    numbers took; the next fit starts where the last one ended. The first spreads are those of the start.

    Args:
        rounds: fits, each with its own spreads.
        for_rmsd: one more fit with equal weights (see `CentroidTerm.set_equal_weights`).
    """
    shared = np.where(prior.free, prior.mean, 0.0)
    term.set_noise(_noise_of(term, term.start, shared))
    fit: JointFit | None = None
    for i in range(max(rounds, 1)):
        if i:
            term.set_noise(_noise_of(term, term.start, shared))
        fit = fit_joint([term], prior, options, shared=shared)
        term.start, shared = fit.own[0], fit.shared
    if for_rmsd:
        term.set_equal_weights()
        fit = fit_joint([term], prior, options, shared=shared)
    assert fit is not None
    return fit, term.noise


def _noise_of(term: CentroidTerm, own: FloatArray, shared: FloatArray) -> CentroidNoise:
    """Spreads by weighted moments of the residuals; bandwidth by their correlation with the angle."""
    r = term.residuals(own, shared)
    left = max(1.0 - own.size / (3.0 * len(r)), 0.1)
    old = term.noise
    band = (old.bandwidth * term.tangent) ** 2
    total = old.mosaic**2 + (old.block / term.q) ** 2 + band
    # d(radial residual)/d(share) for every spot: the shift that a whole share of the angle would make.
    step = 0.05
    term.data, kept = replace(term.data, share=term.data.share + step), term.data
    slope = (term.residuals(own, shared)[:, 0] - r[:, 0]) / step
    term.data = kept
    weight = 1.0 / np.asarray(kept.variance)[:, 0]
    change = slope * term.tangent**2 / total
    squared = old.bandwidth**2 - float(np.sum(weight * change * r[:, 0]) / np.sum(weight * change**2))
    bandwidth = float(np.sqrt(max(squared, 0.0)))
    stated = term.spots.variance_mm2.mean(axis=1)
    radial = _components(r[:, 0] ** 2 / left, np.stack([stated, term.lever_mm**2], axis=-1))
    around = float(np.mean(r[:, 1] ** 2 / stated) / left)
    angle = _components(
        np.maximum(r[:, 2] ** 2 / left - (bandwidth * term.tangent) ** 2, 0.0),
        np.stack([np.ones(len(r)), term.q**-2.0], axis=-1),
    )
    return CentroidNoise(
        radial_factor=float(max(radial[0], 1e-3)),
        transverse_factor=max(around, 1e-3),
        radial_band=float(np.sqrt(radial[1])),
        mosaic=float(np.sqrt(max(angle[0], 1e-12))),
        block=float(np.sqrt(angle[1])),
        bandwidth=bandwidth,
    )


def _components(squares: FloatArray, terms: FloatArray) -> FloatArray:
    """Non-negative coefficients c with squares ~ terms c, each weighted by the inverse square of its expectation."""
    coefficients = np.array([np.mean(squares / terms[:, 0]), 0.0])
    for _ in range(20):
        expected = np.maximum(terms @ coefficients, 1e-12 * squares.mean())
        coefficients, _ = nnls(terms / expected[:, None], squares / expected)
    return np.asarray(coefficients)

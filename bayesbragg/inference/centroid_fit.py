"""Joint fits of spot positions, whose spreads are learned from the residuals as the fit goes on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bayesbragg.inference.centroid_likelihood import CentroidTerm
from bayesbragg.inference.centroid_noise import Population, first_noise, learn_noise
from bayesbragg.inference.joint import fit_joint
from bayesbragg.inference.joint_types import JointFit, JointOptions
from bayesbragg.inference.schur import Blocks, solve_scaled
from bayesbragg.priors.panels import SharedPrior

__all__ = ["dispersion", "fit_centroids"]

FloatArray = npt.NDArray[np.float64]


def fit_centroids(
    term: CentroidTerm,
    prior: SharedPrior,
    options: JointOptions | None = None,
    *,
    rounds: int = 20,
    steps: int = 3,
    tolerance: float = 1.0,
) -> tuple[JointFit, Population]:
    """Joint fit of positions, with spreads of every still that the residuals themselves tell.

    Spreads and positions are improved in turn; the fit that is returned is the optimum for the last spreads, which
    `term.noise` holds, with the `dispersion` of the stills' scores.

    Args:
        rounds: fits at most, each with its own spreads.
        steps: steps of expectation and maximisation between two fits.
        tolerance: change of the target from one fit to the next below which the spreads count as found.
    """
    n = len(term.start)
    shared = np.where(prior.free, prior.mean, 0.0)
    noise, population = first_noise(term.statistics(term.start, shared))
    before = np.inf
    for _ in range(max(rounds, 1)):
        for _ in range(steps):
            noise, population = learn_noise(term.statistics(term.start, shared), noise, population, n)
            term.set_noise(noise)
        fit = fit_joint([term], prior, options, shared=shared)
        term.start, shared = fit.own[0], fit.shared
        if abs(before - fit.target) < tolerance:
            break
        before = fit.target
    term.set_noise(noise, max(1.0, dispersion(term.linearize(term.start, shared), prior)))
    fit = fit_joint([term], prior, options, shared=shared)
    term.start = fit.own[0]
    return fit, population


def dispersion(blocks: list[Blocks], prior: SharedPrior) -> float:
    """By how much the stills' scores scatter more than independent residuals would, as a factor of variance.

    Neighbouring spots of a still err together (all that the model leaves out of one crystal or one pulse), so that they
    tell less of their panel than as many independent spots. Stills are independent of each other: where the model
    holds, the scores of the panels, each still's own numbers eliminated, have the sum of the Schur complements as their
    covariance. The factor is the mean ratio of the two over the directions of which the data tell more than the prior
    (the magnitude adjustment of composite likelihoods: Pauli, Racugno, Ventura 2011).

    Args:
        blocks: of every still at the optimum.
    """
    free = prior.free
    root = np.linalg.cholesky(_scaled(prior.covariance()[np.ix_(free, free)]))
    width = np.sqrt(np.diag(prior.covariance())[free])
    information = np.zeros((prior.n, prior.n))
    scores = np.zeros((len(blocks), prior.n))
    for b, score in zip(blocks, scores, strict=True):
        solved = solve_scaled(b.curvature, np.concatenate([b.cross, b.gradient[:, None]], axis=1))
        information[np.ix_(b.index, b.index)] += b.shared_curvature - b.cross.T @ solved[:, :-1]
        score[b.index] = b.shared_gradient - b.cross.T @ solved[:, -1]
    whiten = width[:, None] * root
    values, vectors = np.linalg.eigh(whiten.T @ information[np.ix_(free, free)] @ whiten)
    told = values > 1.0
    if len(blocks) < 2 or not told.any():
        return 1.0
    along = (scores - scores.mean(axis=0))[:, free] @ whiten @ vectors[:, told]
    return float(np.mean(np.sum(along**2, axis=0) / values[told]) * len(blocks) / (len(blocks) - 1))


def _scaled(covariance: FloatArray) -> FloatArray:
    width = np.sqrt(np.diag(covariance))
    return np.asarray(covariance / np.outer(width, width))

"""Joint fits of spot positions, whose spreads are learned from the residuals as the fit goes on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from bayesbragg.inference.centroid_likelihood import CentroidTerm
from bayesbragg.inference.centroid_noise import Population, first_noise, learn_noise
from bayesbragg.inference.centroid_spreads import with_spreads
from bayesbragg.inference.joint import fit_joint
from bayesbragg.inference.joint_types import JointFit, JointOptions
from bayesbragg.inference.schur import Blocks, reduce_blocks, solve_scaled
from bayesbragg.priors.panels import SharedPrior, inverse_on

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
    `term.noise` holds, with the `dispersion` of the stills' scores. Its covariance has the spreads integrated out.

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
    blocks = term.linearize(term.start, shared)
    term.set_noise(noise, max(1.0, dispersion(with_spreads(term, term.start, shared, blocks, population), prior)))
    fit = fit_joint([term], prior, options, shared=shared)
    term.start, shared = fit.own[0], fit.shared
    blocks = term.linearize(term.start, shared)
    information = reduce_blocks(with_spreads(term, term.start, shared, blocks, population), prior.n).matrix
    covariance = inverse_on(prior.precision + information, prior.free)
    return replace(fit, information=information, covariance=covariance), population


def dispersion(blocks: list[Blocks], prior: SharedPrior) -> float:
    """By how much the stills' scores scatter more than independent residuals would, as a factor of variance.

    Neighbouring spots of a still err together (all that the model leaves out of one crystal or one pulse), so that they
    tell less of their panel than as many independent spots. Stills are independent of each other: where the model
    holds, the scores s_i of the panels, each still's own numbers eliminated, have the Schur complements A_i as their
    covariance at the true panels. At the optimum, which every still has drawn towards itself, they have

        E s_i s_i^T = A_i - A_i H^-1 A_i,    H = sum A_i + prior precision,

    much less where a panel has few stills. The factor is the mean ratio of the scatter seen to the scatter expected,
    over the directions of which the data tell more than the prior (the magnitude adjustment of composite likelihoods:
    Pauli, Racugno, Ventura 2011; the leverage correction of MacKinnon, White 1985, applied to stills).

    Args:
        blocks: of every still at the optimum.
    """
    free = prior.free
    root = np.linalg.cholesky(_scaled(prior.covariance()[np.ix_(free, free)]))
    whiten = np.zeros((prior.n, int(free.sum())))
    whiten[free] = np.sqrt(np.diag(prior.covariance())[free])[:, None] * root
    parts = []
    information = np.zeros((whiten.shape[1], whiten.shape[1]))
    for b in blocks:
        solved = solve_scaled(b.curvature, np.concatenate([b.cross, b.gradient[:, None]], axis=1))
        schur = b.shared_curvature - b.cross.T @ solved[:, :-1]
        score = b.shared_gradient - b.cross.T @ solved[:, -1]
        toward = whiten[b.index]
        information += toward.T @ schur @ toward
        parts.append((toward, schur, toward.T @ score))
    values, vectors = np.linalg.eigh(information)
    told = values > 1.0
    if len(blocks) < 2 or not told.any():
        return 1.0
    # Prior precision is the unit matrix in whitened numbers, so that these are the eigenvectors of H too.
    half = vectors / np.sqrt(values + 1.0)
    seen, expected = np.zeros(told.sum()), values[told]
    for toward, schur, score in parts:
        reach = schur @ toward
        seen += (score @ vectors[:, told]) ** 2
        leverage = (toward.T @ (reach @ half)).T @ vectors[:, told]
        expected = expected - np.sum(leverage**2, axis=0)
    return float(np.mean(seen / expected))


def _scaled(covariance: FloatArray) -> FloatArray:
    width = np.sqrt(np.diag(covariance))
    return np.asarray(covariance / np.outer(width, width))

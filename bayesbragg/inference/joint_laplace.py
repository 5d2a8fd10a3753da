"""Laplace's approximation of a joint density, corrected: weights for the shared numbers, shots integrated one by one.

With hundreds of numbers the weights of draws of all of them are ruled by a few, however Gaussian each number is. Given
the shared numbers y_s the shots are independent, so that each is integrated for itself: its own numbers are drawn from
their conditional Gaussian, in pairs mirrored at its centre, and

    w(y_s) = p(y_s) / q(y_s) prod_i mean_m [ exp(-U_i(y_im, y_s)) / q_i(y_im | y_s) ]

is an unbiased estimate of the ratio of marginal densities, so that weighted draws are right for any number of pairs
(Andrieu & Roberts, Annals of Statistics 37 (2009) 697). Of each shot's draws one is kept, by its share of the mean. The
verdict is k-hat of the weights (`bayesbragg.inference.psis`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from bayesbragg.inference.arrow import ArrowFactor
from bayesbragg.inference.cores import available_cores
from bayesbragg.inference.density import Recipe
from bayesbragg.inference.joint_density import JointTarget
from bayesbragg.inference.joint_parts import Bucket, Shared, shared_potential, shot_potential
from bayesbragg.inference.laplace import Gaussian, find_mode, near_bounds, weighted_posterior
from bayesbragg.inference.psis import smooth
from bayesbragg.inference.verdict import judge_weights
from bayesbragg.model.errors import InputError
from bayesbragg.model.posterior import Posterior

__all__ = ["JointLaplaceOptions", "joint_laplace"]

Array = Any
FloatArray = npt.NDArray[np.float64]

AT_ONCE = 20
"""Draws of one call of a program; progress is reported between calls."""


@dataclass(frozen=True)
class JointLaplaceOptions:
    """How to approximate.

    Attributes:
        n_draws: draws of the shared numbers, and of the result.
        pairs: of each shot's own numbers for every one of them.
    """

    n_draws: int = 2000
    pairs: int = 1


def joint_laplace(
    target: JointTarget,
    options: JointLaplaceOptions | None = None,
    *,
    seed: int = 0,
    gaussian: Gaussian | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Posterior:
    """The joint posterior by a Gaussian with importance weights.

    Args:
        target: from `bayesbragg.inference.joint_density`.
        options: how to approximate.
        seed: of the draws.
        gaussian: one that was found before.
        report: told the draws that are done and those to be done.

    Returns:
        One chain of equally weighted draws, resampled from the weighted ones, and the verdict of k-hat.
    """
    options = options or JointLaplaceOptions()
    n_draws = options.n_draws
    if n_draws < 100:
        raise InputError(f"n_draws = {n_draws}: k-hat needs at least 100 draws; 2000 is usual")
    clock = time.perf_counter()
    gaussian = gaussian or find_mode(target)
    generator = np.random.default_rng(seed)
    factor = gaussian.factor
    assert isinstance(factor, ArrowFactor)
    centres, centre_s = factor.split(gaussian.centre)
    u_s = generator.standard_normal((n_draws, len(centre_s)))
    bent = np.zeros((n_draws, len(gaussian.centre)))
    bent[:, -len(centre_s) :] = u_s
    if gaussian.bend is not None:
        # A function of the shared numbers alone, and of determinant one: what is drawn given them stays Gaussian.
        bent = np.asarray(gaussian.bend(bent))
    moved, bent_s = factor.split(bent)
    away = bent_s @ np.asarray(factor.shared).T
    y_s = centre_s + away
    shared = target.data.shared
    log_density = -np.asarray(_shared_energies(y_s, shared))
    log_weight = log_density - _log_normal(u_s, factor.shared)
    kept, evaluations, done = [], gaussian.evaluations, 0
    work = n_draws * len(factor.own)
    for b, (recipe, bucket) in enumerate(zip(target.potential.recipes, target.data.buckets, strict=True)):
        n_shots, n = centres[b].shape
        half = generator.standard_normal((n_draws, n_shots, options.pairs, n))
        u = np.concatenate([half, -half], axis=2)
        R = np.asarray(factor.own[b])
        middle = centres[b] + np.einsum("sip,mp->msi", np.asarray(factor.carry[b]), away)
        middle = middle + np.einsum("sij,msj->msi", R, moved[b])
        own = middle[:, :, None] + np.einsum("sij,mskj->mski", R, u)

        def energies(
            rows: slice, own: FloatArray = own, bucket: Bucket = bucket, recipe: Recipe = recipe
        ) -> FloatArray:
            return np.asarray(_own_energies(own[rows], y_s[rows], bucket, shared, recipe))

        parts = [slice(first, min(first + AT_ONCE, n_draws)) for first in range(0, n_draws, AT_ONCE)]
        found = []
        with ThreadPoolExecutor(max_workers=available_cores()) as pool:
            for rows, part in zip(parts, pool.map(energies, parts), strict=True):
                found.append(part)
                done += rows.stop - rows.start
                if report is not None:
                    report(done, work)
        energy = np.concatenate(found)
        log_ratio = -energy - _log_normal(u, R[None, :, None])
        log_ratio = np.where(np.isfinite(log_ratio), log_ratio, -np.inf)
        total = logsumexp(log_ratio, axis=2)
        log_weight = log_weight + np.sum(total - np.log(u.shape[2]), axis=1)
        # Gumbel's trick: the largest of log share + noise is a draw by the shares.
        chosen = np.argmax(log_ratio + generator.gumbel(size=log_ratio.shape), axis=2)
        kept.append(np.take_along_axis(own, chosen[:, :, None, None], axis=2).reshape(n_draws, -1))
        log_density = log_density - np.sum(np.take_along_axis(energy, chosen[:, :, None], axis=2), axis=(1, 2))
        evaluations += n_draws * u.shape[2]
    smoothed = smooth(log_weight)
    verdict = judge_weights(smoothed, near_bounds(target, gaussian))
    values = target.to_values(np.concatenate([*kept, y_s], axis=1))
    settings = {
        "n_draws": n_draws,
        "pairs": options.pairs,
        "k_hat": smoothed.k_hat,
        "effective_draws": smoothed.effective,
        "log_evidence": smoothed.log_evidence,
    }
    return weighted_posterior(target, gaussian, values, log_density, smoothed, generator, verdict=verdict,
                              evaluations=evaluations, seed=seed, clock=clock, settings=settings)  # fmt: skip


def _log_normal(u: FloatArray, root: FloatArray) -> FloatArray:
    """Log density of y = centre + root u for standard normal u ``(..., n)``."""
    n = u.shape[-1]
    determinant = np.linalg.slogdet(np.asarray(root))[1]
    return np.asarray(-0.5 * np.sum(u**2, axis=-1) - determinant - 0.5 * n * np.log(2.0 * np.pi))


@jax.jit
def _shared_energies(y_s: Array, shared: Shared) -> Array:
    return jax.vmap(lambda row: shared_potential(row, shared))(y_s)


@partial(jax.jit, static_argnames="recipe")
def _own_energies(own: Array, y_s: Array, bucket: Bucket, shared: Shared, recipe: Recipe) -> Array:
    """U_i of each shot at many points ``(m, n_shots, k, n)``, with shared numbers ``(m, p)``: ``(m, n_shots, k)``."""

    def of_shot(pair: Any) -> Array:
        points, shot = pair

        def of_draw(draw: Any) -> Array:
            return jax.lax.map(lambda y: shot_potential(y, draw[1], shot, shared, recipe), draw[0])

        return jax.lax.map(of_draw, (points, y_s))

    result: Array = jax.lax.map(of_shot, (own.transpose(1, 0, 2, 3), bucket))
    return result.transpose(1, 0, 2)

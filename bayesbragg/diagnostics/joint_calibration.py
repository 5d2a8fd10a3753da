"""Simulation-based calibration of joint posteriors: panels and shots drawn from their priors, a data set of each draw.

The data sets are judged by `bayesbragg.diagnostics.calibration`, as those of single shots are. Numbers of one data set
have errors in common (all shots see the same panels): coverage over several numbers has the standard error of its
scatter between data sets.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bayesbragg.diagnostics.calibration import noisy
from bayesbragg.diagnostics.inference_data import prior_draws
from bayesbragg.diagnostics.joint_data import shared_prior_draws
from bayesbragg.inference.joint import fit_joint
from bayesbragg.inference.joint_density import JointTarget, target_of_joint_fit
from bayesbragg.inference.joint_types import JointOptions, JointState
from bayesbragg.inference.likelihood import noise_variance
from bayesbragg.inference.pixel_term import PixelTerm
from bayesbragg.model.errors import InputError
from bayesbragg.priors.panels import SharedPrior

__all__ = ["JointSimulations", "clustered_coverage", "simulate_joint"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class JointSimulations:
    """Data sets of one joint density.

    Attributes:
        terms: its shots; their own counts are not used.
        prior: of the panels.
        own: true physical values of each shot, ``(n_simulations, n)`` each.
        shared: true shared numbers, ``(n_simulations, n_shared)``.
        counts: of each shot, ``(n_simulations, n_boxes, n_pixels)`` each.
    """

    terms: tuple[PixelTerm, ...]
    prior: SharedPrior
    own: tuple[FloatArray, ...]
    shared: FloatArray
    counts: tuple[FloatArray, ...]

    def __len__(self) -> int:
        return len(self.shared)

    def target(self, i: int) -> JointTarget:
        """The posterior of the i-th data set. The search for its mode starts at the truth, which does not move it."""
        terms = [_with_counts(term, counts[i]) for term, counts in zip(self.terms, self.counts, strict=True)]
        own = [
            np.asarray(term.layout.coordinates(jnp.asarray(values[i])))[None]
            for term, values in zip(terms, self.own, strict=True)
        ]
        there = JointState(own, self.shared[i])
        fit = fit_joint(terms, self.prior, JointOptions(max_iterations=0), state=there)
        return target_of_joint_fit(terms, [f"shot{k}" for k in range(len(terms))], self.prior, fit)

    @cached_property
    def truths(self) -> FloatArray:
        """In the order of the target's names."""
        shots = self.target(0).shots
        result = np.zeros((len(self), sum(v.shape[1] for v in self.own) + int(self.prior.free.sum())))
        for (_, at), values in zip(shots, self.own, strict=True):
            result[:, at] = values
        result[:, result.shape[1] - int(self.prior.free.sum()) :] = self.shared[:, self.prior.free]
        return result


def simulate_joint(terms: Sequence[PixelTerm], prior: SharedPrior, n: int, seed: int = 0) -> JointSimulations:
    """Truths from the priors and data from the likelihood.

    Args:
        terms: shots whose boxes were chosen before there were data.
        prior: of the panels; proper, without bounds.
        n: how many data sets.
        seed: of all randomness.

    Raises:
        InputError: a prior that is not proper, or panels with bounds.
    """
    shared = shared_prior_draws(prior, n, seed)
    bounded = np.isfinite(prior.low[prior.free]) | np.isfinite(prior.high[prior.free])
    if shared is None or np.any(bounded):
        raise InputError("calibration needs panels from their prior: give them a proper one, without bounds")
    own, counts = [], []
    for k, term in enumerate(terms):
        layout = term.layout
        drawn = prior_draws(layout, n, seed + 1000 * (k + 1))
        missing = [name for name in layout.names if name not in drawn]
        if missing:
            raise InputError(f"calibration needs proper priors of the shots: {', '.join(missing)} has none")
        values = np.stack([drawn[name] for name in layout.names], axis=1)
        keys = jax.random.split(jax.random.PRNGKey(seed + k), n)
        pixels = term.moving.problem.pixels
        made = np.empty((n, *np.shape(pixels.counts)))
        for i in range(n):
            x = np.asarray(layout.coordinates(jnp.asarray(values[i])))[None]
            mu = jnp.asarray(term.bragg(x, shared[i])) + pixels.background
            variance = noise_variance(mu, pixels.variance, pixels.gain_sd)
            made[i] = np.asarray(noisy(keys[i], term.recipe.likelihood, mu, variance))
        own.append(values)
        counts.append(made)
    return JointSimulations(tuple(terms), prior, tuple(own), shared, tuple(counts))


def _with_counts(term: PixelTerm, counts: FloatArray) -> PixelTerm:
    other = copy.copy(term)
    problem = term.moving.problem
    pixels = replace(problem.pixels, counts=jnp.asarray(counts))
    other.moving = replace(term.moving, problem=replace(problem, pixels=pixels))
    return other


def clustered_coverage(ranks: FloatArray, probability: float) -> tuple[float, float]:
    """Share of the intervals of all numbers that hold their truths, and its standard error between data sets.

    Args:
        ranks: ``(n_simulations, n)``.
    """
    share = np.mean(np.abs(ranks - 0.5) < 0.5 * probability, axis=1)
    return float(share.mean()), float(share.std(ddof=1) / np.sqrt(len(share)))

"""Simulation-based calibration: are posteriors right on average over data that their own model makes?

Truths are drawn from the prior, data from the likelihood at each truth (with background planes and reference
intensities of their own, where the model doubts them). If a posterior is right, the rank of the truth among independent
draws is uniform (Talts, Betancourt, Simpson, Vehtari, Gelman, arXiv 1804.06788), and an interval holds the truth as
often as it says. Ranks are judged by one band for the empirical distribution functions of all parameters together, in
which all of them stay with a stated probability (after Säilynoja, Bürkner, Vehtari, Statistics and Computing 32 (2022)
32); coverage by its binomial standard error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from bayesbragg.diagnostics.inference_data import prior_draws
from bayesbragg.inference.density import LogDensity, Problem, Recipe
from bayesbragg.inference.inferred_background import directions
from bayesbragg.inference.laplace import LaplaceOptions, laplace
from bayesbragg.inference.likelihood import LikelihoodName, noise_variance
from bayesbragg.inference.nuts import NutsOptions, nuts, nuts_each
from bayesbragg.inference.unbounded import Target, shot_target
from bayesbragg.model.errors import InputError

__all__ = ["Band", "Coverage", "DataSets", "Simulations", "coverage", "ecdf_band", "laplace_ranks", "noisy"]
__all__ += ["nuts_ranks", "simulate"]

Array = Any
FloatArray = npt.NDArray[np.float64]

BAND_POINTS = 40
"""Places at which a distribution function is compared with its band."""


@dataclass(frozen=True, eq=False)
class Simulations:
    """Data sets of one density.

    Attributes:
        density: the model; its own counts are not used.
        truths: physical values from the prior, ``(n_simulations, n)``.
        counts: data from the likelihood, photons, ``(n_simulations, n_boxes, n_pixels)``.
    """

    density: LogDensity
    truths: FloatArray
    counts: FloatArray

    def __len__(self) -> int:
        return len(self.truths)

    def target(self, i: int) -> Target:
        """The posterior of the i-th data set. The search for its mode starts at the truth, which does not move it."""
        pixels = replace(self.density.problem.pixels, counts=jnp.asarray(self.counts[i]))
        return shot_target(self.density.with_pixels(pixels), self.truths[i])


class DataSets(Protocol):
    """Simulated data sets with the truths that they were made from, ``(n_simulations, n)``."""

    @property
    def truths(self) -> FloatArray: ...

    def __len__(self) -> int: ...

    def target(self, i: int) -> Target:
        """The posterior of the i-th one."""
        ...


def simulate(density: LogDensity, n: int, seed: int = 0) -> Simulations:
    """Truths from the prior and data from the likelihood.

    Args:
        density: of a shot whose boxes were chosen before there were data.
        n: how many data sets.
        seed: of all randomness.

    Raises:
        InputError: a parameter without a proper prior, or a likelihood that has no simple noise.
    """
    if density.problem.pixels.intensities is not None or density.problem.pixels.outliers is not None:
        raise InputError("calibration draws no data with unknown intensities or outliers; leave them out")
    layout = density.layout
    drawn = prior_draws(layout, n, seed)
    missing = [name for name in layout.names if name not in drawn]
    if missing or layout.volume.shape[0]:
        raise InputError(
            f"calibration needs truths from the prior: {', '.join(missing) or 'the block volume'} has none that is "
            "proper; give bounds or a restraint"
        )
    truths = np.stack([drawn[name] for name in layout.names], axis=1)
    keys = jax.random.split(jax.random.PRNGKey(seed), n)
    counts = _data(jnp.asarray(truths), keys, density.problem, density.recipe)
    return Simulations(density, truths, np.asarray(counts))


@partial(jax.jit, static_argnames="recipe")
def _data(truths: Array, keys: Array, problem: Problem, recipe: Recipe) -> Array:
    pixels = problem.pixels

    def one(truth: Array, key: Array) -> Array:
        bragg = recipe.forward(problem.layout.place(truth, problem.base), problem.scene, recipe.options)
        bragg = bragg.astype(jnp.float64)
        mu = bragg + pixels.background
        counts = noisy(key, recipe.likelihood, mu, noise_variance(mu, pixels.variance, pixels.gain_sd))
        D = directions(bragg, pixels)
        if D is None:
            return counts
        # Planes and intensities of this data set, off by what the model says of them.
        return counts + jnp.einsum("bk,bkp->bp", jax.random.normal(jax.random.fold_in(key, 1), D.shape[:2]), D)

    result: Array = jax.lax.map(lambda pair: one(*pair), (truths, keys))
    return result


def noisy(key: Array, likelihood: LikelihoodName, mu: Array, variance: Array) -> Array:
    """Counts with the density of a likelihood, ``shifted_poisson`` excepted, which is none."""
    first, second = jax.random.split(key)
    normal = jax.random.normal(first, mu.shape)
    if likelihood == "gaussian":
        return mu + jnp.sqrt(mu + variance) * normal
    photons = jax.random.poisson(second, mu).astype(jnp.float64)
    if likelihood == "poisson":
        return photons
    if likelihood == "poisson_gaussian":
        return photons + jnp.sqrt(variance) * normal
    raise InputError(f"likelihood {likelihood}: no data can be drawn from it; calibrate gaussian or poisson_gaussian")


def laplace_ranks(
    simulations: DataSets,
    options: LaplaceOptions | None = None,
    *,
    rows: Sequence[int] | None = None,
    seed: int = 0,
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Where the truths lie in the posteriors by corrected Laplace.

    Args:
        rows: which data sets; all by default.

    Returns:
        The posterior's probability below each truth, ``(n_rows, n)``, and whether k-hat passed, ``(n_rows,)``.
    """
    chosen = range(len(simulations)) if rows is None else rows
    ranks, passed = [], []
    for i in chosen:
        posterior = laplace(simulations.target(i), options, seed=seed + i)
        ranks.append(_below(posterior.draws[0], simulations.truths[i], np.random.default_rng([seed, i])))
        passed.append(posterior.verdict.checks[0].passed)
    return np.array(ranks), np.array(passed)


def nuts_ranks(
    simulations: DataSets,
    options: NutsOptions | None = None,
    *,
    thin: int = 4,
    rows: Sequence[int] | None = None,
    at_once: int | None = None,
    seed: int = 0,
) -> tuple[FloatArray, FloatArray]:
    """Where the truths lie among thinned draws of NUTS.

    Args:
        options: one short chain of each data set by default.
        thin: every ``thin``-th draw is kept; those should be independent.
        rows: which data sets; all by default.
        at_once: data sets whose chains advance in one program; by default 50 on a GPU and 1 on a CPU, where lanes that
            wait for each other's trajectories cost more than calls.

    Returns:
        The share of draws below each truth, ``(n_rows, n)``, made continuous within the step of one draw; and the
        divergences of each data set, ``(n_rows,)``.
    """
    chosen = list(range(len(simulations)) if rows is None else rows)
    options = options or NutsOptions(n_chains=1, n_draws=252, n_warmup=50)
    at_once = at_once or (1 if jax.default_backend() == "cpu" else 50)
    ranks: list[FloatArray] = []
    divergences: list[float] = []
    for first in range(0, len(chosen), at_once):
        part = chosen[first : first + at_once]
        targets = [simulations.target(i) for i in part]
        alone = len(part) == 1
        found = [nuts(targets[0], options, seed=seed + part[0])] if alone else nuts_each(targets, options, seed=seed)
        for i, posterior in zip(part, found, strict=True):
            draws = posterior.draws[:, ::thin].reshape(-1, posterior.draws.shape[2])
            ranks.append(_below(draws, simulations.truths[i], np.random.default_rng([seed, i])))
            divergences.append(float(np.sum(posterior.sample_stats["diverging"])))
    return np.array(ranks), np.array(divergences)


def _below(draws: FloatArray, truth: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Share of draws ``(m, n)`` below the truth, made continuous: uniform on (0, 1) if the m + 1 places are alike."""
    number = np.sum(draws < truth, axis=0)
    return np.asarray((number + generator.uniform(size=len(truth))) / (len(draws) + 1))


@dataclass(frozen=True, eq=False)
class Band:
    """A band for empirical distribution functions of uniform numbers.

    Attributes:
        at: places, ``(m,)``.
        low, high: the band there.
        probability: that all functions stay inside everywhere.
    """

    at: FloatArray
    low: FloatArray
    high: FloatArray
    probability: float

    def inside(self, ranks: FloatArray) -> npt.NDArray[np.bool_]:
        """Which columns of ranks ``(n_simulations, n)`` stay inside, ``(n,)``."""
        functions = np.mean(ranks[:, :, None] <= self.at, axis=0)
        return np.asarray(np.all((functions >= self.low - 1e-12) & (functions <= self.high + 1e-12), axis=1))


def ecdf_band(
    n_simulations: int, n_parameters: int, probability: float = 0.99, *, seed: int = 0, trials: int = 40_000
) -> Band:
    """The band in which the distribution functions of all parameters stay together with a probability.

    The parameters are taken as independent. If they are not, all stay inside more often, so that the band is never too
    narrow for the family by more than the error of its simulation, some per cent of the tail.
    """
    generator = np.random.default_rng(seed)
    at = np.arange(1, BAND_POINTS) / BAND_POINTS
    counts = generator.multinomial(n_simulations, np.full(BAND_POINTS, 1.0 / BAND_POINTS), size=trials)
    below = np.cumsum(counts, axis=1)[:, :-1]
    each = np.minimum(binom.cdf(below, n_simulations, at), binom.sf(below - 1, n_simulations, at)).min(axis=1)
    # One of n independent functions may leave with the probability 1 - p^(1/n).
    tail = float(np.quantile(each, 1.0 - probability ** (1.0 / n_parameters)))
    low = (binom.ppf(tail, n_simulations, at)) / n_simulations
    high = (binom.isf(tail, n_simulations, at)) / n_simulations
    return Band(at, low, high, probability)


@dataclass(frozen=True)
class Coverage:
    """How often central intervals of a probability held the truth of one parameter."""

    name: str
    probability: float
    found: float
    error: float

    @property
    def pull(self) -> float:
        """Deviation in standard errors."""
        return (self.found - self.probability) / self.error


def coverage(
    names: Sequence[str], ranks: FloatArray, probabilities: Sequence[float] = (0.68, 0.95)
) -> tuple[Coverage, ...]:
    """Coverage of central intervals from ranks ``(n_simulations, n)``."""
    result = []
    for probability in probabilities:
        inside = np.mean(np.abs(ranks - 0.5) < 0.5 * probability, axis=0)
        error = float(np.sqrt(probability * (1.0 - probability) / len(ranks)))
        result += [Coverage(n, probability, float(f), error) for n, f in zip(names, inside, strict=True)]
    return tuple(result)

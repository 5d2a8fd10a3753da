"""Where a search starts: orientation from the spots' centroids if that is better, block size from a coarse scan, and
the scale factor from a linear fit to the pixels.

Bragg photons are linear in the scale factors G. Their common factor is found from the pixels for each trial, so that a
start is as good as its geometry. Blocks that are too large for a wrong orientation put no photon into the boxes and
leave no slope to follow; the best of a few sizes, each at its own best scale, gives one.

Everything here is a function of arrays that can be mapped over shots.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesbragg.forward.stored_jit import stored_jit
from bayesbragg.inference.density import Problem, Recipe, bragg_log_likelihood
from bayesbragg.inference.likelihood import noise_variance
from bayesbragg.inference.orientation_start import turned
from bayesbragg.inference.pixels import Pixels

__all__ = ["EVALUATIONS", "start_values"]

Array = Any

FACTORS = (2.0, 1.0, 0.5, 0.25, 0.125)
"""Block sizes that are tried, relative to the start."""
FIRST = FACTORS.index(0.5)
"""Which of them chooses the orientation: small enough to see spots that are a little off."""
EVALUATIONS = len(FACTORS) + 1
"""Evaluations of the forward model in `start_values`."""


@stored_jit(("recipe", "scale", "blocks"))
def start_values(problem: Problem, recipe: Recipe, scale: bool = True, blocks: bool = True) -> Array:
    """Physical values to start from, ``(n,)``: the best of the given ones and of those that are tried.

    Only what varies is changed, and bounds are kept.

    Args:
        scale: fit the common factor of the scale factors.
        blocks: try several block sizes, and orientation and cell by the centroids.
    """
    layout, pixels = problem.layout, problem.pixels
    is_scale = np.array([site.prior == "G" for site in layout.sites]) & scale
    is_block = np.array([site.prior == "Nabc" for site in layout.sites]) & blocks
    given, low, high = (jnp.asarray(a) for a in (layout.start, layout.low, layout.high))
    # A start on a bound has no slope in bounded coordinates; the search must not begin there.
    margin = 1e-3 * jnp.where(jnp.isfinite(high - low), jnp.minimum(high - low, jnp.abs(given) + 1e-9), 0.0)

    def photons(values: Array) -> Array:
        return recipe.forward(layout.place(values, problem.base), problem.scene, recipe.options).astype(jnp.float64)

    def target(values: Array, bragg: Array) -> Array:
        prior = layout.log_prior(values, layout.place(values, problem.base))
        return -(bragg_log_likelihood(bragg, pixels, recipe) + prior)

    def tried(first: Array, factor: Array) -> tuple[Array, Array]:
        values = jnp.where(is_block, jnp.clip(first * factor, low + margin, high - margin), first)
        bragg = photons(values)
        if is_scale.any():
            c = _scale(bragg, pixels, recipe)
            scaled = jnp.where(is_scale, jnp.clip(values * c, low + 1e-9 * margin, high), values)
            lead = int(np.argmax(is_scale))
            bragg = bragg * (scaled[lead] / values[lead])
            values = scaled
        found = target(values, bragg)
        return values, jnp.where(jnp.isfinite(found), found, jnp.inf)

    starts = jnp.stack([given, turned(given, problem)]) if blocks else given[None]
    factors = jnp.array([FACTORS[FIRST]] * len(starts) + [f for i, f in enumerate(FACTORS) if i != FIRST])
    if not is_block.any():
        factors = jnp.ones(len(starts))
    n_starts = len(starts)

    # One loop, so that the program holds the forward model once: the starts at the first factor, then, of the better
    # one, the other factors.
    def step(best: tuple[Array, Array, Array], trial: tuple[Array, Array]) -> tuple[tuple[Array, Array, Array], None]:
        values, found, first = best
        number, factor = trial
        start = jnp.where(number < n_starts, starts[jnp.minimum(number, n_starts - 1)], first)
        new, target = tried(start, factor)
        better = target < found
        first = jnp.where(better & (number < n_starts), start, first)
        return (jnp.where(better, new, values), jnp.minimum(target, found), first), None

    worst = (given, jnp.asarray(jnp.inf), given)
    (values, found, _), _ = jax.lax.scan(step, worst, (jnp.arange(len(factors)), factors))
    return jnp.where(jnp.isfinite(found), values, given)


def _scale(bragg: Array, pixels: Pixels, recipe: Recipe) -> Array:
    """Best common factor of Bragg photons: weighted least squares, then a choice."""
    bragg = jnp.where(pixels.trusted, bragg, 0.0)
    excess = pixels.counts - pixels.background
    floor = 1e-6 * jnp.sum(jnp.where(pixels.trusted, jnp.abs(excess), 0.0)) / (jnp.sum(bragg) + 1e-300)

    def step(_: int, c: Array) -> Array:
        mu = jnp.maximum(c * bragg + pixels.background, 1e-3)
        V = jnp.where(pixels.trusted, mu + noise_variance(mu, pixels.variance, pixels.gain_sd), 1.0)
        weight = jnp.where(pixels.trusted, 1.0 / V, 0.0)
        return jnp.maximum(jnp.sum(weight * bragg * excess) / jnp.sum(weight * bragg**2), floor)

    # Weighted by what the data say, a model that misses the spots gets a factor far too small, and by what the model
    # says one that is right on average: both are tried, and steps between them, and the likelihood decides.
    c = jax.lax.fori_loop(0, 6, step, 1e3 * floor)
    candidates = c * 2.0 ** jnp.arange(-1.5, 2.0, 0.5)
    values = jax.lax.map(lambda k: bragg_log_likelihood(k * bragg, pixels, recipe), candidates)
    found = candidates[jnp.argmax(jnp.where(jnp.isfinite(values), values, -jnp.inf))]
    return jnp.where(jnp.isfinite(found), found, 1.0)

"""A start for a search: the scale of the shot, and the block size at which the spots cover the data.

The model is linear in the scale factors: given the spots' shape, their common factor is a weighted linear fit. Blocks
that are too large make spots too narrow to meet the pixels that they should explain, and a search from there has no
slope to follow; the best of a few block sizes, each at its own best scale, gives it one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bayesbragg.inference.density import LogDensity, Pixels, Recipe, bragg_log_likelihood
from bayesbragg.inference.likelihood import noise_variance

__all__ = ["Start", "background_target", "find_start"]

Array = Any
FloatArray = npt.NDArray[np.float64]

BLOCK_FACTORS = tuple(float(f) for f in 2.0 ** np.arange(1.0, -4.25, -0.5))
"""Block sizes that are tried, relative to the start."""


@dataclass(frozen=True)
class Start:
    """Physical values ``(n,)``, their target, and the number of evaluations that it took to find them."""

    values: FloatArray
    target: float
    evaluations: int


def find_start(density: LogDensity, *, scale: bool = True, blocks: bool = True) -> Start:
    """The best start among a few block sizes, each with its best scale.

    Only what varies is changed: a fixed scale or block size stays. Bounds are kept.

    Args:
        scale: fit the common factor of the scale factors.
        blocks: try several block sizes.
    """
    layout = density.layout
    is_scale = np.array([site.prior == "G" for site in layout.sites])
    is_block = np.array([site.prior == "Nabc" for site in layout.sites])
    low, high = layout.bounds().T
    # A start on a bound has no slope in bounded coordinates; the search must not begin there.
    margin = 1e-3 * np.where(np.isfinite(high - low), np.minimum(high - low, np.abs(layout.start) + 1e-9), 0.0)
    factors = BLOCK_FACTORS if blocks and is_block.any() else (1.0,)
    first = np.asarray(layout.start, dtype=np.float64)
    best = Start(first, density.target(layout.coordinates(first)), 1)
    evaluations, tried = 1, [first] if not (scale and is_scale.any()) else []
    for factor in factors:
        values = np.where(is_block, np.clip(first * factor, low + margin, high - margin), first)
        if any(np.array_equal(values, other) for other in tried):
            continue
        tried.append(values)
        evaluations += 1
        bragg = density.bragg(layout.coordinates(values))
        if scale and is_scale.any():
            c, likelihood = (float(v) for v in _scale(bragg, density.problem.pixels, density.recipe))
            if not np.isfinite(c):
                continue
            scaled = np.where(is_scale, np.clip(values * c, low + margin * 1e-9, high), values)
            if not np.allclose(scaled, np.where(is_scale, values * c, values)):
                likelihood = density.log_likelihood(layout.coordinates(scaled))
                evaluations += 1
            values = scaled
        else:
            likelihood = density.log_likelihood_of(bragg)
        target = -(likelihood + density.log_prior(layout.coordinates(values)))
        if np.isfinite(target) and not target >= best.target:
            best = Start(values, target, evaluations)
    return Start(best.values, best.target, evaluations)


def background_target(density: LogDensity) -> float:
    """Minus the log likelihood of the background alone: what a model with Bragg spots must beat."""
    return -float(_background(density.problem.pixels, density.recipe))


@partial(jax.jit, static_argnames="recipe")
def _background(pixels: Pixels, recipe: Recipe) -> Array:
    return bragg_log_likelihood(jnp.zeros_like(pixels.background), pixels, recipe)


@partial(jax.jit, static_argnames="recipe")
def _scale(bragg: Array, pixels: Pixels, recipe: Recipe) -> tuple[Array, Array]:
    """Best common factor of Bragg photons and its log likelihood: weighted least squares, then a choice."""
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
    best = jnp.argmax(jnp.where(jnp.isfinite(values), values, -jnp.inf))
    return candidates[best], values[best]

"""The one log density in coordinates without bounds: what Laplace and NUTS look at.

Each physical value theta between bounds is a bijection of a coordinate y:

* both bounds     theta = low + (high - low) / (1 + exp(-y))
* one bound       theta = low + exp(y), or high - exp(y)
* none            theta = y

The potential is U(y) = -(log likelihood + log prior + log |d theta / d y|), so that a draw of y is a draw of theta.
Which bijection a number has is data, not structure: shots of one shape share their compiled programs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bayesbragg.inference.density import LogDensity, Problem, Recipe
from bayesbragg.inference.likelihood import total

__all__ = ["Bounds", "Potential", "Target", "log_likelihood_of_values", "hessian", "potentials", "shot_target"]
__all__ += ["value_and_grad"]

Array = Any
FloatArray = npt.NDArray[np.float64]
Potential = Callable[[Array, Any], Array]
"""U(y, data), with y ``(n,)``. Hashable, as it is part of a compilation key; everything that varies is in the data."""

EDGE = 1e-6
"""Fraction of an interval that a start keeps from its ends, where coordinates are infinite."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Bounds:
    """Lower and upper bounds of the physical values, ``(n,)`` each; infinite where there are none."""

    low: Array
    high: Array

    def values(self, y: Array) -> Array:
        """Physical values at y, ``(n,)``."""
        return self._forward(y)[0]

    def log_jacobian(self, y: Array) -> Array:
        """log |d theta / d y| of each number, ``(n,)``."""
        return self._forward(y)[1]

    def bounded(self) -> npt.NDArray[np.bool_]:
        """Which values have a bound, ``(n,)``."""
        return np.asarray(np.isfinite(np.asarray(self.low)) | np.isfinite(np.asarray(self.high)))

    def coordinates(self, values: npt.ArrayLike) -> FloatArray:
        """y of physical values, ``(n,)``; values at or beyond a bound are moved a little inside."""
        v = np.asarray(values, dtype=np.float64)
        low, high = np.asarray(self.low), np.asarray(self.high)
        has_low, has_high = np.isfinite(low), np.isfinite(high)
        width = np.where(has_low & has_high, high - low, np.maximum(np.abs(v), 1.0))
        # An interval over many decades (scales up to 1e12) has its values near its lower end, and rightly so.
        gap = np.minimum(EDGE * width, np.maximum(EDGE * np.abs(v), 1e-9 * np.minimum(width, 1.0)))
        v = np.clip(v, low + gap, high - gap)
        with np.errstate(all="ignore"):
            both = np.log(v - low) - np.log(high - v)
            one = np.where(has_low, np.log(v - low), np.log(high - v))
        return np.asarray(np.where(has_low & has_high, both, np.where(has_low | has_high, one, v)))

    def _forward(self, y: Array) -> tuple[Array, Array]:
        low, high = jnp.asarray(self.low), jnp.asarray(self.high)
        has_low, has_high = jnp.isfinite(low), jnp.isfinite(high)
        both, one = has_low & has_high, has_low ^ has_high
        # Numbers that do not take a branch pass through it as 0, so that they cannot spoil derivatives.
        low, high = jnp.where(has_low, low, 0.0), jnp.where(has_high, high, 0.0)
        s, e = jnp.where(both, y, 0.0), jnp.where(one, y, 0.0)
        inside = low + (high - low) * jax.nn.sigmoid(s)
        beyond = jnp.where(has_low, low + jnp.exp(e), high - jnp.exp(e))
        width = jnp.where(both, high - low, 1.0)
        log_inside = jnp.log(width) + jax.nn.log_sigmoid(s) + jax.nn.log_sigmoid(-s)
        value = jnp.where(both, inside, jnp.where(one, beyond, y))
        return value, jnp.where(both, log_inside, jnp.where(one, e, 0.0))


@dataclass(frozen=True, eq=False)
class Target:
    """A posterior density to be explored.

    Attributes:
        names, units: of the parameters.
        potential, data: U and its second argument.
        start: coordinates of the best fit, or of a point near it, ``(n,)``.
        to_values: physical values ``(m, n)`` of coordinates ``(m, n)``.
        curvature: expected second derivative of U at y, ``(n, n)``; None where only the exact one is to be had.
        bounds: of the physical values, or None where they are not known.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    potential: Potential
    data: Any
    start: FloatArray
    to_values: Callable[[FloatArray], FloatArray]
    curvature: Callable[[FloatArray], FloatArray] | None = None
    bounds: Bounds | None = None


def log_likelihood_of_values(values: Array, problem: Problem, recipe: Recipe) -> Array:
    """Log likelihood of the trusted pixels at physical values ``(n,)``; differentiable, for use inside other models."""
    parameters = problem.layout.place(values, problem.base)
    bragg = recipe.forward(parameters, problem.scene, recipe.options).astype(jnp.float64)
    pixels = problem.pixels
    mu = bragg + pixels.background
    return total(recipe.likelihood, pixels.counts, mu, pixels.variance, pixels.trusted, recipe.window)


@dataclass(frozen=True)
class _ShotPotential:
    """U of a shot; its data are a problem and bounds."""

    recipe: Recipe

    def __call__(self, y: Array, data: tuple[Problem, Bounds]) -> Array:
        problem, bounds = data
        values, log_jacobian = bounds._forward(y)
        parameters = problem.layout.place(values, problem.base)
        prior = problem.layout.log_prior(values, parameters)
        return -(log_likelihood_of_values(values, problem, self.recipe) + prior + jnp.sum(log_jacobian))


def shot_target(density: LogDensity, values: npt.ArrayLike) -> Target:
    """The posterior of one shot.

    Args:
        density: its density.
        values: the best fit, physical values ``(n,)`` (`Fit.values`).
    """
    layout = density.layout
    low, high = layout.bounds().T
    bounds = Bounds(jnp.asarray(low), jnp.asarray(high))
    data = (density.problem, bounds)
    potential = _ShotPotential(density.recipe)

    def curvature(y: FloatArray) -> FloatArray:
        slope, bend, jacobian_slope, jacobian_bend = (np.asarray(a) for a in _derivatives(y, bounds))
        at = np.asarray(bounds.values(jnp.asarray(y)))
        _, gradient = value_and_grad(y, data, potential)
        # d U / d theta, without the Jacobian's part, bends with the coordinate: all the curvature there is at a bound.
        pull = np.divide(gradient + jacobian_slope, slope, out=np.zeros_like(y), where=slope != 0)
        own = np.maximum(pull * bend, 0.0) + np.maximum(-jacobian_bend, 0.0)
        return np.asarray(density.fisher_of_values(at) * np.outer(slope, slope) + np.diag(own))

    def to_values(y: FloatArray) -> FloatArray:
        return np.asarray(_all_values(jnp.asarray(y), bounds))

    return Target(layout.names, layout.units, potential, data, bounds.coordinates(values), to_values, curvature, bounds)


@jax.jit
def _all_values(y: Array, bounds: Bounds) -> Array:
    return jax.vmap(bounds.values)(y)


@jax.jit
def _derivatives(y: Array, bounds: Bounds) -> tuple[Array, Array, Array, Array]:
    """First and second derivatives in y of each physical value and of each log Jacobian."""
    ones = jnp.ones_like(y)

    def first(z: Array) -> tuple[Array, Array]:
        return jax.jvp(bounds._forward, (z,), (ones,))[1]

    (slope, jacobian_slope), (bend, jacobian_bend) = jax.jvp(first, (y,), (ones,))
    return slope, bend, jacobian_slope, jacobian_bend


@partial(jax.jit, static_argnames="potential")
def value_and_grad(y: Array, data: Any, potential: Potential) -> tuple[Array, Array]:
    """U and its gradient at y ``(n,)``."""
    return jax.value_and_grad(potential)(y, data)


@partial(jax.jit, static_argnames=("potential", "at_once"))
def potentials(y: Array, data: Any, potential: Potential, at_once: int = 1) -> Array:
    """U at many points ``(m, n)``, ``at_once`` of them in memory together, ``(m,)``."""
    return jax.lax.map(lambda row: potential(row, data), y, batch_size=at_once)


@partial(jax.jit, static_argnames="potential")
def hessian(y: Array, data: Any, potential: Potential) -> Array:
    """Second derivative of U at y, ``(n, n)``, one direction at a time."""

    def column(direction: Array) -> Array:
        return jax.jvp(lambda z: jax.grad(potential)(z, data), (y,), (direction,))[1]

    result = jax.lax.map(column, jnp.eye(y.shape[0]))
    return 0.5 * (result + result.T)

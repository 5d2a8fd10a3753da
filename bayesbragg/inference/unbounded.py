"""The one log density in coordinates without bounds: what Laplace and NUTS look at.

Each physical value theta between bounds is a bijection of a coordinate y:

* both bounds     theta = low + (high - low) / (1 + exp(-y))
* one bound       theta = low + exp(y), or high - exp(y)
* one bound near  theta = low + s ln(1 + exp(y)), or high - s ln(1 + exp(y)), with s about the posterior's width: linear
                  on the side of the data, so that no wall stands there; a second bound, which must be far, cuts
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

from bayesbragg.inference.arrow import ArrowCurvature
from bayesbragg.inference.density import LogDensity, Problem, Recipe, bragg_log_likelihood

__all__ = [
    "Bounds",
    "Potential",
    "Target",
    "hessian",
    "log_likelihood_of_values",
    "potentials",
    "shot_target",
    "value_and_grad",
    "values_of",
]

Array = Any
FloatArray = npt.NDArray[np.float64]
Potential = Callable[[Array, Any], Array]
"""U(y, data), with y ``(n,)``. Hashable, as it is part of a compilation key; everything that varies is in the data."""

FAR = 30.0
"""Standard deviations beyond which a bound does not matter to the choice of a bijection."""
WALL = 8.0
"""Standard deviations beyond which bounds on both sides need no bijection, which would only bend straight valleys: the
density ends there, and no draw gets so far."""
SOFT_EDGE = 0.3
EDGE = 1e-6
"""Fraction of an interval that a start keeps from its ends, where coordinates are infinite."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Bounds:
    """Bounds of the physical values and the bijection of each, ``(n,)`` each. Made by `Bounds.of`.

    Attributes:
        low, high: bounds; infinite where there are none.
        kind: 0 none or far ones, 1 both, 2 lower (exponential), 3 upper, 4 lower (soft), 5 upper (soft).
        scale: length of the soft ones, in the unit of the value.
    """

    low: Array
    high: Array
    kind: Array
    scale: Array

    @classmethod
    def of(
        cls,
        low: npt.ArrayLike,
        high: npt.ArrayLike,
        values: npt.ArrayLike | None = None,
        sd: npt.ArrayLike | None = None,
    ) -> Bounds:
        """The bijections that suit bounds.

        Args:
            low, high: bounds, ``(n,)``.
            values, sd: where the posterior is and about how wide, ``(n,)``; they decide on soft bijections, and on
                none where both bounds are far.
        """
        lower, upper = (np.asarray(a, dtype=np.float64) for a in (low, high))
        has_low, has_high = np.isfinite(lower), np.isfinite(upper)
        kind = np.where(has_low & has_high, 1, np.where(has_low, 2, np.where(has_high, 3, 0)))
        scale = np.ones(len(lower))
        if values is not None and sd is not None:
            at, width = np.asarray(values, dtype=np.float64), np.asarray(sd, dtype=np.float64)
            known = np.isfinite(width) & (width > 0)
            scale = np.where(known, width, 1.0)
            above, below = (at - lower) / scale, (upper - at) / scale
            kind = np.where(known & (above < FAR) & (below > FAR), 4, kind)
            kind = np.where(known & (below < FAR) & (above > FAR), 5, kind)
            kind = np.where(known & (kind == 1) & (above > WALL) & (below > WALL), 0, kind)
        return cls(*(jnp.asarray(a) for a in (lower, upper, kind, scale)))

    def values(self, y: Array) -> Array:
        """Physical values at y, ``(n,)``."""
        return self.values_and_log_jacobian(y)[0]

    def log_jacobian(self, y: Array) -> Array:
        """log |d theta / d y| of each number, ``(n,)``; minus infinity beyond a bound that the bijection ignores."""
        return self.values_and_log_jacobian(y)[1]

    def bounded(self) -> npt.NDArray[np.bool_]:
        """Which values have a bound, ``(n,)``."""
        return np.asarray(self.kind) > 0

    def coordinates(self, values: npt.ArrayLike) -> FloatArray:
        """y of physical values, ``(n,)``; values at or beyond a bound are moved a little inside."""
        v = np.asarray(values, dtype=np.float64)
        low, high, kind, scale = (np.asarray(a) for a in (self.low, self.high, self.kind, self.scale))
        width = np.where(np.isfinite(high - low), high - low, np.maximum(np.abs(v), 1.0))
        # An interval over many decades (scales up to 1e12) has its values near its lower end, and rightly so.
        gap = np.minimum(EDGE * width, np.maximum(EDGE * np.abs(v), 1e-9 * np.minimum(width, 1.0)))
        gap = np.where(kind >= 4, SOFT_EDGE * scale, gap)
        v = np.clip(v, low + np.minimum(gap, 0.25 * width), high - np.minimum(gap, 0.25 * width))
        y = v.copy()
        both, lower, upper = kind == 1, kind == 2, kind == 3
        y[both] = np.log(v[both] - low[both]) - np.log(high[both] - v[both])
        y[lower] = np.log(v[lower] - low[lower])
        y[upper] = np.log(high[upper] - v[upper])
        soft = kind >= 4
        x = np.where(kind == 4, v - low, high - v)[soft] / scale[soft]
        y[soft] = x + np.log(-np.expm1(-x))
        return y

    def values_and_log_jacobian(self, y: Array) -> tuple[Array, Array]:
        """Values and log Jacobians."""
        kind, scale = self.kind, self.scale
        low, high = (jnp.where(jnp.isfinite(a), a, 0.0) for a in (self.low, self.high))
        both, one, soft = kind == 1, (kind == 2) | (kind == 3), kind >= 4
        # Numbers that do not take a branch pass through it as 0, so that they cannot spoil derivatives.
        s, e, t = (jnp.where(here, y, 0.0) for here in (both, one, soft))
        width = jnp.where(both, high - low, 1.0)
        inside = low + width * jax.nn.sigmoid(s)
        reach = jnp.where(soft, scale * jax.nn.softplus(t), jnp.exp(e))
        beyond = jnp.where((kind == 2) | (kind == 4), low + reach, high - reach)
        value = jnp.where(both, inside, jnp.where(kind == 0, y, beyond))
        log_inside = jnp.log(width) + jax.nn.log_sigmoid(s) + jax.nn.log_sigmoid(-s)
        log_soft = jnp.log(scale) + jax.nn.log_sigmoid(t)
        log_jacobian = jnp.where(both, log_inside, jnp.where(soft, log_soft, e))
        log_jacobian = jnp.where(kind == 0, 0.0, log_jacobian)
        unaware = (soft | (kind == 0)) & ((value < self.low) | (value > self.high))
        return value, jnp.where(unaware, -jnp.inf, log_jacobian)


@dataclass(frozen=True, eq=False)
class Target:
    """A posterior density to be explored.

    Attributes:
        names, units: of the parameters.
        potential, data: U and its second argument.
        start: coordinates of the best fit, or of a point near the mode, ``(n,)``.
        to_values: physical values ``(m, n)`` of coordinates ``(m, n)``.
        curvature: expected second derivative of U at y, ``(n, n)``, or the exact one in the form of an arrow; None
            where only the exact one is to be had.
        bounds: of the physical values, or None where they are not known.
        fitted: whether the start is the best fit, in physical values, of what the target describes.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    potential: Potential
    data: Any
    start: FloatArray
    to_values: Callable[[FloatArray], FloatArray]
    curvature: Callable[[FloatArray], FloatArray | ArrowCurvature] | None = None
    bounds: Bounds | None = None
    fitted: bool = True

    def best(self, mode: FloatArray) -> FloatArray:
        """Physical values of the best fit, ``(n,)``: the start, or else the mode that was found, ``(n,)``."""
        values: FloatArray = self.to_values((self.start if self.fitted else mode)[None])[0]
        return values


def log_likelihood_of_values(values: Array, problem: Problem, recipe: Recipe) -> Array:
    """Log likelihood of the trusted pixels at physical values ``(n,)``; differentiable, for use inside other models."""
    parameters = problem.layout.place(values, problem.base)
    return bragg_log_likelihood(recipe.forward(parameters, problem.scene, recipe.options), problem.pixels, recipe)


@dataclass(frozen=True)
class _ShotPotential:
    """U of a shot; its data are a problem and bounds."""

    recipe: Recipe

    def __call__(self, y: Array, data: tuple[Problem, Bounds]) -> Array:
        problem, bounds = data
        values, log_jacobian = bounds.values_and_log_jacobian(y)
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
    information = density.fisher_of_values(values)
    scale = np.sqrt(np.maximum(np.diag(information), 1e-300))
    variance = np.diag(np.linalg.pinv(information / np.outer(scale, scale), hermitian=True)) / scale**2
    bounds = Bounds.of(low, high, values, np.sqrt(np.abs(variance)))
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
        return np.asarray(values_of(jnp.asarray(y), bounds))

    return Target(layout.names, layout.units, potential, data, bounds.coordinates(values), to_values, curvature, bounds)


@jax.jit
def values_of(y: Array, bounds: Bounds) -> Array:
    """Physical values ``(m, n)`` of coordinates ``(m, n)``."""
    return jax.vmap(bounds.values)(y)


@jax.jit
def _derivatives(y: Array, bounds: Bounds) -> tuple[Array, Array, Array, Array]:
    """First and second derivatives in y of each physical value and of each log Jacobian."""
    ones = jnp.ones_like(y)

    def first(z: Array) -> tuple[Array, Array]:
        tangent: tuple[Array, Array] = jax.jvp(bounds.values_and_log_jacobian, (z,), (ones,))[1]
        return tangent

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

"""Second-order steps: Levenberg and Marquardt's method with the expected Fisher information, as one compiled loop.

The expected information of the pixels is a Gauss-Newton matrix that is right for their noise (J^T W J, with J from
forward mode), positive, and needs no second derivatives. In coordinates u in which it is the identity a step is
-gradient / (1 + damping): the Newton step for small damping, a short one down the slope for large. The damping follows
the ratio of what a step gains to what the quadratic model promised (Nielsen 1999).

Where a model is wrong by more than the noise, as it is in real data, the true curvature differs from the expected one
and steps so made converge slowly. The part that is missing is learned from the change of the gradient along the steps
(a symmetric secant matrix S, sized; Dennis, Gay and Welsch 1981) and takes part once steps are nearly full ones, each
of its directions by no more than a factor of a few.

The loop is a function of arrays. Mapped over shots it fits them together, each with its own damping and its own end:
a shot that has finished keeps its state until the last one has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesbragg.forward.stored_jit import stored_jit
from bayesbragg.inference.density import Problem, Recipe, linearized
from bayesbragg.priors.flatten import Layout

__all__ = ["ENDINGS", "MOST_ITERATIONS", "Limits", "LmState", "lm_search"]
__all__ += ["near_bound", "values_slope_bend", "whitened"]

Array = Any

LARGEST_STEP = 100.0
"""Longest first step in standard deviations; the quadratic model is not trusted any farther."""
LEAST_DAMPING, MOST_DAMPING = 1e-7, 1e12
NEARLY_FULL = 0.1
"""Damping below which learned curvature takes part."""
LEAST_RATIO, MOST_RATIO = 0.2, 5.0
"""Bounds of the curvature with its learned part, relative to the expected one."""
MOST_ITERATIONS = 250
"""Accepted steps for which there is room in a trace."""
FLAT = 1e-3
"""A Newton step that promises less than this lowers the target by less than its arithmetic can tell."""

RUNNING, CONVERGED, LIMIT, STALLED, BROKEN, BROKEN_START, SMALL_CHANGE = range(7)
ENDINGS = {
    CONVERGED: "tolerance",
    LIMIT: "limit",
    STALLED: "stalled",
    BROKEN: "information",
    BROKEN_START: "start",
    SMALL_CHANGE: "change",
}
"""Codes of a finished search, as `bayesbragg.inference.search.ending` names them."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Limits:
    """When to stop, scalars.

    Attributes:
        iterations: accepted steps, at most `MOST_ITERATIONS`.
        tolerance: length of the Newton step in standard deviations.
        change: least relative change of the target in a step.
    """

    iterations: Array
    tolerance: Array
    change: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class LmState:
    """Where a search is.

    Attributes:
        x, target: the best point, ``(n,)``, and its target.
        information: Fisher information of the physical values there, ``(n, n)``.
        whiten, slope: W with W W^T the inverse information in x, and W^T gradient.
        distance: length of the Newton step.
        damping, growth: of the next trial.
        gradient, expected: gradient and expected information in x, ``(n,)`` and ``(n, n)``.
        learned: S, ``(n, n)``.
        iterations, evaluations: accepted steps; linearizations.
        code: how it ended; 0 while it runs.
        trace: target after each accepted step, ``(MOST_ITERATIONS + 1,)``.
    """

    x: Array
    target: Array
    information: Array
    whiten: Array
    slope: Array
    distance: Array
    damping: Array
    growth: Array
    gradient: Array
    expected: Array
    learned: Array
    iterations: Array
    evaluations: Array
    code: Array
    trace: Array


@stored_jit("recipe", returns=(LmState,))
def lm_search(layout: Layout, problem: Problem, recipe: Recipe, x: Array, limits: Limits) -> LmState:
    """Search from x, coordinates of ``layout``.

    Args:
        layout: in coordinates that cannot leave their bounds (`Layout.searchable`).
        x: start, ``(n,)``.
    """

    def look(x: Array) -> tuple[Array, Array, Array, Array, Array]:
        """Target, gradient and information in x, information of the values, and whether all is finite."""
        values, slope, bend = values_slope_bend(layout, x)
        target, pull, information = linearized(values, problem, recipe)
        gradient = pull * slope
        # Curvature that the bounded coordinates themselves add. At a bound that holds the optimum back the values have
        # no slope, and this is all the curvature there is: with it the Newton step is as short there as it should be.
        extra = jnp.where(near_bound(layout, values), jnp.maximum(pull * bend, 0.0), 0.0)
        in_x = information * jnp.outer(slope, slope) + jnp.diag(extra)
        finite = jnp.isfinite(target) & jnp.all(jnp.isfinite(gradient)) & jnp.all(jnp.isfinite(in_x))
        return target, gradient, in_x, information, finite

    def advanced(state: LmState) -> LmState:
        begins = state.evaluations == 0
        step = -state.slope / (1.0 + state.damping)
        promised = -(state.slope @ step + 0.5 * step @ step)
        x = state.x + state.whiten @ step
        target, gradient, in_x, information, finite = look(x)
        gain = (state.target - target) / promised
        taken = finite & (target < state.target) & (begins | (gain > 1e-4))
        eased = jnp.maximum(state.damping * jnp.maximum(0.1, 1.0 - (2.0 * gain - 1.0) ** 3), LEAST_DAMPING)
        learned = _learned(state.learned, x - state.x, gradient - state.gradient, in_x)
        whiten, slope = whitened(in_x, gradient)
        whiten, slope = _corrected(whiten, slope, jnp.where(eased < NEARLY_FULL, learned, 0.0))
        distance = jnp.linalg.norm(slope)
        eased = jnp.where(begins, jnp.maximum(1e-3, distance / LARGEST_STEP - 1.0), eased)
        damping = jnp.where(taken, eased, jnp.maximum(state.damping, 0.1) * state.growth)
        iterations = state.iterations + (taken & ~begins)
        small = taken & (state.damping < 1.0) & (state.target - target < limits.change * jnp.abs(target))
        # Where rounding decides about the last step, the point is as good as it gets.
        flat = ~taken & finite & (0.5 * state.distance**2 < FLAT) & (target < state.target + FLAT)
        code = jnp.select(
            [
                begins & ~taken,
                taken & (distance < limits.tolerance),
                taken & ~jnp.isfinite(distance),
                small | flat,
                taken & (iterations >= limits.iterations),
                ~taken & (damping > MOST_DAMPING),
            ],
            [BROKEN_START, CONVERGED, BROKEN, SMALL_CHANGE, LIMIT, STALLED],
            RUNNING,
        ).astype(state.code.dtype)
        new = LmState(
            x, target, information, whiten, slope, distance, damping, jnp.full_like(state.growth, 2.0), gradient, in_x,
            learned, iterations, state.evaluations, code, state.trace.at[iterations].set(target),
        )  # fmt: skip
        kept = replace(state, damping=damping, growth=2.0 * state.growth, code=code)
        chosen = jax.tree.map(lambda a, b: jnp.where(taken, a, b), new, kept)
        result: LmState = replace(chosen, evaluations=state.evaluations + 1)
        return result

    # The first pass through the loop takes a step of no length from a point of infinite target: the model, which is
    # what takes long to compile, is in the program once.
    n, zero = x.shape[0], jnp.zeros((), dtype=jnp.int64)
    infinite, damping, growth = (jnp.full((), value, jnp.float64) for value in (jnp.inf, 1e-3, 2.0))
    square, line = jnp.zeros((n, n)), jnp.zeros(n)
    trace = jnp.full(MOST_ITERATIONS + 1, jnp.nan)
    first = LmState(x, infinite, square, square, line, infinite, damping, growth, line, square, square,
                    zero, zero, zero + RUNNING, trace)  # fmt: skip
    result: LmState = jax.lax.while_loop(lambda state: state.code == RUNNING, advanced, first)
    return result


def _learned(S: Array, step: Array, change: Array, expected: Array) -> Array:
    """The secant matrix after a step along which the gradient changed; unchanged where that says nothing."""
    missing = change - expected @ step
    along = step @ (S @ step)
    size = jnp.minimum(jnp.abs(step @ missing) / jnp.maximum(jnp.abs(along), 1e-300), 1.0)
    S = S * jnp.where(along != 0, size, 1.0)
    error = missing - S @ step
    curvature = change @ step
    new = S + (jnp.outer(error, change) + jnp.outer(change, error)) / curvature
    new = new - (step @ error) * jnp.outer(change, change) / curvature**2
    sound = (curvature > 0.01 * step @ (expected @ step)) & jnp.all(jnp.isfinite(new))
    return jnp.where(sound, new, S)


def _corrected(whiten: Array, slope: Array, S: Array) -> tuple[Array, Array]:
    """The whitening and slope of the expected information plus S, its directions bounded against the former."""
    extra = whiten.T @ S @ whiten
    sound = jnp.all(jnp.isfinite(extra))
    values, turn = jnp.linalg.eigh(jnp.where(sound, 0.5 * (extra + extra.T), 0.0))
    turn = turn / jnp.sqrt(jnp.clip(1.0 + values, LEAST_RATIO, MOST_RATIO))
    return whiten @ turn, turn.T @ slope


def values_slope_bend(layout: Layout, x: Array) -> tuple[Array, Array, Array]:
    """Physical values and their first and second derivatives in their coordinates, each ``(n,)``."""
    ones = jnp.ones_like(x)
    (values, slope), (_, bend) = jax.jvp(lambda y: jax.jvp(layout.values, (y,), (ones,)), (x,), (ones,))
    return values, slope, bend


def near_bound(layout: Layout, values: Array) -> Array:
    """Bounded values that are near a bound, ``(n,)``.

    On a logarithmic or normal scale, and away from bounds, the expected information alone is the better guide.
    """
    kinds = np.array([site.kind for site in layout.sites])
    low, high = jnp.asarray(layout.low), jnp.asarray(layout.high)
    logarithmic = kinds == "log_ranged"

    def scaled(v: Array) -> Array:
        return jnp.where(logarithmic, jnp.log(jnp.where(logarithmic, v, 1.0)), v)

    low, high, values = scaled(low), scaled(high), scaled(values)
    bounded = np.isin(kinds, ("ranged", "log_ranged"))
    return bounded & (jnp.minimum(values - low, high - values) < 0.02 * (high - low))


def whitened(information: Array, gradient: Array) -> tuple[Array, Array]:
    """W with W W^T = information^-1, and W^T gradient; directions without information get the least that others allow.

    All is not a number where the information is not a finite, positive matrix.
    """
    diagonal = jnp.diag(information)
    scale = jnp.sqrt(jnp.maximum(diagonal, 0.0))
    least = jnp.min(jnp.where(scale > 0, scale, jnp.inf))
    scale = jnp.where(scale > 0, scale, 1e-3 * least)
    good = jnp.all(jnp.isfinite(information)) & jnp.isfinite(least)
    correlation = jnp.where(good, information / jnp.outer(scale, scale), jnp.eye(len(scale)))
    values, vectors = jnp.linalg.eigh(correlation)
    whiten = vectors / jnp.sqrt(jnp.maximum(values, 1e-8)) / scale[:, None]
    whiten = jnp.where(good, whiten, jnp.nan)
    return whiten, whiten.T @ gradient

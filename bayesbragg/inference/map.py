"""Best fit: the mode of the one log density in the physical parameters, by L-BFGS-B (scipy).

The search runs in whitened coordinates u, x = x0 + alpha L^-T u, where x are coordinates that cannot leave their
bounds (`Layout.searchable`), L L^T is the expected Fisher information at x0, and alpha the length of the Gauss-Newton
step there. Correlations (scale with block size, cell with distance) are gone at the start, and the first trial point
of L-BFGS-B, one unit along the slope, is the Gauss-Newton point. The search is re-whitened where it ends until the
Newton step that is left is a small fraction of a standard deviation: a criterion that knows neither units nor the size
of the target. The change of coordinates adds no term to the density, so the mode is that of the physical values.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from bayesbragg.inference.density import LogDensity
from bayesbragg.inference.start import background_target, find_start
from bayesbragg.model.fit import Fit, FitStatus
from bayesbragg.priors.flatten import Layout

__all__ = ["MapOptions", "fit_map"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MapOptions:
    """How to search.

    Attributes:
        max_iterations: accepted steps in all.
        tolerance: length of the Newton step, in standard deviations, below which the optimum counts as reached.
        round_iterations: steps after which the search is whitened anew.
        max_rounds: how often that may happen.
        start_scale: fit the scale factor of the shot first.
        start_blocks: try several block sizes first.
    """

    max_iterations: int = 200
    tolerance: float = 0.03
    round_iterations: int = 12
    max_rounds: int = 20
    start_scale: bool = True
    start_blocks: bool = True


@dataclass
class _Search:
    """What a search has seen: the best point, the trace and the counts."""

    density: LogDensity
    x: FloatArray
    target: float
    trace: list[float] = field(default_factory=list)
    evaluations: int = 0
    iterations: int = 0
    broken: int = 0

    def evaluate(self, x: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = self.density.value_and_grad(x)
        self.evaluations += 1
        if not (np.isfinite(value) and np.all(np.isfinite(gradient))):
            # A finite wall that a line search backs away from.
            self.broken += 1
            return self.target + 1e6 * (1.0 + abs(self.target)), np.zeros_like(x)
        if value < self.target:
            self.x, self.target = x.copy(), value
        return value, gradient


def fit_map(density: LogDensity, options: MapOptions | None = None) -> Fit:
    """The best fit of one shot.

    Args:
        density: the density, with the start in its layout.
        options: how to search.

    Returns:
        The best point seen, with its status; nothing is raised for a fit that fails.
    """
    options = options or MapOptions()
    clock = time.perf_counter()
    given = density.layout
    start_target = density.target(given.initial())
    search = _Search(density, given.initial(), start_target, evaluations=1)
    if given.n == 0:
        return _result(search, given, FitStatus.CONVERGED, "nothing varies", start_target, 0.0, clock)
    if not density.n_trusted:
        return _result(search, given, FitStatus.FAILED, "no trusted pixel", start_target, np.nan, clock)

    start = find_start(density, scale=options.start_scale, blocks=options.start_blocks)
    own = given.with_start(start.values).searchable()
    own_density = density.with_layout(own)
    search = _Search(own_density, own.initial(), np.inf, evaluations=1 + start.evaluations)
    value, gradient = search.evaluate(own.initial())
    if search.broken:
        reason = "the target or its gradient is not a finite number at the start; check pixels and starting values"
        return _result(search, given, FitStatus.FAILED, reason, start_target, np.nan, clock)
    search.trace.append(value)

    status, reason, distance = FitStatus.STALLED, "no step lowers the target", np.inf
    for _ in range(options.max_rounds):
        information = own_density.fisher(search.x) + _bending(own, search.x, gradient)
        search.evaluations += 1
        whiten = _whitener(information)
        if whiten is None:
            status, reason = FitStatus.FAILED, "the Fisher information is not a finite, positive matrix"
            break
        newton = whiten.T @ gradient
        distance = float(np.linalg.norm(newton))
        if distance < options.tolerance:
            status, reason = FitStatus.CONVERGED, f"the Newton step left is {distance:.2g} standard deviations"
            break
        if search.iterations >= options.max_iterations:
            status, reason = FitStatus.ITERATION_LIMIT, f"{search.iterations} iterations; raise the limit"
            break
        before = search.target
        _one_round(search, whiten * distance, distance, options)
        if not search.target < before:
            break
        value, gradient = own_density.value_and_grad(search.x)
        search.evaluations += 1
    else:
        status, reason = FitStatus.STALLED, f"still {distance:.2g} standard deviations from the optimum"
    prior = -own_density.log_prior(search.x)
    if not search.target - prior < background_target(density) - 0.5 * given.n:
        status = FitStatus.FAILED
        reason = "the model explains the pixels no better than the background alone; check indexing and start"
    return _result(search, given, status, reason, start_target, distance, clock)


def _bending(layout: Layout, x: FloatArray, gradient: FloatArray) -> FloatArray:
    """Curvature that the bounded coordinates themselves add, where it is positive, ``(n, n)``.

    At a bound that holds the optimum back, theta(x) has no slope and this term, dtarget/dtheta times theta''(x), is all
    the curvature there is: with it the Newton step there is as short as it should be.
    """

    slope, bend = (np.asarray(v) for v in _slope_and_bend(layout, x))
    pull = np.divide(gradient, slope, out=np.zeros_like(gradient), where=slope != 0)
    # On a logarithmic or normal scale, and away from bounds, the expected information alone is the better guide.
    ranged = np.array([site.kind in ("ranged", "log_ranged") for site in layout.sites])
    near = np.zeros(len(x), dtype=bool)
    values = layout.values_and_slope(x)[0]
    for i in np.flatnonzero(ranged):
        part = layout.parameter(int(i))
        low, high, value = part.low, part.high, float(values[i])
        if part.kind == "log_ranged":
            low, high, value = (float(np.log(v)) for v in (low, high, value))
        near[i] = min(value - low, high - value) < 0.02 * (high - low)
    return np.diag(np.where(near, np.maximum(pull * bend, 0.0), 0.0))


@jax.jit
def _slope_and_bend(layout: Layout, x: Any) -> tuple[Any, Any]:
    """First and second derivatives of the physical values in their coordinates, each ``(n,)``."""
    ones = jnp.ones_like(x)
    return jax.jvp(lambda y: jax.jvp(layout.values, (y,), (ones,))[1], (x,), (ones,))


def _whitener(information: FloatArray) -> FloatArray | None:
    """W with W W^T = information^-1; directions without information get the smallest that the others allow."""
    scale = np.sqrt(np.maximum(np.diag(information), 0.0))
    if not np.all(np.isfinite(information)) or not np.any(scale > 0):
        return None
    scale = np.where(scale > 0, scale, scale[scale > 0].min() * 1e-3)
    values, vectors = np.linalg.eigh(information / np.outer(scale, scale))
    return np.asarray(vectors / np.sqrt(np.maximum(values, 1e-8)) / scale[:, None])


def _one_round(search: _Search, to_x: FloatArray, distance: float, options: MapOptions) -> None:
    """L-BFGS-B from the best point, in u with x = x0 + to_x u."""
    origin = search.x.copy()

    def function(u: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = search.evaluate(origin + to_x @ u)
        return value, to_x.T @ gradient

    def after_step(intermediate_result: Any) -> None:
        search.iterations += 1
        search.trace.append(float(intermediate_result.fun))

    minimize(
        function,
        np.zeros(len(origin)),
        jac=True,
        method="L-BFGS-B",
        callback=after_step,
        options={
            "maxiter": min(options.round_iterations, options.max_iterations - search.iterations),
            "maxcor": 20,
            "ftol": 1e-3 / max(abs(search.target), 1.0),
            "gtol": 0.3 * options.tolerance * distance,
        },
    )


def _result(
    search: _Search,
    given: Layout,
    status: FitStatus,
    reason: str,
    start_target: float,
    distance: float,
    clock: float,
) -> Fit:
    layout = search.density.layout
    values = layout.values_and_slope(search.x)[0]
    x = np.asarray(given.coordinates(values))
    information = np.full((given.n, given.n), np.nan)
    sigma_z = np.nan
    if status is not FitStatus.FAILED and given.n:
        information = search.density.fisher_of_values(values)
        sigma_z = search.density.sigma_z(search.x)
    low, high = given.bounds().T
    reach = 1e-4 * np.where(np.isfinite(high - low), high - low, np.abs(values))
    near = np.minimum(values - low, high - values) < np.minimum(reach, 1e-4 * np.maximum(np.abs(values), 1e-12))
    return Fit(
        status=status,
        reason=reason,
        target=search.target,
        start_target=start_target,
        iterations=search.iterations,
        evaluations=search.evaluations,
        trace=np.array(search.trace),
        names=given.names,
        units=given.units,
        values=values,
        x=x,
        information=information,
        distance=distance,
        sigma_z=sigma_z,
        n_pixels=search.density.n_trusted,
        at_bound=tuple(name for name, flag in zip(given.names, near, strict=True) if flag),
        seconds=time.perf_counter() - clock,
    )

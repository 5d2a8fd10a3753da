"""A search for the mode, whatever its steps: what it has seen, how it ended, and the result that it makes of that."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from bayesbragg.inference.density import LogDensity, Summary
from bayesbragg.model.fit import Fit, FitStatus
from bayesbragg.priors.flatten import Layout

__all__ = ["Ending", "MapOptions", "Search", "at_bounds", "ending", "result"]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MapOptions:
    """How to search.

    Attributes:
        max_iterations: accepted steps in all; of second order 250 at most.
        tolerance: length of the Newton step, in standard deviations, below which the optimum counts as reached.
        round_iterations: steps of L-BFGS-B after which the search is whitened anew.
        max_rounds: how often that may happen.
        start_scale: fit the scale factor of the shot first.
        start_blocks: try several block sizes, and the orientation that the spots' centroids tell, first.
        method: second-order steps (``lm``), L-BFGS-B (``lbfgs``), or second-order steps with L-BFGS-B where these find
            no way down (``auto``).
        change: relative change of the target in a step below which the search ends; by default the tolerance decides.
    """

    max_iterations: int = 200
    tolerance: float = 0.01
    round_iterations: int = 12
    max_rounds: int = 20
    start_scale: bool = True
    start_blocks: bool = True
    method: Literal["auto", "lbfgs", "lm"] = "auto"
    change: float = 1e-10


@dataclass
class Search:
    """What a search has seen: the best point, the trace and the counts.

    Attributes:
        density: in coordinates that cannot leave their bounds.
        x, target: the best point and its target.
        trace: target at the start and after each accepted step.
        evaluations: of the forward model, values, gradients and Jacobians counted alike.
        iterations: accepted steps.
        information: of the physical values at the best point, where the search has it.
    """

    density: LogDensity
    x: FloatArray
    target: float = np.inf
    trace: list[float] = field(default_factory=list)
    evaluations: int = 0
    iterations: int = 0
    information: FloatArray | None = None

    def evaluate(self, x: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = self.density.value_and_grad(x)
        self.evaluations += 1
        if not (np.isfinite(value) and np.all(np.isfinite(gradient))):
            # A finite wall that a line search backs away from.
            return self.target + 1e6 * (1.0 + abs(self.target)), np.zeros_like(x)
        if value < self.target:
            self.x, self.target, self.information = x.copy(), value, None
        return value, gradient


class Ending(NamedTuple):
    """How a search ended: status, one line that explains it, and the length of the Newton step that is left."""

    status: FitStatus
    reason: str
    distance: float = np.nan


END = {
    "start": "the target or its gradient is not a finite number at the start; check pixels and starting values",
    "information": "the Fisher information is not a finite, positive matrix",
    "background": "the model explains the pixels no better than the background alone; check indexing and start",
}


def ending(how: str, distance: float, iterations: int = 0) -> Ending:
    """The usual endings: ``tolerance``, ``change``, ``limit``, ``stalled``, ``start`` and ``information``."""
    left = f"{distance:.2g} standard deviations"
    if how == "tolerance":
        return Ending(FitStatus.CONVERGED, f"the Newton step left is {left}", distance)
    if how == "change":
        return Ending(FitStatus.CONVERGED, f"the target changes no more; the Newton step left is {left}", distance)
    if how == "limit":
        return Ending(FitStatus.ITERATION_LIMIT, f"{iterations} iterations; raise the limit", distance)
    if how == "stalled":
        return Ending(FitStatus.STALLED, f"no step lowers the target, {left} away", distance)
    return Ending(FitStatus.FAILED, END[how], distance)


def at_bounds(values: FloatArray, low: FloatArray, high: FloatArray, information: FloatArray) -> BoolArray:
    """Which values ended at a bound, ``(n,)``: closer than counts, be it in parts of the value or in error bars.

    Args:
        values, low, high: ``(n,)``.
        information: of each value alone, ``(n,)``; not a number where it is not known. A mosaic spread that shrinks
            towards 0 leaves none, and every distance is small beside its error bar.
    """
    distance = np.minimum(values - low, high - values)
    span = high - low
    parts = np.minimum(np.where(np.isfinite(span), span, np.inf), np.abs(values))
    with np.errstate(divide="ignore", invalid="ignore"):
        sd = 1.0 / np.sqrt(information)
    bars = np.minimum(sd, np.where(np.isfinite(span), 0.01 * span, np.inf))
    return np.asarray((distance < 1e-4 * np.maximum(parts, 1e-12)) | (np.isfinite(bars) & (distance < 0.01 * bars)))


def result(
    search: Search,
    given: Layout,
    end: Ending,
    summary: Summary,
    place: tuple[FloatArray, FloatArray],
    clock: float,
    start_target: float,
) -> Fit:
    """The fit that a search makes, in the layout that it was given.

    Args:
        summary: of its best point.
        place: physical values and coordinates (of ``given``) of its best point.
        clock: when it began (`time.perf_counter`).
    """
    status, reason, distance = end
    density = search.density
    values, x = place
    better = search.target + summary.log_prior < summary.background - 0.5 * given.n
    if status is not FitStatus.FAILED and given.n and not better:
        status, reason = FitStatus.FAILED, END["background"]
    information = np.full((given.n, given.n), np.nan)
    sigma_z = np.nan
    if status is not FitStatus.FAILED and given.n:
        known = search.information
        information = density.fisher_of_values(values) if known is None else known
        sigma_z = float(summary.sigma_z)
    low, high = given.bounds().T
    near = at_bounds(values, low, high, np.diag(information))
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
        n_pixels=density.n_trusted,
        at_bound=tuple(name for name, flag in zip(given.names, near, strict=True) if flag),
        seconds=time.perf_counter() - clock,
    )

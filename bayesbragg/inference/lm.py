"""Best fit by Levenberg and Marquardt's method with the expected Fisher information: few, second-order steps.

The expected information of the pixels is a Gauss-Newton matrix that is right for their noise (J^T W J, with J from
forward mode), positive, and needs no second derivatives. In coordinates u in which it is the identity a step is
-gradient / (1 + damping): the Newton step for small damping, a short one down the slope for large. The damping follows
the ratio of what a step gains to what the quadratic model promised (Nielsen 1999). Same coordinates, start, criterion
and result as `bayesbragg.inference.map.fit_map`, hence the same optimum.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from bayesbragg.inference.density import LogDensity
from bayesbragg.inference.map import MapOptions, _bending, _result, _Search, _whitener
from bayesbragg.inference.start import background_target, find_start
from bayesbragg.model.fit import Fit, FitStatus

__all__ = ["fit_lm"]

FloatArray = npt.NDArray[np.float64]

LARGEST_STEP = 30.0
"""Longest first step in standard deviations; the quadratic model is not trusted any farther."""
MOST_DAMPING = 1e12


def fit_lm(density: LogDensity, options: MapOptions | None = None) -> Fit:
    """The best fit of one shot, by second-order steps.

    Args:
        density: the density, with the start in its layout.
        options: limits, tolerance and start as for `fit_map`; its rounds do not apply.

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
    layout = given.with_start(start.values).searchable()
    search = _Search(density.with_layout(layout), layout.initial(), np.inf, evaluations=1 + start.evaluations)
    value, gradient = search.evaluate(layout.initial())
    if search.broken:
        reason = "the target or its gradient is not a finite number at the start; check pixels and starting values"
        return _result(search, given, FitStatus.FAILED, reason, start_target, np.nan, clock)
    search.trace.append(value)
    status, reason, distance = _steps(search, gradient, options)
    prior = -search.density.log_prior(search.x)
    if not search.target - prior < background_target(density) - 0.5 * given.n:
        status = FitStatus.FAILED
        reason = "the model explains the pixels no better than the background alone; check indexing and start"
    return _result(search, given, status, reason, start_target, distance, clock)


def _steps(search: _Search, gradient: FloatArray, options: MapOptions) -> tuple[FitStatus, str, float]:
    """Damped Newton steps from the search's point until the step that is left is small."""
    layout = search.density.layout
    damping, growth, distance = -1.0, 2.0, np.inf
    while True:
        whiten = _whitener(search.density.fisher(search.x) + _bending(layout, search.x, gradient))
        search.evaluations += 1
        if whiten is None:
            return FitStatus.FAILED, "the Fisher information is not a finite, positive matrix", distance
        slope = whiten.T @ gradient
        distance = float(np.linalg.norm(slope))
        if distance < options.tolerance:
            return FitStatus.CONVERGED, f"the Newton step left is {distance:.2g} standard deviations", distance
        if search.iterations >= options.max_iterations:
            return FitStatus.ITERATION_LIMIT, f"{search.iterations} iterations; raise the limit", distance
        if damping < 0:
            damping = max(1e-3, distance / LARGEST_STEP - 1.0)
        origin, value = search.x.copy(), search.target
        while True:
            step = -slope / (1.0 + damping)
            promised = -(slope @ step + 0.5 * step @ step)
            trial, trial_gradient = search.evaluate(origin + whiten @ step)
            gain = (value - trial) / float(promised)
            if trial < value and gain > 1e-4:
                damping *= max(1.0 / 5.0, 1.0 - (2.0 * gain - 1.0) ** 3)
                damping, growth = max(damping, 1e-6), 2.0
                break
            damping, growth = max(damping, 0.1) * growth, 2.0 * growth
            if damping > MOST_DAMPING:
                return (
                    FitStatus.STALLED,
                    f"no step lowers the target, {distance:.2g} standard deviations away",
                    distance,
                )
        gradient = trial_gradient
        search.iterations += 1
        search.trace.append(trial)

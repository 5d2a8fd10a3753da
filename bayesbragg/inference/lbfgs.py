"""First-order steps: L-BFGS-B (scipy) in coordinates that are whitened anew every few steps.

The search runs in whitened coordinates u, x = x0 + alpha L^-T u, where x are coordinates that cannot leave their
bounds (`Layout.searchable`), L L^T is the expected Fisher information at x0, and alpha the length of the Gauss-Newton
step there. Correlations (scale with block size, cell with distance) are gone at the start, and the first trial point
of L-BFGS-B, one unit along the slope, is the Gauss-Newton point. The search is re-whitened where it ends until the
Newton step that is left is a small fraction of a standard deviation: a criterion that knows neither units nor the size
of the target. The change of coordinates adds no term to the density, so the mode is that of the physical values.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from bayesbragg.inference.lm import near_bound, values_slope_bend, whitened
from bayesbragg.inference.search import Ending, MapOptions, Search, ending

__all__ = ["lbfgs_steps"]

FloatArray = npt.NDArray[np.float64]


def lbfgs_steps(search: Search, options: MapOptions) -> Ending:
    """Search from the best point of ``search`` on."""
    density = search.density
    value, gradient = search.evaluate(search.x)
    if not np.isfinite(search.target):
        return ending("start", np.nan)
    if not search.trace:
        search.trace.append(value)
    distance = np.inf
    for _ in range(options.max_rounds):
        information = density.fisher(search.x) + _bending(density.layout, search.x, gradient)
        search.evaluations += 1
        whiten, newton = (np.asarray(a) for a in _whitened(information, gradient))
        if not np.all(np.isfinite(whiten)):
            return ending("information", distance)
        distance = float(np.linalg.norm(newton))
        if distance < options.tolerance:
            return ending("tolerance", distance)
        if search.iterations >= options.max_iterations:
            return ending("limit", distance, search.iterations)
        before = search.target
        _one_round(search, whiten * distance, distance, options)
        if not search.target < before:
            return ending("stalled", distance)
        if before - search.target < options.change * abs(before):
            return ending("change", distance)
        value, gradient = density.value_and_grad(search.x)
        search.evaluations += 1
    return ending("stalled", distance)


_whitened = jax.jit(whitened)


@jax.jit
def _near_slope_bend(layout: Any, x: Any) -> Any:
    values, slope, bend = values_slope_bend(layout, x)
    return near_bound(layout, values), slope, bend


def _bending(layout: Any, x: FloatArray, gradient: FloatArray) -> FloatArray:
    """Curvature that the bounded coordinates themselves add, as in `bayesbragg.inference.lm`, ``(n, n)``."""
    near, slope, bend = (np.asarray(a) for a in _near_slope_bend(layout, x))
    pull = np.divide(gradient, slope, out=np.zeros_like(gradient), where=slope != 0)
    return np.diag(np.where(near, np.maximum(pull * bend, 0.0), 0.0))


def _one_round(search: Search, to_x: FloatArray, distance: float, options: MapOptions) -> None:
    """L-BFGS-B from the best point, in u with x = x0 + to_x u."""
    # scipy.optimize takes half a second to import; second-order searches do not need it.
    from scipy.optimize import minimize

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
            "ftol": max(1e-3 / max(abs(search.target), 1.0), options.change),
            "gtol": 0.3 * options.tolerance * distance,
        },
    )

"""What the shots of a run have in common: mean and spread of a parameter over crystals, its error bars taken out.

Each shot's value y_i has a known error s_i, and the true values are normal with mean m and standard deviation t:
y_i ~ Normal(m, s_i^2 + t^2). With m integrated out, the likelihood of t is (restricted maximum likelihood)

    ln L(t) = -1/2 [ sum ln(s_i^2 + t^2) + ln sum 1/(s_i^2 + t^2) + sum (y_i - m(t))^2 / (s_i^2 + t^2) ]

and its posterior under a flat prior of t is one-dimensional: a grid is exact. A prior for the next run that is learned
this way (empirical Bayes) is Normal(m, t^2 + error of m). `population_model` is the same fully hierarchical: the
pixels of all shots, with the population's mean and spread among the unknowns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import numpyro
import numpyro.distributions as dist

from bayesbragg.inference.density import LogDensity
from bayesbragg.inference.numpyro_model import default_priors, observe_pixels
from bayesbragg.model.errors import InputError

__all__ = ["Population", "fit_population", "population_model"]

FloatArray = npt.NDArray[np.float64]

N_GRID = 2000


@dataclass(frozen=True)
class Population:
    """A parameter over the shots of a run.

    Attributes:
        mean, mean_error: of the population, and the standard error of that.
        spread, spread_low, spread_high: standard deviation of the population: posterior median and 68 % interval.
        variance: of the value of a further crystal about ``mean``: what a prior should have.
        n_shots: shots that told.
    """

    mean: float
    mean_error: float
    spread: float
    spread_low: float
    spread_high: float
    variance: float
    n_shots: int


def fit_population(values: npt.ArrayLike, errors: npt.ArrayLike) -> Population:
    """Mean and spread of true values whose measurements have known errors.

    Args:
        values: one per shot, ``(n,)``; those that are not finite, or whose error is not, do not count.
        errors: their standard deviations, ``(n,)``; 0 for exact values.

    Raises:
        InputError: fewer than 4 shots: a spread cannot be told.
    """
    y, s = np.asarray(values, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    good = np.isfinite(y) & np.isfinite(s) & (s >= 0)
    y, s = y[good], s[good]
    if len(y) < 4:
        raise InputError(f"{len(y)} shots with values and error bars: a population needs at least 4")
    scatter = float(np.std(y, ddof=1))
    if scatter == 0 and not np.any(s > 0):
        return Population(float(y[0]), 0.0, 0.0, 0.0, 0.0, 0.0, len(y))
    largest = 6.0 * max(scatter, float(np.median(s)) / np.sqrt(len(y)), 1e-300)
    # From just above zero: with exact values a population without spread has an infinite density.
    t = (np.arange(N_GRID) + 0.5) / N_GRID * largest
    weight = 1.0 / (s[:, None] ** 2 + t**2)
    total = weight.sum(axis=0)
    mean = (weight * y[:, None]).sum(axis=0) / total
    log_l = 0.5 * (np.log(weight).sum(axis=0) - np.log(total) - (weight * (y[:, None] - mean) ** 2).sum(axis=0))
    share = np.exp(log_l - log_l.max())
    share /= share.sum()
    cumulated = np.cumsum(share)
    low, middle, high = (float(t[np.searchsorted(cumulated, p)]) for p in (0.16, 0.5, 0.84))
    centre = float(share @ mean)
    error2 = float(share @ (1.0 / total + (mean - centre) ** 2))
    return Population(centre, float(np.sqrt(error2)), middle, low, high, float(share @ t**2) + error2, len(y))


def population_model(densities: Sequence[LogDensity], hyper: Mapping[str, tuple[Any, Any]]) -> Callable[[], None]:
    """A NumPyro model of several shots whose parameters come from one population.

    Sites: ``NAME_mean`` and ``NAME_spread`` of every parameter of ``hyper``, and each shot's own parameters with the
    number of the shot behind their name, ``ucell_a_0``. Parameters that ``hyper`` does not name keep their own priors.

    Args:
        densities: one per shot; shots of one shape share their forward model's program.
        hyper: NumPyro distributions of mean and spread by name of a parameter, in its physical unit.

    Raises:
        InputError: a shot does not vary a parameter of ``hyper``.
    """
    for number, density in enumerate(densities):
        missing = sorted(set(hyper) - set(density.layout.names))
        if missing:
            raise InputError(f"shot {number} does not vary {', '.join(missing)}; it varies {density.layout.names}")

    def model() -> None:
        common = {
            name: (numpyro.sample(f"{name}_mean", mean), numpyro.sample(f"{name}_spread", spread))
            for name, (mean, spread) in hyper.items()
        }
        for number, density in enumerate(densities):
            values = {}
            for name, prior in default_priors(density.layout).items():
                own = dist.Normal(*common[name]) if name in common else prior
                values[name] = jnp.asarray(numpyro.sample(f"{name}_{number}", own))
            observe_pixels(density, values, f"pixels_{number}")

    return model

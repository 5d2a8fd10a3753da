"""Posteriors with known answers, shared by the tests of Laplace and NUTS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import stats

from bayesbragg.forward.parameters import Parameters
from bayesbragg.inference import LogDensity, Pixels
from bayesbragg.inference.numpyro_model import model_target
from bayesbragg.inference.unbounded import Target, shot_target
from bayesbragg.priors import CellConstraint, Priors, Uniform, make_layout

CELL = np.array([79.0, 79.0, 38.4, *[np.pi / 2] * 3])


@jax.jit
def scaled(parameters: Parameters, scene: Any, options: Any) -> Any:
    """Photons that are proportional to the scale factor and to nothing else."""
    return parameters.scale.G[0] * scene


@dataclass(frozen=True)
class Known:
    """A target, and what its posterior must be."""

    target: Target
    mean: np.ndarray
    sd: np.ndarray
    cdf: Any = None
    log_evidence: float = np.nan


def scale_density(counts: np.ndarray, shape: np.ndarray, prior: Any, likelihood: Any, variance: float) -> LogDensity:
    """A shot whose only unknown is its scale factor."""
    layout, base = make_layout(Priors(G=prior), Parameters.start(CELL, G=1.0), CellConstraint("tetragonal"))
    pixels = Pixels(counts, np.zeros_like(shape), np.ones(shape.shape, bool), np.full(shape.shape, variance))
    return LogDensity(scaled, shape, None, pixels, layout, base, likelihood)


def conjugate(seed: int = 0, truth: float = 3.0) -> Known:
    """Poisson counts with mean G h, flat prior between 0 and 1000: G is Gamma(N + 1, sum h)."""
    rng = np.random.default_rng(seed)
    shape = rng.uniform(0.1, 0.4, (4, 5))
    counts = rng.poisson(truth * shape).astype(float)
    n, h = counts.sum(), shape.sum()
    density = scale_density(counts, shape, Uniform(0.0, 1000.0), "poisson", 0.0)
    exact = stats.gamma(n + 1, scale=1 / h)
    from scipy.special import gammaln

    inside = np.sum(counts * np.log(shape) - gammaln(counts + 1))
    # The density's flat prior is 1, not 1 / 1000.
    evidence = inside + gammaln(n + 1) - (n + 1) * np.log(h)
    target = shot_target(density, [n / h])
    return Known(target, np.array([exact.mean()]), np.array([exact.std()]), exact.cdf, evidence)


def at_a_bound() -> Known:
    """Gaussian noise, scale that must not be negative, data that want it 1 sd below: a truncated normal."""
    shape = np.full((4, 25), 0.2)
    variance = 1e6
    sd = np.sqrt(variance / np.sum(shape**2))
    counts = np.full(shape.shape, -sd * 0.2)
    density = scale_density(counts, shape, Uniform(0.0, 1e6), "gaussian", variance)
    exact = stats.truncnorm(1.0, np.inf, loc=-sd, scale=sd)
    return Known(shot_target(density, [0.0]), np.array([exact.mean()]), np.array([exact.std()]), exact.cdf)


def linear_gaussian() -> Known:
    """y = A b + noise, normal prior: the posterior is a normal distribution in closed form."""
    rng = np.random.default_rng(5)
    A, sd, prior_sd = rng.normal(size=(30, 3)) @ np.array([[1, 0.9, 0], [0, 1, 0.5], [0, 0, 2.0]]), 0.7, 2.0
    y = A @ np.array([1.0, -2.0, 0.5]) + sd * rng.normal(size=30)

    def model() -> None:
        b = numpyro.sample("b", dist.Normal(np.zeros(3), prior_sd).to_event(1))
        numpyro.sample("y", dist.Normal(A @ b, sd), obs=y)

    covariance = np.linalg.inv(A.T @ A / sd**2 + np.eye(3) / prior_sd**2)
    evidence = stats.multivariate_normal(np.zeros(30), sd**2 * np.eye(30) + prior_sd**2 * A @ A.T).logpdf(y)
    mean = covariance @ A.T @ y / sd**2
    return Known(model_target(model), mean, np.sqrt(np.diag(covariance)), log_evidence=float(evidence))

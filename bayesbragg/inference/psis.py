"""Pareto-smoothed importance sampling: weights that a few large ratios do not rule, and k-hat, which says if they do.

The largest ratios of target to proposal are replaced by the expected order statistics of a generalised Pareto
distribution that is fitted to them. Its shape k-hat tells how many moments the weights have: below 0.7 estimates can
be trusted, above they cannot, however many draws there are. Sources: Vehtari, Simpson, Gelman, Yao, Gabry, JMLR 25
(2024) 72; Zhang & Stephens, Technometrics 51 (2009) 316 for the fit of the distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Smoothed", "fit_pareto", "k_hat_limit", "resample", "smooth"]

FloatArray = npt.NDArray[np.float64]

PRIOR_DRAWS = 10
"""Weight, in draws, of the weak prior k = 0.5 of the fitted shape."""


@dataclass(frozen=True, eq=False)
class Smoothed:
    """Smoothed weights.

    Attributes:
        weights: normalised to a sum of 1, ``(n,)``.
        k_hat: shape of the tail; infinite where it could not be fitted.
        effective: effective number of draws, 1 / sum of squared weights.
        log_evidence: log of the mean unnormalised weight.
    """

    weights: FloatArray
    k_hat: float
    effective: float
    log_evidence: float


def k_hat_limit(n: int) -> float:
    """The k-hat up to which n draws give reliable estimates: min(1 - 1 / log10 n, 0.7)."""
    return min(1.0 - 1.0 / math.log10(max(n, 11)), 0.7)


def fit_pareto(excess: npt.ArrayLike) -> tuple[float, float]:
    """Shape k and scale of a generalised Pareto distribution, density (1 + k x / scale)^(-1/k - 1) / scale.

    Args:
        excess: positive numbers in rising order, ``(n,)``.
    """
    x = np.asarray(excess, dtype=np.float64)
    n = len(x)
    candidates = 30 + int(math.sqrt(n))
    j = np.arange(1, candidates + 1)
    quartile = x[max(int(n / 4 + 0.5) - 1, 0)]
    # b = -k / scale; a grid that is dense where the posterior of b is.
    b = (1.0 - np.sqrt(candidates / (j - 0.5))) / (3.0 * quartile) + 1.0 / x[-1]
    k = np.mean(np.log1p(-b[:, None] * x), axis=1)
    profile = n * (np.log(-b / k) - k - 1.0)
    weight = np.exp(profile - profile.max())
    mean_b = float(np.sum(b * weight) / np.sum(weight))
    shape = float(np.mean(np.log1p(-mean_b * x)))
    scale = -shape / mean_b
    shape = (n * shape + PRIOR_DRAWS * 0.5) / (n + PRIOR_DRAWS)
    return shape, scale


def smooth(log_ratio: npt.ArrayLike) -> Smoothed:
    """Smoothed weights of log target - log proposal, ``(n,)``; one that is not a number has no weight."""
    given = np.asarray(log_ratio, dtype=np.float64)
    log_weight = np.where(np.isfinite(given), given, -np.inf)
    top = float(np.max(log_weight, initial=-np.inf))
    n = len(given)
    if not np.isfinite(top):
        return Smoothed(np.full(n, 1.0 / max(n, 1)), math.inf, 0.0, -math.inf)
    log_weight = log_weight - top
    tail = min(math.ceil(0.2 * n), math.ceil(3.0 * math.sqrt(n)))
    order = np.argsort(log_weight, kind="stable")
    k_hat = math.inf
    if n > tail >= 5:
        largest = order[-tail:]
        threshold = math.exp(log_weight[order[-tail - 1]])
        excess = np.exp(log_weight[largest]) - threshold
        if excess[0] > 0 and excess[-1] > excess[0] * (1 + 1e-9):
            k_hat, scale = fit_pareto(excess)
            p = (np.arange(tail) + 0.5) / tail
            expected = -np.log1p(-p) * scale if abs(k_hat) < 1e-12 else np.expm1(-k_hat * np.log1p(-p)) * scale / k_hat
            # No smoothed weight exceeds the largest that was seen.
            log_weight[largest] = np.minimum(np.log(expected + threshold), 0.0)
        elif excess[-1] - excess[0] <= 1e-12:
            # All alike: the proposal is the target.
            k_hat = -math.inf
    weights = np.exp(log_weight)
    total = float(weights.sum())
    weights = weights / total
    return Smoothed(weights, k_hat, float(1.0 / np.sum(weights**2)), math.log(total / n) + top)


def resample(weights: FloatArray, n: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Rows of n equally weighted draws, in random order: systematic resampling, each row about n w times."""
    position = (np.arange(n) + generator.uniform()) / n
    rows = np.minimum(np.searchsorted(np.cumsum(weights), position), len(weights) - 1)
    return np.asarray(generator.permutation(rows), dtype=np.int64)

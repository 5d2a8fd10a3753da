"""Whether draws can be trusted: convergence of chains, energy, divergences, and the tail of importance weights.

R-hat and effective sample sizes are those of rank-normalised split chains, and the tail's effective size is the smaller
one of the indicators of the 5 % and 95 % quantiles (Vehtari, Gelman, Simpson, Carpenter, Bürkner, Bayesian Analysis 16
(2021) 667); E-BFMI is Betancourt's (arXiv 1604.00695). The limits are fixed: a verdict can be compared between runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpyro.diagnostics import effective_sample_size, gelman_rubin
from scipy.special import ndtri
from scipy.stats import rankdata

from bayesbragg.inference.psis import Smoothed, k_hat_limit
from bayesbragg.model.posterior import Check, Verdict

__all__ = ["Convergence", "convergence", "energy_fraction", "judge_chains", "judge_weights"]

FloatArray = npt.NDArray[np.float64]

MAX_R_HAT, MIN_ESS, MIN_BFMI = 1.01, 400.0, 0.3


@dataclass(frozen=True, eq=False)
class Convergence:
    """R-hat, and effective sample sizes of the bulk and of the tails, each ``(n,)``."""

    r_hat: FloatArray
    ess_bulk: FloatArray
    ess_tail: FloatArray


def convergence(draws: npt.ArrayLike) -> Convergence:
    """Convergence of chains of draws ``(n_chains, n_draws, n)``, n_draws at least 8."""
    x = np.asarray(draws, dtype=np.float64)
    # A tail that no draw of a short chain has reached has no effective size: not a number, which fails.
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = [_of_one(x[:, :, i]) for i in range(x.shape[2])]
    r_hat, bulk, tail = (np.array(c, dtype=np.float64) for c in zip(*columns, strict=True)) if columns else [[]] * 3
    return Convergence(np.asarray(r_hat), np.asarray(bulk), np.asarray(tail))


def _of_one(x: FloatArray) -> tuple[float, float, float]:
    if not np.all(np.isfinite(x)) or np.ptp(x) == 0:
        return np.nan, np.nan, np.nan
    halves = _split(x)
    ranked = _ranks(halves)
    folded = _ranks(_split(np.abs(x - np.median(x))))
    r_hat = max(float(gelman_rubin(ranked)), float(gelman_rubin(folded)))
    tails = [halves <= np.quantile(x, q) for q in (0.05, 0.95)]
    tail = min(float(effective_sample_size(t.astype(np.float64))) for t in tails)
    return r_hat, float(effective_sample_size(ranked)), tail


def _split(x: FloatArray) -> FloatArray:
    half = x.shape[1] // 2
    return np.concatenate([x[:, :half], x[:, -half:]], axis=0)


def _ranks(x: FloatArray) -> FloatArray:
    rank = rankdata(x, method="average").reshape(x.shape)
    return np.asarray(ndtri((rank - 0.375) / (x.size + 0.25)))


def energy_fraction(energy: npt.ArrayLike) -> FloatArray:
    """E-BFMI of each chain from the energies ``(n_chains, n_draws)``: their steps' size over their spread."""
    e = np.asarray(energy, dtype=np.float64)
    variance = np.var(e, axis=1)
    step = np.mean(np.diff(e, axis=1) ** 2, axis=1)
    return np.asarray(np.divide(step, variance, out=np.full(len(e), np.nan), where=variance > 0))


def judge_chains(
    names: Sequence[str], draws: npt.ArrayLike, diverging: npt.ArrayLike, energy: npt.ArrayLike
) -> tuple[Verdict, Convergence]:
    """The verdict on chains.

    Args:
        names: of the parameters.
        draws: ``(n_chains, n_draws, n)``.
        diverging, energy: of each draw, ``(n_chains, n_draws)``.
    """
    found = convergence(draws)
    divergences = int(np.sum(np.asarray(diverging)))
    bfmi = energy_fraction(energy)
    checks = (
        _worst("R-hat", names, found.r_hat, MAX_R_HAT, np.argmax, lambda v: v < MAX_R_HAT),
        _worst("bulk ESS", names, found.ess_bulk, MIN_ESS, np.argmin, lambda v: v > MIN_ESS),
        _worst("tail ESS", names, found.ess_tail, MIN_ESS, np.argmin, lambda v: v > MIN_ESS),
        Check("divergences", float(divergences), 0.0, divergences == 0),
        Check("E-BFMI", float(np.min(bfmi)), MIN_BFMI, bool(np.all(bfmi > MIN_BFMI))),
    )
    advice = ""
    if divergences:
        advice = (
            "raise target_accept towards 0.99, or look for a parameter at a bound or that the data do not determine"
        )
    elif not checks[4].passed:
        advice = "take more draws; if E-BFMI stays low, look for a parameter that the data do not determine"
    elif not all(check.passed for check in checks):
        advice = "take more draws"
    return Verdict(checks, advice), found


def judge_weights(smoothed: Smoothed, near_bound: Sequence[str] = ()) -> Verdict:
    """The verdict on importance weights of draws from a Gaussian.

    Args:
        near_bound: parameters whose Gaussian would reach beyond a bound; named in the advice.
    """
    n = len(smoothed.weights)
    limit = k_hat_limit(n)
    checks = (
        Check("k-hat", smoothed.k_hat, limit, bool(smoothed.k_hat < limit)),
        Check("effective draws", smoothed.effective, MIN_ESS, bool(smoothed.effective > MIN_ESS)),
    )
    if not checks[0].passed:
        return Verdict(checks, "not Gaussian enough: use inference=nuts")
    if near_bound:
        return Verdict(checks, f"{', '.join(near_bound)} near a bound: compare with inference=nuts")
    return Verdict(checks, "" if checks[1].passed else "take more draws, or use inference=nuts")


def _worst(
    name: str,
    names: Sequence[str],
    values: FloatArray,
    limit: float,
    pick: Callable[[FloatArray], np.intp],
    passes: Callable[[float], bool],
) -> Check:
    if not len(values):
        return Check(name, np.nan, limit, True)
    bad = np.flatnonzero(~np.isfinite(values))
    i = int(bad[0]) if len(bad) else int(pick(values))
    return Check(name, float(values[i]), limit, bool(np.isfinite(values[i]) and passes(float(values[i]))), names[i])

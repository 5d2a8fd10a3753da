"""Laplace's approximation, corrected: a Gaussian about the mode, and importance weights that make it the posterior.

The Gaussian lives in the coordinates without bounds (`bayesbragg.inference.unbounded`), at the mode of the density
there; its precision is the expected Fisher information with the priors' curvature, or the exact second derivative on
request. About 2,000 draws are taken from Student's t of the same centre and shape, whose tails are a little heavier, so
that weights stay finite beside bounds; they are weighted by target over proposal, smoothed by
`bayesbragg.inference.psis`, whose k-hat is the verdict. Means, standard deviations and covariances are those of the
weighted draws.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesbragg.inference.arrow import (
    ArrowCurvature,
    ArrowFactor,
    inverse_root,
    log_determinant,
    sds,
    through,
    transposed,
)  # fmt: skip
from bayesbragg.inference.bend import Bend, find_bend
from bayesbragg.inference.density import LogDensity
from bayesbragg.inference.psis import Smoothed, resample, smooth
from bayesbragg.inference.unbounded import Target, hessian, potentials, shot_target, value_and_grad
from bayesbragg.inference.verdict import judge_weights
from bayesbragg.model.errors import InputError
from bayesbragg.model.fit import Fit
from bayesbragg.model.posterior import Posterior, Verdict

__all__ = ["Gaussian", "LaplaceOptions", "find_mode", "laplace", "near_bounds", "target_of_fit", "weighted_posterior"]

FloatArray = npt.NDArray[np.float64]

NEAR_SDS = 3.0
"""A parameter is near a bound if its Gaussian reaches it within this many standard deviations."""
MAX_CUTS = 12
"""How often a step that raises the potential is shortened."""
MIN_TO_MOVE = 10
"""Effective draws per parameter below which their covariance says nothing."""
LONGEST_STEP = 4.0
"""Largest change of a bounded parameter's coordinate in one step."""


@dataclass(frozen=True)
class LaplaceOptions:
    """How to approximate.

    Attributes:
        n_draws: draws from the Gaussian, and of the result.
        degrees: degrees of freedom of the t distribution that is drawn from; infinite for the Gaussian itself.
        exact_hessian: the exact second derivative in place of the expected one.
        at_once: forward models in memory together; 1 is fastest on a CPU.
        max_rounds: if k-hat is too large, how often the Gaussian is moved to the mean and covariance of the weighted
            draws and drawn from anew.
        max_steps, tolerance: of the search for the mode: steps, and the length of the Newton step, in standard
            deviations, that ends it.
    """

    n_draws: int = 2000
    degrees: float = 10.0
    exact_hessian: bool = False
    at_once: int = 1
    max_rounds: int = 2
    max_steps: int = 25
    tolerance: float = 0.05


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A Gaussian in the coordinates without bounds.

    Attributes:
        centre: ``(n,)``.
        factor: F with covariance F F^T, ``(n, n)``, or its parts where it has the form of an arrow.
        evaluations: that it took to find it; bend: of its long axes, if that matters.
    """

    centre: FloatArray
    factor: FloatArray | ArrowFactor
    evaluations: int
    bend: Bend | None = None

    def points(self, u: FloatArray) -> FloatArray:
        """Coordinates of standard normal rows ``(m, n)``."""
        return self.centre + through(self.factor, u if self.bend is None else np.asarray(self.bend(u)))

    @property
    def sd(self) -> FloatArray:
        """Of each coordinate, ``(n,)``."""
        return sds(self.factor)

    @property
    def covariance(self) -> FloatArray:
        dense = self.dense
        return np.asarray(dense @ dense.T)

    @property
    def dense(self) -> FloatArray:
        """The factor as one matrix, ``(n, n)``."""
        if isinstance(self.factor, ArrowFactor):
            return through(self.factor, np.eye(len(self.centre))).T
        return self.factor


def target_of_fit(density: LogDensity, fit: Fit) -> Target:
    """The posterior of a fitted shot, to be explored from its best fit.

    Raises:
        InputError: the fit failed: there is no best fit to start from.
    """
    if not np.all(np.isfinite(fit.information)) or not np.all(np.isfinite(fit.values)):
        raise InputError(
            f"the fit {fit.status.value} ({fit.reason}): a posterior starts from a best fit; refine it first"
        )
    return shot_target(density, fit.values)


def _factor(target: Target, y: FloatArray, exact: bool) -> FloatArray | ArrowFactor:
    """F with F F^T the inverse of the curvature at y."""
    if exact or target.curvature is None:
        return inverse_root(np.asarray(hessian(y, target.data, target.potential)))
    found = target.curvature(y)
    return found.factor() if isinstance(found, ArrowCurvature) else inverse_root(found)


def find_mode(target: Target, options: LaplaceOptions | None = None) -> Gaussian:
    """The mode of U from the target's start, by damped Newton steps, and the Gaussian there."""
    options = options or LaplaceOptions()
    y = np.asarray(target.start, dtype=np.float64)
    value, gradient = _evaluate(target, y)
    evaluations = 1
    bounded = np.zeros(len(y), dtype=bool) if target.bounds is None else target.bounds.bounded()
    if not math.isfinite(value):
        raise InputError(
            "the posterior density is not a finite number at the best fit; check pixels, priors and bounds"
        )
    for _ in range(options.max_steps):
        factor = _factor(target, y, options.exact_hessian)
        evaluations += 1
        newton = transposed(factor, gradient)
        if float(np.linalg.norm(newton)) < options.tolerance:
            break
        step = -through(factor, newton[None])[0]
        # Far out beside a bound the density is exponential and the Gaussian's step means little.
        length = min(1.0, LONGEST_STEP / max(float(np.max(np.abs(step), where=bounded, initial=0.0)), 1e-300))
        for _ in range(MAX_CUTS):
            trial, slope = _evaluate(target, y + length * step)
            evaluations += 1
            if math.isfinite(trial) and trial < value - 1e-4 * length * float(newton @ newton):
                y, value, gradient = y + length * step, trial, slope
                break
            length *= 0.4
        else:
            break
    factor, bend = _factor(target, y, options.exact_hessian), None
    if isinstance(factor, ArrowFactor):

        def slope_at(u: FloatArray) -> FloatArray:
            nonlocal evaluations
            evaluations += 1
            return transposed(factor, _evaluate(target, y + through(factor, u[None])[0])[1])

        bend = find_bend(slope_at, factor)
    return Gaussian(y, factor, evaluations + 1, bend)


def _evaluate(target: Target, y: FloatArray) -> tuple[float, FloatArray]:
    value, gradient = value_and_grad(y, target.data, target.potential)
    return float(value), np.asarray(gradient)


def near_bounds(target: Target, gaussian: Gaussian) -> tuple[str, ...]:
    """Parameters whose values lie within a few standard deviations of a bound."""
    if target.bounds is None:
        return ()
    low, high = np.asarray(target.bounds.low), np.asarray(target.bounds.high)
    sd = gaussian.sd
    ends = target.to_values(np.stack([gaussian.centre, gaussian.centre - sd, gaussian.centre + sd]))
    spread = 0.5 * np.abs(ends[2] - ends[1])
    close = np.minimum(ends[0] - low, high - ends[0]) < NEAR_SDS * spread
    return tuple(name for name, flag in zip(target.names, close, strict=True) if flag)


def _proposal(generator: np.random.Generator, n: int, dimension: int, degrees: float) -> tuple[FloatArray, FloatArray]:
    """Draws ``(n, dimension)`` of the standard multivariate t distribution, and their log density ``(n,)``."""
    z = generator.standard_normal((n, dimension))
    if math.isinf(degrees):
        return z, -0.5 * (np.sum(z**2, axis=1) + dimension * math.log(2 * math.pi))
    z *= np.sqrt(degrees / generator.chisquare(degrees, n))[:, None]
    half = 0.5 * (degrees + dimension)
    norm = math.lgamma(half) - math.lgamma(0.5 * degrees) - 0.5 * dimension * math.log(degrees * math.pi)
    return z, norm - half * np.log1p(np.sum(z**2, axis=1) / degrees)


def _moved(gaussian: Gaussian, y: FloatArray, weights: FloatArray) -> Gaussian:
    """The Gaussian with the mean and covariance of weighted draws ``(m, n)``, never narrower than it was."""
    mean, old = weights @ y, gaussian.dense
    deviation = np.linalg.solve(old, (y - mean).T)
    values, vectors = np.linalg.eigh((deviation * weights) @ deviation.T)
    factor = old @ (vectors * np.sqrt(np.maximum(values, 1.0)))
    return Gaussian(mean, factor, gaussian.evaluations)


def laplace(
    target: Target, options: LaplaceOptions | None = None, *, seed: int = 0, gaussian: Gaussian | None = None
) -> Posterior:
    """The posterior by a Gaussian with importance weights.

    Args:
        target: of a shot (`target_of_fit`) or of any NumPyro model (`bayesbragg.inference.numpyro_model.model_target`).
        options: how to approximate.
        seed: of the draws.
        gaussian: one that was found before.

    Returns:
        One chain of equally weighted draws, resampled from the weighted ones, and the verdict of k-hat.
    """
    options = options or LaplaceOptions()
    if options.n_draws < 100:
        raise InputError(f"n_draws = {options.n_draws}: k-hat needs at least 100 draws; 2000 is usual")
    clock = time.perf_counter()
    gaussian = gaussian or find_mode(target, options)
    generator = np.random.default_rng(seed)
    used = gaussian
    for attempt in range(1 + options.max_rounds):
        z, log_proposal = _proposal(generator, options.n_draws, len(used.centre), options.degrees)
        y = used.centre + through(used.factor, z)
        energy = np.asarray(potentials(y, target.data, target.potential, options.at_once))
        smoothed: Smoothed = smooth(-energy - log_proposal)
        verdict = judge_weights(smoothed, near_bounds(target, gaussian))
        evaluations = gaussian.evaluations + (attempt + 1) * options.n_draws
        if verdict.passed or smoothed.effective < MIN_TO_MOVE * len(used.centre):
            break
        if attempt < options.max_rounds:
            used = _moved(used, y, smoothed.weights)
    values = target.to_values(y)
    settings = {
        "n_draws": options.n_draws,
        "degrees": options.degrees,
        "rounds": attempt + 1,
        "exact_hessian": options.exact_hessian,
        "k_hat": smoothed.k_hat,
        "effective_draws": smoothed.effective,
        "log_evidence": smoothed.log_evidence + log_determinant(used.factor),
    }
    return weighted_posterior(target, gaussian, values, -energy, smoothed, generator, verdict=verdict,
                              evaluations=evaluations, seed=seed, clock=clock, settings=settings)  # fmt: skip


def weighted_posterior(
    target: Target,
    gaussian: Gaussian,
    values: FloatArray,
    log_density: FloatArray,
    smoothed: Smoothed,
    generator: np.random.Generator,
    *,
    verdict: Verdict,
    evaluations: int,
    seed: int,
    clock: float,
    settings: dict[str, Any],
) -> Posterior:
    """The posterior that weighted draws are: moments of all of them, and one chain resampled by weight.

    Args:
        gaussian: at the mode.
        values: physical values of the draws, ``(n_draws, n)``; log_density: of the target there, ``(n_draws,)``.
        smoothed: their weights.
        clock: when the work began (`time.perf_counter`).
    """
    w = smoothed.weights
    mean = w @ values
    deviation = values - mean
    covariance = (deviation * w[:, None]).T @ deviation
    rows = resample(w, len(w), generator)
    return Posterior(
        method="laplace",
        names=target.names,
        units=target.units,
        draws=values[rows][None],
        log_density=log_density[rows][None],
        sample_stats={"weight": w[rows][None]},
        verdict=verdict,
        mode=target.best(gaussian.centre),
        mean=mean,
        sd=np.sqrt(np.diag(covariance)),
        covariance=covariance,
        evaluations=evaluations,
        seed=seed,
        seconds=time.perf_counter() - clock,
        settings=settings,
    )

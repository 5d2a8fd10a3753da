"""Log likelihood of each pixel, given the photons expected there.

``counts`` are photons (raw value over gain), real numbers because of readout noise; ``mu`` the expected photons
(Bragg and background); ``variance`` the variance of the noise that is not counting statistics, photon^2: readout, and
the calibration error of pixels, which grows with what they hold (`noise_variance`). All broadcast; every function
returns the log density of ``counts`` per pixel. Masking is the caller's: see `bayesbragg.inference.box_likelihood`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.lax import lgamma

__all__ = [
    "LikelihoodName",
    "gaussian",
    "half_window",
    "information",
    "log_likelihood",
    "noise_variance",
    "poisson",
    "poisson_gaussian",
    "shifted_poisson",
]

Array = Any
LikelihoodName = Literal["gaussian", "poisson", "poisson_gaussian", "shifted_poisson"]

_WINDOW_SDS = 9.0
"""Standard deviations on each side of the largest term that are summed."""
_MOST_TERMS = 48
"""Terms on each side, at most; wider sums are thinned. What is thinned must have no edge at n = 0: a width of 48 / 9
needs 28 photons, of which none are seen once in 1e12."""
_TINY_MU = 1e-12
"""Photons below which an expectation is taken as this: the logarithm of a Poisson mean must exist."""


def noise_variance(mu: Array, variance: Array, gain_sd: Array) -> Array:
    """Readout variance and that of the calibration: variance + (gain_sd mu)^2, photon^2.

    Args:
        gain_sd: relative standard deviation of a pixel's gain about the one that is assumed.
    """
    return variance + (gain_sd * mu) ** 2


def information(name: LikelihoodName, mu: Array, variance: Array, gain_sd: Array = 0.0) -> Array:
    """Expected Fisher information of one pixel about its mean mu, per photon^2.

    1/V + (dV/dmu)^2 / 2 V^2 with V = mu + `noise_variance`, exact for the Gaussian likelihood; for the others counting
    statistics tell through the mean alone, so that dV/dmu is that of the calibration error.
    """
    V = mu + noise_variance(mu, variance, gain_sd)
    slope = 2.0 * gain_sd**2 * mu + (1.0 if name == "gaussian" else 0.0)
    return 1.0 / V + 0.5 * (slope / V) ** 2


def gaussian(counts: Array, mu: Array, variance: Array) -> Array:
    """-1/2 [ln(2 pi V) + (counts - mu)^2 / V], V = mu + variance: the classic target if gains are exact."""
    V = mu + variance
    return -0.5 * (jnp.log(2.0 * jnp.pi * V) + (counts - mu) ** 2 / V)


def poisson(counts: Array, mu: Array, variance: Array) -> Array:
    """counts ln mu - mu - ln Gamma(counts + 1); no readout noise. Negative counts are taken as none."""
    del variance
    mu = jnp.maximum(mu, _TINY_MU)
    n = jnp.maximum(counts, 0.0)
    return n * jnp.log(mu) - mu - lgamma(n + 1.0)


def shifted_poisson(counts: Array, mu: Array, variance: Array) -> Array:
    """Approximation of `poisson_gaussian`: counts + variance is Poisson with mean mu + variance (right in mean and
    variance, not in shape)."""
    return poisson(counts + variance, mu + variance, variance)


def poisson_gaussian(counts: Array, mu: Array, variance: Array, *, half_window: int) -> Array:
    """Exact: ln sum_n Poisson(n; mu) Normal(counts; n, variance).

    The terms around the largest are summed, ``2 half_window + 1`` of them. Near it they are like a Gaussian of variance
    1 / (1/n + 1/variance), and 9 of its standard deviations on each side lose nothing. Where that is more than
    ``half_window``, the sum is an integral as good as exactly, and is taken in longer steps than 1 (`half_window`
    chooses so that there are none while an end at n = 0 matters).

    Args:
        half_window: number of terms on each side of the largest, static.
    """
    mu = jnp.maximum(mu, _TINY_MU)
    centre = jax.lax.stop_gradient(jnp.round(_largest_term(counts, mu, variance)))
    width = jnp.sqrt(centre * variance / (centre + variance))
    step = jax.lax.stop_gradient(jnp.maximum(_WINDOW_SDS * width / half_window, 1.0))
    n = centre[..., None] + step[..., None] * jnp.arange(-half_window, half_window + 1.0)
    valid = n >= 0
    n = jnp.where(valid, n, 0.0)
    spread = jnp.broadcast_to(jnp.asarray(variance), jnp.shape(centre))[..., None]
    terms = n * jnp.log(mu)[..., None] - lgamma(n + 1.0) - 0.5 * (jnp.asarray(counts)[..., None] - n) ** 2 / spread
    terms = jnp.where(valid, terms, -jnp.inf)
    return jax.nn.logsumexp(terms, axis=-1) + jnp.log(step) - mu - 0.5 * jnp.log(2.0 * jnp.pi * variance)


def _largest_term(counts: Array, mu: Array, variance: Array) -> Array:
    """Where ln mu - ln n + (counts - n)/variance = 0, by Newton's method in t = ln n.

    The left side falls and is concave in t, so that Newton's method started on the right of the root converges from
    there without overshooting.
    """
    log_mu = jnp.log(mu)
    t = jnp.maximum(log_mu, jnp.log(jnp.maximum(counts, _TINY_MU)))

    def step(_: int, t: Array) -> Array:
        slope = -1.0 - jnp.exp(t) / variance
        return t - (log_mu - t + (counts - jnp.exp(t)) / variance) / slope

    return jnp.exp(jax.lax.fori_loop(0, 16, step, jax.lax.stop_gradient(t)))


def half_window(readout_variance: npt.ArrayLike) -> int:
    """Terms on each side for `poisson_gaussian`, rounded up to a few sizes so that shots share compilations.

    Raises:
        ValueError: if a variance is not positive (use ``poisson`` where there is no readout noise).
    """
    largest, smallest = float(np.max(readout_variance)), float(np.min(readout_variance))
    if not smallest > 0:
        raise ValueError(
            f"poisson_gaussian needs a positive readout noise, got variance {smallest}; use the poisson likelihood"
        )
    needed = min(math.ceil(_WINDOW_SDS * math.sqrt(largest)) + 2, _MOST_TERMS)
    return int(3 * 2 ** max(0, math.ceil(math.log2(needed / 3))))


def log_likelihood(name: LikelihoodName, window: int = 0) -> Callable[[Array, Array, Array], Array]:
    """The function of a likelihood by name; ``window`` is the `half_window` of ``poisson_gaussian``.

    Raises:
        ValueError: for an unknown name.
    """
    if name == "poisson_gaussian":
        return lambda counts, mu, variance: poisson_gaussian(counts, mu, variance, half_window=window)
    try:
        return {"gaussian": gaussian, "poisson": poisson, "shifted_poisson": shifted_poisson}[name]
    except KeyError:
        known = "gaussian, poisson, poisson_gaussian, shifted_poisson"
        raise ValueError(f"likelihood {name!r} is not known; choose one of {known}") from None

"""Unknown intensities: one per reflection, with Wilson's prior, integrated out of the likelihood of its box.

The forward model gives a box the photons s that the *mean* intensity of its reflection would put there. Its own
intensity is a times the mean, and a has Wilson's distribution (A. J. C. Wilson, 1949):

    acentric    p(a) = exp(-a)                        centric    p(a) = exp(-a / 2) / sqrt(2 pi a)

The likelihood of the box is the integral of p(a) p(counts | a s) over a. It is taken in the normalised amplitude
E = sqrt(a), in which both priors are smooth, by Gauss and Legendre's rule between the two amplitudes where the
integrand has become negligible; these ends follow the data and carry no derivative, so that the derivative of the rule
is the rule for the derivative. The scale of the shot is that of the mean intensity: both are one number, G.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["N_NODES", "intensity_terms", "log_integral", "log_prior"]

Array = Any
Value = Callable[[Array, Array], Array]
"""Log likelihood of the boxes ``(n_boxes,)`` at photons ``(n_boxes, n_pixels)`` times intensities ``(n_boxes,)``."""

N_NODES = 40
"""Nodes of the rule; the logarithm of the integral is good to 1e-5 from no photon to many thousands."""
DROP = 30.0
"""Natural logarithm of the ratio of the integrand's peak to its ends."""
SEARCH, WIDEN = 20, 5
"""Steps of the search for the peak, and for the upper end."""


def log_prior(amplitude: Array, centric: Array) -> Array:
    """Log density of the normalised amplitude E."""
    acentric = jnp.log(2.0 * amplitude) - amplitude**2
    return jnp.where(centric, 0.5 * np.log(2.0 / np.pi) - 0.5 * amplitude**2, acentric)


def _ends(value: Value, information: Value, photons: Array, centric: Array) -> tuple[Array, Array]:
    """Relative intensities between which the integrand lives, each ``(n_boxes,)``."""
    rate = jnp.where(centric, 0.5, 1.0)
    slope = jax.grad(lambda a: jnp.sum(value(photons, a) - rate * a))

    def towards_peak(_: int, a: Array) -> Array:
        # In the logarithm of a; twice the prior's own bend holds back where the data are far brighter than the mean.
        step = a * slope(a) / (a**2 * information(photons, a) + 2.0 * rate * a + 1e-12)
        return a * jnp.exp(jnp.clip(step, -2.0, 2.0))

    def bend(a: Array) -> Array:
        """Curvature of the integrand's logarithm; an outlier's share of it may be negative."""
        seen = -jax.jvp(slope, (a,), (jnp.ones_like(a),))[1]
        return jnp.maximum(seen, 0.05 * information(photons, a))

    peak = jax.lax.fori_loop(0, SEARCH, towards_peak, jnp.ones_like(rate))
    # Beyond a peak at zero the integrand falls exponentially; elsewhere like a Gaussian, or slower where brighter
    # pixels are noisier: the curvature half way up is the one that counts.
    fall = jnp.minimum(slope(peak), 0.0)

    def reach(curvature: Array) -> Array:
        return 2.0 * DROP / (jnp.sqrt(fall**2 + 2.0 * curvature * DROP) - fall + 1e-12)

    curvature = bend(peak)
    below = reach(curvature)
    above = jax.lax.fori_loop(0, WIDEN, lambda _, u: reach(jnp.minimum(bend(peak + 0.5 * u), curvature)), below)
    return jnp.maximum(peak - below, 0.0), peak + above


def intensity_terms(value: Value, information: Value, photons: Array, centric: Array) -> tuple[Array, Array]:
    """The rule's nodes and the logarithms of its terms.

    Args:
        value: log likelihood of the boxes.
        information: expected information of each box about its relative intensity.
        photons: of the mean intensity, ``(n_boxes, n_pixels)``.
        centric: ``(n_boxes,)``.

    Returns:
        relative intensities ``(n_nodes, n_boxes)`` and log terms of the same shape; their softmax over nodes weighs
        the posterior of each intensity.
    """
    low, high = _ends(value, information, jax.lax.stop_gradient(photons), centric)
    low, high = (jax.lax.stop_gradient(jnp.sqrt(a)) for a in (low, high))
    node, weight = (jnp.asarray(v)[:, None] for v in np.polynomial.legendre.leggauss(N_NODES))
    amplitude = low + 0.5 * (high - low) * (node + 1.0)
    a = amplitude**2
    each = jax.vmap(lambda row: value(photons, row))(a)
    return a, each + log_prior(amplitude, centric) + jnp.log(weight * 0.5 * (high - low))


def log_integral(value: Value, information: Value, photons: Array, centric: Array) -> Array:
    """Log likelihood of each box with its intensity integrated out, ``(n_boxes,)``; arguments as above."""
    return jax.nn.logsumexp(intensity_terms(value, information, photons, centric)[1], axis=0)

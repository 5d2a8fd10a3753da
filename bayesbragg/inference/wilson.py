"""Unknown intensities: one per reflection, with Wilson's prior, integrated out of the likelihood of its box.

The forward model gives a box the photons s that the *mean* intensity of its reflection would put there. Its own
intensity is a times the mean, and a has Wilson's distribution (A. J. C. Wilson, 1949):

    acentric    p(a) = r exp(-r a)                    centric    p(a) = sqrt(r / 2 pi a) exp(-r a / 2)

The mean itself is known to a factor only (it falls and rises with the angle, and spot finders choose): the rate r is
1 on average, with a Gamma distribution of shape k, and integrated out as well. What remains has the tails of a power,

    acentric    p(a) = (1 + a / k)^-(k + 1)           centric    p(a) ~ a^-1/2 (1 + a / 2 k)^-(k + 1/2)

so that a reflection that is fifty times brighter than the mean, as low angles have them, costs a few units of log
likelihood and not fifty, and does not bend the blocks until it seems less bright. In the normalised amplitude
E = sqrt(a) the centric prior is Student's t with 2 k degrees of freedom.

The likelihood of the box is the integral of p(a) p(counts | a s) over a. It is taken in asinh(E), in which both priors
are smooth and powers are short, by Gauss and Legendre's rule between the two amplitudes where the integrand has become
negligible; these ends follow the data and carry no derivative, so that the derivative of the rule is the rule for the
derivative. The scale of the shot is that of the mean intensity: both are one number, G.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["N_NODES", "SHAPE", "bend_of_prior", "intensity_terms", "log_integral", "log_prior"]

Array = Any
Value = Callable[[Array, Array], Array]
"""Log likelihood of the boxes ``(n_boxes,)`` at photons ``(n_boxes, n_pixels)`` times intensities ``(n_boxes,)``."""

SHAPE = 2.0
"""Shape k of the rate: the mean intensity of a reflection is known within a factor of about two."""
N_NODES = 40
"""Nodes of the rule; the logarithm of the integral is good to 1e-4 from no photon to many thousands."""
DROP = 30.0
"""Natural logarithm of the ratio of the integrand's peak to its ends."""
SEARCH = 20
"""Steps of the search for the peak."""
WIDEN, RATIO = 24, 1.5
"""Places looked at for the upper end, and the ratio of their distances from the peak."""


def _power_and_width(centric: Array) -> tuple[Array, Array]:
    """Both priors fall like (1 + a / width)^-power, the centric one times a^-1/2."""
    return jnp.where(centric, SHAPE + 0.5, SHAPE + 1.0), jnp.where(centric, 2.0 * SHAPE, SHAPE)


def log_prior(amplitude: Array, centric: Array) -> Array:
    """Log density of the normalised amplitude E."""
    power, width = _power_and_width(centric)
    norm = math.log(2.0) + math.lgamma(SHAPE + 0.5) - math.lgamma(SHAPE) - 0.5 * math.log(2.0 * SHAPE * math.pi)
    first = jnp.where(centric, norm, jnp.log(2.0 * amplitude))
    return first - power * jnp.log1p(amplitude**2 / width)


def bend_of_prior(a: Array, centric: Array) -> Array:
    """How much the prior bends in the logarithm of the intensity, minus its second derivative there."""
    power, width = _power_and_width(centric)
    return power * a * width / (width + a) ** 2


def _ends(value: Value, information: Value, photons: Array, centric: Array) -> tuple[Array, Array]:
    """Relative intensities between which the integrand lives, each ``(n_boxes,)``."""
    power, width = _power_and_width(centric)

    def height(a: Array) -> Array:
        return value(photons, a) - power * jnp.log1p(a / width)

    slope = jax.grad(lambda a: jnp.sum(height(a)))

    def towards_peak(_: int, a: Array) -> Array:
        # In the logarithm of a; twice the prior's own pull holds back where the data are far brighter than the mean.
        step = a * slope(a) / (a**2 * information(photons, a) + 2.0 * power * a / (width + a) + 1e-12)
        return a * jnp.exp(jnp.clip(step, -2.0, 2.0))

    peak = jax.lax.fori_loop(0, SEARCH, towards_peak, jnp.ones_like(width))
    # An outlier's share of the curvature may be negative.
    seen = -jax.jvp(slope, (peak,), (jnp.ones_like(peak),))[1]
    curvature = jnp.maximum(seen, 0.05 * information(photons, peak))
    # Beyond a peak at zero the integrand falls exponentially at first; elsewhere like a Gaussian.
    fall = jnp.minimum(slope(peak), 0.0)
    reach = 2.0 * DROP / (jnp.sqrt(fall**2 + 2.0 * curvature * DROP) - fall + 1e-12)
    # Above, brighter pixels are noisier and the prior's tail is long: look how far the integrand goes.
    distance = 0.5 * reach * RATIO ** jnp.arange(WIDEN)[:, None]
    low_enough = jax.lax.map(lambda u: height(peak + u), distance) < height(peak) - DROP
    first = jnp.where(jnp.any(low_enough, axis=0), jnp.argmax(low_enough, axis=0), WIDEN - 1)
    above = jnp.take_along_axis(distance, first[None], axis=0)[0]
    return jnp.maximum(peak - reach, 0.0), peak + above


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
    low, high = (jax.lax.stop_gradient(jnp.arcsinh(jnp.sqrt(a))) for a in (low, high))
    node, weight = (jnp.asarray(v)[:, None] for v in np.polynomial.legendre.leggauss(N_NODES))
    place = low + 0.5 * (high - low) * (node + 1.0)
    amplitude = jnp.sinh(place)
    a = amplitude**2
    # Node by node: memory is that of one image, and the processor's caches hold it (five times quicker there).
    each = jax.lax.map(jax.checkpoint(lambda row: value(photons, row)), a)
    return a, each + log_prior(amplitude, centric) + jnp.log(weight * 0.5 * (high - low) * jnp.cosh(place))


def log_integral(value: Value, information: Value, photons: Array, centric: Array) -> Array:
    """Log likelihood of each box with its intensity integrated out, ``(n_boxes,)``; arguments as above."""
    return jax.nn.logsumexp(intensity_terms(value, information, photons, centric)[1], axis=0)

"""The spectrum seen through a reflection's Gaussian window.

For one reflection and one direction the lattice factor is a Gaussian in the inverse wavelength k (PHYSICS 7), so that
a pixel sees sum_i w_i exp(-m - p (k_i - k*)^2): m the distance from the reflection at best, k* the inverse wavelength
where it is reached, p the sharpness of the window. Windows are much wider than the spacing of a measured spectrum's
channels: few nodes with the same moments then give the same sum, and its cost does not depend on the number of
channels.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.ad_checkpoint import checkpoint_name
from jax.custom_derivatives import SymbolicZero

__all__ = ["GAUSS_POINTS", "WINDOW_NAME", "merge_channels", "through_window"]

Array = Any
FloatArray = npt.NDArray[np.float64]

GAUSS_POINTS = 4
"""Nodes per bin of merged channels; they reproduce polynomials up to degree 7."""

BIN_WIDTH = 2.6
"""Width of a bin of merged channels in standard deviations of the window."""

WINDOW_NAME = "window"
"""What a rematerialising backward pass should keep: window sums and their slopes, of the size of the pixels."""

_keep: Any = checkpoint_name

_NO_WEIGHT = 1e-290
"""Stands for the logarithm of zero."""


def through_window(miss: Array, centre: Array, sharpness: Array, k: Array, weight: Array) -> Array:
    """sum_i weight_i exp(-miss - sharpness (k_i - centre)^2), ``(..., n_pixels)``.

    Args:
        miss, centre, sharpness: m, k* and p of each pixel, ``(..., n_pixels)``; k* relative to a reference.
        k: inverse wavelengths relative to the same reference, ``(n_nodes,)``, 1/angstrom.
        weight: not negative, ``(n_nodes,)``.
    """
    if miss.dtype == jnp.float64:
        height = jnp.log(jnp.where(weight > 0, weight, _NO_WEIGHT))
        coefficients = (-(miss + sharpness * centre * centre), 2.0 * sharpness * centre, -sharpness)
        total = _sum_of_exponentials(*(c.reshape(-1) for c in coefficients), k, height)
        return total.reshape(miss.shape)
    # In single precision the terms of that product would cancel.
    distance = k - centre[..., None]
    return jnp.exp(-(miss[..., None] + sharpness[..., None] * distance * distance)) @ weight


def _exponentials(c0: Array, c1: Array, c2: Array, k: Array, height: Array) -> Array:
    powers = (jnp.ones_like(k), k, k * k)
    return jnp.exp(
        height[:, None] + sum(jnp.einsum("i,p->ip", q, c) for q, c in zip(powers, (c0, c1, c2), strict=True))
    )


@jax.custom_jvp
def _sum_of_exponentials(c0: Array, c1: Array, c2: Array, k: Array, height: Array) -> Array:
    """sum_i exp(c0 + c1 k_i + c2 k_i^2 + height_i) for every pixel, all arrays flat.

    Every pixel depends on its own coefficients alone, so that one pull-back gives all derivatives. It is taken at once,
    while the exponentials are at hand; nothing of the size of pixels times nodes is kept for later.
    """
    return jnp.ones_like(k) @ _exponentials(c0, c1, c2, k, height)


@partial(_sum_of_exponentials.defjvp, symbolic_zeros=True)
def _derivative(primals: Any, tangents: Any) -> tuple[Array, Array]:
    *pixel, k, height = primals
    terms, pull_back = jax.vjp(lambda a, b, c: _exponentials(a, b, c, k, height), *pixel)
    # The pull-back of a sum is one for every term.
    slopes = [_keep(slope, WINDOW_NAME) for slope in pull_back(jnp.ones_like(terms))]
    # The sum of exponentials is its own derivative in the constant of the exponent.
    total = slopes[0]
    tangent = jnp.zeros_like(total)
    for slope, change in zip(slopes, tangents[:3], strict=True):
        if not isinstance(change, SymbolicZero):
            tangent = tangent + slope * change
    if not all(isinstance(change, SymbolicZero) for change in tangents[3:]):
        changes = tuple(
            jnp.zeros_like(p) if isinstance(t, SymbolicZero) else t
            for p, t in zip((k, height), tangents[3:], strict=True)
        )
        moved = jax.jvp(partial(_exponentials, *pixel), (k, height), changes)[1]
        tangent = tangent + jnp.ones_like(k) @ moved
    return total, tangent


def merge_channels(
    wavelengths_A: FloatArray, strength: FloatArray, width: float, *, points: int = GAUSS_POINTS
) -> tuple[FloatArray, FloatArray]:
    """Nodes that stand for a spectrum seen through Gaussian windows of standard deviation ``width`` or more.

    Channels are collected in bins; each is replaced by the nodes of its own Gauss quadrature, which has the same first
    ``2 points`` moments. Bins with few channels stay as they are.

    Args:
        wavelengths_A, strength: the channels, ``(n_channels,)``.
        width: standard deviation of the narrowest window, 1/angstrom.
        points: nodes per bin.

    Returns:
        wavelengths and strengths of the nodes, at most as many as channels with photons.
    """
    live = strength > 0
    # A spectrum that was written with few digits names a wavelength several times.
    k, place = np.unique(1.0 / wavelengths_A[live], return_inverse=True)
    w: FloatArray = np.bincount(place, strength[live]).astype(np.float64)
    if not len(k):
        return wavelengths_A[:1], strength[:1]
    span = k[-1] - k[0]
    n_bins = max(1, int(np.ceil(span / (BIN_WIDTH * width)))) if width > 0 else len(k)
    if n_bins * points >= len(k):
        return 1.0 / k, w
    number = np.minimum(((k - k[0]) / span * n_bins).astype(int), n_bins - 1)
    nodes: list[FloatArray] = []
    weights: list[FloatArray] = []
    for part in np.split(np.arange(len(k)), np.flatnonzero(np.diff(number)) + 1):
        x, v = (k[part], w[part]) if len(part) <= points else _gauss_nodes(k[part], w[part], points)
        nodes.append(x)
        weights.append(v)
    return 1.0 / np.concatenate(nodes), np.concatenate(weights)


def _gauss_nodes(x: FloatArray, w: FloatArray, n: int) -> tuple[FloatArray, FloatArray]:
    """Gauss quadrature of a discrete measure (Golub and Welsch 1969; Stieltjes' procedure for the recurrence)."""
    total = w.sum()
    middle, half = 0.5 * (x[0] + x[-1]), 0.5 * (x[-1] - x[0])
    t = (x - middle) / half
    v = w / total
    # At i = 0 the previous polynomial is nought, whatever stands before it.
    diagonal, off = np.zeros(n), np.zeros(n - 1)
    previous, current = np.zeros_like(t), np.ones_like(t)
    for i in range(n):
        diagonal[i] = np.sum(v * t * current**2)
        if i + 1 < n:
            following = (t - diagonal[i]) * current - off[i - 1] * previous
            off[i] = np.sqrt(np.sum(v * following**2))
            if off[i] < 1e-9:
                # Fewer distinct channels than nodes: the shorter rule is exact already.
                diagonal, off = diagonal[: i + 1], off[:i]
                break
            previous, current = current, following / off[i]
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off, -1))  # which reads the lower triangle
    return middle + half * values, total * vectors[0] ** 2

"""The spectrum seen through Gaussian windows, tabulated: a look-up per pixel in place of a sum over channels.

For one reflection and one node of its mosaic spread, k* = l a / D and the width of the window in 1/wavelength,
(v / D)^(1/2), hang together (`bayesbragg.forward.closed`): D = a^2 (1 + e) with e = v T / a^2, and the width is
k* v^(1/2) / l times (1 + e)^(1/2). Where e counts, the pixel is dark: exp(-m) e <= 0.74 v / l^2, below 1e-3 but for
a few cells per block. So what all pixels of a box see is one function of k* alone,

    U(k*; tau) = sum_i w_i exp(-(k_i - k*)^2 / (2 s^2)),   s = k* exp(tau / 2) / k_mid,   tau = ln(k_mid^2 v / l^2),

seen at tau + ln(1 + e) as (1 + e)^(1/2) exp(ln U + (d ln U/dtau - 1/2) e / (1 + e)): exact where the spectrum is
smooth, so that a wider window sees that much more, and where it has ended, so that ln U is a parabola.

ln U is kept, not U: a dark pixel with little noise of its own needs its few photons to a small part of themselves, and
the logarithm of what lies beyond the end of a spectrum is nearly a parabola. It is smooth in tau: it stands at
Chebyshev points of levels that span a factor of two in width each, on a grid of k* whose step is a fraction of the
level's least width. At every evaluation it is interpolated to the tau of each reflection (a small matrix product), and
then, pixel by pixel, by cubic Hermite polynomials in k*.

The derivative is the mean of (k_i - k*)^2 / 2 s^2 over what is seen, which lies between 0 and ln(sum w) - ln U: between
lines of a spectrum that are narrower than the window, where ln U has corners, interpolation must not leave these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.ad_checkpoint import checkpoint_name
from jax.custom_derivatives import SymbolicZero

from bayesbragg.forward.stored_jit import stored_jit
from bayesbragg.forward.window import WINDOW_NAME

__all__ = ["SpectrumTable", "build_table", "covered_widths", "row_tables", "through_table"]

Array = Any
FloatArray = npt.NDArray[np.float64]
_keep: Any = checkpoint_name

POINTS = 8
"""Chebyshev points per level."""

STEP = 0.2
"""Step of the grid in units of the narrowest width of a level. Pixels are then within 3e-7 of the brightest one, and,
down to 1e-6 of it, within 5e-4 of themselves (blocks of 4 cells; 3e-5 for 9 cells)."""

REACH = 6.0
"""Widths beyond the spectrum's ends up to which a window sees something."""

LARGEST = 2048
"""Longest grid; a spectrum that is wider in units of its narrowest window is summed channel by channel."""

_LEVEL = 2.0 * math.log(2.0)

_DARKEST = 1e-300
"""U between the colours of a spectrum, far from both."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SpectrumTable:
    """ln U and its slope per step at grid points.

    Attributes:
        values: ln U and its slope in turns, ``(n_levels, POINTS, 2 n_grid)``.
        first: grid's first point relative to ``middle``, ``(n_levels,)``, 1/angstrom.
        step: of each level, ``(n_levels,)``, 1/angstrom.
        lowest: least tau of the first level, scalar.
        middle: k_mid, 1/angstrom of the spectrum before its correction, scalar.
        most: ln(sum w), scalar.
    """

    values: Array
    first: Array
    step: Array
    lowest: Array
    middle: Array
    most: Array


def build_table(
    wavelengths_A: FloatArray, strength: FloatArray, narrowest: float, widest: float
) -> SpectrumTable | None:
    """A table for windows of standard deviations (1/angstrom) between two widths; None where it would be too long.

    Args:
        wavelengths_A, strength: merged channels, ``(n_nodes,)``.
    """
    k = 1.0 / wavelengths_A
    live = strength > 0
    low, high = (float(k[live].min()), float(k[live].max())) if live.any() else (float(k.min()), float(k.max()))
    middle = 0.5 * (low + high)
    # Few numbers of levels, so that shots share compilations.
    n_levels = 4 * max(1, math.ceil(math.log(widest / narrowest) / (2.0 * _LEVEL)))
    least = narrowest * 2.0 ** np.arange(n_levels)
    half = 0.5 * (high - low) + 2.0 * REACH * least * high / middle
    # And few sizes of tables.
    needed = float(np.max(2.0 * half / (STEP * least)))
    coarse = 1 << max(8, math.ceil(math.log2(needed)) - 2)
    n_grid = math.ceil(needed / coarse) * coarse + 1
    if n_grid > LARGEST:
        return None
    step = 2.0 * half / (n_grid - 1)
    tau = 2.0 * np.log(least)[:, None] + 0.5 * _LEVEL * (1.0 + _chebyshev_points())
    weight = strength / max(float(strength.max()), 1e-300)
    values = _tabulate(k - middle, weight, -half, step, tau, middle, n_grid)
    scalars = (2.0 * math.log(narrowest), middle, math.log(max(float(weight.sum()), _DARKEST)))
    return SpectrumTable(np.asarray(values), -half, step, *(np.asarray(a) for a in scalars))


def covered_widths(table: SpectrumTable) -> tuple[float, float]:
    """Standard deviations, in 1/angstrom, between which windows may lie."""
    low = 0.5 * float(table.lowest)
    return math.exp(low), math.exp(low + 0.5 * _LEVEL * table.values.shape[0])


def _chebyshev_points() -> FloatArray:
    return np.cos(np.pi * (np.arange(POINTS) + 0.5) / POINTS)


@stored_jit("n_grid")
def _tabulate(k: Array, weight: Array, first: Array, step: Array, tau: Array, middle: Array, n_grid: int) -> Array:
    x = first[:, None] + step[:, None] * jnp.arange(n_grid)

    def level(x: Array, step: Array, tau: Array) -> Array:
        def seen(x: Array) -> Array:
            width = jnp.exp(0.5 * tau)[:, None] * (1.0 + x / middle)

            def add(total: Array, node: tuple[Array, Array]) -> tuple[Array, None]:
                return total + node[1] * jnp.exp(-0.5 * ((node[0] - x) / width) ** 2), None

            total = jax.lax.scan(add, jnp.zeros((tau.shape[0], n_grid)), (k, weight))[0]
            return jnp.log(jnp.maximum(total, _DARKEST))

        value, slope = jax.jvp(seen, (x,), (jnp.full_like(x, step),))
        return jnp.stack([value, slope], axis=-1).reshape(tau.shape[0], -1)

    return jax.vmap(level)(x, step, tau)


def row_tables(table: SpectrumTable, tau: Array) -> tuple[Array, Array, Array, Array]:
    """ln U, its derivative in tau, and the grid of each row.

    Args:
        tau: ``(n_nodes, n_rows)``.

    Returns:
        ln U and its slope in turns, and d ln U/dtau - 1/2 and its slope, ``(n_nodes, n_rows, 2 n_grid)`` each; the
        grid's first point and inverse step, ``(n_nodes, n_rows)``.
    """
    n_levels = table.values.shape[0]
    place = (tau - table.lowest) / _LEVEL
    level = jnp.clip(jnp.floor(place), 0, n_levels - 1).astype(jnp.int32)
    z = 2.0 * jnp.clip(place - level, 0.0, 1.0) - 1.0
    # Interpolation through Chebyshev points: T_n at the points are orthogonal.
    at_points = np.cos(np.outer(np.arange(POINTS), np.pi * (np.arange(POINTS) + 0.5) / POINTS))
    at_points = at_points * np.where(np.arange(POINTS) == 0, 1.0, 2.0)[:, None] / POINTS

    def polynomials(z: Array) -> Array:
        terms = [jnp.ones_like(z), z]
        for _ in range(POINTS - 2):
            terms.append(2.0 * z * terms[-1] - terms[-2])
        return jnp.stack(terms, axis=-1) @ at_points

    weight, slope = jax.jvp(polynomials, (z,), (jnp.full_like(z, 2.0 / _LEVEL),))
    mine = jax.nn.one_hot(level, n_levels, dtype=weight.dtype)[..., None]
    flat = table.values.reshape(n_levels * POINTS, -1)
    value, derivative = ((mine * w[..., None, :]).reshape(*tau.shape, -1) @ flat for w in (weight, slope))
    rough, bend = derivative[..., ::2], derivative[..., 1::2]
    sound = (rough >= 0.0) & (rough <= table.most - value[..., ::2])
    rough = jnp.clip(rough, 0.0, jnp.maximum(table.most - value[..., ::2], 0.0)) - 0.5
    derivative = jnp.stack([rough, jnp.where(sound, bend, 0.0)], axis=-1).reshape(value.shape)
    return value, derivative, table.first[level], 1.0 / table.step[level]


def _hermite(t: Array) -> tuple[Array, Array, Array, Array]:
    square = t * t
    rise = square * (3.0 - 2.0 * t)
    end = square * (t - 1.0)
    return 1.0 - rise, t - 2.0 * square + t * square, rise, end


def _slopes(t: Array) -> tuple[Array, Array, Array, Array]:
    rise = 6.0 * t * (1.0 - t)
    return -rise, 1.0 - 4.0 * t + 3.0 * t * t, rise, t * (3.0 * t - 2.0)


def _pick(tables: Array, cell: Array) -> list[Array]:
    """What two neighbouring points of each row's table hold, four arrays ``(n_rows, n_pixels)``."""
    length = tables.shape[-1]
    rows = jnp.arange(tables.size // length, dtype=jnp.uint32).reshape(tables.shape[:-1])
    # Numbers without a sign: an index that could be negative would be tested for it.
    base = cell * np.uint32(2) + (rows * np.uint32(length))[..., None]
    flat = tables.reshape(-1)
    return [flat.at[base + np.uint32(i)].get(mode="promise_in_bounds") for i in range(4)]


def _place(x: Array, first: Array, inverse_step: Array, n_grid: int) -> tuple[Array, Array]:
    """Cell of the grid and the place in it, from 0 to 1."""
    place = jnp.clip((x - first[..., None]) * inverse_step[..., None], 0.0, n_grid - 1.001)
    cell = place.astype(jnp.int32)
    return cell.astype(jnp.uint32), place - cell


def _dot(weights: tuple[Array, ...], values: list[Array]) -> Array:
    return sum(w * v for w, v in zip(weights, values, strict=True))


@jax.custom_jvp
def through_table(miss: Array, x: Array, tau: Array, wider: Array, tables: tuple[Array, Array, Array, Array]) -> Array:
    """exp(-miss) U(x; tau + ln(1 + wider)), ``(n_rows, n_pixels)``.

    Args:
        miss, x: exponent and k* relative to the table's middle, ``(n_rows, n_pixels)``.
        tau: ``(n_rows,)``; the value is in the tables already, this argument carries the derivative.
        wider: by which part more the squared width is at a pixel, not negative, ``(n_rows, n_pixels)``.
        tables: those of the rows, from `row_tables` at this tau; constants as far as derivatives are concerned.
    """
    return _seen(miss, x, wider, tables)[0]


def _seen(miss: Array, x: Array, wider: Array, tables: tuple[Array, ...]) -> tuple[Array, Array, Array, Array]:
    """The value of `through_table`, its relative slope per step of the grid, d ln U/dtau - 1/2, and 1 / (1 + wider)."""
    value, derivative, first, inverse_step = tables
    cell, t = _place(x, first, inverse_step, value.shape[-1] // 2)
    left = 1.0 / (1.0 + wider)
    rough = _pick(derivative, cell)
    entries = [v + (1.0 - left) * d for v, d in zip(_pick(value, cell), rough, strict=True)]
    basis = _hermite(t)
    total = jnp.exp(_dot(basis, entries) - miss) * jnp.sqrt(1.0 + wider)
    return total, _dot(_slopes(t), entries), _dot(basis, rough), left


@partial(through_table.defjvp, symbolic_zeros=True)
def _derivative(primals: Any, tangents: Any) -> tuple[Array, Array]:
    miss, x, _, wider, tables = primals
    total, slope, rough, left = _seen(miss, x, wider, tables)
    total = _keep(total, WINDOW_NAME)
    along = total * slope * tables[-1][..., None]
    # The second derivative in tau is 0 or -rough in the two limits; either way this is the slope at tau + w.
    wide = _keep(total * (0.5 + left * rough), WINDOW_NAME)
    tangent = jnp.zeros_like(total)
    d_miss, d_x, d_tau, d_wider = tangents[:4]
    if not isinstance(d_miss, SymbolicZero):
        tangent = tangent - total * d_miss
    if not isinstance(d_x, SymbolicZero):
        tangent = tangent + _keep(along, WINDOW_NAME) * d_x
    if not isinstance(d_tau, SymbolicZero):
        tangent = tangent + wide * d_tau[..., None]
    if not isinstance(d_wider, SymbolicZero):
        tangent = tangent + wide * left * d_wider
    return total, tangent

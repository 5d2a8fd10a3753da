"""Structure factors near each box: a small window of Miller indices per box, looked up by the nearest reflection.

The window is made on the host for the parameters that a fit starts from, with a margin; `window_holds` in `scene`
checks that it still covers every pixel at the optimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["FactorWindows", "HeavyAtoms", "anomalous_sum", "window_index"]

Array = Any
Vector = tuple[Array, Array, Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class HeavyAtoms:
    """Anomalous scatterers of the complex model (PHYSICS 1.4, case of complex structure factors).

    Attributes:
        sites: rows x, y, z (fractional), B (angstrom^2), occupancy, ``(n_atoms, 5)``.
        fprime, fdoubleprime: f' and f'' per channel, ``(n_channels,)``, electron.
    """

    sites: Array
    fprime: Array
    fdoubleprime: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FactorWindows:
    """Tables of structure factors, one window per box.

    Attributes:
        low: lowest index of each window, ``(n_boxes, 3)`` int.
        extent: number of indices along h, k, l, ``(3,)`` int, the same for all boxes.
        real, imag: values over the flattened window, ``(n_boxes, n_window)``; `imag` is zero-sized for amplitudes.
        inside: 1 where the index and its stencil lie inside the table of listed indices (diffuse scattering only).
        heavy_atoms: anomalous scatterers (complex model only), else of zero size.
    """

    low: Array
    extent: Array
    real: Array
    imag: Array
    inside: Array
    heavy_atoms: HeavyAtoms


def window_index(local: Vector, low: Array, extent: Array) -> Array:
    """Flat position in the window of an index given relative to the box's reference index, ``(n_boxes, n_pixels)``.

    Args:
        local: integer-valued floats relative to the reference, three arrays ``(n_boxes, n_pixels)``.
        low: lowest window index minus the reference index, ``(n_boxes, 3)`` int.
        extent: ``(3,)`` int.

    Positions beyond the window are clipped to its border, where the lattice factor of a covered fit is negligible.
    """
    position = [
        jnp.clip(local[i].astype(jnp.int32) - low[:, i].astype(jnp.int32)[:, None], 0, extent[i].astype(jnp.int32) - 1)
        for i in range(3)
    ]
    _, n1, n2 = (extent[i].astype(jnp.int32) for i in range(3))
    return (position[0] * n1 + position[1]) * n2 + position[2]


def anomalous_sum(atoms: HeavyAtoms, hkl: Vector, q_squared: Array) -> tuple[Array, Array]:
    """Sum over the scatterers of occ exp(-B q^2/4) exp(2 pi i h.x), real and imaginary part.

    Args:
        hkl: absolute Miller indices of the nearest reflection, three arrays ``(n_boxes, n_pixels)``.
        q_squared: 1/d^2 of the pixel, 1/angstrom^2.
    """

    def add(total: tuple[Array, Array], site: Array) -> tuple[tuple[Array, Array], None]:
        phase = 2.0 * jnp.pi * (hkl[0] * site[0] + hkl[1] * site[1] + hkl[2] * site[2])
        weight = site[4] * jnp.exp(-site[3] * q_squared / 4.0)
        return (total[0] + weight * jnp.cos(phase), total[1] + weight * jnp.sin(phase)), None

    zero = jnp.zeros_like(q_squared)
    total, _ = jax.lax.scan(jax.checkpoint(add), (zero, zero), atoms.sites)
    return total

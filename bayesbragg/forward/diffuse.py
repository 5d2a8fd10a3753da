"""Diffuse scattering from correlated displacements: Lorentzian halos around reflections (PHYSICS 1.10)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["DiffuseModel", "diffuse_intensity"]

Array = Any
Vector = tuple[Array, Array, Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DiffuseModel:
    """Symmetry of the halo: Laue matrices, times the rotation of the principal axes, ``(n_laue, 3, 3)``."""

    laue: Array


def diffuse_intensity(
    model: DiffuseModel,
    gamma_A: Array,
    sigma_A: Array,
    reciprocal: Array,
    stencil: int,
    dh: Vector,
    h0: Vector,
    ratio: Array,
) -> Array:
    """Diffuse counterpart of the squared lattice factor, ``(n_boxes, n_pixels)``.

    Args:
        gamma_A, sigma_A: correlation lengths and displacements, ``(3,)``, angstrom.
        reciprocal: A' = U B_recip O^-1, ``(3, 3)``, 1/angstrom.
        stencil: neighbours on each side.
        dh: fractional index minus nearest reflection; h0: nearest reflection; three arrays each.
        ratio: (F(h0 + D) / F(h0))^2 for every neighbour D in the order of `itertools.product`, zero where the
            stencil leaves the table, ``((2 stencil + 1)^3, n_boxes, n_pixels)``.
    """
    offsets = list(itertools.product(range(-stencil, stencil + 1), repeat=3))
    norm = len(offsets) * len(model.laue)
    height = 8.0 * jnp.pi * jnp.prod(gamma_A)

    def one_laue(total: Array, L: Array) -> tuple[Array, None]:
        to_q = reciprocal @ L
        q = [sum(to_q[i, j] * h0[j] for j in range(3)) for i in range(3)]
        x = 4.0 * jnp.pi**2 * sum((sigma_A[i] * q[i]) ** 2 for i in range(3))
        halo = jnp.zeros_like(dh[0])
        for n, D in enumerate(offsets):
            r = [gamma_A[i] * sum(to_q[i, j] * (dh[j] - D[j]) for j in range(3)) for i in range(3)]
            halo = halo + ratio[n] / (1.0 + 4.0 * jnp.pi**2 * sum(c * c for c in r)) ** 2
        return total + x * jnp.exp(-x) * halo, None

    total, _ = jax.lax.scan(jax.checkpoint(one_laue), jnp.zeros_like(dh[0]), model.laue)
    return total * height / norm

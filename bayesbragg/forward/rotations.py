"""Rotations and the cell matrix (PHYSICS 1.1, 1.2, 1.9)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from bayesbragg.forward.small import PERMUTATION

__all__ = ["axis_rotation", "cell_matrix", "misorientation", "successive_rotations"]

Array = Any


def axis_rotation(axis: Array, angle: Array) -> Array:
    """Right-handed (active) rotation by Rodrigues' formula, ``(..., 3, 3)``.

    Args:
        axis: unit vectors, ``(..., 3)``.
        angle: radian, ``(...)``.
    """
    c, s = jnp.cos(angle)[..., None, None], jnp.sin(angle)[..., None, None]
    along = axis[..., :, None] * axis[..., None, :]
    across = jnp.tensordot(axis, -PERMUTATION, axes=([-1], [0]))
    return c * np.eye(3) + s * across + (1.0 - c) * along


def successive_rotations(axes: Array, angles: Array) -> Array:
    """R1 R2 R3 about the rows of ``axes`` ``(..., 3, 3)`` by ``angles`` ``(..., 3)``, radian: the last one turns first.

    A panel group turns so about its orthogonal, fast and slow axis.
    """
    # All three at once: the program is smaller, and compiles sooner, than with one after the other.
    turns = axis_rotation(axes, angles)
    return turns[..., 0, :, :] @ turns[..., 1, :, :] @ turns[..., 2, :, :]


def misorientation(rot_xyz: Array) -> Array:
    """RXYZ = Rx(a) Ry(b) Rz(c), each turning by minus its angle about +x, +y, +z; ``(..., 3)`` to ``(..., 3, 3)``."""
    return successive_rotations(jnp.eye(3), -rot_xyz)


def cell_matrix(cell: Array) -> Array:
    """B_real: columns a, b, c (angstrom), a along x, b in the xy plane.

    Args:
        cell: a, b, c, alpha, beta, gamma, ``(6,)``, angstrom and radian.
    """
    a, b, c, alpha, beta, gamma = (cell[i] for i in range(6))
    cos_a, cos_b, cos_g, sin_g = jnp.cos(alpha), jnp.cos(beta), jnp.cos(gamma), jnp.sin(gamma)
    y = (cos_a - cos_b * cos_g) / sin_g
    z = jnp.sqrt(1.0 - cos_b * cos_b - y * y)
    zero = jnp.zeros_like(a)
    return jnp.array([[a, b * cos_g, c * cos_b], [zero, b * sin_g, c * y], [zero, zero, c * z]])

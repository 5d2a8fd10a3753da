"""Rotations and the cell matrix (PHYSICS 1.1, 1.2, 1.9)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

__all__ = ["axis_rotation", "cell_matrix", "misorientation"]

Array = Any


def axis_rotation(axis: Array, angle: Array) -> Array:
    """Right-handed (active) rotation by Rodrigues' formula, ``(..., 3, 3)``.

    Args:
        axis: unit vectors, ``(..., 3)``.
        angle: radian, ``(...)``.
    """
    x, y, z = axis[..., 0], axis[..., 1], axis[..., 2]
    c, s = jnp.cos(angle), jnp.sin(angle)
    t = 1.0 - c
    rows = [
        [c + x * x * t, x * y * t - z * s, x * z * t + y * s],
        [y * x * t + z * s, c + y * y * t, y * z * t - x * s],
        [z * x * t - y * s, z * y * t + x * s, c + z * z * t],
    ]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def misorientation(rot_xyz: Array) -> Array:
    """RXYZ = Rx(a) Ry(b) Rz(c), each turning by minus its angle about +x, +y, +z; ``(..., 3)`` to ``(..., 3, 3)``."""
    x, y, z = jnp.eye(3)
    a, b, c = rot_xyz[..., 0], rot_xyz[..., 1], rot_xyz[..., 2]
    shape = (*rot_xyz.shape[:-1], 3)
    return (
        axis_rotation(jnp.broadcast_to(x, shape), -a)
        @ axis_rotation(jnp.broadcast_to(y, shape), -b)
        @ axis_rotation(jnp.broadcast_to(z, shape), -c)
    )


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

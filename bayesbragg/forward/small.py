"""Products of three-vectors as contractions with the permutation symbol.

`jax.numpy` writes cross product and determinant out element by element, with their derivatives hundreds of operations;
so written they are a few, and programs are traced and compiled sooner.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

__all__ = ["PERMUTATION", "cross", "determinant"]

Array = Any

PERMUTATION = np.zeros((3, 3, 3))
"""e_ijk: 1 for even, -1 for odd permutations of 0, 1, 2, else 0."""
for _i, _j, _k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
    PERMUTATION[_i, _j, _k], PERMUTATION[_i, _k, _j] = 1.0, -1.0


def cross(a: Array, b: Array) -> Array:
    """a x b along the last axis, ``(..., 3)``."""
    turned = jnp.tensordot(a, PERMUTATION, axes=([-1], [1]))  # (..., i, k): e_ijk a_j
    return jnp.einsum("...ik,...k->...i", turned, b)


def determinant(matrix: Array) -> Array:
    """Determinant of ``(..., 3, 3)``, shape ``(...)``."""
    return jnp.sum(matrix[..., 0, :] * cross(matrix[..., 1, :], matrix[..., 2, :]), axis=-1)

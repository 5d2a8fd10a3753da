"""The second derivative of a joint density, in the form of an arrow, from differences of its gradient.

Second derivatives of the forward model are slow to compile; a difference of gradients over a thousandth of a standard
deviation is as good. A box sees the motion of its own group alone, so that one motion of all groups at once tells the
blocks of all of them: a shot takes two gradients for each of its own numbers and twelve for all panels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bayesbragg.inference.arrow import ArrowCurvature
from bayesbragg.inference.density import Recipe
from bayesbragg.inference.joint_parts import Bucket, JointData, Shared, shared_potential, shot_potential, split
from bayesbragg.inference.pixel_term import N_EXTRA

__all__ = ["directions_of", "joint_curvature"]

Array = Any
FloatArray = npt.NDArray[np.float64]


def directions_of(free: npt.NDArray[np.int64], n_shared: int) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Directions that together tell the second derivative, ``(n_directions, p)``, and each number's group, ``(p,)``.

    One motion of all groups at once: a box sees its own group alone, so that the derivative of two groups is zero. An
    extra has a direction, and is a group, of its own.
    """
    m = n_shared - N_EXTRA
    kind = np.where(free < m, free % 6, 6 + free - m)
    group = np.where(free < m, free // 6, -1 - (free - m))
    return np.array([kind == k for k in np.unique(kind)], dtype=float), group


@partial(jax.jit, static_argnames="recipe")
def _slopes(own: Array, y_s: Array, shot: Bucket, shared: Shared, recipe: Recipe) -> Array:
    """Gradients of U_i, own numbers then shared ones, at many points ``(m, n)`` and ``(m, p)``."""

    def slope(pair: Any) -> Array:
        return jnp.concatenate(jax.grad(shot_potential, argnums=(0, 1))(*pair, shot, shared, recipe))

    result: Array = jax.lax.map(slope, (own, y_s))
    return result


_shared_hessian = jax.jit(jax.hessian(shared_potential))


def joint_curvature(
    y: Array,
    data: JointData,
    recipes: Sequence[Recipe],
    direction: tuple[FloatArray, npt.NDArray[np.int64]],
    step: FloatArray,
) -> ArrowCurvature:
    """The second derivative of U at y, from differences of gradients (whose second derivative is slow to compile)."""
    directions, group = direction
    parts, y_s = split(y, data)
    steps, step_s = split(step, data)
    kind = np.argmax(directions, axis=0)
    extra = group < 0
    same = (group[:, None] == group) & ~extra
    curvature = np.array(_shared_hessian(y_s, data.shared))
    # One length for each direction; those of the shared numbers are in units of their own.
    along_shared = directions * np.min(np.where(directions > 0, step_s, np.inf), axis=1)[:, None]
    own_blocks, cross_blocks = [], []
    for recipe, part, of_own, bucket in zip(recipes, parts, steps, data.buckets, strict=True):
        n_shots, n = part.shape
        own, cross = np.empty((n_shots, n, n)), np.empty((n_shots, n, len(group)))
        for i in range(n_shots):
            shot = jax.tree.map(lambda a, i=i: np.asarray(a)[i], bucket)
            moves = np.zeros((n + len(directions), n + len(group)))
            moves[:n, :n], moves[n:, n:] = np.diag(of_own[i]), along_shared
            points = np.concatenate([part[i], y_s]) + np.concatenate([moves, -moves])
            slopes = np.asarray(_slopes(points[:, :n], points[:, n:], shot, data.shared, recipe))
            rows = (slopes[: len(moves)] - slopes[len(moves) :]) / (2.0 * moves.max(axis=1))[:, None]
            own[i] = 0.5 * (rows[:n, :n] + rows[:n, :n].T)
            cross[i] = rows[:n, n:]
            told = rows[n:, n:][kind]
            block = np.where(same | extra[:, None], told, np.where(extra, told.T, 0.0))
            curvature += 0.5 * (block + block.T)
        own_blocks.append(own)
        cross_blocks.append(cross)
    return ArrowCurvature(own_blocks, cross_blocks, curvature)

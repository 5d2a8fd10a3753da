"""The parts of a joint density: each shot's term, the shared prior's, and the arrays that these are functions of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from bayesbragg.inference.density import Recipe
from bayesbragg.inference.pixel_term import N_EXTRA, Moving, target_of
from bayesbragg.inference.unbounded import Bounds

__all__ = ["Bucket", "JointData", "Shared", "shared_potential", "shot_potential", "split"]

Array = Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Shared:
    """The shared numbers that vary.

    Attributes:
        bounds: of these, ``(p,)``.
        mean, precision: of their prior, ``(p,)`` and ``(p, p)``.
        place: where each stands among all shared numbers, ``(p,)``.
        base: all shared numbers, of which those that are fixed count, ``(n_shared,)``.
    """

    bounds: Bounds
    mean: Array
    precision: Array
    place: Array
    base: Array

    def whole(self, y: Array) -> tuple[Array, Array]:
        """Motions of all groups ``(n_groups, 6)`` and extras ``(N_EXTRA,)`` at y ``(p,)``."""
        values = self.base.at[self.place].set(self.bounds.values(y))
        return values[:-N_EXTRA].reshape(-1, 6), values[-N_EXTRA:]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Bucket:
    """Shots of one shape; every array has them as its first axis.

    Attributes:
        moving: pixels, scene and layout, whose coordinates are the physical values.
        bounds: of their own numbers, ``(n_shots, n)``.
    """

    moving: Moving
    bounds: Bounds


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class JointData:
    """The data of a `JointPotential`."""

    buckets: tuple[Bucket, ...]
    shared: Shared


def shot_potential(own: Array, y_s: Array, shot: Bucket, shared: Shared, recipe: Recipe) -> Array:
    """U_i at own ``(n,)`` and shared ``(p,)`` coordinates; the shot is one of a bucket."""
    values, log_jacobian = shot.bounds.values_and_log_jacobian(own)
    groups, extras = shared.whole(y_s)
    return target_of(values, groups, extras, shot.moving, recipe) - jnp.sum(log_jacobian)


def shared_potential(y_s: Array, shared: Shared) -> Array:
    """What of U the shared prior is."""
    values, log_jacobian = shared.bounds.values_and_log_jacobian(y_s)
    away = values - shared.mean
    return 0.5 * away @ shared.precision @ away - jnp.sum(log_jacobian)


def split(y: Array, data: JointData) -> tuple[list[Array], Array]:
    """Own numbers of each bucket ``(n_shots, n)``, and the shared ones ``(p,)``."""
    parts, place = [], 0
    for bucket in data.buckets:
        shape = bucket.bounds.low.shape
        size = shape[0] * shape[1]
        parts.append(y[place : place + size].reshape(shape))
        place += size
    return parts, y[place:]

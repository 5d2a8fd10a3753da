"""Valleys that bend: the first correction to a Gaussian's straight axes.

Where data leave a common motion free, as they do a rotation of the whole detector about the beam, the posterior is long
in that direction and thin across, and what looks straight at the mode is an arc: turned panels move by the cosine as
well as by the sine. In whitened coordinates u, in which the second derivative of U at the mode is the identity, let
e_i be the longest directions and c_i = e_i . u. The floor of the valley then is

    u + sum_ij c_i c_j C_ij,     C_ij = -1/2 U'''[e_i, e_j], without its part along the e,

a shear, of determinant one: the density of the straightened coordinates is that of U at the bent ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bayesbragg.inference.arrow import ArrowFactor

__all__ = ["Bend", "find_bend"]

Array = Any
FloatArray = npt.NDArray[np.float64]

DIRECTIONS = 3
"""Directions that may bend the others."""
LONG = 5.0
"""Such a direction is at least so many times as long as the valley is wide there."""
STEP = 1.0
"""Length of the differences that tell the third derivative, in standard deviations."""
MATTERS = 0.02
"""Smallest bend, in standard deviations at one of the long direction, that is worth its arithmetic."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Bend:
    """The shear of this module's docstring.

    Attributes:
        along: the e_i, orthonormal, ``(k, n)``.
        away: the C_ij, ``(k, k, n)``.
    """

    along: Array
    away: Array

    def shift(self, u: Array) -> Array:
        """What is added to u ``(..., n)``; it depends on e_i . u alone."""
        c = jnp.einsum("kn,...n->...k", self.along, u)
        return jnp.einsum("...i,...j,ijn->...n", c, c, self.away)

    def __call__(self, u: Array) -> Array:
        """Bent coordinates of straightened ones, ``(..., n)``."""
        return u + self.shift(u)


def find_bend(slope: Callable[[FloatArray], FloatArray], factor: ArrowFactor) -> Bend | None:
    """The bend along the longest directions of the shared numbers; None where there is none worth having.

    Args:
        slope: gradient of U in u, ``(n,)``.
        factor: of the Gaussian.
    """
    L = np.asarray(factor.shared)
    p = len(L)
    # Long compared with how far a number may move while the other shared ones stand still.
    stiff = np.sqrt(np.sum(np.linalg.inv(L) ** 2, axis=0))
    _, ratio, rows = np.linalg.svd(stiff[:, None] * L)
    rows = rows[:DIRECTIONS][ratio[:DIRECTIONS] > LONG]
    if not len(rows):
        return None
    n = p + sum(own.shape[0] * own.shape[1] for own in factor.own)
    along = np.zeros((len(rows), n))
    along[:, n - p :] = rows
    straight = 2.0 * slope(np.zeros(n))

    def second(e: FloatArray) -> FloatArray:
        """U'''[e, e]; the gradient at the mode itself, which is not quite zero, drops out."""
        return np.asarray((slope(STEP * e) + slope(-STEP * e) - straight) / STEP**2)

    third = np.zeros((len(rows), len(rows), n))
    for i, e in enumerate(along):
        third[i, i] = second(e)
        for j in range(i):
            half = np.sqrt(0.5)
            third[i, j] = third[j, i] = 0.5 * (second(half * (e + along[j])) - second(half * (e - along[j])))
    away = -0.5 * (third - (third @ along.T) @ along)
    size = np.linalg.norm(away, axis=2)
    if not np.all(np.isfinite(away)) or size.max() < MATTERS:
        return None
    return Bend(along, away)

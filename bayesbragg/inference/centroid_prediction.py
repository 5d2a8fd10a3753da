"""Where an indexed spot of a still is predicted: its angle from the Ewald sphere and its place on the panel.

The reciprocal-lattice point q = R U B h is turned onto the Ewald sphere by the shortest way, and the ray from there
meets the panel. A share of that angle may be no turn but another wavelength, for which the point stays and the sphere
moves: the spot is then shifted along the radius. Units: millimetre on the panel, radian, angstrom.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bayesbragg.forward.rotations import cell_matrix, misorientation, successive_rotations
from bayesbragg.priors.cell import CellConstraint

__all__ = ["SpotData", "linearize_spots", "residuals_of_spots"]

Array = Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class SpotData:
    """Everything fixed, per spot: ``still`` and ``group`` numbers, ``hkl``, panel vectors (mm), axes and reference of
    its group, observation, radial direction in the panel, and share of the band in the angle; per still: ``U`` and
    1/lambda times the beam."""

    still: Array
    group: Array
    hkl: Array
    origin: Array
    fast: Array
    slow: Array
    axes: Array
    reference: Array
    observed: Array
    U: Array
    k: Array
    share: Array
    radial: Array


def _one(x: Array, motion: Array, extras: Array, spot: Any, U: Array, k: Array, constraint: CellConstraint) -> Array:
    """Residuals of one spot, ``(3,)``."""
    hkl, origin, fast, slow, axes, reference, observed, share, radial = spot
    # h = (U B_real)^T q, so that q = (U B_real)^-T h
    M = misorientation(x[:3]) @ U @ cell_matrix(constraint.expand(x[3:]))
    q = jnp.linalg.solve(M.T, hkl)
    wavelength = extras[1] + (1.0 + extras[2]) / jnp.linalg.norm(k)
    beam = k / jnp.linalg.norm(k)
    along, square = q @ beam, q @ q
    across = q - along * beam
    size = jnp.linalg.norm(across)
    on_sphere = -0.5 * wavelength * square
    reach = jnp.sqrt(square - on_sphere**2)
    psi = jnp.arctan2(along, size) - jnp.arctan2(on_sphere, reach)
    ray = beam / wavelength + on_sphere * beam + reach * across / size
    turn = successive_rotations(axes, motion[:3])
    corner = reference + turn @ (origin - reference) + 1e3 * motion[3:] + jnp.array([0.0, 0.0, 1e3]) * extras[0]
    f, s = turn @ fast, turn @ slow
    normal = jnp.cross(f, s)
    # The same reflection where a wavelength of its own brings it onto the sphere (share of the bandwidth).
    own_ray = q - beam * square / (2.0 * along)
    ray = (1.0 - share) * ray / (ray @ normal) + share * own_ray / (own_ray @ normal)
    point = ray * (corner @ normal) - corner
    x, y = observed[0] - point @ f, observed[1] - point @ s
    return jnp.stack([x * radial[0] + y * radial[1], y * radial[0] - x * radial[1], psi])


def _spots(data: SpotData) -> tuple[Array, ...]:
    return (
        data.hkl, data.origin, data.fast, data.slow, data.axes, data.reference, data.observed, data.share, data.radial
    )  # fmt: skip


@partial(jax.jit, static_argnames="constraint")
def residuals_of_spots(own: Array, groups: Array, extras: Array, data: SpotData, constraint: CellConstraint) -> Array:
    """Observed minus predicted along the radius and across (mm, in the panel's plane), and the angle from the Ewald
    sphere (radian), ``(n, 3)``.

    Args:
        own: misorientation (radian) and free cell numbers of every still, ``(n_stills, 3 + n_cell)``.
        groups: motions, ``(n_groups, 6)``; extras: as `bayesbragg.priors.panels.EXTRAS`.
    """
    one = partial(_one, constraint=constraint)
    args = (own[data.still], groups[data.group], extras, _spots(data), data.U[data.still], data.k[data.still])
    return jax.vmap(one, in_axes=(0, 0, None, 0, 0, 0))(*args)


@partial(jax.jit, static_argnames="constraint")
def linearize_spots(
    own: Array, groups: Array, extras: Array, data: SpotData, constraint: CellConstraint
) -> tuple[Array, Array]:
    """Residuals, and their derivatives in each spot's still's own numbers, group's motion and extras, ``(n, 3, k)``."""
    n = own.shape[1]

    def one(x: Array, motion: Array, spot: Any, U: Array, k: Array) -> tuple[Array, Array]:
        def of(v: Array) -> Array:
            return _one(v[:n], v[n : n + 6], v[n + 6 :], spot, U, k, constraint)

        v = jnp.concatenate([x, motion, extras])
        return of(v), jax.jacfwd(of)(v)

    return jax.vmap(one)(own[data.still], groups[data.group], _spots(data), data.U[data.still], data.k[data.still])

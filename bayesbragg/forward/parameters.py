"""What the forward model depends on: one registered dataclass of arrays per concept.

All leaves are JAX (or numpy) arrays in the units of the physics: radian, angstrom, metre, photon. ``n_lattices`` is
the number of crystals on the shot; the cell and the mosaic spread are shared by them, as in the classic program.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

__all__ = [
    "CrystalParameters",
    "DiffuseParameters",
    "MosaicParameters",
    "PanelParameters",
    "Parameters",
    "ScaleParameters",
    "SpectrumParameters",
]

Array = Any
"""A JAX or numpy array."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CrystalParameters:
    """Orientation and cell.

    Attributes:
        rot_xyz: misorientation about the lab axes, applied to the starting U as Rx Ry Rz (PHYSICS 1.2: left-handed
            angles), ``(n_lattices, 3)``, radian.
        cell: a, b, c, alpha, beta, gamma, ``(6,)``, angstrom and radian.
    """

    rot_xyz: Array
    cell: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MosaicParameters:
    """Mosaic blocks and their spread.

    Attributes:
        n_abc: cells per block along a, b, c, ``(n_lattices, 3)``.
        n_def: off-diagonal elements Nd (ab), Ne (bc), Nf (ac) of the block matrix, ``(n_lattices, 3)``.
        eta_deg: mosaic spread about a, b, c, ``(3,)``, degree. With isotropic spread only the first counts.
        eta_def_deg: what goes with another axis: b with a, c with b, c with a, ``(3,)``, degree. Of the general
            spread alone (`bayesbragg.forward.mosaic.angular_covariance`).
    """

    n_abc: Array
    n_def: Array
    eta_deg: Array
    eta_def_deg: Array

    def without_spread(self) -> MosaicParameters:
        """The same blocks, all in one orientation."""
        return replace(self, eta_deg=jnp.zeros(3), eta_def_deg=jnp.zeros(3))

    def largest_spread_deg(self) -> Array:
        """Largest standard deviation of the spread about any axis, to a factor of sqrt 3, scalar, degree.

        Exact where the cell's axes are at right angles and the off-diagonal part is zero.
        """
        return jnp.sqrt(jnp.max(jnp.asarray(self.eta_deg)) ** 2 + jnp.sum(jnp.asarray(self.eta_def_deg) ** 2))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ScaleParameters:
    """Intensity of the shot.

    Attributes:
        G: scale factor (number of mosaic blocks), ``(n_lattices,)``.
        b_factor_A2: Debye-Waller factor of the shot: intensity times exp(-B q^2 / 2), q = 1/d, scalar, angstrom^2.
    """

    G: Array
    b_factor_A2: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SpectrumParameters:
    """Correction of the wavelengths: lambda' = offset + scale * lambda (scalars, angstrom and 1)."""

    offset_A: Array
    scale: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PanelParameters:
    """Motions of panel groups and of the whole detector (PHYSICS 1.1).

    Attributes:
        rotation_rad: angles about the panel's own normal (O), fast (F) and slow (S) axes, ``(n_groups, 3)``.
        translation_m: shifts along the lab axes, ``(n_groups, 3)``, metre.
        detz_m: shift of every panel along lab z (``detz_shift``), scalar, metre.
    """

    rotation_rad: Array
    translation_m: Array
    detz_m: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DiffuseParameters:
    """Diffuse scattering: correlation lengths gamma and displacements sigma, each ``(3,)``, angstrom."""

    gamma_A: Array
    sigma_A: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Parameters:
    """Everything that a fit may vary."""

    crystal: CrystalParameters
    mosaic: MosaicParameters
    scale: ScaleParameters
    spectrum: SpectrumParameters
    panels: PanelParameters
    diffuse: DiffuseParameters

    @classmethod
    def start(
        cls,
        cell: npt.ArrayLike,
        *,
        n_lattices: int = 1,
        rot_xyz: npt.ArrayLike = 0.0,
        n_abc: npt.ArrayLike = 10.0,
        n_def: npt.ArrayLike = 0.0,
        eta_deg: npt.ArrayLike = 0.0,
        eta_def_deg: npt.ArrayLike = 0.0,
        G: npt.ArrayLike = 1.0,
        b_factor_A2: float = 0.0,
        lambda_offset_A: float = 0.0,
        lambda_scale: float = 1.0,
        n_groups: int = 1,
        panel_rotation_rad: npt.ArrayLike = 0.0,
        panel_translation_m: npt.ArrayLike = 0.0,
        detz_m: float = 0.0,
        gamma_A: npt.ArrayLike = 50.0,
        sigma_A: npt.ArrayLike = 0.0,
    ) -> Parameters:
        """Parameters from plain numbers, broadcast to their shapes.

        Args:
            cell: a, b, c, alpha, beta, gamma in angstrom and **radian**.
        """

        def full(value: npt.ArrayLike, *shape: int) -> npt.NDArray[np.float64]:
            return np.broadcast_to(np.asarray(value, dtype=np.float64), shape).copy()

        return cls(
            CrystalParameters(full(rot_xyz, n_lattices, 3), full(cell, 6)),
            MosaicParameters(
                full(n_abc, n_lattices, 3), full(n_def, n_lattices, 3), full(eta_deg, 3), full(eta_def_deg, 3)
            ),
            ScaleParameters(full(G, n_lattices), full(b_factor_A2)),
            SpectrumParameters(full(lambda_offset_A), full(lambda_scale)),
            PanelParameters(
                full(panel_rotation_rad, n_groups, 3), full(panel_translation_m, n_groups, 3), full(detz_m)
            ),
            DiffuseParameters(full(gamma_A, 3), full(sigma_A, 3)),
        )

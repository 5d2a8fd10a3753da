"""Mosaic blocks and their orientations: the block matrix N and the sampled rotations W_m (PHYSICS 1.3, 1.9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.lax import erf, erf_inv

from bayesbragg.forward.options import Spread
from bayesbragg.forward.parameters import MosaicParameters
from bayesbragg.forward.rotations import axis_rotation

__all__ = ["MosaicSamples", "angular_covariance", "block_matrix", "mosaic_rotations", "sample_axes"]

Array = Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MosaicSamples:
    """The random part of the sampled mosaic spread; the widths eta are parameters.

    Attributes:
        axes: unit rotation axes, ``(n_pairs, 3)``; each is used with + and - its angle.
        cdf: numbers p in [0, 1) that fix the angles, theta = eta sqrt(2) erf_inv(p), ``(n_pairs,)``.
        cell_directions: rows are unit vectors along a, b, c of the starting crystal, ``(3, 3)`` (anisotropic only).
    """

    axes: Array
    cdf: Array
    cell_directions: Array


def sample_axes(n_samples: int, seed: int = 0) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Axes uniform on the sphere and evenly spread cdf numbers for an even number of mosaic rotations.

    Returns:
        axes ``(n_samples / 2, 3)`` and cdf numbers ``(n_samples / 2,)``.
    """
    if n_samples < 2 or n_samples % 2:
        raise ValueError(f"the number of mosaic samples must be even and at least 2, got {n_samples}")
    generator = np.random.default_rng(seed)
    axes = generator.standard_normal((n_samples // 2, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    cdf = np.arange(n_samples // 2) / (n_samples // 2)
    return axes, cdf[generator.permutation(n_samples // 2)]


def block_matrix(n_abc: Array, n_def: Array) -> Array:
    """Symmetric matrix N of cells per block: diagonal Na, Nb, Nc; Nd (ab), Ne (bc), Nf (ac); ``(..., 3, 3)``."""
    a, b, c = n_abc[..., 0], n_abc[..., 1], n_abc[..., 2]
    d, e, f = n_def[..., 0], n_def[..., 1], n_def[..., 2]
    rows = [[a, d, f], [d, b, e], [f, e, c]]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def angular_covariance(samples: MosaicSamples, mosaic: MosaicParameters, spread: Spread) -> Array:
    """Covariance of the rotation vector of a Gaussian spread in the lab, ``(3, 3)``, radian^2.

    Isotropic: eta_a^2 times the identity. Anisotropic: independent rotations about a, b and c with standard deviations
    eta, sum over the axes of eta_x^2 a_x a_x^T. General: L L^T with the lower triangle L = [[eta_a, 0, 0],
    [d, eta_b, 0], [f, e, eta_c]] in orthonormal axes of the starting crystal: along a, across a in the plane of a and
    b, and along c*. The few domains of a real crystal rarely lie evenly about their mean; their turns go together.
    """
    eta = jnp.radians(jnp.asarray(mosaic.eta_deg))
    if spread == "gaussian_isotropic":
        return eta[0] ** 2 * jnp.eye(3)
    axes = samples.cell_directions
    if spread == "gaussian_general":
        d, e, f = jnp.radians(jnp.asarray(mosaic.eta_def_deg))
        none = jnp.zeros(())
        rows = [[eta[0], none, none], [d, eta[1], none], [f, e, eta[2]]]
        root = jnp.stack([jnp.stack(row) for row in rows]).T @ _orthonormal(axes)
        return root.T @ root
    return (axes * (eta**2)[:, None]).T @ axes


def _orthonormal(directions: Array) -> Array:
    """Rows along a, across a in the plane of a and b, and along c*, ``(3, 3)``."""
    normal = jnp.cross(directions[0], directions[1])
    normal = normal / jnp.linalg.norm(normal)
    return jnp.stack([directions[0], jnp.cross(normal, directions[0]), normal])


def mosaic_rotations(samples: MosaicSamples, mosaic: MosaicParameters, spread: Spread) -> Array:
    """Rotations W_m in the order +angle, -angle of each axis, ``(n_samples, 3, 3)``; the identity without spread.

    Isotropic: every axis has width eta_deg[0]. Anisotropic: the width about an axis v is |v . T v|^(-1/2) with
    T = S diag(1/eta^2) S^-1 and S the matrix whose columns are the directions of a, b, c. The angle is half-normal.
    Gaussian spreads: the axis times a radius with the distribution of a normal vector's length (chi, three degrees of
    freedom) is mapped to the spread's own covariance.
    """
    if spread == "none":
        return jnp.eye(3)[None]
    eta_deg = jnp.asarray(mosaic.eta_deg)
    if spread in ("gaussian_isotropic", "gaussian_anisotropic", "gaussian_general"):
        vector = samples.axes * _chi_quantile(jnp.asarray(samples.cdf))[:, None]
        # A covariance without spread about some axis has no root; a millionth of a degree is none.
        covariance = angular_covariance(samples, mosaic, spread) + jnp.radians(1e-6) ** 2 * jnp.eye(3)
        root = jnp.linalg.cholesky(covariance)
        vector = vector @ root.T
        # A vector of length zero has no axis; its derivative must exist all the same.
        squared = jnp.sum(vector * vector, axis=-1)
        angle = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)
        axes = vector / jnp.where(squared > 0, angle, 1.0)[:, None]
    else:
        axes = samples.axes
        if spread == "isotropic":
            width = eta_deg[0]
        else:
            S = samples.cell_directions.T
            # A width of zero, where a spread that was just freed starts, would make T infinite.
            T = S @ jnp.diag(1.0 / jnp.maximum(eta_deg, 1e-9) ** 2) @ jnp.linalg.inv(S)
            width = jnp.abs(jnp.einsum("ji,ik,jk->j", samples.axes, T, samples.axes)) ** -0.5
        angle = width * jnp.sqrt(2.0) * erf_inv(samples.cdf) * (jnp.pi / 180.0)
    both = jnp.stack([axis_rotation(axes, angle), axis_rotation(axes, -angle)], axis=1)
    return both.reshape(-1, 3, 3)


def _chi_quantile(p: Array) -> Array:
    """Length of a standard normal 3-vector at the cumulative probability p, by bisection."""

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        below = erf(middle / jnp.sqrt(2.0)) - jnp.sqrt(2.0 / jnp.pi) * middle * jnp.exp(-0.5 * middle**2) < p
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, 60, halve, (jnp.zeros_like(p), jnp.full_like(p, 12.0)))
    return 0.5 * (low + high)

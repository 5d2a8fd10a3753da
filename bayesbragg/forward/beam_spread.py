"""What blurs a ray besides the crystal: divergence of the beam, size of what it lights up, and the pixel's own area.

Each moves the scattering vector q = k (u - k_in) of a pixel by a small random vector, whose covariance adds to that of
the reflection (PHYSICS 7): directions of incidence with standard deviations d_i along e_i add k^2 d_i^2 e_i e_i^T; a
lit volume with standard deviations w_i across the beam moves the direction of diffraction by -(1 - u u^T) x / r and
adds (k/r)^2 w_i^2 P e_i (P e_i)^T, P = 1 - u u^T; and where m subpixels stand for n, what each of them lacks of the
pixel's square has the variance (1/m^2 - 1/n^2)/12 along fast and slow, in pixels.
e_1 lies across beam and polarization normal (in the plane of polarization), e_2 across beam and e_1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from bayesbragg.forward.geometry import move_boxes
from bayesbragg.forward.parameters import Parameters
from bayesbragg.forward.scene import Scene
from bayesbragg.forward.spread import Reflexes

__all__ = ["BeamSpread", "beam_axes", "blur_covariance"]

Array = Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BeamSpread:
    """Standard deviations along the two axes of `beam_axes`.

    Attributes:
        divergence_rad: of the direction of incidence at any point of the crystal, ``(2,)``, radian. A source of X-rays
            of finite size, seen from the crystal, counts here: its size over its distance.
        source_m: of the place in the crystal where photons are scattered, ``(2,)``, metre.
    """

    divergence_rad: Array
    source_m: Array


def beam_axes(scene: Scene) -> Array:
    """Unit vectors across the beam, ``(2, 3)``."""
    first = jnp.cross(scene.beam.k, scene.beam.polarization_normal)
    first = first / jnp.linalg.norm(first)
    return jnp.stack([first, jnp.cross(first, scene.beam.k)])


def blur_covariance(
    parameters: Parameters,
    scene: Scene,
    reflexes: Reflexes,
    spread: BeamSpread | None,
    lacking: float | Array,
) -> Array:
    """Covariance of q about each reflection, ``(n_rows, 3, 3)``, 1/angstrom^2.

    Args:
        lacking: variance of the pixel's square that subpixels leave out, pixel^2.
    """
    moved = move_boxes(scene.boxes, parameters.panels)
    u = moved.direction[reflexes.box]
    # One wavelength for all: that of the spectrum's mean.
    photons = jnp.asarray(scene.channels.strength)
    inverse = scene.channels.inverse(parameters.spectrum)
    k = jnp.sum(photons * inverse) / jnp.maximum(jnp.sum(photons), 1e-300)
    across = jnp.eye(3) - u[:, :, None] * u[:, None, :]
    inverse_r = 1.0 / jnp.linalg.norm(moved.position_m[reflexes.box], axis=-1)
    sides = jnp.stack([moved.fast_m[reflexes.box], moved.slow_m[reflexes.box]], axis=1) * jnp.sqrt(lacking)
    steps = [jnp.einsum("rij,rsj->rsi", across, sides) * inverse_r[:, None, None]]
    if spread is not None:
        axes = beam_axes(scene)
        steps.append(jnp.broadcast_to(jnp.asarray(spread.divergence_rad)[:, None] * axes, (len(u), 2, 3)))
        lit = jnp.asarray(spread.source_m)[:, None] * axes
        steps.append(jnp.einsum("rij,sj->rsi", across, lit) * inverse_r[:, None, None])
    moves = jnp.concatenate(steps, axis=1) * k
    return jnp.einsum("rsi,rsj->rij", moves, moves)

"""The exact sum: mosaic samples, lattices and wavelengths, one after the other.

I = G P Omega / n_steps * sum strength_i cap_t omega (F_latt^2 + I_diffuse) |F|^2 (PHYSICS 1.8). Memory is that of the
pixels: the sum is folded with `lax.scan`, and reverse-mode derivatives recompute each term.

Fractional Miller indices are formed relative to an integer reference of the box, in float64 per box; the pixel's
share is a small difference, so that float32 pixels keep their accuracy for large cells and blocks.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesbragg.forward.diffuse import diffuse_intensity
from bayesbragg.forward.factors import anomalous_sum, window_index
from bayesbragg.forward.geometry import Directions, MovedBoxes
from bayesbragg.forward.mosaic import mosaic_rotations
from bayesbragg.forward.options import Options
from bayesbragg.forward.parameters import Parameters
from bayesbragg.forward.pixels import FUDGE, Look, block_heights, fold_pixels
from bayesbragg.forward.rotations import cell_matrix
from bayesbragg.forward.scene import Scene
from bayesbragg.forward.stored_jit import stored_jit

__all__ = ["FUDGE", "expected_photons"]

Array = Any
Vector = tuple[Array, Array, Array]


@stored_jit("options")
def expected_photons(parameters: Parameters, scene: Scene, options: Options) -> Array:
    """Bragg (and diffuse) photons per pixel, without background, ``(n_boxes, n_pixels)``.

    With ``options.point_spread`` it is the blurred sum of Bragg photons and background, less the background.
    """
    dtype = jnp.dtype(options.precision)
    rotations = mosaic_rotations(scene.mosaic, parameters.mosaic, options.spread)
    real_space = scene.lattices.real_space(parameters.crystal)
    blocks, height = block_heights(parameters, options)
    n_mosaic = rotations.shape[0]

    def one_crystal(moved: MovedBoxes, point: Directions, term: Array, look: Look) -> Array:
        del look
        m, lattice = term[0], term[1]
        M = rotations[m] @ real_space[lattice]
        photons = _lattice_sum(parameters, scene, options, M, blocks[lattice], moved, point.du, lattice)
        share = jnp.asarray(1.0) if options.diffuse else height[lattice]
        return photons * (share / n_mosaic).astype(dtype)

    return fold_pixels(parameters, scene, options, (n_mosaic, real_space.shape[0]), one_crystal)


def _lattice_sum(
    parameters: Parameters,
    scene: Scene,
    options: Options,
    M: Array,
    block: Array,
    moved: Any,
    du: Vector,
    lattice: Array,
) -> Array:
    """Sum over channels of strength (F_latt^2 / det N^2 [+ diffuse]) |F|^2, ``(n_boxes, n_pixels)``."""
    dtype = du[0].dtype
    windows = scene.factors
    low, extent = windows.low[lattice], windows.extent
    inverse = scene.channels.inverse(parameters.spectrum)
    # h = M^T (u - k) / lambda, split into the box's part (float64) and the pixel's difference.
    box_g = (moved.direction - scene.beam.k) @ M
    reference = jax.lax.stop_gradient(jnp.ceil(box_g * jnp.mean(inverse) - 0.5))
    M_pixel = M.astype(dtype)
    pixel_g = [sum(M_pixel[j, i] * du[j] for j in range(3)) for i in range(3)]
    form = (2.0 * FUDGE * block.T @ block).astype(dtype)
    relative_low = low - reference.astype(low.dtype)
    n_boxes, n_window = low.shape[0], windows.real.shape[-1]
    row = (jnp.arange(n_boxes, dtype=jnp.int32) * n_window)[:, None]

    if options.b_factor or options.complex_factors:
        s = [du[i] + (moved.direction - scene.beam.k)[:, i].astype(dtype)[:, None] for i in range(3)]
        s_squared = s[0] * s[0] + s[1] * s[1] + s[2] * s[2]

    real = windows.real[lattice].astype(dtype).reshape(-1)
    if not (options.complex_factors or options.diffuse):
        real = real * real

    def look_up(table: Array, position: Array) -> Array:
        return table.at[row + position].get(mode="promise_in_bounds")

    def one_channel(inv: Array, strength: Array, f_prime: Array, f_double_prime: Array) -> Array:
        offset = box_g * inv - reference
        inv_pixel = inv.astype(dtype)
        h = [pixel_g[i] * inv_pixel + offset[:, i].astype(dtype)[:, None] for i in range(3)]
        near = [jax.lax.stop_gradient(jnp.ceil(c - 0.5)) for c in h]
        a, b, c = (h[i] - near[i] for i in range(3))
        exponent = (
            a * (form[0, 0] * a + 2.0 * (form[0, 1] * b + form[0, 2] * c))
            + b * (form[1, 1] * b + 2.0 * form[1, 2] * c)
            + form[2, 2] * c * c
        )
        position = window_index((near[0], near[1], near[2]), relative_low, extent)
        strength = strength.astype(dtype)
        debye_waller = jnp.zeros((), dtype)
        if options.b_factor:
            debye_waller = 0.5 * parameters.scale.b_factor_A2.astype(dtype) * s_squared * inv_pixel**2
        if options.complex_factors:
            absolute = [near[i] + reference[:, i].astype(dtype)[:, None] for i in range(3)]
            cosine, sine = anomalous_sum(
                windows.heavy_atoms, (absolute[0], absolute[1], absolute[2]), s_squared * inv_pixel**2
            )
            F_real = look_up(real, position) + cosine * f_prime - sine * f_double_prime
            imag = windows.imag[lattice].astype(dtype).reshape(-1)
            F_imag = look_up(imag, position) + sine * f_prime + cosine * f_double_prime
            F_squared = F_real**2 + F_imag**2
        elif options.diffuse:
            F = look_up(real, position)
            shape = _diffuse(parameters, scene, options, lattice, (a, b, c), near, reference, position, look_up, real)
            height = parameters.scale.G[lattice].astype(dtype)
            det = jnp.linalg.det(block).astype(dtype) ** 2 if options.block_scale else jnp.ones((), dtype)
            bragg = det * jnp.exp(-exponent)
            return strength * height * F * F * (bragg + shape) * jnp.exp(-debye_waller)
        else:
            F_squared = look_up(real, position)
        return strength * F_squared * jnp.exp(-(exponent + debye_waller))

    nothing = jnp.zeros_like(inverse)
    atoms = windows.heavy_atoms
    f_prime = atoms.fprime if options.complex_factors and atoms.fprime.shape[0] else nothing
    f_double_prime = atoms.fdoubleprime if options.complex_factors and atoms.fdoubleprime.shape[0] else nothing
    channels = (inverse, scene.channels.strength, f_prime.astype(dtype), f_double_prime.astype(dtype))
    body = jax.checkpoint(one_channel)
    start = jnp.zeros(du[0].shape, dtype)
    total, _ = jax.lax.scan(lambda carry, channel: (carry + body(*channel), None), start, channels)
    return total


def _diffuse(
    parameters: Parameters,
    scene: Scene,
    options: Options,
    lattice: Array,
    dh: Vector,
    near: list[Array],
    reference: Array,
    position: Array,
    look_up: Any,
    amplitudes: Array,
) -> Array:
    """The diffuse term at every pixel, with the neighbours' structure factors from the same window."""
    dtype = near[0].dtype
    stencil = options.diffuse_stencil
    windows = scene.factors
    reach = np.arange(-stencil, stencil + 1)
    n1, n2 = windows.extent[1].astype(jnp.int32), windows.extent[2].astype(jnp.int32)
    inside = look_up(windows.inside[lattice].astype(dtype).reshape(-1), position)
    centre = look_up(amplitudes, position)
    safe = jnp.where(centre > 0, centre, 1.0)
    ratios = []
    for i, j, k in itertools.product(reach, repeat=3):
        neighbour = look_up(amplitudes, position + ((int(i) * n1 + int(j)) * n2 + int(k)))
        ratios.append(inside * jnp.where(centre > 0, (neighbour / safe) ** 2, 1.0))
    B_recip = jnp.linalg.inv(cell_matrix(parameters.crystal.cell)).T
    reciprocal = scene.lattices.U[lattice] @ B_recip @ jnp.linalg.inv(scene.lattices.basis)
    absolute = [near[i] + reference[:, i].astype(dtype)[:, None] for i in range(3)]
    return diffuse_intensity(
        scene.diffuse,
        parameters.diffuse.gamma_A.astype(dtype),
        parameters.diffuse.sigma_A.astype(dtype),
        reciprocal.astype(dtype),
        stencil,
        dh,
        (absolute[0], absolute[1], absolute[2]),
        jnp.stack(ratios),
    )

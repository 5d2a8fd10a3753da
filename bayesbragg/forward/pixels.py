"""What every way to sum over the lattice shares: subpixels, sensor layers, solid angle, polarization, blur.

I = G P Omega / n_steps * sum over subpixels and layers of cap omega * (lattice sum) (PHYSICS 1.8). The exact sum and
the closed forms differ in the lattice sum alone. Memory is that of the pixels: the sum is folded with `lax.scan`, and
reverse-mode derivatives recompute each term.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesbragg.forward.geometry import (
    BoxGeometry,
    Directions,
    MovedBoxes,
    captured_fraction,
    directions,
    move_boxes,
    pixel_centres,
    polarization,
    solid_angle,
)
from bayesbragg.forward.mosaic import block_matrix
from bayesbragg.forward.options import Options
from bayesbragg.forward.parameters import Parameters
from bayesbragg.forward.psf import blur
from bayesbragg.forward.scene import Scene
from bayesbragg.forward.small import determinant

__all__ = ["FUDGE", "Look", "block_heights", "fold_pixels"]

Array = Any
Look = Callable[[BoxGeometry, MovedBoxes], Directions]
"""Directions of one point of every pixel of boxes."""

FUDGE = 1.0 / 0.63
"""F_latt = det N exp(-FUDGE |N dh|^2): a Gaussian in place of the interference function (PHYSICS 1.3)."""


def block_heights(parameters: Parameters, options: Options) -> tuple[Array, Array]:
    """Block matrices N ``(n_lattices, 3, 3)`` and the height G det(N)^2 of a reflection, ``(n_lattices,)``."""
    blocks = block_matrix(parameters.mosaic.n_abc, parameters.mosaic.n_def)
    height = parameters.scale.G
    if options.block_scale:
        height = height * determinant(blocks) ** 2
    return blocks, height


def fold_pixels(
    parameters: Parameters,
    scene: Scene,
    options: Options,
    shape: tuple[int, ...],
    lattice_sum: Callable[[MovedBoxes, Directions, Array, Look], Array],
    keep: Callable[..., bool] | None = None,
) -> Array:
    """Photons per pixel, ``(n_boxes, n_pixels)``, from a lattice sum.

    Args:
        shape: how many further terms each subpixel has, such as ``(n_mosaic, n_lattices)``.
        lattice_sum: ``lattice_sum(moved, directions, term, look)`` gives photons per unit of solid angle at one point
            of every pixel; ``term`` holds the position in ``shape``, and ``look(boxes, moved)`` gives the directions
            of the same point in other boxes.
        keep: policy of what the backward pass need not recompute (`jax.checkpoint`); by default it recomputes all.
    """
    boxes, dtype = scene.boxes, jnp.dtype(options.precision)
    moved = move_boxes(boxes, parameters.panels)
    centre = pixel_centres(boxes, moved)
    n, layers = options.oversample, options.sensor_layers
    grid = itertools.product(range(n), range(n), range(layers), *(range(m) for m in shape))
    steps = np.array(list(grid))
    attenuation_m = scene.sensor.attenuation_m

    def one_step(step: Array) -> Array:
        slow, fast, layer = (step[i] for i in range(3))
        offsets = (fast + 0.5) / n, (slow + 0.5) / n, layer * scene.sensor.thickstep_m

        def look(boxes: BoxGeometry, moved: MovedBoxes) -> Directions:
            return directions(boxes, moved, *offsets)

        point = look(boxes, moved)
        photons = lattice_sum(moved, point, step[3:], look)
        if layers > 1:
            attenuation = jnp.where(attenuation_m > 0, attenuation_m, 1.0)
            captured = captured_fraction(moved, point, layer, scene.sensor.thickstep_m, attenuation)
            photons = photons * jnp.where(attenuation_m > 0, captured, 1.0)
        if options.oversample_omega:
            photons = photons * solid_angle(moved, point)
        return photons

    if len(steps) == 1:
        total = one_step(jnp.asarray(steps[0]))
    else:
        step_sum = jax.checkpoint(one_step, policy=keep)
        start = jnp.zeros(boxes.fast_px.shape, dtype)
        total, _ = jax.lax.scan(lambda carry, step: (carry + step_sum(step), None), start, jnp.asarray(steps))

    if not options.oversample_omega:
        total = total * solid_angle(moved, centre)
    if options.polarization:
        beam = scene.beam
        total = total * polarization(moved, centre, beam.k, beam.polarization_normal, beam.kahn)
    total = total / (n * n * layers)
    if options.point_spread:
        background = scene.point_spread.background.astype(dtype)
        total = blur(scene.point_spread, total + background) - background
    return total

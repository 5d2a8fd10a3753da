"""How finely a shot must be resolved: nodes of the spread, subpixels, widths of the windows. Chosen on the host."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from bayesbragg.forward.beam_spread import BeamSpread, blur_covariance
from bayesbragg.forward.geometry import move_boxes
from bayesbragg.forward.options import Options
from bayesbragg.forward.parameters import Parameters
from bayesbragg.forward.quick_jit import quick_jit
from bayesbragg.forward.scene import Scene
from bayesbragg.forward.spread import Reflexes, Shapes, mixture_size, shape_reflexes

__all__ = ["covariance_of", "enough_subpixels", "one_gaussian", "rule_size", "table_widths"]

Array = Any

SUBPIXEL_ERROR = 3e-4
"""Largest share of the peak by which coarser subpixels may err."""


def one_gaussian(options: Options) -> Options:
    """Options whose spread is one Gaussian that is at least as wide.

    How finely it is summed does not matter to shapes: left out, so that all choices share their programs.
    """
    spread = "gaussian_isotropic" if options.spread == "isotropic" else options.spread
    return replace(options, spread=spread, oversample=1, mosaic_nodes=0)


def rule_size(parameters: Parameters, scene: Scene, options: Options, reflexes: Reflexes) -> int:
    """Nodes of the classic isotropic spread."""
    if options.spread != "isotropic":
        return 1
    if options.mosaic_nodes:
        return options.mosaic_nodes
    narrow, _ = _block_widths(parameters, scene, one_gaussian(options), reflexes)
    return mixture_size(math.radians(float(np.asarray(parameters.mosaic.eta_deg)[0])) / float(narrow))


def enough_subpixels(parameters: Parameters, scene: Scene, options: Options, reflexes: Reflexes) -> int:
    """The fewest subpixels along a side whose missing part can be blurred in.

    A square has a fourth cumulant, (1/m^4 - 1/n^4)/120 pixel^4 of it between m and n subpixels, and a Gaussian has not:
    at a peak of standard deviation w (pixel) that is an error of a share (1/m^4 - 1/n^4)/(960 w^4) along each side.
    """
    n = options.oversample
    if n == 1:
        return 1
    _, width = _block_widths(parameters, scene, one_gaussian(options), reflexes)
    error = (1.0 / np.arange(1, n + 1) ** 4 - 1.0 / n**4) / (480.0 * float(width) ** 4)
    return 1 + int(np.argmax(error <= SUBPIXEL_ERROR))


@quick_jit("options")
def _block_widths(parameters: Parameters, scene: Scene, options: Options, reflexes: Reflexes) -> tuple[Array, Array]:
    """Narrowest standard deviation of blocks without spread: as an angle across q0, and on the detector, in pixels."""
    still = replace(parameters, mosaic=parameters.mosaic.without_spread())
    shapes = shape_reflexes(still, scene, options, reflexes)
    K = shapes.stiffness[0]
    mean, difference = 0.5 * (K[:, 0] + K[:, 2]), 0.5 * (K[:, 0] - K[:, 2])
    across = 1.0 / jnp.sqrt(mean + jnp.sqrt(difference**2 + K[:, 1] ** 2))
    moved = move_boxes(scene.boxes, parameters.panels)
    u, r = moved.direction[reflexes.box], jnp.linalg.norm(moved.position_m[reflexes.box], axis=-1)
    length = shapes.length[0]
    k = length / jnp.linalg.norm(u - scene.beam.k, axis=-1)
    pixel = jnp.max(scene.boxes.pixel_m[reflexes.box], axis=-1)
    least = jnp.minimum(across, jnp.sqrt(shapes.variance[0]))
    live = reflexes.live > 0
    angle, width = (jnp.min(jnp.where(live, w, jnp.inf)) for w in (across / length, least / k * r / pixel))
    return angle, width


def table_widths(
    parameters: Parameters,
    scene: Scene,
    options: Options,
    reflexes: Reflexes,
    beam: BeamSpread | None,
    lacking: float,
) -> tuple[float, float]:
    """Standard deviations in 1/lambda of the narrowest and widest window."""
    low, high = (float(a) for a in _variance_range(parameters, scene, one_gaussian(options), reflexes, beam, lacking))
    live = np.asarray(scene.channels.strength) > 0
    k = 1.0 / np.asarray(scene.channels.wavelengths_A)[live]
    middle = 0.5 * float(k.min() + k.max())
    # The factor between windows in 1/lambda' and 1/lambda (`bayesbragg.forward.closed`).
    offset, scale = float(np.asarray(parameters.spectrum.offset_A)), float(np.asarray(parameters.spectrum.scale))
    middle = middle / (1.0 - offset * middle / (scale + offset * middle))
    return middle * math.sqrt(low), middle * math.sqrt(high)


@quick_jit("options")
def _variance_range(
    parameters: Parameters,
    scene: Scene,
    options: Options,
    reflexes: Reflexes,
    beam: BeamSpread | None,
    lacking: Array,
) -> tuple[Array, Array]:
    """Least and largest v / l^2 over all spreads up to this one: given the place across q0, and whatever it is."""
    still = replace(parameters, mosaic=parameters.mosaic.without_spread())
    shapes = shape_reflexes(still, scene, options, reflexes)
    blur = partial(blur_covariance, still, scene, reflexes, spread=beam, lacking=lacking)
    along, _, _ = covariance_of(shape_reflexes(still, scene, options, reflexes, blur=blur))
    square = shapes.length[0] ** 2
    live = reflexes.live > 0
    return (
        jnp.min(jnp.where(live, shapes.variance[0] / square, jnp.inf)),
        jnp.max(jnp.where(live, along / square, 0.0)),
    )


def covariance_of(shapes: Shapes) -> tuple[Array, Array, Array]:
    """Of the first node: along q0 ``(n_rows,)``, with the plane across ``(n_rows, 2)``, across ``(n_rows, 2, 2)``."""
    K = shapes.stiffness[0]
    det = K[:, 0] * K[:, 2] - K[:, 1] ** 2
    across = jnp.stack([K[:, 2], -K[:, 1], -K[:, 1], K[:, 0]], axis=-1).reshape(-1, 2, 2) / det[:, None, None]
    mixed = jnp.einsum("rij,rj->ri", across, shapes.lean[0])
    return shapes.variance[0] + jnp.sum(mixed * shapes.lean[0], axis=-1), mixed, across

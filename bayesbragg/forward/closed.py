"""Closed forms of the lattice sum: the spectrum as one quadratic per reflection, the mosaic spread as a few Gaussians.

Same geometry, solid angle, polarization, capture, structure factors and normalisation as the exact sum; only the
lattice sum differs. Instead of the nearest reflection at every wavelength and mosaic sample, the few reflections that
can light up a box are listed beforehand (`prepare_closed`), and each is summed over the spectrum at once.

In the frame of a reflection (along q0 and across) a pixel's ray is q = k s. The exponent
((k a - l)^2 / v + k^2 T) / 2, with a its slope along q0, l the length of q0, v the variance along it and T = s_t.K.s_t
from the stiffness K across, is p (k - k*)^2 + m with D = a^2 + v T, p = D / 2v, k* = a l / D and m = l^2 T / 2D. All
pixel arrays are differences from the box, so that single precision is enough for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bayesbragg.forward.closed_support import check_closed
from bayesbragg.forward.geometry import Directions, MovedBoxes
from bayesbragg.forward.options import Options
from bayesbragg.forward.parameters import Parameters
from bayesbragg.forward.pixels import block_heights, fold_pixels
from bayesbragg.forward.scene import Channels, Scene
from bayesbragg.forward.spread import Reflexes, Shapes, shape_reflexes
from bayesbragg.forward.window import WINDOW_NAME, through_window

__all__ = ["ClosedScene", "Windows", "closed_photons", "pixel_windows"]

Array = Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ClosedScene:
    """A scene with what the closed forms need beforehand.

    Attributes:
        scene: as for the exact sum, with all channels.
        nodes: the channels merged for the windows of this shot (`bayesbragg.forward.window.merge_channels`).
        reflexes: reflections that can light up boxes; the first ``n_boxes`` rows are the strongest of each box.
        width: standard deviation in 1/wavelength of the narrowest window that the nodes serve, scalar, 1/angstrom.
    """

    scene: Scene
    nodes: Channels
    reflexes: Reflexes
    width: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Windows:
    """What each pixel sees of a reflection through each node of the spread, ``(n_nodes, n_rows, n_pixels)``.

    Attributes:
        miss, centre, sharpness: m, k* - k_ref and p of the module's docstring.
    """

    miss: Array
    centre: Array
    sharpness: Array


def pixel_windows(
    parameters: Parameters,
    scene: Scene,
    options: Options,
    shapes: Shapes,
    rows: slice,
    box: Array | None,
    moved: MovedBoxes,
    point: Directions,
    k_reference: Array,
) -> Windows:
    """Windows of the rows of ``shapes``.

    Args:
        rows: which rows.
        box: the box of each of them; None where they are the boxes themselves.
    """
    dtype = point.du[0].dtype

    def pick(array: Array) -> Array:
        return array if box is None else array[box]

    def column(per_row: Array) -> Array:
        return per_row.astype(dtype)[..., None]

    frame = shapes.frame[rows]
    s_box = jnp.einsum("rij,rj->ri", frame, pick(moved.direction) - scene.beam.k)
    du = [pick(d) for d in point.du]
    along, t1, t2 = jnp.moveaxis(jnp.einsum("rij,rjp->rip", frame.astype(dtype), jnp.stack(du, axis=1)), 1, 0)
    t1, t2 = t1 + column(s_box[:, 1]), t2 + column(s_box[:, 2])
    slope = along + column(s_box[:, 0])
    k = k_reference.astype(dtype)
    across = t1 * t1 + t2 * t2
    lean, K = shapes.lean[:, rows], shapes.stiffness[:, rows]
    variance, length = shapes.variance[:, rows], shapes.length[:, rows]
    features, factors = [t1, t2], [-lean[..., 0], -lean[..., 1]]
    if options.spread != "none":
        features.append(across / (slope + jnp.sqrt(slope * slope + across)))
        factors.append(shapes.outward[:, rows])
    extra = jnp.einsum("jrc,rcp->jrp", jnp.stack(factors, axis=-1).astype(dtype), jnp.stack(features, axis=1))
    a = slope + extra
    ahead = column(length - k_reference * s_box[:, 0]) - k * (along + extra)
    squares = jnp.stack([t1 * t1, 2.0 * t1 * t2, t2 * t2], axis=1)
    T = jnp.einsum("jrc,rcp->jrp", K.astype(dtype), squares)
    if options.b_factor:
        T = T + parameters.scale.b_factor_A2.astype(dtype) * (slope * slope + across)
    D = a * a + column(variance) * T
    inverse = 1.0 / D
    return Windows(
        miss=column(0.5 * length * length) * T * inverse,
        centre=(a * ahead - (k * column(variance)) * T) * inverse,
        sharpness=D * column(0.5 / variance),
    )


@partial(jax.jit, static_argnames="options")
def closed_photons(parameters: Parameters, closed: ClosedScene, options: Options) -> Array:
    """Bragg photons per pixel, without background, ``(n_boxes, n_pixels)``: `expected_photons` in closed form.

    Args:
        closed: from `bayesbragg.forward.candidates.prepare_closed`, with the same options.

    Raises:
        ValueError: for options that have no closed form (`bayesbragg.forward.closed_support.closed_unavailable`).
    """
    check_closed(options)
    scene, nodes, reflexes = closed.scene, closed.nodes, closed.reflexes
    dtype = jnp.dtype(options.precision)
    n_boxes, n_rows = scene.boxes.fast_px.shape[0], reflexes.box.shape[0]
    _, height = block_heights(parameters, options)
    F = scene.factors.real.reshape(-1)[reflexes.position]
    strongest = jnp.max(nodes.strength)
    amplitude = reflexes.live * F * F * height[reflexes.lattice] * strongest
    shapes = shape_reflexes(parameters, scene, options, reflexes)
    inverse = 1.0 / (parameters.spectrum.offset_A + parameters.spectrum.scale * nodes.wavelengths_A)
    k_reference = jnp.mean(inverse)
    k = (inverse - k_reference).astype(dtype)
    strength = (nodes.strength / strongest).astype(dtype)

    def rows_sum(rows: slice, box: Array | None, moved: MovedBoxes, point: Directions) -> Array:
        window = pixel_windows(parameters, scene, options, shapes, rows, box, moved, point, k_reference)
        weight = (amplitude * shapes.weight)[:, rows].astype(dtype)[..., None]
        total = jnp.zeros(window.miss.shape[1:], dtype)
        # One node of the spread at a time: its exponentials fit into the processor's cache.
        for j in range(weight.shape[0]):
            seen = through_window(window.miss[j], window.centre[j], window.sharpness[j], k, strength)
            total = total + weight[j] * seen
        return total

    def lattice_sum(moved: MovedBoxes, point: Directions, term: Array) -> Array:
        del term
        total = rows_sum(slice(0, n_boxes), None, moved, point)
        if n_rows > n_boxes:
            box = reflexes.box[n_boxes:]
            total = total.at[box].add(rows_sum(slice(n_boxes, n_rows), box, moved, point))
        return total

    keep = jax.checkpoint_policies.save_only_these_names(WINDOW_NAME)
    return fold_pixels(parameters, scene, options, (), lattice_sum, keep)

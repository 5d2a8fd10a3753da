"""Which reflections can light up a box: listed on the host, around given parameters and with a margin."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bayesbragg.forward.beam_spread import BeamSpread, blur_covariance
from bayesbragg.forward.geometry import move_boxes, pixel_centres, scattering_directions
from bayesbragg.forward.options import Options
from bayesbragg.forward.parameters import Parameters
from bayesbragg.forward.quick_jit import quick_jit
from bayesbragg.forward.rays import coefficients, pixel_tilts, windows
from bayesbragg.forward.resolution import covariance_of, one_gaussian
from bayesbragg.forward.scene import Scene
from bayesbragg.forward.spread import Reflexes, shape_reflexes

__all__ = ["Margin", "bucket", "list_reflections", "narrowest_window", "places", "thinned"]

Array = Any
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

REACH = 5.0
"""Standard deviations within which a reflection is looked for."""

_DARK = 12.0
"""Boxes fainter than the shot's brightest by this (natural logarithm) need not be told in detail."""


@dataclass(frozen=True)
class Margin:
    """How far a fit may go from its start before the list must be made anew.

    Attributes:
        angle_deg: standard deviation of the orientation, degree.
        relative: standard deviation of cell and distance, relative.
        block: factor by which blocks may shrink, and, inverted, grow.
        depth: natural logarithm of the ratio below which a reflection is left out beside the brightest of its box.
    """

    angle_deg: float = 0.05
    relative: float = 0.001
    block: float = 0.7
    depth: float = 9.0


def bucket(n: int, step: int = 16) -> int:
    """The next of a few sizes, so that shots share compilations: multiples of a step that grows with the size."""
    if n <= 0:
        return 0
    step = max(step, 1 << max(0, math.ceil(math.log2(n)) - 2))
    return -(-n // step) * step


def thinned(parameters: Parameters, factor: float) -> Parameters:
    """The same with blocks so many times as large."""
    mosaic = parameters.mosaic
    return replace(parameters, mosaic=replace(mosaic, n_abc=mosaic.n_abc * factor, n_def=mosaic.n_def * factor))


def places(scene: Scene, box: IntArray, lattice: IntArray, hkl: IntArray) -> IntArray:
    """Places in the flattened structure-factor windows."""
    n_boxes, n_window = scene.boxes.fast_px.shape[0], scene.factors.real.shape[-1]
    extent = np.asarray(scene.factors.extent)
    local = hkl - np.asarray(scene.factors.low)[lattice, box]
    return np.asarray((lattice * n_boxes + box) * n_window + np.ravel_multi_index(tuple(local.T), tuple(extent)))


def list_reflections(
    parameters: Parameters,
    scene: Scene,
    options: Options,
    margin: Margin,
    beam: BeamSpread | None,
    *,
    every_box: bool,
) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
    """Box, lattice, indices and log brightness of every reflection that counts; with ``every_box`` one at least."""
    parameters = thinned(parameters, margin.block)
    options = one_gaussian(options)
    angle, relative = math.radians(margin.angle_deg), margin.relative
    low, high, reach = (np.asarray(a) for a in _index_reach(parameters, scene, options, angle, relative, beam))
    window_low = np.asarray(scene.factors.low)
    window_high = window_low + np.asarray(scene.factors.extent) - 1
    first = np.clip(np.ceil(low - reach), window_low, window_high).astype(np.int64)
    last = np.clip(np.floor(high + reach), window_low, window_high).astype(np.int64)
    nearest = np.clip(np.ceil(0.5 * (low + high) - 0.5), window_low, window_high).astype(np.int64)
    empty = np.any(last < first, axis=-1, keepdims=True)
    first, last = np.where(empty, nearest, first), np.where(empty, nearest, last)
    size = last - first + 1
    n_boxes = size.shape[1]
    count = np.prod(size, axis=-1).reshape(-1)
    owner = np.repeat(np.arange(len(count)), count)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    lattice, box = owner // n_boxes, owner % n_boxes
    _, n1, n2 = size[lattice, box].T
    hkl = first[lattice, box] + np.column_stack([number // (n1 * n2), number // n2 % n1, number % n2])
    position = places(scene, box, lattice, hkl)
    filler = bucket(len(box), 64) - len(box)
    reflexes = Reflexes(
        np.pad(box, (0, filler)),
        np.pad(lattice, (0, filler)),
        np.pad(hkl, ((0, filler), (0, 0)), "edge").astype(np.float64),
        np.pad(position, (0, filler)),
        np.pad(np.ones(len(box)), (0, filler)),
    )
    F = np.abs(np.asarray(scene.factors.real).reshape(-1)[position])

    def brightness_with(angle: float, relative: float) -> FloatArray:
        exponent, _ = _exponents(parameters, scene, options, reflexes, angle, relative, beam)
        return np.asarray(2.0 * np.log(np.maximum(F, 1e-150)) - np.asarray(exponent)[: len(box)])

    def best_of(brightness: FloatArray) -> FloatArray:
        best = np.full(n_boxes, -np.inf)
        np.maximum.at(best, box, brightness)
        return best

    brightness = brightness_with(angle, relative)
    # A strong neighbour within the margin must not hide a weak reflection that is there already.
    best = best_of(brightness_with(0.0, 0.0) if angle or relative else brightness)
    keep = brightness >= np.maximum(best, best.max() - _DARK)[box] - margin.depth
    if every_box:
        keep |= brightness == best_of(brightness)[box]
    return box[keep], lattice[keep], hkl[keep], brightness[keep]


def _blur(parameters: Parameters, scene: Scene, reflexes: Reflexes, beam: BeamSpread | None) -> Any:
    if beam is None:
        return None
    return partial(blur_covariance, parameters, scene, reflexes, spread=beam, lacking=0.0)


def narrowest_window(parameters: Parameters, scene: Scene, options: Options, reflexes: Reflexes) -> float:
    """Standard deviation in 1/lambda' of the narrowest window, that of blocks without spread, 1/angstrom."""
    still = replace(parameters, mosaic=parameters.mosaic.without_spread())
    _, sharpness = _exponents(still, scene, one_gaussian(options), reflexes, 0.0, 0.0)
    return math.sqrt(0.5 / float(sharpness))


@quick_jit("options")
def _index_reach(
    parameters: Parameters, scene: Scene, options: Options, angle: float, relative: float, beam: BeamSpread | None
) -> tuple[Array, Array, Array]:
    """Range of fractional indices of each box, and how far reflections reach, ``(n_lattices, n_boxes, 3)``."""
    s = scattering_directions(scene.boxes, move_boxes(scene.boxes, parameters.panels), scene.beam.k)
    ends = scene.channels.ends(parameters.spectrum)
    M = scene.lattices.real_space(parameters.crystal)
    h = jnp.einsum("lji,bpj->lbpi", M, s)[..., None] * ends
    low, high = jnp.min(h, axis=(2, 4)), jnp.max(h, axis=(2, 4))
    n_lattices, n_boxes = low.shape[:2]
    lattice, box = (a.reshape(-1) for a in jnp.meshgrid(jnp.arange(n_lattices), jnp.arange(n_boxes), indexing="ij"))
    middle = 0.5 * (low + high).reshape(-1, 3)
    ones = jnp.ones(len(box))
    middles = Reflexes(box, lattice, middle, box, ones)
    blur = _blur(parameters, scene, middles, beam)
    shapes = shape_reflexes(parameters, scene, options, middles, angle=angle, relative=relative, blur=blur)
    along, mixed, across = covariance_of(shapes)
    C = jnp.concatenate(
        [
            jnp.concatenate([along[:, None], mixed], axis=-1)[:, None],
            jnp.concatenate([mixed[:, :, None], across], axis=-1),
        ],
        axis=1,
    )
    to_h = jnp.einsum("rij,rjk->rik", shapes.frame, M[lattice])  # h = M^T frame^T (components)
    variance = jnp.einsum("rij,rik,rkj->rj", to_h, C, to_h)
    return low, high, REACH * jnp.sqrt(variance).reshape(low.shape)


@quick_jit("options")
def _exponents(
    parameters: Parameters,
    scene: Scene,
    options: Options,
    reflexes: Reflexes,
    angle: float,
    relative: float,
    beam: BeamSpread | None = None,
) -> tuple[Array, Array]:
    """The smallest exponent of each row over its pixels and the spectrum, ``(n_rows,)``; the sharpest window."""
    ends = scene.channels.ends(parameters.spectrum)
    blur = _blur(parameters, scene, reflexes, beam)
    shapes = shape_reflexes(parameters, scene, options, reflexes, angle=angle, relative=relative, blur=blur)
    moved = move_boxes(scene.boxes, parameters.panels).at(reflexes.box)
    point = pixel_centres(scene.boxes.at(reflexes.box), moved)
    middle = jnp.mean(ends)
    everything = slice(0, reflexes.box.shape[0])
    tilts = pixel_tilts(scene, shapes, everything, moved, point, middle)
    window = windows(tilts, coefficients(parameters, options, shapes, tilts.first.dtype), middle)
    beyond = window.centre - jnp.clip(window.centre, ends[0] - middle, ends[1] - middle)
    exponent = jnp.min(window.miss + window.sharpness * beyond**2, axis=(0, -1)).astype(jnp.float64)
    return exponent, jnp.max(window.sharpness)

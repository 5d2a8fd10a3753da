"""From panels to directions: moved panels, pixel positions, solid angle, polarization, capture (PHYSICS 1.1, 1.5-1.7).

Everything per box is float64. Everything per pixel is a difference from the box's reference point, so that float32 is
enough for it: a pixel's direction u is u_box + du, with du computed without cancellation.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import jax.numpy as jnp

from bayesbragg.forward.parameters import PanelParameters
from bayesbragg.forward.rotations import successive_rotations
from bayesbragg.forward.small import cross

__all__ = [
    "BoxGeometry",
    "Directions",
    "MovedBoxes",
    "captured_fraction",
    "directions",
    "full_direction",
    "move_boxes",
    "pixel_centres",
    "polarization",
    "scattering_directions",
    "solid_angle",
]

Array = Any
Vector = tuple[Array, Array, Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BoxGeometry:
    """The nominal panel of each box and the pixels in it.

    Attributes:
        origin_m: outer corner of the panel's first pixel, ``(n_boxes, 3)``, metre.
        fast, slow, normal: nominal unit vectors of the panel, ``(n_boxes, 3)``.
        normal_sign: +1 or -1 so that ``normal_sign * fast x slow`` points away from the sample, scalar.
        pixel_m: fast and slow pixel size, ``(n_boxes, 2)``, metre.
        group: panel group of the box, ``(n_boxes,)`` int.
        reference_m: point about which the group turns, ``(n_boxes, 3)``, metre.
        centre_px: fast and slow coordinate of the box's reference point, ``(n_boxes, 2)``, pixel.
        fast_px, slow_px: pixel's outer corner relative to ``centre_px``, ``(n_boxes, n_pixels)``, pixel.
    """

    origin_m: Array
    fast: Array
    slow: Array
    normal: Array
    normal_sign: Array
    pixel_m: Array
    group: Array
    reference_m: Array
    centre_px: Array
    fast_px: Array
    slow_px: Array

    def at(self, box: Array) -> BoxGeometry:
        """Boxes by their numbers, ``(n_rows,)``."""
        every = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "normal_sign"}
        return replace(self, **{name: array[box] for name, array in every.items()})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MovedBoxes:
    """Panels after their motions, and the direction of each box's reference point (all float64, per box).

    Attributes:
        fast_m, slow_m: one pixel step along fast and slow, ``(n_boxes, 3)``, metre.
        normal: unit normals, ``(n_boxes, 3)``.
        distance_m: distance of the panel's plane from the sample, ``(n_boxes,)``.
        area_m2: pixel area, ``(n_boxes,)``.
        position_m: reference point, ``(n_boxes, 3)``.
        direction: its unit direction u_box, ``(n_boxes, 3)``.
    """

    fast_m: Array
    slow_m: Array
    normal: Array
    distance_m: Array
    area_m2: Array
    position_m: Array
    direction: Array

    def at(self, box: Array) -> MovedBoxes:
        """Boxes by their numbers, ``(n_rows,)``."""
        picked: MovedBoxes = jax.tree.map(lambda array: array[box], self)
        return picked


def move_boxes(boxes: BoxGeometry, panels: PanelParameters) -> MovedBoxes:
    """Apply group rotations (about each panel's own axes, S first), group shifts and the distance shift."""
    axes = jnp.stack([boxes.normal, boxes.fast, boxes.slow], axis=1)
    turn = successive_rotations(axes, panels.rotation_rad[boxes.group])
    fast = jnp.einsum("bij,bj->bi", turn, boxes.fast)
    slow = jnp.einsum("bij,bj->bi", turn, boxes.slow)
    shift = panels.translation_m[boxes.group] + panels.detz_m * jnp.array([0.0, 0.0, 1.0])
    arm = boxes.origin_m - boxes.reference_m
    origin = boxes.reference_m + jnp.einsum("bij,bj->bi", turn, arm) + shift
    normal = boxes.normal_sign * cross(fast, slow)
    normal = normal / jnp.linalg.norm(normal, axis=-1, keepdims=True)
    fast_m, slow_m = fast * boxes.pixel_m[:, :1], slow * boxes.pixel_m[:, 1:]
    position = origin + boxes.centre_px[:, :1] * fast_m + boxes.centre_px[:, 1:] * slow_m
    return MovedBoxes(
        fast_m=fast_m,
        slow_m=slow_m,
        normal=normal,
        distance_m=jnp.sum(origin * normal, axis=-1),
        area_m2=boxes.pixel_m[:, 0] * boxes.pixel_m[:, 1],
        position_m=position,
        direction=position / jnp.linalg.norm(position, axis=-1, keepdims=True),
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Directions:
    """Directions of one point per pixel.

    Attributes:
        du: direction minus the box's direction, three arrays ``(n_boxes, n_pixels)``.
        inverse_r: 1 / distance from the sample, ``(n_boxes, n_pixels)``, 1/metre.
    """

    du: Vector
    inverse_r: Array


def directions(
    boxes: BoxGeometry, moved: MovedBoxes, fast_offset: Array, slow_offset: Array, depth_m: Array
) -> Directions:
    """Directions of the points at an offset (pixels) inside each pixel and a depth (metre) behind the front face.

    With p = p_box + d, the difference u - u_box = d / r + p_box (1/r - 1/r_box) is formed from
    1/r - 1/r_box = -(2 p_box + d).d / (r r_box (r + r_box)), which does not cancel.
    """
    dtype = boxes.fast_px.dtype

    def per_box(value: Array) -> Array:
        return value.astype(dtype)[:, None]

    f = boxes.fast_px + jnp.asarray(fast_offset, dtype)
    s = boxes.slow_px + jnp.asarray(slow_offset, dtype)
    layer = jnp.asarray(depth_m)[None, None] * moved.normal
    d: list[Array] = [
        f * per_box(moved.fast_m[:, i]) + s * per_box(moved.slow_m[:, i]) + per_box(layer[:, i]) for i in range(3)
    ]
    p = [per_box(moved.position_m[:, i]) for i in range(3)]
    r_box_exact = jnp.linalg.norm(moved.position_m, axis=-1)
    r_box = per_box(r_box_exact)
    growth = sum((2.0 * p[i] + d[i]) * d[i] for i in range(3))
    r = jnp.sqrt(r_box * r_box + growth)
    inverse_r = 1.0 / r
    bend = -growth * inverse_r / (r_box * (r + r_box))
    du = tuple(d[i] * inverse_r + p[i] * bend for i in range(3))
    return Directions((du[0], du[1], du[2]), inverse_r)


def pixel_centres(boxes: BoxGeometry, moved: MovedBoxes) -> Directions:
    """Directions of the middle of each pixel's front face."""
    return directions(boxes, moved, jnp.asarray(0.5), jnp.asarray(0.5), jnp.asarray(0.0))


def scattering_directions(boxes: BoxGeometry, moved: MovedBoxes, k: Array) -> Array:
    """u - k of every pixel's centre for the unit vector k of the beam, float64, ``(n_boxes, n_pixels, 3)``."""
    du = jnp.stack(pixel_centres(boxes, moved).du, axis=-1).astype(jnp.float64)
    return du + (moved.direction - k)[:, None, :]


def full_direction(moved: MovedBoxes, point: Directions) -> Vector:
    """Unit directions u, three arrays ``(n_boxes, n_pixels)``."""
    x, y, z = (point.du[i] + moved.direction[:, i].astype(point.du[i].dtype)[:, None] for i in range(3))
    return x, y, z


def solid_angle(moved: MovedBoxes, point: Directions) -> Array:
    """Solid angle of a whole pixel, area * distance / r^3, ``(n_boxes, n_pixels)``, steradian (PHYSICS 1.6)."""
    factor = (moved.area_m2 * moved.distance_m).astype(point.inverse_r.dtype)
    return factor[:, None] * point.inverse_r**3


def captured_fraction(
    moved: MovedBoxes, point: Directions, layer: Array, thickstep_m: Array, attenuation_m: Array
) -> Array:
    """Fraction of the photons absorbed in a sensor layer, ``(n_boxes, n_pixels)`` (PHYSICS 1.5)."""
    u = full_direction(moved, point)
    dtype = u[0].dtype
    along = sum(u[i] * moved.normal[:, i].astype(dtype)[:, None] for i in range(3))
    path = (thickstep_m / attenuation_m).astype(dtype) / along
    front = jnp.exp(-jnp.asarray(layer, dtype) * path)
    return front * -jnp.expm1(-path)


def polarization(moved: MovedBoxes, point: Directions, k: Array, normal: Array, kahn: Array) -> Array:
    """Kahn polarization factor, ``(n_boxes, n_pixels)`` (PHYSICS 1.7).

    With e and b the unit vectors across the beam, sin^2(2 theta) cos(2 psi) = (u.e)^2 - (u.b)^2: no angle is needed.
    """
    e = cross(k, normal)
    e = e / jnp.linalg.norm(e)
    b = cross(e, k)
    u = full_direction(moved, point)
    dtype = u[0].dtype
    u_k, u_b, u_e = (sum(u[i] * v[i].astype(dtype) for i in range(3)) for v in (k, b, e))
    return 0.5 * (1.0 + u_k * u_k - kahn.astype(dtype) * (u_e * u_e - u_b * u_b))

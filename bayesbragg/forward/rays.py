"""A pixel's ray past a reflection: how far it misses, and at which wavelength it comes closest.

In the frame of a reflection (along q0 and across) a pixel's ray is q = k s, k = 1/wavelength. The exponent is
((k a - l)^2 / v + k^2 T) / 2, with a its slope along q0, l the length of q0, v the variance along it and T = s_t.K.s_t
from the stiffness K across. It equals p (k - k*)^2 + m with D = a^2 + v T, p = D / 2v, k* = a l / D and
m = l^2 T / 2D. With the tilts r = s_t / s_r all nodes of a spread share what a pixel adds, and

    A = a / s_r,  R = l^2 r.K.r / 2,  B = A + (2 v / l^2) R / A:  m = R / (A B),  k* = l / (s_r B),  p = s_r^2 A B / 2v.

All pixel arrays are differences from the box, so that single precision is enough for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from bayesbragg.forward.geometry import Directions, MovedBoxes
from bayesbragg.forward.options import Options
from bayesbragg.forward.parameters import Parameters
from bayesbragg.forward.scene import Scene
from bayesbragg.forward.spread import Shapes

__all__ = ["Coefficients", "Tilts", "Windows", "coefficients", "pixel_tilts", "windows"]

Array = Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Tilts:
    """What a pixel is to a reflection, whatever its spread, ``(n_rows, n_pixels)``.

    Attributes:
        first, second: tilts r of the ray against q0, radian.
        outward: (|s| - s_r) / s_r.
        slope: s_r.
        ahead: (l - k_ref s_r) / s_r with the length l of the first node, 1/angstrom.
    """

    first: Array
    second: Array
    outward: Array
    slope: Array
    ahead: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Coefficients:
    """What a reflection is to all its pixels, ``(n_nodes, n_rows, 1)``.

    Attributes:
        lean1, lean2, outward: how A depends on the tilts (`bayesbragg.forward.spread.Shapes`).
        k11, k12, k22: l^2 K / 2.
        all_over: what the Debye-Waller factor adds to R, whatever the tilt, l^2 b / 2.
        variance: 2 v / l^2.
        longer: l less that of the first node, 1/angstrom.
        half: 1 / 2v, angstrom^2.
    """

    lean1: Array
    lean2: Array
    outward: Array
    k11: Array
    k12: Array
    k22: Array
    all_over: Array
    variance: Array
    longer: Array
    half: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Windows:
    """What pixels see of a reflection: m, k* - k_ref and p of the module's docstring; wider: B / A - 1."""

    miss: Array
    centre: Array
    sharpness: Array
    wider: Array


def coefficients(parameters: Parameters, options: Options, shapes: Shapes, dtype: Any) -> Coefficients:
    """`Coefficients` of every row and node."""
    square = 0.5 * shapes.length**2
    K = square[..., None] * shapes.stiffness
    all_over = square * (parameters.scale.b_factor_A2 if options.b_factor else 0.0)
    values = Coefficients(
        lean1=shapes.lean[..., 0],
        lean2=shapes.lean[..., 1],
        outward=shapes.outward,
        k11=K[..., 0] + all_over,
        k12=2.0 * K[..., 1],
        k22=K[..., 2] + all_over,
        all_over=all_over,
        variance=shapes.variance / square,
        longer=shapes.length - shapes.length[:1],
        half=0.5 / shapes.variance,
    )
    cast: Coefficients = jax.tree.map(lambda a: a.astype(dtype)[..., None], values)
    return cast


def pixel_tilts(
    scene: Scene,
    shapes: Shapes,
    rows: slice,
    moved: MovedBoxes,
    point: Directions,
    k_reference: Array,
) -> Tilts:
    """`Tilts` of the rows of ``shapes``.

    Args:
        rows: which rows.
        moved, point: of the box of each row.
    """
    dtype = point.du[0].dtype

    def column(per_row: Array) -> Array:
        return per_row.astype(dtype)[:, None]

    frame = shapes.frame[rows]
    s_box = jnp.einsum("rij,rj->ri", frame, moved.direction - scene.beam.k)
    du = point.du
    # Sums of a few products are written out: as matrix products they would be slower, and not be merged with the rest.
    along, t1, t2 = (sum(column(frame[:, i, c]) * du[c] for c in range(3)) for i in range(3))
    slope = along + column(s_box[:, 0])
    inverse = 1.0 / slope
    r1, r2 = (t1 + column(s_box[:, 1])) * inverse, (t2 + column(s_box[:, 2])) * inverse
    square = r1 * r1 + r2 * r2
    ahead = column(shapes.length[0, rows] - k_reference * s_box[:, 0]) - k_reference.astype(dtype) * along
    return Tilts(r1, r2, square / (1.0 + jnp.sqrt(1.0 + square)), slope, ahead * inverse)


def windows(tilts: Tilts, row: Coefficients, k_reference: Array) -> Windows:
    """Windows of pixels; the arrays of ``row`` may have more leading axes than those of ``tilts``."""
    r1, r2 = tilts.first, tilts.second
    bent = row.outward * tilts.outward - (row.lean1 * r1 + row.lean2 * r2)
    A = 1.0 + bent
    R = r1 * (row.k11 * r1 + row.k12 * r2) + row.k22 * (r2 * r2) + row.all_over
    more = row.variance * R / A
    inverse = 1.0 / (A + more)
    return Windows(
        miss=R * inverse / A,
        centre=(tilts.ahead + row.longer / tilts.slope - k_reference * (bent + more)) * inverse,
        sharpness=row.half * (tilts.slope * tilts.slope) * (A * (A + more)),
        wider=more / A,
    )

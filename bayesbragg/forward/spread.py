"""Mosaic spread in closed form: each reflection as a Gaussian, or a few, around its reciprocal lattice vector.

F_latt^2 is a Gaussian in q around q0 = M^-T h0 with covariance C0 = M^-T (4 FUDGE N^T N)^-1 M^-1. A small random
rotation w of the crystal moves q0 by w x q0: in the frame (along q0, and two directions across) it adds |q0|^2 times
the angular covariance to the two directions across, and nothing along q0 (PHYSICS 7).

The classic isotropic spread is a scale mixture, a standard normal rotation vector times sigma, with sigma uniform on
(0, eta). With sinh(x) = sigma |q0| / beta, beta the block's own width across q0, the average over sigma is smooth in x
and even, so that the positive half of a Gauss-Legendre rule does: with 2 asinh(eta |q0| / beta) nodes it errs by less
than 3e-4 of the peak for ratios up to 100.

A rotation keeps |q|. Where a share f of the width across comes from rotations, a tilt by t is undone by them up to
(1 - f) t, and q lies (1 - (1 - f)^2) t^2 / 2|q0| farther out than the tangent plane says; on average f beta^2 / |q0|
is lost again. Both are linear in 1/wavelength along a pixel's ray, so that the exponent stays quadratic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bayesbragg.forward.mosaic import angular_covariance
from bayesbragg.forward.options import Options
from bayesbragg.forward.parameters import Parameters
from bayesbragg.forward.pixels import FUDGE, block_heights
from bayesbragg.forward.scene import Scene
from bayesbragg.forward.small import cross, determinant

__all__ = ["Reflexes", "Shapes", "mixture_rule", "mixture_size", "shape_reflexes"]

Array = Any

FALLBACK_NODES = 6
"""Nodes of the classic isotropic spread where no rule is given."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Reflexes:
    """Reflections that light up boxes, one per row; a reflection in two boxes has two rows.

    Attributes:
        box, lattice: where it is seen and which crystal it belongs to, ``(n_rows,)`` int.
        hkl: Miller indices, ``(n_rows, 3)``.
        position: its place in the flattened structure-factor windows, ``(n_rows,)`` int.
        live: 1, or 0 for rows that only fill up the array, ``(n_rows,)``.
    """

    box: Array
    lattice: Array
    hkl: Array
    position: Array
    live: Array

    def padded(self, n_rows: int) -> Reflexes:
        """Copies of the first row, none of them live, added up to ``n_rows``; by numpy."""
        rows = np.pad(np.arange(len(self.live)), (0, n_rows - len(self.live)))
        box, lattice, hkl, position, live = (
            np.asarray(a)[rows] for a in (self.box, self.lattice, self.hkl, self.position, self.live)
        )
        live[len(self.live) :] = 0
        return Reflexes(box, lattice, hkl, position, live)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Shapes:
    """Gaussians in the frame of each reflection, float64; the nodes of the spread come first.

    With t = s_t k the displacement across q0 and rho = k (s_r + outward bend - lean.s_t) - length that along it, the
    exponent is t.stiffness.t / 2 + rho^2 / (2 variance).

    Attributes:
        frame: rows are the unit vectors along q0 and across it, ``(n_rows, 3, 3)``.
        length: |q0| with the mean bend, ``(n_nodes, n_rows)``, 1/angstrom.
        outward: share 1 - (1 - f)^2 of the curvature of the sphere, ``(n_nodes, n_rows)``.
        lean: how the reflection leans outwards across q0, ``(n_nodes, n_rows, 2)``.
        stiffness: inverse covariance across q0, elements 11, 12, 22, ``(n_nodes, n_rows, 3)``, angstrom^2.
        variance: along q0, given the displacement across, ``(n_nodes, n_rows)``, 1/angstrom^2.
        weight: peak height of a node relative to a block without spread, ``(n_nodes, n_rows)``.
    """

    frame: Array
    length: Array
    outward: Array
    lean: Array
    stiffness: Array
    variance: Array
    weight: Array


def _frames(q0: Array) -> tuple[Array, Array]:
    """Lengths ``(n_rows,)`` and orthonormal frames ``(n_rows, 3, 3)`` whose first vector is along q0."""
    length = jnp.linalg.norm(q0, axis=-1)
    along = q0 / length[:, None]
    # The lab axis that is least along q0; any will do, and it must not jump while a derivative is taken.
    axis = jnp.eye(3)[jnp.argmin(jnp.abs(jax.lax.stop_gradient(along)), axis=-1)]
    first = cross(along, axis)
    first = first / jnp.linalg.norm(first, axis=-1, keepdims=True)
    return length, jnp.stack([along, first, cross(along, first)], axis=1)


def mixture_size(ratio: float) -> int:
    """Nodes for a spread that is so many times as wide as a block; few sizes, so that shots share compilations."""
    reach = np.arcsinh(ratio)
    needed = 0.1 + 2.0 * reach + 0.02 * reach**2
    return next((n for n in (2, 3, 4, 5, 6, 8, 10, 12) if n >= needed), 16)


def mixture_rule(n_nodes: int) -> npt.NDArray[np.float64]:
    """Abscissae in (0, 1) and their weights for even functions, ``(n_nodes, 2)``: Gauss-Legendre of twice as many."""
    x, w = np.polynomial.legendre.leggauss(2 * n_nodes)
    return np.column_stack([x[n_nodes:], w[n_nodes:]])


def _nodes(
    parameters: Parameters, scene: Scene, options: Options, frame: Array, ratio: Array, rule: Array
) -> tuple[Array, Array]:
    """Angular covariances across q0, elements 11, 12, 22 in radian^2, ``(n_nodes, n_rows, 3)``, and their weights.

    Args:
        ratio: the angle beta / |q0| that the block itself spans, ``(n_rows,)``, radian.
    """
    n_rows = frame.shape[0]
    unit = jnp.array([1.0, 0.0, 1.0])
    if options.spread == "none":
        return jnp.zeros((1, n_rows, 3)), jnp.ones((1, n_rows))
    if options.spread == "isotropic":
        width = jnp.maximum(jnp.radians(parameters.mosaic.eta_deg[0]), 1e-12)
        limit = jnp.arcsinh(width / ratio)
        x = jnp.asarray(rule)[:, :1] * limit
        sigma = ratio * jnp.sinh(x)
        weight = jnp.asarray(rule)[:, 1:] * limit * ratio / width * jnp.cosh(x)
        return (sigma**2)[..., None] * unit, weight
    # w x q0 along the first direction across is |q0| times w along the second, and the other way round with a sign.
    covariance = angular_covariance(scene.mosaic, parameters.mosaic, options.spread)
    e1, e2 = frame[:, 1], frame[:, 2]
    s11, s12, s22 = (jnp.einsum("ri,ij,rj->r", a, covariance, b) for a, b in ((e1, e1), (e1, e2), (e2, e2)))
    return jnp.stack([s22, -s12, s11], axis=-1)[None], jnp.ones((1, n_rows))


def shape_reflexes(
    parameters: Parameters,
    scene: Scene,
    options: Options,
    reflexes: Reflexes,
    *,
    angle: float | Array = 0.0,
    relative: float | Array = 0.0,
    rule: Array | None = None,
    blur: Callable[[], Array] | None = None,
) -> Shapes:
    """The Gaussians of every row at these parameters.

    Args:
        rule: of the classic isotropic spread (`mixture_rule`), ``(n_nodes, 2)``.
        blur: gives the covariance of everything else that blurs q, ``(n_rows, 3, 3)``.
        angle, relative: standard deviations by which each reflection is widened across (radian) and along q0
            (relative), for a search with a margin.
    """
    blocks, _ = block_heights(parameters, options)
    reciprocal = jnp.linalg.inv(scene.lattices.real_space(parameters.crystal)).swapaxes(-1, -2)
    root = reciprocal @ jnp.linalg.inv(blocks) / jnp.sqrt(4.0 * FUDGE)
    q0 = jnp.einsum("rij,rj->ri", reciprocal[reflexes.lattice], reflexes.hkl)
    # The direct beam, (0, 0, 0), has neither amplitude nor direction; any near it stands in.
    q0 = jnp.where(jnp.any(reflexes.hkl != 0, axis=-1, keepdims=True), q0, jnp.array([1e-3, 0.0, 0.0]))
    length, frame = _frames(q0)
    spread = frame @ root[reflexes.lattice]
    C = spread @ spread.swapaxes(-1, -2)
    own = determinant(C)
    if blur is not None:
        C = C + frame @ blur() @ frame.swapaxes(-1, -2)
    extra = jnp.stack([jnp.asarray(relative), jnp.asarray(angle), jnp.asarray(angle)]) ** 2
    C = C + (length * length)[:, None, None] * jnp.diag(extra)
    across = jnp.stack([C[:, 1, 1], C[:, 1, 2], C[:, 2, 2]], axis=-1)
    mixed, along = C[:, 0, 1:], C[:, 0, 0]
    area = across[:, 0] * across[:, 2] - across[:, 1] ** 2
    beta = area**0.25
    rule = mixture_rule(FALLBACK_NODES) if rule is None else rule
    covariance, share = _nodes(parameters, scene, options, frame, beta / length, rule)
    covariance = covariance * (length * length)[:, None]

    wide = across + covariance
    wide_area = wide[..., 0] * wide[..., 2] - wide[..., 1] ** 2
    stiffness = jnp.stack([wide[..., 2], -wide[..., 1], wide[..., 0]], axis=-1) / wide_area[..., None]
    lean = jnp.stack(
        [
            stiffness[..., 0] * mixed[:, 0] + stiffness[..., 1] * mixed[:, 1],
            stiffness[..., 1] * mixed[:, 0] + stiffness[..., 2] * mixed[:, 1],
        ],
        axis=-1,
    )
    variance = along - jnp.sum(lean * mixed, axis=-1)
    turned = 0.5 * (covariance[..., 0] + covariance[..., 2])
    fraction = turned / (turned + 0.5 * (across[:, 0] + across[:, 2]))
    return Shapes(
        frame=frame,
        length=length + fraction * 0.5 * (across[:, 0] + across[:, 2]) / length,
        outward=fraction * (2.0 - fraction),
        lean=lean,
        stiffness=stiffness,
        variance=variance,
        weight=share * jnp.sqrt((own if blur is not None else determinant(C)) / (wide_area * variance)),
    )

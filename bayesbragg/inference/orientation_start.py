"""Orientation and cell of a start from where the photons are: a step that no spot can be too far away for.

The pixels of a box know little of an orientation whose model puts no photon there. The centroid of the photons and the
Miller index of the box's reflection do: with u the unit vector to the centroid, the photons came from
q = (u - k) / lambda, and the index should be there. In units of its spread (a fraction of a pixel across, the band's
width along q, the block's along u) the difference is linear enough in a few tenths of a degree for Gauss and Newton's
method, with weights that fade for boxes that do not agree with the others.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesbragg.forward.closed import ClosedScene
from bayesbragg.forward.geometry import move_boxes, pixel_centres
from bayesbragg.forward.scene import Scene

__all__ = ["turned"]

Array = Any

MOVES = ("RotXYZ", "cell")
"""What the step changes, where a fit varies it."""

STEPS = 8
PIXELS = 0.5
"""Spread of a centroid, pixels."""
INDEX = 0.05
"""Spread along the ray of a reflection that is seen, in reciprocal cells."""
CELL = 0.003
"""Prior standard deviation of the cell, relative (edges) or radian."""
TURN = 0.02
"""Prior standard deviation of the orientation about its start, radian."""
BRIGHT = 2.0
"""Pixels count that are brighter than the background by this many standard deviations."""


def turned(values: Array, problem: Any) -> Array:
    """Physical values with orientation and cell after that step, ``(n,)``; the others, and bounds, stay.

    Args:
        values: physical values of the start, ``(n,)``.
        problem: a `bayesbragg.inference.density.Problem`; nothing is changed where its pixels have no guide.
    """
    layout, pixels, guide = problem.layout, problem.pixels, problem.pixels.guide
    scene = problem.scene.scene if isinstance(problem.scene, ClosedScene) else problem.scene
    which = np.array([i for i, site in enumerate(layout.sites) if site.prior in MOVES], dtype=int)
    if guide is None or not len(which) or not isinstance(scene, Scene):
        return values
    hkl = guide.miller_index @ jnp.asarray(scene.lattices.basis).T
    start = layout.place(values, problem.base)
    excess = jnp.where(pixels.trusted, pixels.counts - pixels.background, 0.0)
    noise = jnp.sqrt(jnp.maximum(pixels.background, 0.0) + pixels.variance)
    photons = jnp.where(excess > BRIGHT * noise, excess, 0.0)
    total = jnp.sum(photons, axis=1)

    moved = move_boxes(scene.boxes, start.panels)
    du = jnp.stack(pixel_centres(scene.boxes, moved).du, axis=-1).astype(jnp.float64)
    share = photons / jnp.where(total > 0, total, 1.0)[:, None]
    u = moved.direction + jnp.einsum("bp,bpi->bi", share, du)
    strength = scene.channels.strength / jnp.sum(scene.channels.strength)
    inverse = scene.channels.inverse(start.spectrum)
    middle = jnp.sum(strength * inverse)
    band = jnp.sqrt(jnp.sum(strength * (inverse - middle) ** 2)) / middle
    q = middle * (u - scene.beam.k)

    pixel = jnp.sqrt(moved.area_m2) / jnp.linalg.norm(moved.position_m, axis=-1)
    edge = jnp.linalg.det(scene.lattices.real_space(start.crystal)[0]) ** (1.0 / 3.0)
    eye = jnp.eye(3)
    covariance = (
        ((PIXELS * middle * pixel) ** 2)[:, None, None] * eye
        + band**2 * q[:, :, None] * q[:, None, :]
        + (INDEX / edge) ** 2 * (0.01 * eye + u[:, :, None] * u[:, None, :])
    )
    whiten = jnp.linalg.inv(jnp.linalg.cholesky(covariance))
    is_turn = np.array([layout.sites[i].prior == "RotXYZ" for i in which])
    is_edge = np.array([layout.sites[i].unit == "angstrom" for i in which])
    prior_sd = jnp.where(is_turn, TURN, jnp.where(is_edge, CELL * values[which], CELL))

    def residuals(step: Array) -> Array:
        parameters = layout.place(values.at[which].add(step), problem.base)
        to_q = jnp.linalg.inv(jnp.swapaxes(scene.lattices.real_space(parameters.crystal), -1, -2))
        expected = jnp.einsum("bij,bj->bi", to_q[guide.lattice], hkl)
        return jnp.einsum("bij,bj->bi", whiten, q - expected)

    lit = total > 0
    n_lit = jnp.sum(lit)

    def one(step: Array, _: None) -> tuple[Array, None]:
        r, J = residuals(step), jax.jacfwd(residuals)(step)
        square = jnp.sum(r * r, axis=-1)
        # The median of the lit boxes tells how well the others agree by now.
        order = jnp.sort(jnp.where(lit, square, jnp.inf))
        typical = jnp.maximum(order[jnp.maximum(n_lit // 2, 0)], 1.0)
        typical = jnp.where(jnp.isfinite(typical), typical, 1.0)
        weight = jnp.where(lit, 1.0 / (1.0 + square / (2.0 * typical)) ** 2 / typical, 0.0)
        gradient = jnp.einsum("b,bik,bi->k", weight, J, r) + step / prior_sd**2
        curvature = jnp.einsum("b,bik,bil->kl", weight, J, J) + jnp.diag(1.0 / prior_sd**2)
        return step - jnp.linalg.solve(curvature, gradient), None

    step, _ = jax.lax.scan(one, jnp.zeros(len(which)), None, length=STEPS)
    low, high = jnp.asarray(layout.low)[which], jnp.asarray(layout.high)[which]
    inside = 1e-3 * jnp.where(jnp.isfinite(high - low), high - low, 0.0)
    new = jnp.clip(values[which] + step, low + inside, high - inside)
    return values.at[which].set(jnp.where(jnp.all(jnp.isfinite(new)), new, values[which]))

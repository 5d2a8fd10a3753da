"""The joint density of shots and the detector they share, in coordinates without bounds: what Laplace and NUTS see.

U(y) is that of `bayesbragg.inference.unbounded`, a sum of terms that each know one shot's own numbers and the shared
ones, and of the shared prior:

    U(y) = sum_i U_i(y_i, y_s) + 1/2 (v - m)^T P (v - m) - log |dv / dy_s|,     v = v(y_s),

the very density that the joint optimum maximises (`bayesbragg.inference.joint`), with the change of variables that
sampling needs. Shots whose arrays have the same shapes, or nearly so, stand together in a bucket: each bucket compiles
once, and its shots are visited one after the other, so that memory is that of one shot beside the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bayesbragg.forward.closed import ClosedScene
from bayesbragg.inference.arrow import ArrowCurvature
from bayesbragg.inference.density import Recipe
from bayesbragg.inference.joint_curvature import directions_of, joint_curvature
from bayesbragg.inference.joint_parts import Bucket, JointData, Shared, shared_potential, shot_potential, split
from bayesbragg.inference.joint_types import JointFit
from bayesbragg.inference.pixel_term import Moving, PixelTerm
from bayesbragg.inference.schur import Blocks, own_covariance
from bayesbragg.inference.stacking import stack
from bayesbragg.inference.unbounded import Bounds, Target, values_of
from bayesbragg.model.errors import InputError
from bayesbragg.model.fit import FitStatus
from bayesbragg.priors.flatten import Layout
from bayesbragg.priors.panels import SharedPrior

__all__ = ["JointPotential", "JointTarget", "joint_sds", "joint_target", "target_of_joint_fit"]

Array = Any
FloatArray = npt.NDArray[np.float64]
STEP = 1e-3
"""Length of the differences that tell the curvature, in standard deviations."""
FILLED_UP = 1.1
"""Lists of reflections are filled up to this many times their length, so that more shots share a bucket."""


@dataclass(frozen=True)
class JointPotential:
    """U(y, data) with y the own numbers of all shots, bucket after bucket, then the shared ones.

    Attributes:
        recipes: of each bucket.
    """

    recipes: tuple[Recipe, ...]

    def __call__(self, y: Array, data: JointData) -> Array:
        total: Array = _total(self.recipes, y, data)
        return total


@dataclass(frozen=True, eq=False)
class JointTarget(Target):
    """The joint posterior.

    Attributes:
        shots: of each shot, in the order in which they were given, its name and the places of its own numbers in y.
        own_names: of those numbers, for each shot.
        prior: of the shared numbers.
    """

    potential: JointPotential
    shots: tuple[tuple[str, slice], ...] = ()
    own_names: tuple[tuple[str, ...], ...] = ()
    prior: SharedPrior | None = None


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _total(recipes: tuple[Recipe, ...], y: Array, data: JointData) -> Array:
    parts, y_s = split(y, data)
    total = shared_potential(y_s, data.shared)
    for recipe, own, bucket in zip(recipes, parts, data.buckets, strict=True):

        def add(sum_: Array, shot: Any, recipe: Recipe = recipe) -> tuple[Array, None]:
            return sum_ + shot_potential(shot[0], y_s, shot[1], data.shared, recipe), None

        total, _ = jax.lax.scan(add, total, (own, bucket))
    return total


def _forward(recipes: tuple[Recipe, ...], y: Array, data: JointData) -> tuple[Array, Array]:
    """Value and gradient together: the derivative of a scan would keep what all shots have computed until its end."""
    parts, y_s = split(y, data)
    total, slope = jax.value_and_grad(shared_potential)(y_s, data.shared)
    slopes = []
    for recipe, own, bucket in zip(recipes, parts, data.buckets, strict=True):

        def add(sums: Any, shot: Any, recipe: Recipe = recipe) -> tuple[Any, Array]:
            of_both = jax.value_and_grad(shot_potential, argnums=(0, 1))
            value, (g, g_s) = of_both(shot[0], y_s, shot[1], data.shared, recipe)
            return (sums[0] + value, sums[1] + g_s), g

        (total, slope), g = jax.lax.scan(add, (total, slope), (own, bucket))
        slopes.append(g.reshape(-1))
    return total, jnp.concatenate([*slopes, slope])


def _backward(recipes: tuple[Recipe, ...], gradient: Array, weight: Array) -> tuple[Array, None]:
    return weight * gradient, None


_total.defvjp(_forward, _backward)


def joint_target(
    terms: Sequence[PixelTerm],
    tags: Sequence[str],
    prior: SharedPrior,
    own: Sequence[FloatArray],
    shared: FloatArray,
    own_sd: Sequence[FloatArray],
    shared_sd: FloatArray,
) -> JointTarget:
    """The joint posterior of shots and panels.

    Args:
        terms: the shots; tags: their names.
        prior: of the shared numbers.
        own: where each shot's numbers start, coordinates of its layout, ``(n,)`` each; own_sd: about how wide the
            posterior of its physical values is.
        shared: the same of all shared numbers, ``(n_shared,)``; shared_sd: their widths.
    """
    order, buckets, recipes = _bucketed(terms)
    values = [np.asarray(t.layout.values(jnp.asarray(x))) for t, x in zip(terms, own, strict=True)]
    limits = [t.layout.bounds() for t in terms]
    bounds = [Bounds.of(b[:, 0], b[:, 1], v, sd) for b, v, sd in zip(limits, values, own_sd, strict=True)]
    free = np.flatnonzero(prior.free)
    outside = Bounds.of(prior.low[free], prior.high[free], shared[free], shared_sd[free])
    data = JointData(
        tuple(Bucket(moving, stack([bounds[i] for i in rows])) for rows, moving in zip(order, buckets, strict=True)),
        Shared(
            outside,
            jnp.asarray(prior.mean[free]),
            jnp.asarray(prior.precision[np.ix_(free, free)]),
            jnp.asarray(free),
            jnp.asarray(np.where(prior.free, 0.0, shared)),
        ),
    )
    rows = [i for part in order for i in part]
    every = jax.tree.map(lambda *a: jnp.asarray(np.concatenate(a)), *(bounds[i] for i in rows), outside)
    names: list[str] = []
    units: list[str] = []
    places, place = {}, 0
    for i in rows:
        layout = terms[i].layout
        names += [f"{tags[i]}_{name}" for name in layout.names]
        units += layout.units
        places[i] = slice(place, place + layout.n)
        place += layout.n
    whole = every.coordinates(np.concatenate([*(values[i] for i in rows), shared[free]]))
    potential = JointPotential(tuple(recipes))
    direction = directions_of(free, prior.n)
    widths = np.concatenate([*(own_sd[i] for i in rows), shared_sd[free]])
    step = STEP * np.where(np.isfinite(widths) & (widths > 0), widths, 1e-3)

    def curvature(y: FloatArray) -> ArrowCurvature:
        # Steps are lengths of physical values; the bijections stretch them.
        slope = np.exp(np.asarray(every.log_jacobian(jnp.asarray(y))))
        return joint_curvature(jnp.asarray(y), data, potential.recipes, direction, step / np.maximum(slope, 1e-300))

    return JointTarget(
        names=(*names, *(prior.names[i] for i in free)),
        units=(*units, *(prior.units[i] for i in free)),
        potential=potential,
        data=data,
        start=whole,
        to_values=lambda y: np.asarray(values_of(jnp.asarray(y), every)),
        curvature=curvature,
        bounds=every,
        shots=tuple((tags[i], places[i]) for i in range(len(terms))),
        own_names=tuple(t.layout.names for t in terms),
        prior=prior,
    )


def target_of_joint_fit(
    terms: Sequence[PixelTerm], tags: Sequence[str], prior: SharedPrior, fit: JointFit
) -> JointTarget:
    """The joint posterior, to be explored from its optimum.

    Raises:
        InputError: the fit failed: there is no optimum to start from.
    """
    if fit.status is FitStatus.FAILED or not np.all(np.isfinite(fit.shared)):
        raise InputError(f"the joint fit {fit.status.value} ({fit.reason}): a posterior starts from its optimum; "
                         "refine the geometry again")  # fmt: skip
    sds = []
    for term, x, blocks in zip(terms, fit.own, fit.blocks, strict=True):
        sds.append(joint_sds(term.layout, x[0], blocks[0], fit.covariance))
    return joint_target(terms, tags, prior, [x[0] for x in fit.own], fit.shared, sds, fit.standard_errors)


def joint_sds(layout: Layout, own: FloatArray, block: Blocks, covariance: FloatArray) -> FloatArray:
    """Standard deviations of a shot's physical values in Gaussian approximation, ``(n,)``.

    Args:
        own: coordinates of its layout, ``(n,)``; block: its part of the normal equations there.
        covariance: marginal covariance of the shared numbers.
    """
    variance = np.diag(own_covariance(block, covariance))
    return np.asarray(np.sqrt(np.maximum(variance, 0.0)) * np.abs(layout.values_and_slope(own)[1]))


def _bucketed(terms: Sequence[PixelTerm]) -> tuple[list[list[int]], list[Moving], list[Recipe]]:
    """Numbers of the terms of each bucket, their stacked arrays, and its recipe.

    Lists of reflections are filled up to the longest of a bucket, where that adds little.
    """
    found: dict[Any, list[int]] = {}
    arrays: dict[int, Moving] = {}
    long_first = sorted(range(len(terms)), key=lambda i: -_n_rows(terms[i].moving))
    longest: dict[Any, int] = {}
    for i in long_first:
        moving = terms[i].with_physical_layout()
        n = _n_rows(moving)
        like = _key(_with_rows(moving, 1), terms[i].recipe) if n else None
        if n and n * FILLED_UP < longest.get(like, 0):
            longest[like] = n
        if n:
            moving = _with_rows(moving, longest.setdefault(like, n))
        found.setdefault(_key(moving, terms[i].recipe), []).append(i)
        arrays[i] = moving
    order = sorted(sorted(rows) for rows in found.values())
    recipes = [terms[rows[0]].recipe for rows in order]
    return order, [stack([arrays[i] for i in rows]) for rows in order], recipes


def _n_rows(moving: Moving) -> int:
    """Length of the list of reflections; 0 for the exact sum, which has none."""
    scene = moving.problem.scene
    return len(scene.reflexes.live) if isinstance(scene, ClosedScene) else 0


def _with_rows(moving: Moving, n: int) -> Moving:
    """The same with a list of reflections of n rows."""
    scene = moving.problem.scene
    reflexes = scene.reflexes
    longer = reflexes.padded(n) if n > 1 else jax.tree.map(lambda a: a[:1], reflexes)
    return replace(moving, problem=replace(moving.problem, scene=replace(scene, reflexes=longer)))


def _key(moving: Moving, recipe: Recipe) -> Any:
    """What arrays must have in common to be stacked."""
    leaves, structure = jax.tree.flatten(moving)
    return structure, tuple((np.shape(a), str(a.dtype)) for a in leaves), recipe

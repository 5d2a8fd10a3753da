"""The pixels of one shot as a term of the joint density.

Each box lies on one panel and so in one group. The Jacobian therefore takes one tangent for each of the shot's own
numbers, six for the motion of "the box's own group", and one for each number that all panels share, whatever the number
of groups; the Gram matrix of every box is then added to the block of its group.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bayesbragg.forward.centroid import own_reflections
from bayesbragg.forward.closed import ClosedScene
from bayesbragg.forward.exact import expected_photons
from bayesbragg.forward.geometry import BoxGeometry
from bayesbragg.forward.group_motion import move_rigidly
from bayesbragg.forward.parameters import Parameters
from bayesbragg.forward.scene import Scene
from bayesbragg.inference.box_likelihood import box_fisher, box_log_likelihood, fitted, normalised_residuals
from bayesbragg.inference.density import LogDensity, Problem, Recipe
from bayesbragg.inference.schur import Blocks, grouped_blocks
from bayesbragg.model.panel_groups import PanelGrouping
from bayesbragg.priors.panels import EXTRAS

__all__ = ["N_EXTRA", "Moving", "PixelTerm", "bragg_at", "exact_scene", "target_of", "with_boxes"]

Array = Any
FloatArray = npt.NDArray[np.float64]
N_EXTRA = len(EXTRAS)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Moving:
    """A shot's problem with the groups of its boxes.

    Attributes:
        problem: layout, base, scene (whose boxes turn about their group's point), pixels.
        group: group of every box, ``(n_boxes,)``.
        axes: of its motion, ``(n_boxes, 3, 3)``.
    """

    problem: Problem
    group: Array
    axes: Array


class PixelTerm:
    """One shot.

    Args:
        density: the shot's own density (boxes padded as they are).
        panel: panel of every box of the density, padding included, ``(n_boxes,)``.
        grouping: the panel groups.
        hkl, lattice, valid, observed_px: for prediction offsets: index of each box's reflection in the primitive
            basis, its lattice, the pixels inside the box, and the observed centroid (not a number for padding).
        boxes: where the boxes are before any motion, if the density's lists of reflections were laid for others.
    """

    def __init__(
        self,
        density: LogDensity,
        panel: npt.ArrayLike,
        grouping: PanelGrouping,
        *,
        hkl: npt.ArrayLike | None = None,
        lattice: npt.ArrayLike | None = None,
        valid: npt.ArrayLike | None = None,
        observed_px: npt.ArrayLike | None = None,
        boxes: BoxGeometry | None = None,
    ) -> None:
        panel = np.asarray(panel)
        problem = density.problem
        self.layout = density.layout.searchable()
        boxes = replace(
            exact_scene(problem.scene).boxes if boxes is None else boxes,
            reference_m=jnp.asarray(1e-3 * grouping.reference_mm[grouping.group[panel]]),
        )
        problem = replace(problem, layout=self.layout, scene=with_boxes(problem.scene, boxes))
        self.moving = Moving(problem, jnp.asarray(grouping.group[panel]), jnp.asarray(grouping.axes[panel]))
        self.recipe, self.n_groups = density.recipe, grouping.n_groups
        self.start = self.layout.initial()[None]
        self.step_limit = np.array([0.5 if s.kind in ("ranged", "log_ranged") else np.inf for s in self.layout.sites])
        self.touched = np.unique(grouping.group[panel])
        self._centroids = None
        if hkl is not None and lattice is not None and observed_px is not None:
            scene = own_reflections(exact_scene(problem.scene), hkl, lattice)
            moving = replace(self.moving, problem=replace(problem, scene=scene))
            self._centroids = (moving, jnp.asarray(valid), np.asarray(observed_px, dtype=np.float64))

    def with_physical_layout(self) -> Moving:
        """The shot's arrays with coordinates that are the physical values themselves."""
        moving = replace(self.moving, problem=replace(self.moving.problem, layout=self.layout.physical()))
        return jax.tree.map(jnp.asarray, moving)  # type: ignore[no-any-return]

    def _motion(self, shared: FloatArray) -> tuple[Array, Array]:
        groups = jnp.asarray(shared[: 6 * self.n_groups]).reshape(-1, 6)
        return groups, jnp.asarray(shared[6 * self.n_groups :])

    def target(self, own: FloatArray, shared: FloatArray) -> float:
        groups, extras = self._motion(shared)
        return float(_target(jnp.asarray(own[0]), groups, extras, self.moving, self.recipe))

    def value_and_grad(self, own: FloatArray, shared: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """Target and its gradients in the shot's own numbers ``(n,)`` and in the shared ones ``(p,)``."""
        groups, extras = self._motion(shared)
        value, (g, gg, ge) = _value_and_grad(jnp.asarray(own[0]), groups, extras, self.moving, self.recipe)
        return float(value), np.asarray(g), np.concatenate([np.asarray(gg).reshape(-1), np.asarray(ge)])

    def linearize(self, own: FloatArray, shared: FloatArray) -> list[Blocks]:
        groups, extras = self._motion(shared)
        out = _linearize(jnp.asarray(own[0]), groups, extras, self.moving, self.recipe)
        target, score, gram, z, prior_gradient, prior_curvature = (np.asarray(a) for a in out)
        t = self.touched
        prior = prior_gradient, prior_curvature
        return [grouped_blocks(float(target), gram[t], -score[t], t, self.n_groups, prior, z)]

    def centroids(self, own: FloatArray, shared: FloatArray) -> FloatArray:
        """Model centroid of each box's own reflection, fast and slow pixel on the panel, ``(n_boxes, 2)``."""
        if self._centroids is None:
            raise ValueError("this term was made without Miller indices")
        moving, valid, _ = self._centroids
        groups, extras = self._motion(shared)
        recipe = replace(self.recipe, forward=expected_photons)
        return np.asarray(_centroid(jnp.asarray(own[0]), groups, extras, moving, valid, recipe))

    def offsets(self, own: FloatArray, shared: FloatArray) -> FloatArray:
        if self._centroids is None:
            return np.zeros(0)
        return np.asarray(np.linalg.norm(self.centroids(own, shared) - self._centroids[2], axis=1))

    def parameters(self, own: FloatArray, shared: FloatArray) -> Parameters:
        """Physical parameters, the extras included, the panels' motions not."""
        base = self.moving.problem.base
        _, extras = self._motion(shared)
        result: Parameters = jax.tree.map(
            np.asarray, _with_extras(self.layout.to_parameters(jnp.asarray(own[0]), base), extras)
        )
        return result

    def bragg(self, own: FloatArray, shared: FloatArray) -> FloatArray:
        """Bragg photons, ``(n_boxes, n_pixels)``."""
        groups, extras = self._motion(shared)
        args = (jnp.asarray(own[0]), groups[self.moving.group], extras, self.moving, self.recipe)
        return np.asarray(_jit_bragg(*args))


def exact_scene(scene: Scene | ClosedScene) -> Scene:
    """The scene itself, without the lists of closed forms."""
    return scene.scene if isinstance(scene, ClosedScene) else scene


def with_boxes(scene: Scene | ClosedScene, boxes: BoxGeometry) -> Scene | ClosedScene:
    """The scene with its boxes elsewhere."""
    if isinstance(scene, ClosedScene):
        return replace(scene, scene=replace(scene.scene, boxes=boxes))
    return replace(scene, boxes=boxes)


def _with_extras(parameters: Parameters, extras: Array) -> Parameters:
    panels = replace(parameters.panels, detz_m=parameters.panels.detz_m + extras[0])
    spectrum = replace(
        parameters.spectrum,
        offset_A=parameters.spectrum.offset_A + extras[1],
        scale=parameters.spectrum.scale * (1.0 + extras[2]),
    )
    return replace(parameters, panels=panels, spectrum=spectrum)


def bragg_at(x: Array, motion: Array, extras: Array, moving: Moving, recipe: Recipe) -> Array:
    """Bragg photons ``(n_boxes, n_pixels)``, with the motion of each box ``(n_boxes, 6)``."""
    problem = moving.problem
    parameters = _with_extras(problem.layout.to_parameters(x, problem.base), extras)
    scene = with_boxes(problem.scene, move_rigidly(exact_scene(problem.scene).boxes, moving.axes, motion))
    return recipe.forward(parameters, scene, recipe.options).astype(jnp.float64)


_jit_bragg = partial(jax.jit, static_argnames="recipe")(bragg_at)


def _prior_of(x: Array, problem: Problem) -> Array:
    values = problem.layout.values(x)
    return -problem.layout.log_prior(values, problem.layout.place(values, problem.base))


def _log_likelihood(bragg: Array, moving: Moving, recipe: Recipe) -> Array:
    return jnp.sum(box_log_likelihood(bragg, moving.problem.pixels, recipe.likelihood, recipe.window))


def target_of(x: Array, groups: Array, extras: Array, moving: Moving, recipe: Recipe) -> Array:
    """-(log likelihood + log prior of the shot's own numbers).

    Args:
        x: own numbers, coordinates of the layout of ``moving``, ``(n,)``.
        groups: motions of all groups, ``(n_groups, 6)``; extras: what all panels share, ``(N_EXTRA,)``.
    """
    bragg = bragg_at(x, groups[moving.group], extras, moving, recipe)
    return _prior_of(x, moving.problem) - _log_likelihood(bragg, moving, recipe)


_target = partial(jax.jit, static_argnames="recipe")(target_of)
_value_and_grad = partial(jax.jit, static_argnames="recipe")(jax.value_and_grad(target_of, argnums=(0, 1, 2)))


@partial(jax.jit, static_argnames="recipe")
def _linearize(x: Array, groups: Array, extras: Array, moving: Moving, recipe: Recipe) -> tuple[Array, ...]:
    problem, pixels = moving.problem, moving.problem.pixels
    n, n_boxes = x.shape[0], moving.group.shape[0]
    motion = groups[moving.group]
    bragg, push = jax.linearize(lambda a, b, c: bragg_at(a, b, c, moving, recipe), x, motion, extras)
    size = n + 6 + N_EXTRA
    unit = jnp.eye(size, dtype=x.dtype)

    def direction(row: Array) -> Array:
        return push(row[:n], jnp.broadcast_to(row[n : n + 6], (n_boxes, 6)), row[n + 6 :])

    jacobian = jax.lax.map(direction, unit)
    log_likelihood, slope = jax.value_and_grad(lambda photons: _log_likelihood(photons, moving, recipe))(bragg)
    J = jacobian.transpose(1, 0, 2)  # boxes, directions, pixels
    gram = box_fisher(J, bragg, pixels, recipe.likelihood, recipe.window)
    score = jnp.einsum("bip,bp->bi", J, slope)
    by_group = partial(jax.ops.segment_sum, segment_ids=moving.group, num_segments=groups.shape[0])
    shown = fitted(bragg, pixels, recipe.likelihood, recipe.window)
    residual = normalised_residuals(shown, pixels)
    z = jnp.stack([jnp.sum(pixels.trusted), jnp.sum(residual), jnp.sum(residual**2)])
    prior, prior_gradient = jax.value_and_grad(_prior_of)(x, problem)
    layout = problem.layout
    stretch = jax.jvp(layout.values, (x,), (jnp.ones_like(x),))[1]
    restrained = np.array([site.restrained for site in layout.sites])
    prior_curvature = jnp.where(restrained, stretch**2 / jnp.asarray(layout.beta), 0.0)
    target = prior - log_likelihood
    return target, by_group(score), by_group(gram), z, prior_gradient, prior_curvature


@partial(jax.jit, static_argnames="recipe")
def _centroid(x: Array, groups: Array, extras: Array, moving: Moving, valid: Array, recipe: Recipe) -> Array:
    boxes = exact_scene(moving.problem.scene).boxes
    photons = jnp.where(valid, bragg_at(x, groups[moving.group], extras, moving, recipe), 0.0)
    total = jnp.sum(photons, axis=1)
    middle = [jnp.sum(photons * (px + 0.5), axis=1) / total for px in (boxes.fast_px, boxes.slow_px)]
    return boxes.centre_px + jnp.stack(middle, axis=-1)

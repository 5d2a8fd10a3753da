"""The one log density: log likelihood of the pixels plus log prior of the parameters.

MAP, Laplace and NUTS are three ways to look at it. Everything that differs between shots is an argument of the
compiled functions (a pytree of arrays); only the structure is static: the forward function and its options, the
likelihood, the shapes, and the sites of the layout. Shots of one bucket of shapes share one compiled program.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bayesbragg.forward.parameters import Parameters
from bayesbragg.forward.stored_jit import stored_jit
from bayesbragg.inference.box_likelihood import (
    Fitted,
    box_log_likelihood,
    check_model,
    fitted,
    normalised_residuals,
    total_fisher,
)
from bayesbragg.inference.likelihood import LikelihoodName, half_window, noise_variance
from bayesbragg.inference.pixels import Pixels
from bayesbragg.model import Shot
from bayesbragg.model.errors import InputError
from bayesbragg.priors.flatten import Layout

__all__ = ["LogDensity", "Pixels", "Problem", "Recipe", "Summary", "bragg_log_likelihood", "linearized", "summarized"]

Array = Any
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Recipe:
    """The static part of a density: part of the compilation key.

    Attributes:
        forward: ``forward(parameters, scene, options)`` gives Bragg photons ``(n_boxes, n_pixels)``; a module-level
            function, so that it hashes the same for every shot, and compiled itself (`jax.jit`).
        options: hashable options of the forward function.
        likelihood: name of the likelihood.
        window: number of terms on each side for ``poisson_gaussian``; 0 otherwise.
    """

    forward: Callable[[Parameters, Any, Any], Array]
    options: Hashable = None
    likelihood: LikelihoodName = "gaussian"
    window: int = 0


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Problem:
    """The arrays of a density: a pytree, an argument of every compiled function.

    Attributes:
        layout: what varies, in coordinates that are the physical values (`Layout.physical`).
        base: parameters that do not vary (and the start of those that do).
        scene: the fixed part of the forward model.
        pixels: the data.
    """

    layout: Layout
    base: Parameters
    scene: Any
    pixels: Pixels


class _Arrays:
    """Base, scene and pixels as they were given, and on the device once they are asked for there."""

    def __init__(self, *given: Any) -> None:
        self.given = given
        self._placed: tuple[Any, ...] | None = None

    def on_device(self) -> tuple[Any, ...]:
        if self._placed is None:
            self._placed = jax.device_put(self.given)
        return self._placed


class Summary(NamedTuple):
    """What is told of a point.

    Attributes:
        target: minus log likelihood and log prior.
        log_prior: of the physical values (no change-of-variables term).
        background: minus the log likelihood of the background alone: what a model with Bragg spots must beat.
        sigma_z: standard deviation of residual over its expected standard deviation; 1 for a model that is right.
    """

    target: Any
    log_prior: Any
    background: Any
    sigma_z: Any


class LogDensity:
    """Log density of one shot, at coordinates x of its layout.

    The compiled functions know physical values only; the transform from coordinates, a few numbers, is applied around
    them. A search in other coordinates, or from another start, therefore compiles nothing anew.

    Args:
        forward: ``forward(parameters, scene, options)``, such as `bayesbragg.forward.expected_photons`.
        scene: its second argument (a pytree).
        options: its third argument (hashable).
        pixels: the data.
        layout, base: from `bayesbragg.priors.make_layout`.
        likelihood: ``gaussian`` (the classic target), ``poisson``, ``poisson_gaussian`` or ``shifted_poisson``.
    """

    def __init__(
        self,
        forward: Callable[[Parameters, Any, Any], Array],
        scene: Any,
        options: Hashable,
        pixels: Pixels | Shot,
        layout: Layout,
        base: Parameters,
        likelihood: LikelihoodName = "gaussian",
    ) -> None:
        data = Pixels.from_shot(pixels) if isinstance(pixels, Shot) else pixels
        check_model(data, likelihood)
        self.recipe = Recipe(forward, options, likelihood, _window(data, likelihood))
        self.layout = layout
        self._arrays = _Arrays(base, scene, data)
        self.n_trusted = int(np.sum(np.asarray(data.trusted)))

    @property
    def problem(self) -> Problem:
        """All arrays, on the device."""
        return Problem(self.layout.physical(), *self._arrays.on_device())

    @property
    def given(self) -> Problem:
        """All arrays as they were given, to be sent to the device together with those of other shots."""
        return Problem(self.layout.physical(), *self._arrays.given)

    def with_layout(self, layout: Layout) -> LogDensity:
        """The same density in other coordinates or from another start; the data stay where they are."""
        other = copy(self)
        other.layout = layout
        return other

    def with_pixels(self, pixels: Pixels) -> LogDensity:
        """The same density of other data of the same shapes."""
        other = copy(self)
        base, scene, _ = self._arrays.on_device()
        other._arrays = _Arrays(base, scene, pixels)
        other.n_trusted = int(np.sum(np.asarray(pixels.trusted)))
        return other

    def bragg(self, x: npt.ArrayLike) -> Array:
        """Bragg photons, ``(n_boxes, n_pixels)``."""
        return self.recipe.forward(self.parameters(x), self.problem.scene, self.recipe.options)

    def fitted(self, x: npt.ArrayLike) -> Fitted:
        """Bragg photons and background with what the pixels say of intensities and planes that are not known."""
        result: Fitted = _fitted(self.bragg(x), self.problem.pixels, self.recipe)
        return result

    def log_likelihood(self, x: npt.ArrayLike) -> float:
        """Log likelihood of the trusted pixels."""
        return self.log_likelihood_of(self.bragg(x))

    def log_likelihood_of(self, bragg: Array) -> float:
        """Log likelihood of the trusted pixels for Bragg photons ``(n_boxes, n_pixels)``."""
        return float(_log_likelihood(bragg, self.problem.pixels, self.recipe))

    def summary(self, x: npt.ArrayLike) -> Summary:
        """Target and what else is told of x, by one program."""
        return self.summary_of_values(self._values(x))

    def summary_of_values(self, values: npt.ArrayLike) -> Summary:
        """The same of physical values ``(n,)``."""
        found = summarized(np.asarray(values, dtype=np.float64), self.problem, self.recipe)
        return Summary(*(float(a) for a in found))

    def target(self, x: npt.ArrayLike) -> float:
        """-(log likelihood + log prior): the classic target where likelihood and priors are the classic ones."""
        return float(self.summary(x).target)

    def value_and_grad(self, x: npt.ArrayLike) -> tuple[float, FloatArray]:
        """Target and its gradient in x, ``(n,)``."""
        values, slope = self.layout.values_and_slope(x)
        value, gradient = _value_and_grad(values, self.problem, self.recipe)
        return float(value), np.asarray(gradient) * slope

    def fisher(self, x: npt.ArrayLike) -> FloatArray:
        """Expected Fisher information of the likelihood in x, plus the curvature of the restraints, ``(n, n)``."""
        values, slope = self.layout.values_and_slope(x)
        return self.fisher_of_values(values) * np.outer(slope, slope)

    def fisher_of_values(self, values: npt.ArrayLike) -> FloatArray:
        """The same in the physical values, ``(n, n)``."""
        return np.asarray(_fisher(np.asarray(values, dtype=np.float64), self.problem, self.recipe))

    def parameters(self, x: npt.ArrayLike) -> Parameters:
        """Physical parameters at x."""
        result: Parameters = _parameters(self._values(x), self.problem)
        return result

    def _values(self, x: npt.ArrayLike) -> FloatArray:
        return self.layout.values_and_slope(x)[0]


def _window(pixels: Pixels, likelihood: LikelihoodName) -> int:
    """Terms on each side for ``poisson_gaussian``.

    Raises:
        InputError: a calibration error with a likelihood that has no room for it.
    """
    if likelihood != "poisson_gaussian":
        if np.any(np.asarray(pixels.gain_sd) > 0) and likelihood != "gaussian":
            raise InputError(
                f"sigma_gain = {np.max(np.asarray(pixels.gain_sd)):g}: the {likelihood} likelihood has no room for a "
                "calibration error; choose likelihood=gaussian or poisson_gaussian, or sigma_gain=0"
            )
        return 0
    variance = np.asarray(pixels.variance)
    brightest = noise_variance(np.asarray(pixels.counts), variance, np.asarray(pixels.gain_sd))
    return half_window(np.array([np.min(variance), np.max(brightest)]))


@jax.jit
def _parameters(values: Array, problem: Problem) -> Any:
    return problem.layout.place(values, problem.base)


def bragg_log_likelihood(bragg: Array, pixels: Pixels, recipe: Recipe) -> Array:
    """Log likelihood of the trusted pixels for Bragg photons ``(n_boxes, n_pixels)``; differentiable."""
    return jnp.sum(box_log_likelihood(bragg.astype(jnp.float64), pixels, recipe.likelihood, recipe.window))


_log_likelihood = partial(jax.jit, static_argnames="recipe")(bragg_log_likelihood)


def _target_of(values: Array, problem: Problem, recipe: Recipe) -> Array:
    parameters = problem.layout.place(values, problem.base)
    bragg = recipe.forward(parameters, problem.scene, recipe.options)
    prior = problem.layout.log_prior(values, parameters)
    return -(_log_likelihood(bragg, problem.pixels, recipe) + prior)


_value_and_grad = partial(jax.jit, static_argnames="recipe")(jax.value_and_grad(_target_of))


def linearized(values: Array, problem: Problem, recipe: Recipe) -> tuple[Array, Array, Array]:
    """Target, its gradient ``(n,)`` and the information ``(n, n)`` at physical values, from one linear model.

    The information is that expected of the boxes, plus the curvature of the restraints.
    """
    pixels = problem.pixels
    layout = problem.layout

    def photons(theta: Array) -> Array:
        parameters = layout.place(theta, problem.base)
        return recipe.forward(parameters, problem.scene, recipe.options).astype(jnp.float64)

    bragg, push = jax.linearize(photons, values)
    # One direction at a time: memory stays that of a few images, whatever the number of parameters.
    jacobian = jax.lax.map(push, jnp.eye(values.shape[0]))
    likelihood, score = jax.value_and_grad(bragg_log_likelihood)(bragg, pixels, recipe)
    prior, pull = jax.value_and_grad(lambda v: layout.log_prior(v, layout.place(v, problem.base)))(values)
    gradient = -(jnp.einsum("ibp,bp->i", jacobian, score) + pull)
    curvature = total_fisher(jacobian, bragg, pixels, recipe.likelihood, recipe.window)
    restrained = np.array([site.restrained for site in layout.sites], dtype=bool)
    curvature = curvature + jnp.diag(jnp.where(restrained, 1.0 / jnp.asarray(layout.beta), 0.0))
    return -(likelihood + prior), gradient, curvature


@stored_jit("recipe")
def _fisher(values: Array, problem: Problem, recipe: Recipe) -> Array:
    return linearized(values, problem, recipe)[2]


@stored_jit("recipe", returns=(Fitted,))
def _fitted(bragg: Array, pixels: Pixels, recipe: Recipe) -> Fitted:
    return fitted(bragg.astype(jnp.float64), pixels, recipe.likelihood, recipe.window)


@stored_jit("recipe", returns=(Summary,))
def summarized(values: Array, problem: Problem, recipe: Recipe) -> Summary:
    """The summary of physical values, ``(n,)``."""
    pixels = problem.pixels
    parameters = problem.layout.place(values, problem.base)
    bragg = recipe.forward(parameters, problem.scene, recipe.options).astype(jnp.float64)
    prior = problem.layout.log_prior(values, parameters)
    background = -bragg_log_likelihood(jnp.zeros_like(bragg), pixels, recipe)
    shown = fitted(bragg, pixels, recipe.likelihood, recipe.window)
    return Summary(-(bragg_log_likelihood(bragg, pixels, recipe) + prior), prior, background, _sigma_z(shown, pixels))


def _sigma_z(shown: Fitted, pixels: Pixels) -> Array:
    z = normalised_residuals(shown, pixels)
    n = jnp.sum(pixels.trusted)
    mean = jnp.sum(z) / n
    return jnp.sqrt(jnp.sum(jnp.where(pixels.trusted, (z - mean) ** 2, 0.0)) / n)

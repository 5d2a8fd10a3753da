"""How far spots of stills lie from their prediction, told by the residuals: spreads of each still and of the run.

A spot is off the Ewald sphere at the mean wavelength because blocks of the crystal are tilted (``mosaic``), because
they are small (``block``), or because it takes another wavelength of the band (``bandwidth``). With t the tangent of
the Bragg angle and q = 1/d, the angle of the spot from the sphere has the variance

    mosaic^2 + (block / q)^2 + (bandwidth t)^2,

and the last term's share of it tells how much of an angle to expect as another wavelength, which shifts the spot along
the radius, instead of a turn, which does not. What of the band the angle does not tell remains as radial spread.

Stills differ: their spreads are log-normal about the run's, whose mean and width are learned with them (maximum of the
marginal density by expectation and maximisation, the crystals' numbers integrated out in Laplace's approximation).
Units: millimetre, radian, 1/angstrom.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

__all__ = [
    "CentroidNoise",
    "NoiseStatistics",
    "Population",
    "first_noise",
    "learn_noise",
    "spread_curvature",
    "spreads",
]

Array = Any
FloatArray = npt.NDArray[np.float64]
WIDTHS = (0.05, 1.5)
"""Between which the run's width of the logarithm of a spread is looked for."""


@dataclass(frozen=True, eq=False)
class CentroidNoise:
    """Spreads, each one number for all stills or one for each, ``(n_stills,)``.

    Attributes:
        radial, transverse: what the stated sd of a centroid is multiplied by, along the radius and across.
        mosaic: sd of the orientation of blocks, radian.
        block: size of a reciprocal-lattice point, 1/angstrom.
        bandwidth: relative sd of the wavelength.
    """

    radial: float | FloatArray = 1.0
    transverse: float | FloatArray = 1.0
    mosaic: float | FloatArray = 1e-3
    block: float | FloatArray = 0.0
    bandwidth: float | FloatArray = 0.0

    def matrix(self, n_stills: int) -> FloatArray:
        """All spreads of all stills, ``(n_stills, 5)``."""
        columns = [np.broadcast_to(np.asarray(getattr(self, f.name), dtype=float), n_stills) for f in fields(self)]
        return np.stack(columns, axis=-1)

    @classmethod
    def from_matrix(cls, values: FloatArray) -> CentroidNoise:
        return cls(*np.asarray(values).T)


NAMES = tuple(f.name for f in fields(CentroidNoise))


@dataclass(frozen=True, eq=False)
class Population:
    """The run's distribution of the logarithm of each spread: mean and width, ``(5,)``."""

    mean: FloatArray
    width: FloatArray

    def words(self) -> str:
        """Median of each spread, and the factor by which a typical still differs."""
        pairs = zip(NAMES, np.exp(self.mean), np.exp(self.width), strict=True)
        return ", ".join(f"{name} {median:.3g} (factor {factor:.2f})" for name, median, factor in pairs)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class NoiseStatistics:
    """What the residuals of a fit say, for every spot.

    Attributes:
        still: its still, ``(n,)``.
        tangent: t; q: 1/angstrom; stated: stated variance of its centroid (mean of both axes, millimetre^2).
        gain: radial shift for an angle that is all another wavelength, millimetre per radian.
        squares: expected products of the residuals (radial without any share of the band, transverse, angle) over the
            posterior of the still's own numbers, ``(n, 3, 3)``.
    """

    still: Array
    tangent: Array
    q: Array
    stated: Array
    gain: Array
    squares: Array


def spreads(values: Array, spots: NoiseStatistics) -> tuple[Array, Array]:
    """Variances of radial and transverse residual and angle ``(n, 3)``, and the band's share of the angle ``(n,)``.

    Args:
        values: spreads of each spot's still, ``(n, 5)``.
    """
    radial, transverse, mosaic, block, bandwidth = (values[:, i] for i in range(5))
    band = (bandwidth * spots.tangent) ** 2
    angle = mosaic**2 + (block / spots.q) ** 2 + band
    share = band / angle
    # Variance of the band's part of the angle once the angle is known, seen along the radius.
    left = band * (1.0 - share) * spots.gain**2
    return jnp.stack([radial**2 * spots.stated + left, transverse**2 * spots.stated, angle], axis=-1), share


def first_noise(spots: NoiseStatistics) -> tuple[CentroidNoise, Population]:
    """A start: spreads that the residuals would have if each had one cause."""
    mean = np.asarray(spots.squares).mean(axis=0)
    stated = float(np.mean(spots.stated))
    angle = np.sqrt(mean[2, 2])
    values = np.array([
        0.5 * np.sqrt(mean[0, 0] / stated), np.sqrt(mean[1, 1] / stated), 0.7 * angle,
        0.5 * angle * float(np.median(spots.q)), 0.3 * angle / float(np.median(spots.tangent)),
    ])  # fmt: skip
    population = Population(np.log(values), np.full(5, 0.5))
    return CentroidNoise(*values), population


def learn_noise(
    spots: NoiseStatistics, noise: CentroidNoise, population: Population, n_stills: int
) -> tuple[CentroidNoise, Population]:
    """One step: spreads of every still for these residuals, then the run's distribution for these spreads."""
    theta = jnp.log(jnp.asarray(np.maximum(noise.matrix(n_stills), 1e-12)))
    theta = jnp.clip(theta, population.mean - 3.0 * population.width, population.mean + 3.0 * population.width)
    mean, width = jnp.asarray(population.mean), jnp.asarray(population.width)
    found, variance = (np.asarray(a) for a in _best(theta, mean, width, spots))
    centre = found.mean(axis=0)
    spread = np.sqrt(np.mean((found - centre) ** 2 + variance, axis=0))
    return CentroidNoise.from_matrix(np.exp(found)), Population(centre, np.clip(spread, *WIDTHS))


def _minus_log(theta: Array, mean: Array, width: Array, spots: NoiseStatistics) -> Array:
    variance, share = spreads(jnp.exp(theta)[spots.still], spots)
    s, shift = spots.squares, share * spots.gain
    radial = s[:, 0, 0] + 2.0 * shift * s[:, 0, 2] + shift**2 * s[:, 2, 2]
    squares = jnp.stack([radial, s[:, 1, 1], s[:, 2, 2]], axis=-1)
    return 0.5 * jnp.sum(jnp.log(variance) + squares / variance) + 0.5 * jnp.sum(((theta - mean) / width) ** 2)


def _curvature(theta: Array, mean: Array, width: Array, spots: NoiseStatistics) -> Array:
    """Second derivatives in each still's logarithms of spreads, ``(n_stills, 5, 5)``."""
    slope = jax.grad(_minus_log)

    # No still's spreads enter another's density: one direction serves all stills at once.
    def column(unit: Array) -> Array:
        direction = jnp.broadcast_to(unit, theta.shape)
        return jax.jvp(lambda v: slope(v, mean, width, spots), (theta,), (direction,))[1]

    return jnp.moveaxis(jax.vmap(column)(jnp.eye(5)), 0, -1)


def _positive(matrix: Array) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(matrix)
    return jnp.maximum(jnp.abs(values), 0.1), vectors


def spread_curvature(theta: Array, population: Population, spots: NoiseStatistics) -> FloatArray:
    """Curvature of minus the log density in the logarithms of every still's spreads, positive, ``(n_stills, 5, 5)``."""
    matrix = _curvature(theta, jnp.asarray(population.mean), jnp.asarray(population.width), spots)
    values, vectors = _positive(matrix)
    return np.asarray(jnp.einsum("sij,sj,skj->sik", vectors, values, vectors))


@partial(jax.jit, static_argnames="steps")
def _best(theta: Array, mean: Array, width: Array, spots: NoiseStatistics, steps: int = 5) -> tuple[Array, Array]:
    """The most probable spreads of every still and the variances of their logarithms, by Newton's method."""
    slope = jax.grad(_minus_log)

    def step(at: Array, _: None) -> tuple[Array, None]:
        values, vectors = _positive(_curvature(at, mean, width, spots))
        g = jnp.einsum("sij,si->sj", vectors, slope(at, mean, width, spots))
        return at - jnp.clip(jnp.einsum("sij,sj->si", vectors, g / values), -0.5, 0.5), None

    theta, _ = jax.lax.scan(step, theta, None, length=steps)
    values, vectors = _positive(_curvature(theta, mean, width, spots))
    return theta, jnp.einsum("sij,sj,sij->si", vectors, 1.0 / values, vectors)

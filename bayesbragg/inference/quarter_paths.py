"""Hamiltonian paths through a density that is nearly a standard normal one, of which that part is followed exactly.

In whitened coordinates U(u) = |u|^2 / 2 + V(u). Without V the motion is a rotation of (u, p) by the time; a quarter of
a turn forgets where it came from. A step of length e is half a kick by V, a turn by e, and half a kick again (Neal,
Handbook of MCMC, 2011, section 5.5.1; Shahbaba et al., Stat. Comput. 24 (2014) 339): reversible, of volume one, and
its error is that of V alone, so that one or two gradients make a draw where a plain leap-frog needs four.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["LONGEST_STEP", "Place", "travel"]

Array = Any

QUARTER = 0.5 * math.pi
"""Length of a path after which a draw of a standard normal distribution has forgotten where it came from."""
VARIED = 0.2
"""Paths are longer or shorter by up to this share: paths of one length could run in circles."""
LONGEST_STEP = (1.0 + VARIED) * QUARTER
"""A step of this length is a whole path."""
DIVERGED = 1000.0
"""A gain of energy beyond which a path has lost its way."""


class Place(NamedTuple):
    """Where a chain is, and how it came there.

    Attributes:
        u: coordinates ``(n,)``; gradient: of U there.
        potential: U; energy: of the path's end, or of its beginning where the chain stayed there.
        n_steps: gradients that the path took; acceptance: of its end; diverging: whether it lost its way.
        key: of what comes next.
    """

    u: Array
    gradient: Array
    potential: Array
    energy: Array
    n_steps: Array
    acceptance: Array
    diverging: Array
    key: Array

    @classmethod
    def at(cls, u: Array, potential: Array, gradient: Array, key: Array) -> Place:
        zero = jnp.zeros(())
        return cls(u, gradient, potential, potential, jnp.zeros((), jnp.int64), zero, jnp.zeros((), bool), key)


def travel(place: Place, step: Array, evaluate: Callable[[Array], tuple[Array, Array]]) -> Place:
    """One path and the decision of Metropolis.

    Args:
        step: longest step, scalar; the path is cut into equal ones.
        evaluate: U and its gradient.
    """
    key, of_momentum, of_length, of_choice = jax.random.split(place.key, 4)
    momentum = jax.random.normal(of_momentum, place.u.shape, place.u.dtype)
    length = QUARTER * jax.random.uniform(of_length, (), jnp.float64, 1.0 - VARIED, 1.0 + VARIED)
    n_steps = jnp.ceil(length / step).astype(jnp.int64)
    e = length / n_steps
    cosine, sine = jnp.cos(e), jnp.sin(e)

    def leap(_: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        u, p, _, gradient = state
        p = p - 0.5 * e * (gradient - u)
        u, p = cosine * u + sine * p, cosine * p - sine * u
        potential, gradient = evaluate(u)
        return u, p - 0.5 * e * (gradient - u), potential, gradient

    start = (place.u, momentum, place.potential, place.gradient)
    u, p, potential, gradient = jax.lax.fori_loop(0, n_steps, leap, start)
    before = place.potential + 0.5 * momentum @ momentum
    after = potential + 0.5 * p @ p
    gained = after - before
    gained = jnp.where(jnp.isfinite(gained), gained, jnp.inf)
    acceptance = jnp.minimum(1.0, jnp.exp(-gained))
    goes = jax.random.uniform(of_choice, (), jnp.float64) < acceptance
    there = Place(u, gradient, potential, after, n_steps, acceptance, gained > DIVERGED, key)
    here = there._replace(u=place.u, gradient=place.gradient, potential=place.potential, energy=before)
    result: Place = jax.tree.map(lambda a, b: jnp.where(goes, a, b), there, here)
    return result

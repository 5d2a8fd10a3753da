"""NUTS (NumPyro), and paths of a quarter turn, as compiled programs that advance chains by blocks of draws.

Data are arguments of the programs, never constants in them: shots of one shape compile once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from numpyro.infer.hmc import hmc
from numpyro.infer.util import ParamInfo

from bayesbragg.inference.quarter_paths import LONGEST_STEP, Place, travel
from bayesbragg.inference.unbounded import Potential

__all__ = ["BLOCK", "Program", "Whitened", "program_of"]

Array = Any
FloatArray = npt.NDArray[np.float64]

BLOCK = 25
"""Draws of one call of a program; progress is reported between calls."""
FIRST_LOG_STEP = math.log(0.7)
"""A step that suits a standard normal distribution of some ten numbers."""


@dataclass(frozen=True)
class Whitened:
    """U of u, with y = centre + F u; its data are those of U, centre, F, and a bend of u or None."""

    potential: Potential

    def __call__(self, u: Array, data: Any) -> Array:
        inner, centre, factor, bend = data
        return self.potential(centre + factor @ (u if bend is None else bend(u)), inner)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Step:
    """Dual averaging of the logarithm of the step size (Hoffman & Gelman, JMLR 15 (2014) 1593, section 3.2).

    NumPyro's own begins anew in the last tenth of the warm-up, for the sake of the mass matrix that it has estimated
    until then; here there is none to estimate, and every draw counts.

    Attributes:
        time: draws so far; error: sum of target minus acceptance; log_step, log_mean: the latest step and the average.
    """

    time: Array
    error: Array
    log_step: Array
    log_mean: Array

    def updated(self, accept: Array, target: float) -> Step:
        time, error = self.time + 1.0, self.error + target - accept
        log_step = FIRST_LOG_STEP - error * jnp.sqrt(time) / (0.05 * (time + 10.0))
        weight = time**-0.75
        return Step(time, error, log_step, weight * log_step + (1.0 - weight) * self.log_mean)


@dataclass(frozen=True, eq=False)
class Program:
    """Start a chain; advance one, or several at once, by a block of draws, finding the step size or keeping it.

    A chain is the sampler's state and its `Step`.
    """

    start: Callable[[FloatArray, Any, Any], Any]
    advance: Callable[[Any, Any, bool], tuple[Any, dict[str, Array]]]


@lru_cache(maxsize=32)
def program_of(
    potential: Whitened, n_warmup: int, settings: tuple[float, bool, int, bool], how: Literal["one", "chains", "each"]
) -> Program:
    """Compiled programs, made once for each structure.

    Args:
        n_warmup: matters where the covariance is adapted, which is NumPyro's work.
        settings: acceptance to aim at, whether to adapt the covariance, doublings at most, and whether paths are a
            quarter of a period long instead of as long as NUTS makes them.
        how: one chain; several chains of the same data; for each of several data, several chains.
    """
    target_accept, adapt_mass, max_tree_depth, quarter = settings
    start, kernel = (
        _quarter_paths(potential)
        if quarter
        else _numpyro(potential, n_warmup if adapt_mass else 0, target_accept, max_tree_depth)
    )

    def begin(u: FloatArray, data: Any, key: Any) -> Any:
        # A Python number would be of a weak type here and of a strong one after a draw: another program to compile.
        first = jnp.asarray(np.float64(FIRST_LOG_STEP))
        return start(jnp.asarray(u), data, key), Step(jnp.zeros(()), jnp.zeros(()), first, first)

    def one(chain: Any, data: Any, warm: Array) -> Any:
        state, step = chain
        size = None if adapt_mass else jnp.exp(jnp.where(warm, step.log_step, step.log_mean))
        state, told = kernel(state, data, size)
        after = step.updated(told["acceptance_rate"], target_accept)
        return (state, jax.tree.map(lambda new, old: jnp.where(warm, new, old), after, step)), told

    move = one
    if how != "one":
        move, begin = jax.vmap(move, in_axes=(0, None, None)), jax.vmap(begin, in_axes=(0, None, 0))
    if how == "each":
        move, begin = jax.vmap(move, in_axes=(0, 0, None)), jax.vmap(begin, in_axes=(0, 0, 0))

    @jax.jit
    def advance(chain: Any, data: Any, warm: Array) -> tuple[Any, dict[str, Array]]:
        def body(c: Any, _: None) -> tuple[Any, dict[str, Array]]:
            moved: tuple[Any, dict[str, Array]] = move(c, data, warm)
            return moved

        result: tuple[Any, dict[str, Array]] = jax.lax.scan(body, chain, None, length=BLOCK)
        return result

    return Program(begin, advance)


Moves = tuple[Callable[[Array, Any, Any], Any], Callable[[Any, Any, Any], tuple[Any, dict[str, Array]]]]
"""``start(u, data, key)`` gives a state, and ``kernel(state, data, step)`` the next one and what is told of it."""


def _numpyro(potential: Whitened, n_warmup: int, target_accept: float, max_tree_depth: int) -> Moves:
    """NUTS; with draws of warm-up it finds its own step and covariance."""
    begin, kernel = hmc(potential_fn_gen=lambda data: lambda u: potential(u, data), algo="NUTS")
    evaluate = jax.jit(jax.value_and_grad(potential))
    adapts = n_warmup > 0

    def start(u: Array, data: Any, key: Any) -> Any:
        value, gradient = evaluate(u, data)
        # Not under jit: the sampler keeps arrays that it makes here for its later steps.
        return begin(
            ParamInfo(u, value, gradient),
            n_warmup,
            step_size=math.exp(FIRST_LOG_STEP),
            adapt_step_size=adapts,
            adapt_mass_matrix=adapts,
            dense_mass=adapts,
            target_accept_prob=target_accept,
            max_tree_depth=max_tree_depth,
            model_args=(data,),
            rng_key=key,
        )

    def move(state: Any, data: Any, step: Any) -> tuple[Any, dict[str, Array]]:
        if step is not None:
            state = state._replace(adapt_state=state.adapt_state._replace(step_size=step))
        s = kernel(state, (data,), {})
        return s, {
            "u": s.z,
            "potential": s.potential_energy,
            "energy": s.energy,
            "diverging": s.diverging,
            "n_steps": s.num_steps,
            "acceptance_rate": s.accept_prob,
            "step_size": s.adapt_state.step_size,
        }

    return start, move


def _quarter_paths(potential: Whitened) -> Moves:
    evaluate = jax.value_and_grad(potential)
    compiled = jax.jit(evaluate)

    def start(u: Array, data: Any, key: Any) -> Any:
        value, gradient = compiled(u, data)
        return Place.at(u, value, gradient, key)

    def move(state: Any, data: Any, step: Any) -> tuple[Any, dict[str, Array]]:
        step = jnp.minimum(step, LONGEST_STEP)
        s = travel(state, step, lambda u: evaluate(u, data))
        return s, {
            "u": s.u,
            "potential": s.potential,
            "energy": s.energy,
            "diverging": s.diverging,
            "n_steps": s.n_steps,
            "acceptance_rate": s.acceptance,
            "step_size": step,
        }

    return start, move

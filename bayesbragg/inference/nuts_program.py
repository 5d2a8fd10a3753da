"""NUTS (NumPyro) as compiled programs that advance chains by blocks of draws, for one target or for many at once.

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

from bayesbragg.inference.unbounded import Potential

__all__ = ["BLOCK", "Program", "Whitened", "program_of"]

Array = Any
FloatArray = npt.NDArray[np.float64]

BLOCK = 25
"""Draws of one call of a program; progress is reported between calls."""
QUARTER = 0.5 * math.pi
"""Length of a path after which a draw of a standard normal distribution has forgotten where it came from."""
VARIED = 0.2
"""Paths are longer or shorter by up to this share."""
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
    algorithm = "HMC" if quarter else "NUTS"
    begin, kernel = hmc(potential_fn_gen=lambda data: lambda u: potential(u, data), algo=algorithm)
    evaluate = jax.jit(jax.value_and_grad(potential))

    def start(u: FloatArray, data: Any, key: Any) -> Any:
        value, gradient = evaluate(jnp.asarray(u), data)
        # Not under jit: the sampler keeps arrays that it makes here for its later steps.
        state = begin(
            ParamInfo(jnp.asarray(u), value, gradient),
            n_warmup if adapt_mass else 0,
            step_size=math.exp(FIRST_LOG_STEP),
            adapt_step_size=adapt_mass,
            adapt_mass_matrix=adapt_mass,
            dense_mass=adapt_mass,
            target_accept_prob=target_accept,
            trajectory_length=QUARTER if quarter else None,
            max_tree_depth=max_tree_depth,
            model_args=(data,),
            rng_key=key,
        )
        # A Python number would be of a weak type here and of a strong one after a draw: another program to compile.
        first = jnp.asarray(np.float64(FIRST_LOG_STEP))
        return state, Step(jnp.zeros(()), jnp.zeros(()), first, first)

    def one(chain: Any, data: Any, warm: Array) -> Any:
        state, step = chain
        if not adapt_mass:
            size = jnp.exp(jnp.where(warm, step.log_step, step.log_mean))
            state = state._replace(adapt_state=state.adapt_state._replace(step_size=size))
        if quarter:
            # Of a key that the sampler does not use; paths of one length could run in circles.
            key = jax.random.fold_in(state.rng_key, 1)
            length = QUARTER * jax.random.uniform(key, (), jnp.float64, 1.0 - VARIED, 1.0 + VARIED)
            state = state._replace(trajectory_length=length)
        state = kernel(state, (data,), {})
        after = step.updated(state.accept_prob, target_accept)
        return state, jax.tree.map(lambda new, old: jnp.where(warm, new, old), after, step)

    move = one
    if how != "one":
        move, start = jax.vmap(move, in_axes=(0, None, None)), jax.vmap(start, in_axes=(0, None, 0))
    if how == "each":
        move, start = jax.vmap(move, in_axes=(0, 0, None)), jax.vmap(start, in_axes=(0, 0, 0))

    @jax.jit
    def advance(chain: Any, data: Any, warm: Array) -> tuple[Any, dict[str, Array]]:
        def body(c: Any, _: None) -> tuple[Any, dict[str, Array]]:
            c = move(c, data, warm)
            s = c[0]
            return c, {
                "u": s.z,
                "potential": s.potential_energy,
                "energy": s.energy,
                "diverging": s.diverging,
                "n_steps": s.num_steps,
                "acceptance_rate": s.accept_prob,
                "step_size": s.adapt_state.step_size,
            }

        result: tuple[Any, dict[str, Array]] = jax.lax.scan(body, chain, None, length=BLOCK)
        return result

    return Program(start, advance)

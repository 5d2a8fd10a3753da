"""The full posterior by NUTS (NumPyro), in coordinates that Laplace's Gaussian has whitened.

The sampler moves u with y = centre + F u, where centre and F F^T are the mode and the covariance of
`bayesbragg.inference.laplace`: the density of u is nearly a standard normal, so that a trajectory takes a few steps
and warm-up has to find little more than the step size. Chains start at draws of that Gaussian. Data are arguments of
the compiled programs, never constants in them: shots of one shape compile once.
"""

from __future__ import annotations

import time
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

from bayesbragg.inference.laplace import Gaussian, LaplaceOptions, find_mode, near_bounds
from bayesbragg.inference.unbounded import Potential, Target
from bayesbragg.inference.verdict import judge_chains
from bayesbragg.model.errors import InputError
from bayesbragg.model.posterior import Posterior

__all__ = ["NutsOptions", "nuts"]

Array = Any
FloatArray = npt.NDArray[np.float64]

BLOCK = 25
"""Draws of one call of the compiled program; progress is reported between calls."""


@dataclass(frozen=True)
class NutsOptions:
    """How to sample.

    Attributes:
        n_chains, n_draws: chains, and draws of each that are kept.
        n_warmup: draws before them, in which the step size is found; rounded up to a multiple of 25.
        target_accept: acceptance probability that the step size is made for; None for 0.8, or 0.95 where a parameter
            is near a bound.
        adapt_mass: also estimate a dense covariance during warm-up (then take 500 draws for it), for posteriors that
            are far from Laplace's Gaussian.
        max_tree_depth: doublings of a trajectory at most.
        chains: one after the other, or all in one program (which is faster on a GPU).
    """

    n_chains: int = 4
    n_draws: int = 500
    n_warmup: int = 100
    target_accept: float | None = None
    adapt_mass: bool = False
    max_tree_depth: int = 8
    chains: Literal["auto", "sequential", "vectorised"] = "auto"

    def check(self) -> NutsOptions:
        """The options themselves.

        Raises:
            InputError: numbers that make no sense.
        """
        for name, least in (("n_chains", 1), ("n_draws", 8), ("n_warmup", 25), ("max_tree_depth", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} = {getattr(self, name)}: expected at least {least}")
        if self.target_accept is not None and not 0 < self.target_accept < 1:
            raise InputError(f"target_accept = {self.target_accept}: expected a number between 0 and 1, usually 0.8")
        return self


@dataclass(frozen=True)
class _Whitened:
    """U of u, with y = centre + F u; its data are those of U, centre and F."""

    potential: Potential

    def __call__(self, u: Array, data: Any) -> Array:
        inner, centre, factor = data
        return self.potential(centre + factor @ u, inner)


def nuts(
    target: Target,
    options: NutsOptions | None = None,
    *,
    seed: int = 0,
    gaussian: Gaussian | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Posterior:
    """The posterior by NUTS.

    Args:
        target: of a shot (`bayesbragg.inference.laplace.target_of_fit`) or of any NumPyro model
            (`bayesbragg.inference.numpyro_model.model_target`).
        options: how to sample.
        seed: of all randomness.
        gaussian: Laplace's, if it was found before.
        report: told the draws taken and those to be taken, warm-up included, as the work goes on.

    Returns:
        The draws, and the verdict of R-hat, effective sample sizes, divergences and energies.
    """
    options = (options or NutsOptions()).check()
    clock = time.perf_counter()
    gaussian = gaussian or find_mode(target, LaplaceOptions())
    whitened = _Whitened(target.potential)
    data = (target.data, jnp.asarray(gaussian.centre), jnp.asarray(gaussian.factor))
    warm_blocks, blocks = -(-options.n_warmup // BLOCK), -(-options.n_draws // BLOCK)
    accept = options.target_accept
    if accept is None:
        # Density walls are curved there, and steps that suit the rest run into them.
        accept = 0.95 if near_bounds(target, gaussian) else 0.8
    settings = (accept, options.adapt_mass, options.max_tree_depth)
    vectorised = _vectorised(options)
    program = _program(whitened, warm_blocks * BLOCK, settings, vectorised)
    generator = np.random.default_rng(seed)
    dimension = len(gaussian.centre)
    starts = generator.standard_normal((options.n_chains, dimension))
    keys = jax.random.split(jax.random.PRNGKey(seed), options.n_chains)
    states = [program.start(start, data, key) for start, key in zip(starts, keys, strict=True)]
    groups = [jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)] if vectorised else states
    work, done = len(groups) * (warm_blocks + blocks) * BLOCK, 0
    collected, evaluations = [], gaussian.evaluations
    for state in groups:
        kept = []
        for block in range(warm_blocks + blocks):
            state, draws = program.advance(state, data)
            evaluations += int(np.sum(np.asarray(draws["n_steps"])))
            if block >= warm_blocks:
                kept.append({name: np.asarray(value) for name, value in draws.items()})
            done += BLOCK
            if report is not None:
                report(done, work)
        # Draws come before chains in the program's output where chains are one program.
        joined = {name: np.concatenate([part[name] for part in kept])[: options.n_draws] for name in kept[0]}
        collected.append({name: np.moveaxis(v, 1, 0) if vectorised else v[None] for name, v in joined.items()})
    stats = {name: np.concatenate([part[name] for part in collected]) for name in collected[0]}
    y = gaussian.centre + stats.pop("u") @ gaussian.factor.T
    draws_of = target.to_values(y.reshape(-1, dimension)).reshape(options.n_chains, options.n_draws, -1)
    verdict, found = judge_chains(target.names, draws_of, stats["diverging"], stats["energy"])
    flat = draws_of.reshape(-1, draws_of.shape[2])
    return Posterior(
        method="nuts",
        names=target.names,
        units=target.units,
        draws=draws_of,
        log_density=-stats.pop("potential"),
        sample_stats=stats,
        verdict=verdict,
        mode=target.to_values(target.start[None])[0],
        mean=flat.mean(axis=0),
        sd=flat.std(axis=0),
        covariance=np.atleast_2d(np.cov(flat.T)),
        evaluations=evaluations,
        seed=seed,
        seconds=time.perf_counter() - clock,
        settings={
            "n_chains": options.n_chains,
            "n_draws": options.n_draws,
            "n_warmup": warm_blocks * BLOCK,
            "target_accept": accept,
            "adapt_mass": options.adapt_mass,
            "max_tree_depth": options.max_tree_depth,
            "chains": "vectorised" if vectorised else "sequential",
            "smallest_bulk_ess": float(np.min(found.ess_bulk, initial=np.inf)),
            "smallest_tail_ess": float(np.min(found.ess_tail, initial=np.inf)),
            "gradients_per_draw": float(np.mean(stats["n_steps"])),
        },
    )


def _vectorised(options: NutsOptions) -> bool:
    if options.chains == "auto":
        return options.n_chains > 1 and jax.default_backend() != "cpu"
    return options.chains == "vectorised"


@dataclass(frozen=True, eq=False)
class _Program:
    """Start a chain; advance one, or several at once, by a block of draws."""

    start: Callable[[FloatArray, Any, Any], Any]
    advance: Callable[[Any, Any], tuple[Any, dict[str, Array]]]


@lru_cache(maxsize=32)
def _program(potential: _Whitened, n_warmup: int, settings: tuple[float, bool, int], vectorised: bool) -> _Program:
    """Compiled programs, made once for each structure."""
    target_accept, adapt_mass, max_tree_depth = settings
    begin, kernel = hmc(potential_fn_gen=lambda data: lambda u: potential(u, data), algo="NUTS")
    evaluate = jax.jit(jax.value_and_grad(potential))

    def start(u: FloatArray, data: Any, key: Any) -> Any:
        value, gradient = evaluate(jnp.asarray(u), data)
        # Not under jit: the sampler keeps arrays that it makes here for its later steps.
        return begin(
            ParamInfo(jnp.asarray(u), value, gradient),
            n_warmup,
            step_size=0.5,
            adapt_mass_matrix=adapt_mass,
            dense_mass=adapt_mass,
            target_accept_prob=target_accept,
            trajectory_length=None,
            max_tree_depth=max_tree_depth,
            model_args=(data,),
            rng_key=key,
        )

    def one(state: Any, data: Any) -> Any:
        return kernel(state, (data,), {})

    step = jax.vmap(one, in_axes=(0, None)) if vectorised else one

    @jax.jit
    def advance(state: Any, data: Any) -> tuple[Any, dict[str, Array]]:
        def body(s: Any, _: None) -> tuple[Any, dict[str, Array]]:
            s = step(s, data)
            return s, {
                "u": s.z,
                "potential": s.potential_energy,
                "energy": s.energy,
                "diverging": s.diverging,
                "n_steps": s.num_steps,
                "acceptance_rate": s.accept_prob,
                "step_size": s.adapt_state.step_size,
            }

        result: tuple[Any, dict[str, Array]] = jax.lax.scan(body, state, None, length=BLOCK)
        return result

    return _Program(start, advance)

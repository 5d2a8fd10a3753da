"""The full posterior by Markov chains (NumPyro's NUTS or HMC), in coordinates that Laplace's Gaussian has whitened.

The sampler moves u with y = centre + F u, where centre and F F^T are the mode and the covariance of
`bayesbragg.inference.laplace`: the density of u is nearly a standard normal, so that a trajectory takes a few steps
and warm-up has to find little more than the step size. Chains start at draws of that Gaussian. The first chain finds
the step size, the others take it over and forget their starts for a block of draws. Data are arguments of the compiled
programs, never constants in them: shots of one shape compile once.

NUTS turns back after half a period, where squares of u are what they were; after a quarter a normal draw has forgotten
its start. HMC with such paths (`bayesbragg.inference.quarter_paths`) follows the normal part exactly: where the
Gaussian is nearly right a draw takes one gradient or two. Far from the Gaussian NUTS is the safer choice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bayesbragg.inference.cores import available_cores
from bayesbragg.inference.laplace import Gaussian, LaplaceOptions, find_mode, near_bounds
from bayesbragg.inference.nuts_options import BEFORE_BOUND, USUAL, NutsOptions
from bayesbragg.inference.nuts_program import BLOCK, Program
from bayesbragg.inference.stacking import stack
from bayesbragg.inference.unbounded import Target
from bayesbragg.inference.verdict import judge_chains
from bayesbragg.model.posterior import Posterior

__all__ = ["NutsOptions", "nuts", "nuts_each"]

FloatArray = npt.NDArray[np.float64]


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
    how = _how(options)
    accept = _target_accept(options, target, gaussian)
    work = _Work(target, gaussian, options, accept, report)
    generator = np.random.default_rng(seed)
    starts = generator.standard_normal((options.n_chains, len(gaussian.centre)))
    keys = jax.random.split(jax.random.PRNGKey(seed), options.n_chains)
    stats = work.together(starts, keys) if how == "vectorised" else work.one_by_one(starts, keys, how == "parallel")
    return _posterior(target, gaussian, options, stats, accept, how, seed, work.evaluations, clock)


def nuts_each(
    targets: Sequence[Target],
    options: NutsOptions | None = None,
    *,
    seed: int = 0,
    gaussians: Sequence[Gaussian] | None = None,
) -> list[Posterior]:
    """The posteriors of many targets of one structure and shape, the chains of all of them in one compiled program.

    Args:
        targets: of shots with the same options, likelihood, layout and array shapes.
        options: how to sample each of them; ``target_accept`` is 0.6 unless it is given, whatever the bounds.
        seed: of all randomness.
        gaussians: Laplace's, if they were found before.
    """
    options = (options or NutsOptions()).check()
    clock = time.perf_counter()
    if not targets:
        return []
    gaussians = gaussians or [find_mode(target, LaplaceOptions()) for target in targets]
    accept = options.target_accept or USUAL[options.path]
    generator = np.random.default_rng(seed)
    n = len(gaussians[0].centre)
    program = options.program(targets[0].potential, accept, "each")
    data = [_whitening(t, g) for t, g in zip(targets, gaussians, strict=True)]
    stacked = stack(data)
    starts = generator.standard_normal((len(targets), options.n_chains, n))
    keys = jax.random.split(jax.random.PRNGKey(seed), (len(targets), options.n_chains))
    state = program.start(starts, stacked, keys)
    kept: list[dict[str, FloatArray]] = []
    steps = np.zeros(len(targets), dtype=np.int64)
    for block in range(options.warm_blocks + options.blocks):
        state, draws = program.advance(state, stacked, block < options.warm_blocks)
        steps += np.sum(np.asarray(draws["n_steps"]), axis=(0, 2))
        if block >= options.warm_blocks:
            kept.append({name: np.asarray(value) for name, value in draws.items()})
    # Draws, targets and chains are the axes of the program's output, in this order.
    joined = {name: np.concatenate([part[name] for part in kept])[: options.n_draws] for name in kept[0]}
    found = []
    for i, (target, gaussian) in enumerate(zip(targets, gaussians, strict=True)):
        own = {name: np.moveaxis(value[:, i], 0, 1) for name, value in joined.items()}
        evaluations = gaussian.evaluations + int(steps[i])
        found.append(_posterior(target, gaussian, options, own, accept, "vectorised", seed, evaluations, clock))
    return found


def _how(options: NutsOptions) -> Literal["sequential", "parallel", "vectorised"]:
    if options.chains != "auto":
        return options.chains
    if options.n_chains == 1:
        return "sequential"
    if jax.default_backend() != "cpu":
        return "vectorised"
    return "parallel" if available_cores() > 1 else "sequential"


def _target_accept(options: NutsOptions, target: Target, gaussian: Gaussian) -> float:
    if options.target_accept is not None:
        return options.target_accept
    # Density walls are curved near a bound, and steps that suit the rest run into them.
    return BEFORE_BOUND if near_bounds(target, gaussian) else USUAL[options.path]


def _whitening(target: Target, gaussian: Gaussian) -> tuple[Any, ...]:
    """The data of a `Whitened` potential."""
    return (target.data, *jax.tree.map(jnp.asarray, (gaussian.centre, gaussian.factor, gaussian.bend)))


class _Work:
    """The chains of one target."""

    def __init__(
        self,
        target: Target,
        gaussian: Gaussian,
        options: NutsOptions,
        accept: float,
        report: Callable[[int, int], None] | None,
    ) -> None:
        self.options, self.data = options, _whitening(target, gaussian)
        self.program = partial(options.program, target.potential, accept)
        self.report, self.evaluations, self.done = report, gaussian.evaluations, 0
        self.all = 0
        self.lock = Lock()

    def _advance(self, program: Program, chain: Any, blocks: int, warm: bool) -> tuple[Any, dict[str, FloatArray]]:
        """The chain after some blocks of draws, and the draws, joined."""
        kept: list[dict[str, FloatArray]] = []
        for _ in range(blocks):
            chain, draws = program.advance(chain, self.data, warm)
            kept.append({name: np.asarray(value) for name, value in draws.items()})
            with self.lock:
                self.evaluations += int(np.sum(kept[-1]["n_steps"]))
                self.done += BLOCK
                if self.report is not None:
                    self.report(self.done, self.all)
        return chain, {name: np.concatenate([part[name] for part in kept]) for name in kept[0]}

    def together(self, starts: FloatArray, keys: Any) -> dict[str, FloatArray]:
        options, program = self.options, self.program("chains")
        self.all = (options.warm_blocks + options.blocks) * BLOCK
        chains, _ = self._advance(program, program.start(starts, self.data, keys), options.warm_blocks, True)
        _, draws = self._advance(program, chains, options.blocks, False)
        return {name: np.moveaxis(value[: options.n_draws], 0, 1) for name, value in draws.items()}

    def one_by_one(self, starts: FloatArray, keys: Any, parallel: bool) -> dict[str, FloatArray]:
        options, program = self.options, self.program("one")
        settle = options.warm_blocks if options.adapt_mass else 1
        self.all = (options.warm_blocks + (len(starts) - 1) * settle + len(starts) * options.blocks) * BLOCK
        first = [program.start(start, self.data, key) for start, key in zip(starts, keys, strict=True)]
        first[0], _ = self._advance(program, first[0], options.warm_blocks, True)
        if not options.adapt_mass:
            # The coordinates are whitened alike for all: the step that the first has found serves the others.
            first[1:] = [(state, first[0][1]) for state, _ in first[1:]]

        def sample(number: int) -> dict[str, FloatArray]:
            chain = first[number]
            if number:
                chain, _ = self._advance(program, chain, settle, options.adapt_mass)
            return self._advance(program, chain, options.blocks, False)[1]

        workers = min(len(starts), available_cores()) if parallel else 1
        with ThreadPoolExecutor(max_workers=workers) as pool:
            chains = list(pool.map(sample, range(len(starts))))
        return {name: np.stack([chain[name][: options.n_draws] for chain in chains]) for name in chains[0]}


def _posterior(
    target: Target,
    gaussian: Gaussian,
    options: NutsOptions,
    stats: dict[str, FloatArray],
    accept: float,
    how: str,
    seed: int,
    evaluations: int,
    clock: float,
) -> Posterior:
    """The result of draws ``(n_chains, n_draws, n)`` of u and their statistics."""
    u = stats.pop("u")
    draws_of = target.to_values(gaussian.points(u.reshape(-1, u.shape[2]))).reshape(*u.shape[:2], -1)
    verdict, found = judge_chains(target.names, draws_of, stats["diverging"], stats["energy"])
    flat = draws_of.reshape(-1, draws_of.shape[2])
    return Posterior(
        method=options.path,
        names=target.names,
        units=target.units,
        draws=draws_of,
        log_density=-stats.pop("potential"),
        sample_stats=stats,
        verdict=verdict,
        mode=target.best(gaussian.centre),
        mean=flat.mean(axis=0),
        sd=flat.std(axis=0),
        covariance=np.atleast_2d(np.cov(flat.T)),
        evaluations=evaluations,
        seed=seed,
        seconds=time.perf_counter() - clock,
        settings={
            "n_chains": options.n_chains,
            "n_draws": options.n_draws,
            "n_warmup": options.warm_blocks * BLOCK,
            "target_accept": accept,
            "adapt_mass": options.adapt_mass,
            "max_tree_depth": options.max_tree_depth,
            "chains": how,
            "smallest_bulk_ess": float(np.min(found.ess_bulk, initial=np.inf)),
            "smallest_tail_ess": float(np.min(found.ess_tail, initial=np.inf)),
            "gradients_per_draw": float(np.mean(stats["n_steps"])),
        },
    )

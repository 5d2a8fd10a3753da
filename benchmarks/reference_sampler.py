"""NUTS and quarter turns against another sampler: a long run of emcee's affine-invariant ensemble on one density.

    python benchmarks/reference_sampler.py [STEPS] [--write]

The ensemble knows values of the density only, no gradients, and moves in the coordinates without bounds, whose density
it shares with NUTS. It needs `emcee`, which ``pip install bayesbragg[dev]`` brings. The shot is a simulated one of
``calibration.py``: 60 boxes, 8 channels, 10 parameters. With ``--write`` the table goes to
``benchmarks/results/reference_sampler.md``.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
PATHS: dict[Any, str] = {"nuts": "NUTS", "hmc": "quarter turns"}
N_WALKERS = 40
BURN_IN = 0.2


@dataclass(frozen=True)
class Reference:
    """Moments by the ensemble: mean and sd ``(n,)``, the errors of both, and the effective number of draws."""

    mean: np.ndarray
    sd: np.ndarray
    effective: np.ndarray
    seconds: float
    evaluations: int

    def compare(self, posterior: Any) -> tuple[np.ndarray, np.ndarray]:
        """Difference of the means in sds, and ratio of the sds minus 1, of a posterior to this one."""
        return (posterior.mean - self.mean) / self.sd, posterior.sd / self.sd - 1.0


def ensemble(target: Any, steps: int, seed: int = 0) -> Reference:
    """A long run of emcee on a target, started around its best fit."""
    import emcee

    from bayesbragg.inference.laplace import find_mode
    from bayesbragg.inference.unbounded import potentials

    gaussian = find_mode(target)
    generator = np.random.default_rng(seed)
    n = len(gaussian.centre)
    first = gaussian.centre + 0.5 * generator.standard_normal((N_WALKERS, n)) @ gaussian.factor.T
    clock = time.perf_counter()

    def log_density(y: np.ndarray) -> np.ndarray:
        value = -np.asarray(potentials(y, target.data, target.potential))
        return np.where(np.isfinite(value), value, -np.inf)

    sampler = emcee.EnsembleSampler(N_WALKERS, n, log_density, vectorize=True)
    sampler.random_state = np.random.RandomState(seed).get_state()
    sampler.run_mcmc(first, steps)
    skip = int(BURN_IN * steps)
    y = sampler.get_chain(discard=skip)
    values = target.to_values(y.reshape(-1, n)).reshape(y.shape)
    tau = emcee.autocorr.integrated_time(values, tol=0)
    flat = values.reshape(-1, n)
    return Reference(
        flat.mean(axis=0), flat.std(axis=0), len(flat) / tau, time.perf_counter() - clock, N_WALKERS * (steps + 1)
    )


def one_shot() -> Any:
    """The target of a simulated shot."""
    from calibration import make_density

    from bayesbragg.diagnostics.calibration import simulate

    return simulate(make_density("bright"), 1, seed=77).target(0)


def main() -> None:
    import jax

    jax.config.update("jax_enable_x64", True)
    from bayesbragg.inference.nuts import NutsOptions, nuts

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="?", type=int, default=8000)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    target = one_shot()
    found = {path: nuts(target, NutsOptions(n_draws=1500, path=path), seed=1) for path in PATHS}
    reference = ensemble(target, arguments.steps)
    lines = [
        "# NUTS and quarter turns against emcee on one simulated shot",
        "",
        *(
            f"{title}: 4 x 1500 draws, smallest bulk ESS {found[path].settings['smallest_bulk_ess']:.0f}, "
            f"{found[path].evaluations} gradients, verdict {found[path].verdict}."
            for path, title in PATHS.items()
        ),
        f"emcee: {N_WALKERS} walkers x {arguments.steps} steps, {reference.evaluations} values, smallest effective "
        f"number of draws {reference.effective.min():.0f}. Load {os.getloadavg()[0]:.1f}.",
        "",
        "| parameter | mean, emcee | sd, emcee | draws, emcee "
        + "".join(f"| {title}: mean, sds away | sd / emcee - 1 " for title in PATHS.values())
        + "|",
        "|---" * (4 + 2 * len(PATHS)) + "|",
    ]
    apart = [reference.compare(found[path]) for path in PATHS]
    for i, name in enumerate(target.names):
        row = f"| {name} | {reference.mean[i]:.7g} | {reference.sd[i]:.3g} | {reference.effective[i]:.0f} "
        lines.append(row + "".join(f"| {means[i]:+.3f} | {sds[i]:+.3f} " for means, sds in apart) + "|")
    lines.append("")
    for title, (means, sds) in zip(PATHS.values(), apart, strict=True):
        lines.append(f"{title}, largest: {np.abs(means).max():.3f} sd in a mean, {np.abs(sds).max():.1%} in a sd.")
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.write:
        (HERE / "results" / "reference_sampler.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

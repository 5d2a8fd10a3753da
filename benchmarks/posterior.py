"""Posteriors of simulated shots: wall time, draws per gradient, k-hat, and coverage of the truth by corrected Laplace.

python benchmarks/posterior.py [N_SHOTS] [nuts]

The truth is fixed and priors are flat and wide, so that coverage is that of intervals about a fixed truth.
"""

from __future__ import annotations

import sys

import jax
import numpy as np
from trials import make_trial, perturbed_start

from bayesbragg.inference.laplace import LaplaceOptions, laplace, target_of_fit
from bayesbragg.inference.map import fit_map
from bayesbragg.inference.nuts import NutsOptions, nuts


def main(n_shots: int, sample: bool) -> None:
    inside: dict[float, list[np.ndarray]] = {0.68: [], 0.95: []}
    for seed in range(n_shots):
        trial = make_trial(seed)
        density = trial.density(perturbed_start(trial.truth, seed), "shifted_poisson")
        target, truth = target_of_fit(density, fit_map(density)), trial.values(density)
        found = laplace(target, LaplaceOptions(n_draws=1000), seed=seed)
        for probability, rows in inside.items():
            low, high = found.interval(probability).T
            rows.append((low < truth) & (truth < high))
        k_hat, effective = found.settings["k_hat"], found.settings["effective_draws"]
        print(
            f"shot {seed}: Laplace {found.seconds:.1f} s, k-hat {k_hat:.2f}, {effective:.0f} effective draws",
            flush=True,
        )
        if sample:
            full = nuts(target, NutsOptions(n_draws=250, n_warmup=50), seed=seed)
            ess = full.settings["smallest_bulk_ess"]
            print(
                f"  NUTS {full.seconds:.1f} s, smallest ESS {ess:.0f}, {full.evaluations / ess:.1f} gradients for each "
                f"effective draw, verdict {full.verdict}"
            )
            print("  sd of NUTS / Laplace:", np.round(full.sd / found.sd, 3))
    for probability, rows in inside.items():
        all_ = np.array(rows)
        error = np.sqrt(probability * (1 - probability) / all_.size)
        print(f"coverage of {probability:.0%} intervals, all parameters: {all_.mean():.3f} +- {error:.3f}")


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    words = sys.argv[1:]
    main(next((int(word) for word in words if word.isdigit()), 10), "nuts" in words)

"""Whole fits and posteriors for the table of `run.py`: one simulated shot of 64 boxes, fitted from several starts."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
from trials import OPTIONS, PRIORS, make_trial, perturbed_start

from bayesbragg.forward import build_scene
from bayesbragg.forward.candidates import prepare_closed
from bayesbragg.forward.closed import closed_photons
from bayesbragg.inference.density import LogDensity
from bayesbragg.inference.map import fit_many, fit_map
from bayesbragg.priors import CellConstraint, make_layout

__all__ = ["draws_row", "fits_row", "share_row"]

STARTS = 8


def densities(n: int, precision: str = "float64") -> list[LogDensity]:
    """The density of the shot from n starts, 0.1 degree, 0.3 % and up to a factor of two away; one program for all."""
    trial, options = make_trial(0), replace(OPTIONS, precision=precision)
    e, made = trial.experiment, []
    constraint = CellConstraint.for_space_group(e.crystal.space_group_number, np.asarray(trial.truth.crystal.cell))
    scene = build_scene(e.detector, e.beam, e.spectrum, [e.crystal], trial.shot, e.factors, trial.truth, options)
    given = prepare_closed(trial.truth, scene, options)
    for seed in range(n):
        layout, base = make_layout(PRIORS, perturbed_start(trial.truth, seed), constraint)
        if made:
            made.append(made[0].with_layout(layout))
        else:
            made.append(LogDensity(closed_photons, given, options, trial.shot, layout, base))
    return made


def fits_row(batch: int = 1, precision: str = "float64") -> dict[str, Any]:
    """Fits per second, one after the other or several in one program.

    Args:
        batch: fits in a program.
    """
    shots = densities(max(STARTS, batch), precision)
    fit = (lambda: [fit_map(shot) for shot in shots]) if batch == 1 else (lambda: fit_many(shots, size=batch))
    fits = fit()
    clock = time.perf_counter()
    fit()
    seconds = time.perf_counter() - clock
    row = {"fits_per_s": len(shots) / seconds, "evaluations": float(np.mean([f.evaluations for f in fits])),
           "converged": sum(f.converged for f in fits), "fits": len(fits), "pixels": shots[0].n_trusted,
           "work": f"{len(fits)} fits"}  # fmt: skip
    if precision != "float64":
        double = [fit_map(shot) for shot in densities(len(shots))]
        off = [np.abs(a.values - b.values) / b.standard_errors for a, b in zip(fits, double, strict=True)]
        row["error_in_sd"] = float(np.max(off))
    return row


def draws_row(chains: int = 4, draws: int = 500) -> dict[str, Any]:
    """Draws and effective draws per second of the shot's posterior, programs of its chains ready."""
    from bayesbragg.inference.laplace import target_of_fit
    from bayesbragg.inference.nuts import NutsOptions, nuts

    (density,) = densities(1)
    target = target_of_fit(density, fit_map(density))
    options = NutsOptions(n_chains=chains, n_draws=draws)
    nuts(target, options, seed=1)
    found = nuts(target, options, seed=0)
    effective = min(found.settings["smallest_bulk_ess"], found.settings["smallest_tail_ess"])
    return {"draws_per_s": chains * draws / found.seconds, "effective_per_s": effective / found.seconds,
            "pixels": density.n_trusted, "verdict": str(found.verdict), "work": f"{chains} x {draws} draws",
            "gradients": int(found.evaluations)}  # fmt: skip


def share_row(fits: int) -> dict[str, Any]:
    """A process's share of many fits: it says when it is ready, and begins when it is told to."""
    shots = densities(STARTS)
    for shot in shots:
        fit_map(shot)
    print("ready", flush=True)
    sys.stdin.readline()
    clock = time.perf_counter()
    for i in range(fits):
        fit_map(shots[i % STARTS])
    return {"seconds_of_fits": time.perf_counter() - clock, "fits": fits, "threads": os.environ.get("NPROC", "")}

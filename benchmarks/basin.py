"""From how far away is the optimum found? Fits from many perturbed starts, of simulated shots and of the tutorial's.

    python benchmarks/basin.py [n_per_shot [degrees]]

Every start is off by 0.5 degree (or what is given) about a random axis, by 0.3 % in each independent cell edge, by a
factor 2 in block size (up or down), and knows nothing of the scale; Miller indices are kept. A fit succeeds if its
target is within 0.5 of the best that any start of its shot reached. Tutorial shots go through all of a refinement:
boxes, planes, closed forms with their lists of reflections, which are made anew where they do not serve. Writes
results/basin.md.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from trials import make_trial, perturbed_start
from tutorial_shots import TUTORIAL, classic_settings, tutorial_stills

from bayesbragg.forward import Parameters
from bayesbragg.forward.rotations import misorientation
from bayesbragg.inference.map import fit_map
from bayesbragg.model.fit import Fit
from bayesbragg.pipeline.api import structure_factors
from bayesbragg.pipeline.device import remember_programs
from bayesbragg.pipeline.refine import refine_still

Fitter = Callable[[Parameters], Fit]
N_SHOTS = 5
WITHIN = 0.5


def simulated() -> Iterator[tuple[str, Parameters, Fitter]]:
    """Shots of our own: name, truth, and the fit from a start."""
    for seed in range(N_SHOTS):
        trial = make_trial(1000 + seed)
        yield f"simulated {seed}", trial.truth, lambda start, trial=trial: fit_map(trial.density(start, "gaussian"))


def tutorial() -> Iterator[tuple[str, Parameters, Fitter]]:
    """Shots of the tutorial, around the optimum that is reached from their indexed model."""
    settings = replace(classic_settings(), background="poisson")
    for tag, still in tutorial_stills("procPoly"):
        factors = structure_factors(still, settings)

        def fit(start: Parameters, still=still, factors=factors) -> Fit:
            cell = np.asarray(start.crystal.cell)
            (turn,) = np.asarray(misorientation(start.crystal.rot_xyz))
            (experiment,) = still.experiments
            crystal = experiment.crystal
            moved = crystal.with_cell_and_orientation(
                np.concatenate([cell[:3], np.degrees(cell[3:])]), turn @ crystal.U
            )
            start_values = replace(settings.start, n_abc=tuple(np.asarray(start.mosaic.n_abc)[0]), G=1.0)
            there = replace(still, experiments=(experiment.with_crystal(moved),))
            return refine_still(there, factors, replace(settings, start=start_values)).fit

        yield tag, refine_still(still, factors, settings).parameters, fit


def measure(shots: Iterator[tuple[str, Parameters, Fitter]], n_per_shot: int, degrees: float) -> list[str]:
    """Rows of the table, and a line for the whole set."""
    rows, reached, statuses, n, done = [], 0, Counter[str](), 0, list[str]()
    for name, optimum, fit_from in shots:
        reference = fit_from(optimum)
        fits: list[Fit] = []
        starts = []
        for seed in range(n_per_shot):
            start = perturbed_start(
                optimum, 10_000 + 1_000 * len(done) + seed, degrees=degrees, cell_percent=0.3, extreme=True
            )
            fits.append(fit_from(start))
            starts.append(start)
        done.append(name)
        target = np.array([fit.target for fit in fits])
        best = min(reference.target, target.min())
        good = target < best + WITHIN
        reached, n = reached + int(good.sum()), n + len(fits)
        statuses.update(str(fit.status) for fit in fits)
        seconds = np.median([fit.seconds for fit in fits])
        evaluations = np.array([fit.evaluations for fit in fits])
        rows.append(
            f"| {name} | {good.sum()}/{len(fits)} | {best:.1f} | {np.median(evaluations):.0f} ({evaluations.max()}) | "
            f"{seconds:.2f} |"
        )
        for i in np.flatnonzero(~good):
            n_start = np.asarray(starts[i].mosaic.n_abc)[0]
            rows.append(
                f"| ... start {i}: {fits[i].status} | | +{target[i] - best:.1f} | {fits[i].evaluations} | "
                f"{fits[i].seconds:.2f}, blocks started at {n_start.round(1)} |"
            )
        print("\n".join(rows[-1 - int((~good).sum()) :]), flush=True)
    share = reached / max(n, 1)
    error = np.sqrt(max(share * (1 - share), 1.0 / max(n, 1)) / max(n, 1))
    rows.append(
        f"\n**{reached} of {n}** ({100 * share:.1f} ± {100 * error:.1f} %) reached the optimum; {dict(statuses)}."
    )
    print(rows[-1], flush=True)
    return rows


def main(n_per_shot: int, degrees: float) -> None:
    """Measure, print and write the tables."""
    remember_programs()
    head = [
        "| shot | reached | best target | evaluations, median (most) | seconds per fit |",
        "|---|---|---|---|---|",
    ]
    text = [f"# Basin of convergence: starts {degrees:g} degree away (load {os.getloadavg()[0]:.1f})", ""]
    text += [*(__doc__ or "").split("\n\n")[2].strip().splitlines(), ""]
    text += ["## Simulated shots", "", *head, *measure(simulated(), n_per_shot, degrees)]
    if TUTORIAL.is_dir():
        text += ["", "## Tutorial shots", "", *head, *measure(tutorial(), n_per_shot, degrees)]
    (Path(__file__).parent / "results" / "basin.md").write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20, float(sys.argv[2]) if len(sys.argv) > 2 else 0.5)

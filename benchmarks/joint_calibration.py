"""Simulation-based calibration of joint posteriors: panels and two shots, all drawn from their priors.

    python benchmarks/joint_calibration.py run N [--path hmc|nuts] [--work FOLDER]
    python benchmarks/joint_calibration.py write [--path hmc|nuts] [--work FOLDER]

Four panels in three groups under a hierarchical prior; each of two shots has 12 boxes of 7 x 7 pixels about predicted
reflections, chosen before there are panels' motions or noise, 6 channels, and nine numbers of its own. ``run`` goes on
from the ranks that it finds in the working folder; ``write`` makes ``benchmarks/results/joint_calibration.md`` and its
pictures from them.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from calibration import CHAINS, TITLES

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "inference"))
GROUPS, N_SHOTS, N_BOXES, SIDE = (0, 1, 2, 2), 2, 12, 7
BATCH = 5


def make_terms(seed: int = 0) -> Any:
    """The shots, without counts, the prior of the panels, and their groups."""
    from joint_simulation import boxes_of

    from bayesbragg.inference.pixel_term import PixelTerm
    from bayesbragg.model import Crystal
    from bayesbragg.model.panel_groups import group_panels
    from bayesbragg.priors import Cell, Normal, Priors
    from bayesbragg.priors.panels import LevelWidths, PanelPriors, shared_prior
    from bayesbragg.stills.virtual import random_rotation, virtual_experiment

    priors = Priors(
        RotXYZ=Normal(0.0, 5e-4, low=-0.05, high=0.05),
        cell=Cell(edge_percent=3.0, edge_sd=0.03),
        Nabc=Normal(None, 1.0, low=3.0, high=60.0),
        G=Normal(3e4, 3e3, low=1e3, high=1e5),
    )
    panels = PanelPriors(
        levels={
            "whole": LevelWidths((0.03, 0.03, 0.03), (0.03, 0.03, 0.05)),
            "group": LevelWidths((0.03, 0.03, 0.03), (0.02, 0.02, 0.02)),
        }
    )
    generator = np.random.default_rng(seed)
    world = virtual_experiment(0, n_channels=6)
    grouping = group_panels(world.detector, np.array(GROUPS))
    terms = []
    for _ in range(N_SHOTS):
        crystal = Crystal.from_cell(
            np.array([79.1, 79.1, 38.4, 90.0, 90.0, 90.0]), random_rotation(generator), space_group="P 43 21 2",
            space_group_number=96, hall_symbol=" P 4nw 2abw",
        )  # fmt: skip
        density, panel = boxes_of(world, grouping, crystal, generator, N_BOXES, priors=priors, side=SIDE)
        terms.append(PixelTerm(density, panel, grouping))
    return terms, shared_prior(grouping, panels), grouping


def run(n: int, sampler: Any, work: Path) -> None:
    """Ranks of n data sets, in batches; those that were saved before are not made again."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from bayesbragg.diagnostics.calibration import nuts_ranks
    from bayesbragg.diagnostics.joint_calibration import simulate_joint
    from bayesbragg.inference.nuts import NutsOptions

    work.mkdir(parents=True, exist_ok=True)
    path = work / f"joint_{sampler}.npz"
    n_draws, thin = CHAINS[sampler]
    terms, prior, _ = make_terms()
    simulations = simulate_joint(terms, prior, n, seed=2)
    names = np.array(simulations.target(0).names)
    ranks, flags, spent, wall = [], [], 0.0, 0.0
    if path.is_file():
        saved = np.load(path)
        ranks, flags = [saved["ranks"]], [saved["flags"]]
        spent, wall = float(saved["cpu_s"]), float(saved["wall_s"])
    done = sum(len(part) for part in ranks)
    while done < n:
        clock, cpu = time.perf_counter(), time.process_time()
        rows = list(range(done, min(done + BATCH, n)))
        options = NutsOptions(n_chains=1, n_draws=n_draws, n_warmup=50, path=sampler)
        part, flag = nuts_ranks(simulations, options, thin=thin, rows=rows)
        ranks.append(part)
        flags.append(flag)
        done += len(rows)
        wall, spent = wall + time.perf_counter() - clock, spent + time.process_time() - cpu
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, ranks=np.concatenate(ranks), flags=np.concatenate(flags).astype(float), names=names,
                 cpu_s=spent, wall_s=wall)  # fmt: skip
        partial.replace(path)
        print(f"{done} of {n}, {spent:.0f} s of processor, load {os.getloadavg()[0]:.1f}", flush=True)


def write(sampler: str, work: Path) -> None:
    """benchmarks/results/joint_calibration.md and its pictures, from the ranks that there are."""
    import jax

    from bayesbragg.diagnostics.calibration import coverage, ecdf_band
    from bayesbragg.diagnostics.calibration_plots import ecdf_plot, rank_histograms
    from bayesbragg.diagnostics.figure_style import save
    from bayesbragg.diagnostics.joint_calibration import clustered_coverage

    saved = np.load(work / f"joint_{sampler}.npz")
    n_draws, thin = CHAINS[sampler]
    names, ranks, flags = tuple(str(n) for n in saved["names"]), saved["ranks"], saved["flags"]
    band = ecdf_band(len(ranks), len(names))
    inside = band.inside(ranks)
    out = [n for n, good in zip(names, inside, strict=True) if not good]
    rows = coverage(names, ranks)
    worst = max(rows, key=lambda c: abs(c.pull))
    verdict = "all stay inside" if not out else f"outside: {', '.join(out)}"
    text = [
        "# Calibration of joint posteriors",
        "",
        f"{len(ranks)} data sets: panels of {len(set(GROUPS))} groups and {N_SHOTS} shots from their priors, data from "
        f"the fitted (Gaussian) likelihood, {N_BOXES} boxes of {SIDE} x {SIDE} pixels in each shot, chosen before "
        f"motions and noise. Posteriors by {TITLES[sampler]}, arrow-shaped preconditioning, one chain from a draw of "
        f"the Gaussian, 50 draws of warm-up, {n_draws} draws of which one in {thin} counts; "
        f"{jax.devices()[0].platform}, "
        f"{platform.machine()}, jax {jax.__version__}. Made by `benchmarks/joint_calibration.py`.",
        "",
        f"One family-wise 99 % band for the distribution functions of all {len(names)} numbers: {verdict}. Coverage "
        f"farthest from what it should be: {worst.name}, {worst.found:.3f} for {worst.probability:.2f}, "
        f"{worst.pull:+.1f} standard errors. Divergences: {int(flags.sum())} in {int(np.sum(flags > 0))} data sets. "
        f"Processor: {float(saved['cpu_s']):.0f} s, wall {float(saved['wall_s']):.0f} s on a shared machine.",
        "",
        "All numbers together, with standard errors of the scatter between data sets (numbers of one data set have "
        "errors in common):",
        "",
    ]
    groups = np.array([name.startswith("group") for name in names])
    for what, columns in (("panels", groups), ("shots", ~groups), ("all", np.ones(len(names), dtype=bool))):
        found = [clustered_coverage(ranks[:, columns], p) for p in (0.68, 0.95)]
        said = ", ".join(f"{v:.4f} +- {e:.4f} of {p}" for (v, e), p in zip(found, (0.68, 0.95), strict=True))
        text.append(f"- {what} ({int(columns.sum())} numbers): {said}")
    text += ["", "| number | inside the band | 68 % intervals | standard errors off | 95 % intervals | off |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    half = len(names)
    for name, good, c68, c95 in zip(names, inside, rows[:half], rows[half:], strict=True):
        text.append(
            f"| {name} | {'yes' if good else 'NO'} | {c68.found:.3f} +- {c68.error:.3f} | {c68.pull:+.1f} | "
            f"{c95.found:.3f} +- {c95.error:.3f} | {c95.pull:+.1f} |"
        )
    text.append("")
    for kind, figure in (("ranks", rank_histograms(names, ranks)), ("ecdf", ecdf_plot(names, ranks, band))):
        picture = HERE / "results" / f"joint_calibration_{kind}.png"
        save(figure, picture, dpi=90)
        text.append(f"![{kind}]({picture.name})")
    result = "\n".join(text).rstrip() + "\n"
    print(result)
    (HERE / "results" / "joint_calibration.md").write_text(result, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "write"))
    parser.add_argument("n", nargs="?", type=int, default=200)
    parser.add_argument("--path", choices=tuple(CHAINS), default="hmc")
    parser.add_argument("--work", type=Path, default=Path("calibration_ranks"))
    arguments = parser.parse_args()
    if arguments.what == "run":
        run(arguments.n, arguments.path, arguments.work)
    else:
        write(arguments.path, arguments.work)


if __name__ == "__main__":
    main()

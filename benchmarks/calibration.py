"""Simulation-based calibration of the posteriors of single shots: Laplace with importance weights, and Markov chains.

    python benchmarks/calibration.py run CASE laplace|nuts|hmc N [--work FOLDER]
    python benchmarks/calibration.py write [--work FOLDER]

Truths come from the prior, data from the fitted likelihood. The boxes, 60 of 5 x 5 pixels, 8 channels, are those about
the brightest reflections at the prior's centre: chosen before there is noise. Cases:

* ``bright``: tens of photons in a reflection, as most shots that are refined;
* ``weak``: a twelfth of that, and a spread whose prior is flat from zero on: the posteriors of spread, blocks and scale
  are skew, and lie against a bound;
* ``doubted``: as ``bright``, with background planes that are known to a tenth of a photon only, reference intensities
  to 5 % and pixels to 3 %, all of it integrated out.

``run`` goes on from the ranks that it finds in the working folder and saves them as it goes; ``write`` makes
``benchmarks/results/calibration.md`` and its pictures from them.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
CASES = ("bright", "weak", "doubted")
PLANE_SD = (0.02, 0.02, 0.1)
"""Slopes (photon per pixel) and constant (photon) of the planes of the doubted case."""
N_BOXES, SIDE, N_CHANNELS = 60, 5, 8
BATCH = 25
CHAINS = {"nuts": (252, 4), "hmc": (126, 2)}
"""Draws of a chain, and of how many one counts."""
TITLES = {"nuts": "NUTS", "hmc": "quarter turns (`inference=hmc`)", "laplace": "corrected Laplace"}


def make_density(case: str, likelihood: Any = "gaussian") -> Any:
    """The density of a shot: its boxes, background and model; the counts are of no use."""
    from bayesbragg.forward import Options, Parameters, build_scene
    from bayesbragg.forward.candidates import Margin, prepare_closed
    from bayesbragg.forward.closed import closed_photons
    from bayesbragg.inference.density import LogDensity
    from bayesbragg.inference.inferred_background import plane_prior
    from bayesbragg.inference.pixels import Pixels
    from bayesbragg.priors import Cell, CellConstraint, Normal, Priors, Shared, Uniform, make_layout
    from bayesbragg.stills.simulation import known_background_shot, simulate_still
    from bayesbragg.stills.virtual import virtual_experiment

    world = virtual_experiment(3, n_channels=N_CHANNELS)
    cell = np.array([79.1, 79.1, 38.4, *[np.pi / 2] * 3])
    options = Options(spread="gaussian_isotropic")
    G = 20.0 if case == "weak" else 250.0
    centre = Parameters.start(cell, n_abc=(12.0, 12.0, 14.0), G=G, eta_deg=0.04)
    still = simulate_still(
        centre, world.detector, world.beam, world.spectrum, [world.crystal], world.factors, Options(), background=1.0
    )
    shot = known_background_shot(still, side=SIDE, least_photons=0.1, most=N_BOXES)
    spread = Uniform(0.0, 0.08) if case == "weak" else Normal(0.04, 0.01, low=0.0, high=0.12)
    priors = Priors(
        RotXYZ=Normal(0.0, 4e-4, low=-0.01, high=0.01),
        cell=Cell(edge_percent=2.0, edge_sd=0.03),
        Nabc=Normal(None, 1.5, low=4.0, high=40.0),
        G=Normal(G, 0.2 * G, low=0.0, high=5.0 * G),
        eta_abc=Shared(spread),
    )
    layout, base = make_layout(priors, centre, CellConstraint.for_space_group(96, cell))
    scene = build_scene(world.detector, world.beam, world.spectrum, [world.crystal], shot, world.factors, centre,
                        options, margin=2, n_mosaic=2)  # fmt: skip
    closed = prepare_closed(centre, scene, options, Margin(0.05, 0.001, 0.6))
    pixels = Pixels.from_shot(shot)
    if case == "doubted":
        planes = plane_prior(shot.shape, np.diag(np.square(PLANE_SD))[None].repeat(shot.n_boxes, axis=0))
        pixels = replace(pixels, planes=planes, intensity_sd=np.asarray(0.05), gain_sd=np.asarray(0.03))
    return LogDensity(closed_photons, closed, options, pixels, layout, base, likelihood)


def run(case: str, method: str, n: int, work: Path) -> None:
    """Ranks of n data sets, in batches; those that were saved before are not made again."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from bayesbragg.diagnostics.calibration import laplace_ranks, nuts_ranks, simulate
    from bayesbragg.inference.laplace import LaplaceOptions
    from bayesbragg.inference.nuts import USUAL, NutsOptions

    work.mkdir(parents=True, exist_ok=True)
    path = work / f"{case}_{method}.npz"
    # Each method looks at data sets of its own.
    simulations = simulate(make_density(case), n, seed={"laplace": 1, "nuts": 2, "hmc": 3}[method])
    n_draws, thin = CHAINS.get(method, (0, 1))
    sampler: Any = method
    ranks, flags, spent, wall = [], [], 0.0, 0.0
    if path.is_file():
        saved = np.load(path)
        ranks, flags = [saved["ranks"]], [saved["flags"]]
        spent, wall = float(saved["cpu_s"]), float(saved["wall_s"])
    done = sum(len(part) for part in ranks)
    while done < n:
        clock, cpu = time.perf_counter(), time.process_time()
        rows = list(range(done, min(done + BATCH, n)))
        if method == "laplace":
            part, flag = laplace_ranks(simulations, LaplaceOptions(n_draws=1000), rows=rows)
        else:
            options = NutsOptions(n_chains=1, n_draws=n_draws, n_warmup=50, path=sampler)
            part, flag = nuts_ranks(simulations, options, thin=thin, rows=rows)
        ranks.append(part)
        flags.append(flag)
        done += len(rows)
        wall, spent = wall + time.perf_counter() - clock, spent + time.process_time() - cpu
        names = np.array(simulations.density.layout.names)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, ranks=np.concatenate(ranks), flags=np.concatenate(flags).astype(float), names=names,
                 cpu_s=spent, wall_s=wall, n_draws=n_draws, thin=thin, accept=USUAL.get(method, 0.0))  # fmt: skip
        partial.replace(path)
        print(f"{case} {method}: {done} of {n}, {spent:.0f} s of processor, load {os.getloadavg()[0]:.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "write"))
    parser.add_argument("case", nargs="?", choices=CASES, default="bright")
    parser.add_argument("method", nargs="?", choices=("laplace", "nuts", "hmc"), default="laplace")
    parser.add_argument("n", nargs="?", type=int, default=100)
    parser.add_argument("--work", type=Path, default=Path("calibration_ranks"))
    arguments = parser.parse_args()
    if arguments.what == "run":
        run(arguments.case, arguments.method, arguments.n, arguments.work)
    else:
        write(arguments.work)


def write(work: Path) -> None:
    """benchmarks/results/calibration.md and its pictures, from the ranks that there are."""
    import jax

    from bayesbragg.diagnostics.calibration import coverage, ecdf_band
    from bayesbragg.diagnostics.calibration_plots import ecdf_plot, rank_histograms
    from bayesbragg.diagnostics.figure_style import save

    text = [
        "# Calibration of single-shot posteriors",
        "",
        f"Truths from the prior, data from the fitted (Gaussian) likelihood, {N_BOXES} boxes of {SIDE} x {SIDE} pixels "
        f"chosen before the noise, {N_CHANNELS} channels, closed form of the lattice sum; "
        f"{jax.devices()[0].platform}, {platform.machine()}, jax {jax.__version__}. Made by "
        "`benchmarks/calibration.py`, whose text names the cases. "
        "Laplace: 1,000 weighted draws. NUTS and quarter turns (`inference=hmc`): one chain from a draw of the "
        "Gaussian, 50 draws of warm-up.",
        "",
    ]
    for case in CASES:
        for method in ("nuts", "hmc", "laplace"):
            path = work / f"{case}_{method}.npz"
            if not path.is_file():
                continue
            saved = np.load(path)
            names, ranks, flags = tuple(str(n) for n in saved["names"]), saved["ranks"], saved["flags"]
            band = ecdf_band(len(ranks), len(names))
            inside = band.inside(ranks)
            out = [n for n, good in zip(names, inside, strict=True) if not good]
            rows = coverage(names, ranks)
            worst = max(rows, key=lambda c: abs(c.pull))
            text += [f"## {case}, {TITLES[method]}: {len(ranks)} shots", ""]
            if method != "laplace":
                text.append(
                    f"{int(saved['n_draws'])} draws, of which one in {int(saved['thin'])} counts; acceptance "
                    f"{float(saved['accept']):g}. Divergences: {int(flags.sum())} in {int(np.sum(flags > 0))} shots."
                )
            else:
                text.append(
                    f"k-hat passed for {int(flags.sum())} of {len(flags)} shots; all of them are counted below."
                )
            verdict = "all parameters stay inside" if not out else f"outside: {', '.join(out)}"
            text += [
                f"One family-wise 99 % band for the distribution functions of all {len(names)} parameters: {verdict}. "
                f"Coverage farthest from what it should be: {worst.name}, {worst.found:.3f} for "
                f"{worst.probability:.2f}, {worst.pull:+.1f} standard errors. "
                f"Processor: {float(saved['cpu_s']):.0f} s, wall {float(saved['wall_s']):.0f} s on a shared machine.",
                "",
                "| parameter | inside the band | 68 % intervals | standard errors off | 95 % intervals | off |",
                "|---|---|---|---|---|---|",
            ]
            half = len(names)
            for name, good, c68, c95 in zip(names, inside, rows[:half], rows[half:], strict=True):
                text.append(
                    f"| {name} | {'yes' if good else 'NO'} | {c68.found:.3f} +- {c68.error:.3f} | {c68.pull:+.1f} | "
                    f"{c95.found:.3f} +- {c95.error:.3f} | {c95.pull:+.1f} |"
                )
            text.append("")
            if method == "laplace" and not np.all(flags > 0) and np.sum(flags > 0) > 50:
                good_ones = coverage(names, ranks[flags > 0])
                off = max(good_ones, key=lambda c: abs(c.pull))
                text += [
                    f"Of the shots whose k-hat passed alone: farthest off {off.name}, {off.found:.3f} for "
                    f"{off.probability:.2f}, {off.pull:+.1f} standard errors.",
                    "",
                ]
            for kind, figure in (("ranks", rank_histograms(names, ranks)), ("ecdf", ecdf_plot(names, ranks, band))):
                picture = HERE / "results" / f"calibration_{case}_{method}_{kind}.png"
                save(figure, picture, dpi=90)
                text.append(f"![{kind} of {case}, {method}]({picture.name})")
            text.append("")
    result = "\n".join(text).rstrip() + "\n"
    print(result)
    (HERE / "results" / "calibration.md").write_text(result, encoding="utf-8")


if __name__ == "__main__":
    main()

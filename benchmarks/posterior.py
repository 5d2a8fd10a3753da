"""Posteriors of single shots: wall time, effective draws per gradient and second, verdicts, pulls against the truth.

    python benchmarks/posterior.py simulated [N_SHOTS] [nuts]
    python benchmarks/posterior.py tutorial [FOLDER] [--shots 0,1,2] [--gain 0,0.03] [--draws 250] [--rows FILE]
    python benchmarks/posterior.py write [--rows FILE]

``simulated``: shots of the virtual experiment; the truth is fixed and priors are flat and wide, so that coverage is
that of intervals about a fixed truth. ``tutorial``: its shots (``shared/tutorial`` beside the checkout, unless
FOLDER says otherwise) from their indexed start, 2 x 2 subpixels, our background planes, four chains of NUTS; with
``--gain`` also with a calibration error of pixels in the likelihood. The classic program's seconds are those of its
own fits of these shots (``classic/procPoly/fits.json``), none of which converged. Each finished shot is a line of FILE,
and shots that have one are not done again; ``write`` makes ``benchmarks/results/posterior.md`` from it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
TUTORIAL = HERE.parents[1] / "shared" / "tutorial"
ROWS = Path("posterior_rows.jsonl")
NAMES = ("rotX", "rotY", "rotZ", "ucell_a", "ucell_c", "Na", "Nb", "Nc")


def simulated(n_shots: int, sample: bool) -> None:
    """Laplace, and NUTS if asked for, on simulated shots."""
    from trials import make_trial, perturbed_start

    from bayesbragg.inference.laplace import LaplaceOptions, laplace, target_of_fit
    from bayesbragg.inference.map import fit_map
    from bayesbragg.inference.nuts import NutsOptions, nuts

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
            full = nuts(target, NutsOptions(n_draws=250), seed=seed)
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


def tutorial_settings(folder: Path, sigma_gain: float) -> Any:
    """The tutorial's process.phil with 2 x 2 subpixels and our backgrounds."""
    import bayesbragg as bb

    return bb.RefineSettings(
        counts=bb.CountSettings(28.0, 3.0, sigma_gain=sigma_gain),
        boxes=bb.BoxSettings(reject_roi_with_hotpix=False, mask_outside_trusted_range=False),
        spectrum=bb.SpectrumSettings(source="image"),
        factors=bb.FactorSettings(
            mtz=folder / "structure_factors" / "iobs_all.mtz", columns="I(+),SIGI(+),I(-),SIGI(-)"
        ),
        model=bb.ModelSettings(oversample=2),
        start=bb.StartValues(n_abc=(13, 14, 15), G=100),
    )


def tutorial_shot(folder: Path, number: int, sigma_gain: float, n_draws: int, chains: str) -> dict[str, Any]:
    """One shot from its files to its posterior: seconds of every part, the verdict, pulls."""
    from wilson import misorientation

    import bayesbragg as bb
    from bayesbragg.inference.laplace import LaplaceOptions, laplace, target_of_fit
    from bayesbragg.inference.nuts import NutsOptions, nuts

    tag, settings = f"shot_{number:03d}", tutorial_settings(folder, sigma_gain)
    clock, cpu = time.perf_counter(), time.process_time()
    (still,) = bb.load(folder / "indexed" / f"{tag}_refined.expt", folder / "indexed" / f"{tag}_indexed.refl", settings)
    refined = bb.refine(still, settings)
    fitted = time.perf_counter() - clock
    target = target_of_fit(refined.prepared.density, refined.fit)
    full = nuts(target, NutsOptions(n_draws=n_draws, chains=chains), seed=number)  # type: ignore[arg-type]
    wall, cpu = time.perf_counter() - clock, time.process_time() - cpu
    gaussian = laplace(target, LaplaceOptions(n_draws=1000), seed=number)
    truth = json.loads((folder / "truth" / f"{tag}.json").read_text())
    # The rotation from the fit to the truth, about the axes that RotXYZ turns about the other way round.
    turn = misorientation(refined.crystals[0], np.reshape(truth["U"], (3, 3)))
    at = dict(zip(refined.fit.names, refined.fit.values, strict=True))
    mean, sd = (dict(zip(full.names, v, strict=True)) for v in (full.mean, full.sd))
    true = {"ucell_a": 79.1, "ucell_c": 38.4, "Na": 10.0, "Nb": 10.0, "Nc": 10.0}
    off = {name: turn[i] + mean[name] - at[name] for i, name in enumerate(NAMES[:3])}
    off |= {name: mean[name] - value for name, value in true.items()}
    classic = json.loads((folder / "classic" / "procPoly" / "fits.json").read_text())
    classic = {int(shot["shot"]): shot for shot in (classic if isinstance(classic, list) else classic.values())}
    ess = min(full.settings["smallest_bulk_ess"], full.settings["smallest_tail_ess"])
    return {
        "shot": number, "sigma_gain": sigma_gain, "boxes": refined.prepared.shot.n_boxes,
        "pixels": refined.fit.n_pixels, "status": refined.fit.status.value, "sigma_z": refined.fit.sigma_z,
        "form": refined.prepared.form.name, "fit_s": fitted, "wall_s": wall, "cpu_s": cpu, "sampling_s": full.seconds,
        "classic_s": classic[number]["t_minimize"] if number in classic else None, "load": os.getloadavg()[0],
        "bulk": full.settings["smallest_bulk_ess"], "tail": full.settings["smallest_tail_ess"],
        "gradients": full.evaluations, "gradients_per_effective": full.evaluations / ess,
        "bulk_per_s": full.settings["smallest_bulk_ess"] / full.seconds, "chains": full.settings["chains"],
        "draws": f"{full.draws.shape[0]} x {full.draws.shape[1]}", "verdict": str(full.verdict),
        "k_hat": gaussian.settings["k_hat"], "laplace_s": gaussian.seconds,
        "sd_ratio": float(np.max(np.abs(gaussian.sd / full.sd - 1.0))),
        "pulls": {name: float(off[name] / sd[name]) for name in NAMES},
        "sd": {name: float(sd[name]) for name in NAMES},
    }  # fmt: skip


def tutorial(arguments: argparse.Namespace) -> None:
    from bayesbragg.pipeline.device import remember_programs

    remember_programs()
    rows = _read(arguments.rows)
    done = {(row["shot"], row["sigma_gain"]) for row in rows}
    for number in _numbers(arguments.shots, int):
        for sigma_gain in _numbers(arguments.gain, float):
            if (number, sigma_gain) in done:
                continue
            row = tutorial_shot(arguments.folder, number, sigma_gain, arguments.draws, arguments.chains)
            with open(arguments.rows, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


def _numbers(text: str, kind: Any) -> list[Any]:
    return [kind(word) for word in text.split(",")]


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def write(path: Path) -> None:
    """benchmarks/results/posterior.md from the rows."""
    import jax

    rows = sorted(_read(path), key=lambda row: (row["sigma_gain"], row["shot"]))
    text = [
        "# Posteriors of the tutorial's shots",
        "",
        f"Four chains of NUTS, 2 x 2 subpixels, our background planes, {jax.devices()[0].platform}, {os.cpu_count()} "
        f"cores, jax {jax.__version__}. Wall time from the files to the last draw, compilation included; the load is "
        "that of the machine at the end of the shot (1 for each busy process): on a machine that was shared, the "
        "seconds of the processor are the fairer figure. The classic program's seconds are those of its fit, which did "
        "not converge.",
        "",
        "| shot | gain sd | boxes | pixels | lattice sum | wall s | processor s | load | classic s | draws | bulk ESS "
        "| tail ESS | gradients per effective draw | verdict | Laplace k-hat | sd of Laplace / NUTS - 1 | sigma-Z |",
        "|---" * 17 + "|",
    ]
    for r in rows:
        classic = "" if r["classic_s"] is None else f"{r['classic_s']:.0f}"
        text.append(
            f"| {r['shot']} | {r['sigma_gain']:g} | {r['boxes']} | {r['pixels']} | {r['form']} | {r['wall_s']:.0f} | "
            f"{r['cpu_s']:.0f} | {r['load']:.1f} | {classic} | {r['draws']} | {r['bulk']:.0f} | {r['tail']:.0f} | "
            f"{r['gradients_per_effective']:.1f} | {r['verdict']} | {r['k_hat']:.2f} | {r['sd_ratio']:.3f} | "
            f"{r['sigma_z']:.3f} |"
        )
    text += ["", "## Pulls against the truth", "", "(posterior mean - truth) / posterior sd.", ""]
    text += [
        "| gain sd | shots | " + " | ".join(f"rms {name}" for name in NAMES) + " | inside 95 % |",
        "|---" * 11 + "|",
    ]
    for gain in sorted({r["sigma_gain"] for r in rows}):
        pulls = np.array([[r["pulls"][name] for name in NAMES] for r in rows if r["sigma_gain"] == gain])
        rms = " | ".join(f"{v:.2f}" for v in np.sqrt(np.mean(pulls**2, axis=0)))
        share, error = np.mean(np.abs(pulls) < 1.96), np.sqrt(0.05 * 0.95 / pulls.size)
        text.append(f"| {gain:g} | {len(pulls)} | {rms} | {share:.3f} +- {error:.3f} |")
    result = "\n".join(text) + "\n"
    print(result)
    (HERE / "results" / "posterior.md").write_text(result, encoding="utf-8")


def main() -> None:
    import jax

    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("simulated", "tutorial", "write"))
    parser.add_argument("words", nargs="*")
    parser.add_argument("--shots", default=",".join(str(n) for n in range(16)))
    parser.add_argument("--gain", default="0,0.03")
    parser.add_argument("--draws", type=int, default=250)
    parser.add_argument("--chains", default="auto")
    parser.add_argument("--rows", type=Path, default=ROWS)
    arguments = parser.parse_args()
    if arguments.what == "simulated":
        words = arguments.words
        simulated(next((int(word) for word in words if word.isdigit()), 10), "nuts" in words)
    elif arguments.what == "tutorial":
        arguments.folder = Path(arguments.words[0]) if arguments.words else TUTORIAL
        tutorial(arguments)
    else:
        write(arguments.rows)


if __name__ == "__main__":
    main()

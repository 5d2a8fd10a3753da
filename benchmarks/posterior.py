"""Posteriors of single shots: wall time, effective draws per gradient and second, verdicts, pulls against the truth.

    python benchmarks/posterior.py simulated [N_SHOTS] [nuts]
    python benchmarks/posterior.py tutorial [FOLDER] [--shots 0,1,2] [--models plain,gain,both] [--draws 500]
                                            [--method hmc|nuts|laplace] [--rows FILE]
    python benchmarks/posterior.py write [--rows FILE]

``simulated``: shots of the virtual experiment; the truth is fixed and priors are flat and wide, so that coverage is
that of intervals about a fixed truth. ``tutorial``: its shots (``shared/tutorial`` beside the checkout, unless
FOLDER says otherwise) from their indexed start, 2 x 2 subpixels, our background planes, four chains of
quarter turns or of NUTS (or corrected Laplace alone). Models: ``plain``; ``gain``, calibration errors of 3 % of a
pixel; ``intensity``, errors of 3 % of a reference intensity; ``both``, what the images and the MTZ were made with;
``bright``, both without boxes of fewer than 300 expected photons; ``inferred``, both and inferred planes; ``true_F``
and ``true_F_gain``, with the structure factors that made the images instead. The classic program's seconds are those of
its own fits of these shots (``classic/procPoly/fits.json``), none of which converged. Each finished shot is a line of
FILE, and shots that have one are not done again; ``write`` prints the tables of ``benchmarks/results/posterior.md``.
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
MTZ = "I(+),SIGI(+),I(-),SIGI(-)"
MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gain": {"sigma_gain": 0.03},
    "intensity": {"sigma_intensity": 0.03},
    "both": {"sigma_gain": 0.03, "sigma_intensity": 0.03},
    "bright": {"sigma_gain": 0.03, "sigma_intensity": 0.03, "min_expected": 300.0},
    "inferred": {"sigma_gain": 0.03, "sigma_intensity": 0.03, "background": "inferred"},
    "true_F": {"true_F": True},
    "true_F_gain": {"true_F": True, "sigma_gain": 0.03},
}
"""What each model believes: relative errors of pixels' gains and of reference intensities, planes, and amplitudes."""
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


def tutorial_settings(
    folder: Path,
    sigma_gain: float = 0.0,
    sigma_intensity: float = 0.0,
    background: Any = "poisson",
    true_F: bool = False,
    min_expected: float = 0.0,
) -> Any:
    """The tutorial's process.phil with 2 x 2 subpixels and our backgrounds."""
    import bayesbragg as bb

    name, columns = ("truth_F.mtz", "F(+),F(-)") if true_F else ("iobs_all.mtz", MTZ)
    return bb.RefineSettings(
        counts=bb.CountSettings(28.0, 3.0, sigma_gain=sigma_gain),
        background=background,
        boxes=bb.BoxSettings(reject_roi_with_hotpix=False, mask_outside_trusted_range=False),
        spectrum=bb.SpectrumSettings(source="image"),
        factors=bb.FactorSettings(
            mtz=folder / "structure_factors" / name, columns=columns, sigma_intensity=sigma_intensity
        ),
        model=bb.ModelSettings(oversample=2),
        start=bb.StartValues(n_abc=(13, 14, 15), G=100),
        min_expected=min_expected,
    )


def tutorial_shot(
    folder: Path, number: int, model: str, n_draws: int, chains: str, method: str = "nuts"
) -> dict[str, Any]:
    """One shot from its files to its posterior: seconds of every part, the verdict, pulls."""
    from wilson import misorientation

    import bayesbragg as bb
    from bayesbragg.inference.laplace import LaplaceOptions, laplace, target_of_fit
    from bayesbragg.inference.nuts import NutsOptions, nuts

    tag, settings = f"shot_{number:03d}", tutorial_settings(folder, **MODELS[model])
    clock, cpu = time.perf_counter(), time.process_time()
    (still,) = bb.load(folder / "indexed" / f"{tag}_refined.expt", folder / "indexed" / f"{tag}_indexed.refl", settings)
    refined = bb.refine(still, settings)
    fitted = time.perf_counter() - clock
    target = target_of_fit(refined.prepared.density, refined.fit)
    path = "hmc" if method == "hmc" else "nuts"
    options = NutsOptions(n_draws=n_draws, chains=chains, path=path)  # type: ignore[arg-type]
    full = None if method == "laplace" else nuts(target, options, seed=number)
    wall, cpu = time.perf_counter() - clock, time.process_time() - cpu
    # For comparison; three hundred draws are enough for that.
    gaussian = laplace(target, LaplaceOptions(n_draws=1000 if full is None else 300), seed=number)
    full = full or gaussian
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
    settled = full.settings
    bulk, tail = (float(settled.get(f"smallest_{n}_ess", settled.get("effective_draws", 0))) for n in ("bulk", "tail"))
    return {
        "shot": number, "model": model, "method": method, "boxes": refined.prepared.shot.n_boxes,
        "pixels": refined.fit.n_pixels, "status": refined.fit.status.value, "sigma_z": refined.fit.sigma_z,
        "form": refined.prepared.form.name, "fit_s": fitted, "wall_s": wall, "cpu_s": cpu, "sampling_s": full.seconds,
        "classic_s": classic[number]["t_minimize"] if number in classic else None, "load": os.getloadavg()[0],
        "bulk": bulk, "tail": tail, "gradients": full.evaluations,
        "gradients_per_effective": full.evaluations / min(bulk, tail), "chains": str(settled.get("chains", "")),
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
    done = {(row["shot"], row["model"], row["method"]) for row in rows}
    for model in arguments.models.split(","):
        for number in _numbers(arguments.shots, int):
            if (number, model, arguments.method) in done:
                continue
            row = tutorial_shot(arguments.folder, number, model, arguments.draws, arguments.chains, arguments.method)
            with open(arguments.rows, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


def _numbers(text: str, kind: Any) -> list[Any]:
    return [kind(word) for word in text.split(",")]


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def write(path: Path) -> None:
    """Print the tables of the rows."""
    rows = _read(path)
    order = [model for model in MODELS if any(row["model"] == model for row in rows)]
    sampled = sorted((r for r in rows if r["method"] != "laplace"), key=lambda r: (order.index(r["model"]), r["shot"]))
    text = [
        "| model | shot | boxes | processor s | wall s | load | classic s | draws | bulk ESS | tail ESS "
        "| gradients per effective draw | verdict | Laplace k-hat | sd of Laplace / NUTS - 1 | sigma-Z |",
        "|---" * 15 + "|",
    ]
    for r in sampled:
        classic = "" if r["classic_s"] is None else f"{r['classic_s']:.0f}"
        text.append(
            f"| {r['model']} | {r['shot']} | {r['boxes']} | {r['cpu_s']:.0f} | {r['wall_s']:.0f} | {r['load']:.1f} | "
            f"{classic} | {r['draws']} | {r['bulk']:.0f} | {r['tail']:.0f} | {r['gradients_per_effective']:.1f} | "
            f"{r['verdict']} | {r['k_hat']:.2f} | {r['sd_ratio']:.3f} | {r['sigma_z']:.3f} |"
        )
    text += [""]
    for method in ("hmc", "nuts", "laplace"):
        text += [f"Pulls, {method}:", "", "| model | shots | | " + " | ".join(NAMES) + " | all | inside 95 % |"]
        text.append("|---" * (5 + len(NAMES)) + "|")
        for model in order:
            of = [r for r in rows if r["model"] == model and r["method"] == method]
            if of:
                text += _pull_rows(model, np.array([[r["pulls"][name] for name in NAMES] for r in of]))
        text.append("")
    result = "\n".join(text) + "\n"
    print(result)


def _pull_rows(model: str, pulls: np.ndarray) -> list[str]:
    """Mean, standard deviation and chi-square of pulls ``(n_shots, n)``, with what a standard normal would scatter."""
    n = len(pulls)
    mean, sd, chi = pulls.mean(axis=0), pulls.std(axis=0, ddof=1), np.sum(pulls**2, axis=0)
    share, error = np.mean(np.abs(pulls) < 1.96), np.sqrt(0.05 * 0.95 / pulls.size)
    wide = np.sqrt(2.0 * pulls.size)
    return [
        f"| {model} | {n} | mean (+- {n**-0.5:.2f}) | " + " | ".join(f"{v:+.2f}" for v in mean)
        + f" | {pulls.mean():+.2f} | {share:.3f} +- {error:.3f} |",
        f"| | | sd (+- {(2 * (n - 1)) ** -0.5:.2f}) | " + " | ".join(f"{v:.2f}" for v in sd)
        + f" | {pulls.std():.2f} | |",
        f"| | | chi-square ({n} +- {(2 * n) ** 0.5:.0f}) | " + " | ".join(f"{v:.0f}" for v in chi)
        + f" | {chi.sum():.0f} of {pulls.size} +- {wide:.0f} | |",
    ]  # fmt: skip


def main() -> None:
    import jax

    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("simulated", "tutorial", "write"))
    parser.add_argument("words", nargs="*")
    parser.add_argument("--shots", default=",".join(str(n) for n in range(16)))
    parser.add_argument("--models", default="plain,gain,both")
    parser.add_argument("--method", choices=("hmc", "nuts", "laplace"), default="hmc")
    parser.add_argument("--draws", type=int, default=500)
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

"""Speed and memory of the exact sum and of fits: ratios and per-unit figures for the machine that it runs on.

    python benchmarks/run.py [--write]

Rows that need the tutorial's shots (the folder ``shared/tutorial`` beside the checkout) are left out where they are not
there. The classic program's figures are those of the tutorial's own record: 290 ms for one value and gradient of
14,400 pixels x 30 wavelengths x 8 parameters, and the seconds of each fit in ``classic/*/fits.json``. With ``--write``
the table goes to ``benchmarks/results/speed.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TUTORIAL = HERE.parents[1] / "shared" / "tutorial"
CLASSIC_VALUE_AND_GRADIENT_MS = 290.0
REPEATS = 30


def sized_problem(n_channels: int, oversample: int = 1, n_mosaic: int = 1) -> tuple[Any, Any]:
    """A density of 100 boxes of 144 pixels with 8 parameters, and the coordinates of its start."""
    import numpy as np

    from bayesbragg.forward import Options, Parameters, build_scene, expected_photons
    from bayesbragg.inference.density import LogDensity
    from bayesbragg.model.spectra import gaussian_spectrum
    from bayesbragg.priors import Cell, CellConstraint, Fixed, Positive, Priors, Uniform, make_layout
    from bayesbragg.stills.simulation import known_background_shot, simulate_still
    from bayesbragg.stills.virtual import virtual_experiment

    world = virtual_experiment(seed=1)
    cell = np.array([79.1, 79.1, 38.4, *[np.pi / 2] * 3])
    truth = Parameters.start(cell, n_abc=(13.0, 14.0, 15.0), G=300.0, eta_deg=0.02)
    made = Options()
    still = simulate_still(
        truth, world.detector, world.beam, world.spectrum, [world.crystal], world.factors, made, background=1.0, seed=1
    )
    shot = known_background_shot(still, most=100)
    shot = shot.select(np.arange(100) % shot.n_boxes)
    spectrum = gaussian_spectrum(world.beam.wavelength_A, 20.0, n_channels, 2.0 * 30 / n_channels, 1e12)
    options = Options(oversample=oversample, spread="isotropic" if n_mosaic > 1 else "none")
    priors = Priors(
        RotXYZ=Uniform(-0.1, 0.1),
        cell=Cell(),
        Nabc=(Uniform(3, 300), Uniform(3, 300), Fixed()) if n_mosaic == 1 else Uniform(3, 300),
        G=Positive() if n_mosaic == 1 else Fixed(),
    )
    layout, base = make_layout(priors, truth, CellConstraint.for_space_group(96, cell))
    scene = build_scene(world.detector, world.beam, spectrum, [world.crystal], shot, world.factors, base, options,
                        n_mosaic=n_mosaic)  # fmt: skip
    density = LogDensity(expected_photons, scene, options, shot, layout, base)
    return density, layout.initial()


def value_and_gradient(n_channels: int) -> tuple[float, float, int]:
    """Median and least milliseconds of a warm value and gradient, and the number of pixels."""
    density, x = sized_problem(n_channels)
    density.value_and_grad(x)
    times = []
    for _ in range(REPEATS):
        clock = time.perf_counter()
        density.value_and_grad(x)
        times.append(1e3 * (time.perf_counter() - clock))
    return sorted(times)[len(times) // 2], min(times), density.problem.pixels.counts.size


def peak_memory() -> tuple[float, float, float]:
    """Peak resident GB and seconds of the large sum's value and gradient, in a process of its own, and GB before it."""
    code = (
        "import sys, time, resource; sys.path.insert(0, sys.argv[1]); from run import sized_problem\n"
        "density, x = sized_problem(100, 2, 50)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6\n"
        "density.value_and_grad(x)\n"
        "clock = time.perf_counter(); density.value_and_grad(x); clock = time.perf_counter() - clock\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, clock, before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(HERE)], capture_output=True, text=True, check=True)
    peak, seconds, before = (float(v) for v in done.stdout.split())
    return peak, seconds, before


def tutorial_fits(folder: str, classic: str) -> list[dict[str, Any]]:
    """Warm fits of the shots that the classic program fitted, with its start values, planes and subpixels."""
    import bayesbragg as bb
    from bayesbragg.pipeline.api import structure_factors
    from bayesbragg.pipeline.refine import refine_still

    settings = bb.RefineSettings(
        counts=bb.CountSettings(28.0, 3.0),
        boxes=bb.BoxSettings(reject_roi_with_hotpix=False, mask_outside_trusted_range=False),
        spectrum=bb.SpectrumSettings(source="image"),
        factors=bb.FactorSettings(
            mtz=TUTORIAL / "structure_factors" / "iobs_all.mtz", columns="I(+),SIGI(+),I(-),SIGI(-)"
        ),
        model=bb.ModelSettings(oversample=1, kahn="classic"),
        start=bb.StartValues(n_abc=(13, 14, 15), G=100),
        background="classic",
    )
    record = json.loads((TUTORIAL / "classic" / classic / "fits.json").read_text())
    rows = []
    for shot in record if isinstance(record, list) else record.values():
        tag = f"shot_{int(shot['shot']):03d}"
        (still,) = bb.load(
            TUTORIAL / folder / f"{tag}_refined.expt", TUTORIAL / folder / f"{tag}_indexed.refl", settings
        )
        factors = structure_factors(still, settings)
        refine_still(still, factors, settings)  # compiles
        clock = time.perf_counter()
        refined = refine_still(still, factors, settings)
        seconds = time.perf_counter() - clock
        rows.append(
            {
                "shot": f"{classic}/{tag}",
                "boxes": refined.prepared.shot.n_boxes,
                "evaluations": refined.fit.evaluations,
                "fit_s": refined.fit.seconds,
                "all_s": seconds,
                "classic_s": shot["t_minimize"],
                "ratio": shot["t_minimize"] / seconds,
                "target": refined.fit.target,
                "classic_target": shot["f_final"],
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/speed.md")
    arguments = parser.parse_args()
    import jax

    device = jax.devices()[0]
    lines = [
        f"# Speed and memory: exact sum, float64, warm, on {device.device_kind} ({device.platform}), "
        f"{os.cpu_count()} cores, {platform.machine()}, jax {jax.__version__}",
        "",
        f"Load before the run: {os.getloadavg()[0]:.2f}.",
        "",
        "| what | figure | against the classic program |",
        "|---|---|---|",
    ]
    median, least, pixels = value_and_gradient(30)
    lines.append(
        f"| value and gradient, {pixels} pixels x 30 channels x 8 parameters | median {median:.1f} ms, least "
        f"{least:.1f} ms | {CLASSIC_VALUE_AND_GRADIENT_MS / median:.0f} x faster |"
    )
    peak, seconds, before = peak_memory()
    lines.append(
        f"| value and gradient, 14400 pixels x 100 channels x 50 mosaic samples x 4 subpixels | peak {peak:.2f} GB "
        f"resident ({before:.2f} GB before), {seconds:.1f} s | |"
    )
    if TUTORIAL.is_dir():
        lines += ["", "Fits of the tutorial's shots, all of it: boxes, background, scene, fit, centroids.", ""]
        formats = dict.fromkeys(("shot", "boxes", "evaluations"), "")
        formats |= {"fit_s": ".2f", "all_s": ".2f", "classic_s": ".0f", "ratio": ".0f"}
        formats |= {"target": ".1f", "classic_target": ".1f"}
        lines += ["| " + " | ".join(formats) + " |", "|---" * len(formats) + "|"]
        for folder, classic in (("indexed", "procPoly"), ("indexed_badGeo", "procBad")):
            for row in tutorial_fits(folder, classic):
                lines.append("| " + " | ".join(format(row[name], spec) for name, spec in formats.items()) + " |")
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.write:
        (HERE / "results" / "speed.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

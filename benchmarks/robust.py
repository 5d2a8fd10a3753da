"""Outliers: how far do zingers move a fit, with and without an outlier component?

    python benchmarks/robust.py [SHOT ...] [--seeds 4] [--fraction 0.01]

Demonstration shots (known structure factors). Every pixel of the image is hit with a probability by an exponentially
distributed zinger of 300 photons on average; boxes and backgrounds are found anew. Shifts are from the fit to the clean
image, in its standard deviations; the reference of the robust fit has the likelihood of the robust model's own part.
Prints mean shifts with standard errors over shots and seeds.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

import bayesbragg as bb
from bayesbragg.model.fit import Fit
from bayesbragg.pipeline.api import demo_folder
from bayesbragg.pipeline.device import remember_programs
from bayesbragg.pipeline.refine import Refined


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shots", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--fraction", type=float, default=0.01)
    arguments = parser.parse_args()
    remember_programs()
    folder = demo_folder()
    settings = bb.RefineSettings(
        counts=bb.CountSettings(28.0, 3.0),
        spectrum=bb.SpectrumSettings(source="image"),
        factors=bb.FactorSettings(mtz=folder / "structure_factors.mtz", columns="I(+),SIGI(+),I(-),SIGI(-)"),
        model=bb.ModelSettings(oversample=2),
    )
    own = replace(settings, likelihood="shifted_poisson")
    robust = replace(settings, counts=replace(settings.counts, outlier_fraction=arguments.fraction))
    shifts: dict[str, list[np.ndarray]] = {"plain": [], "robust": [], "robust, clean image": []}
    names: tuple[str, ...] = ()
    for number in arguments.shots:
        tag = f"shot_{number:03d}"
        (still,) = bb.load(folder / f"{tag}_indexed.expt", folder / f"{tag}_indexed.refl", settings)
        clean, reference = bb.refine(still, settings).fit, bb.refine(still, own).fit
        names = clean.names

        def shift(found: Refined, fit: Fit = reference) -> np.ndarray:
            return np.asarray((found.fit.values - fit.values) / fit.standard_errors)

        shifts["robust, clean image"].append(shift(bb.refine(still, robust)))
        for seed in range(arguments.seeds):
            rng = np.random.default_rng([number, seed])
            panels = tuple(
                np.where(rng.uniform(size=p.shape) < arguments.fraction, p + 28 * rng.exponential(300.0, p.shape), p)
                for p in still.panels
            )
            hit = replace(still, panels=panels)
            shifts["robust"].append(shift(bb.refine(hit, robust)))
            if seed == 0:
                shifts["plain"].append(shift(bb.refine(hit, settings), clean))
            print(tag, seed, " ".join(f"{v:+.2f}" for v in shifts["robust"][-1]), flush=True)
    print("| model | fits | " + " | ".join(names) + " |\n" + "|---" * (2 + len(names)) + "|")
    for model, rows in shifts.items():
        table = np.array(rows)
        n = len(table)
        if model == "plain":
            cells = [f"{v:.3g}" for v in np.median(np.abs(table), axis=0)]
            print(f"| {model}, median size | {n} | " + " | ".join(cells) + " |")
            continue
        error = table.std(axis=0, ddof=1) / n**0.5 if n > 1 else np.full(len(names), np.nan)
        cells = [f"{m:+.2f} +- {e:.2f}" for m, e in zip(table.mean(axis=0), error, strict=True)]
        print(f"| {model} | {n} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

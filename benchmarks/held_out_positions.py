"""Real stills: spots held out of a fit of positions that learns what excites them, predicted, against DIALS' own fit.

    python benchmarks/held_out_positions.py REAL_FOLDER [folds=5] [seeds=10]

The spots, their observed centroids and the starts are those of DIALS, whose predictions come from a fit to all of them.
Ours leave out a fifth at a time (`bayesbragg.stills.excitation`); every dealing into folds is another row of the mean.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from bayesbragg.io.experiments import read_experiments
from bayesbragg.io.reflections import read_reflections
from bayesbragg.pipeline.held_out import deal
from bayesbragg.stills.excitation import excited_centroids
from bayesbragg.stills.orientation_refinement import OrientationFit, with_excitation

SHOTS = ("401", "601", "701", "801")


def rms(offset: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.sum(offset**2, axis=1))))


def main(folder: Path, words: dict[str, str]) -> None:
    n_folds, n_seeds = int(words.get("folds", 5)), int(words.get("seeds", 10))
    print("| shot | spots | DIALS, in sample | in sample | held out | least, most | median held out | DIALS |")
    print("|---|---|---|---|---|---|---|---|")
    for shot in SHOTS:
        name = f"idx-20130301060858{shot}"
        experiment = read_experiments(folder / "dials" / f"{name}_refined.expt")[0]
        table = read_reflections(folder / "dials" / f"{name}_indexed.refl")
        hkl, panel = np.asarray(table["miller_index"]), np.asarray(table["panel"], dtype=np.int64)
        seen, dials = (np.asarray(table[c])[:, :2] for c in ("xyzobs.px.value", "xyzcal.px"))
        beam, detector, n = experiment.beam, experiment.detector, len(panel)

        def predicted(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
            start = OrientationFit(experiment.crystal, 1.0, 1e-3)  # noqa: B023
            fit = with_excitation(start, beam, detector, hkl[known], panel[known], seen[known])  # noqa: B023
            return excited_centroids(fit.crystal, beam, detector, hkl[wanted], panel[wanted], fit.excitation)[0]  # noqa: B023

        everything = np.ones(n, dtype=bool)
        inside, rows, medians = rms(predicted(everything, everything) - seen), [], []
        for seed in range(n_seeds):
            fold, place = deal(n, n_folds, seed), np.empty((n, 2))
            for k in range(n_folds):
                place[fold == k] = predicted(fold != k, fold == k)
            rows.append(rms(place - seen))
            medians.append(float(np.median(np.linalg.norm(place - seen, axis=1))))
        print(
            f"| {shot} | {n} | {rms(dials - seen):.3f} | {inside:.3f} | {np.mean(rows):.3f} | "
            f"{min(rows):.3f}, {max(rows):.3f} | {np.mean(medians):.3f} | "
            f"{np.median(np.linalg.norm(dials - seen, axis=1)):.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), dict(word.split("=", 1) for word in sys.argv[2:]))

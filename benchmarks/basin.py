"""From how far away is the optimum found? Fits from many perturbed starts, of simulated shots and of the tutorial's.

    python benchmarks/basin.py [n_per_shot [TUTORIAL_FOLDER]]

Every start is off by 0.2 degree about a random axis, by 0.3 % in each independent cell edge, by a factor 2 in block
size (up or down), and knows nothing of the scale. A fit succeeds if its target is within 0.5 of the best that any start
of its shot reached. Writes results/basin.md.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from trials import PRIORS, make_trial, perturbed_start

from bayesbragg.forward import Options, Parameters, build_scene, expected_photons
from bayesbragg.inference.density import LogDensity
from bayesbragg.inference.map import fit_map
from bayesbragg.io.experiments import read_experiments
from bayesbragg.io.images import read_image
from bayesbragg.io.reflections import read_reflections
from bayesbragg.io.structure_factors import read_mtz
from bayesbragg.model.fit import Fit
from bayesbragg.priors import CellConstraint, make_layout
from bayesbragg.stills.shot import make_shot

Maker = Callable[[Parameters], LogDensity]
N_SHOTS = 5
WITHIN = 0.5


def simulated() -> Iterator[tuple[str, Parameters, Maker]]:
    """Shots of our own: name, truth, and the density of a start."""
    for seed in range(N_SHOTS):
        trial = make_trial(1000 + seed)
        yield f"simulated {seed}", trial.truth, lambda start, trial=trial: trial.density(start, "gaussian")


def tutorial(folder: Path) -> Iterator[tuple[str, Parameters, Maker]]:
    """Shots of the tutorial, around the optimum that is reached from its indexed model."""
    options = Options()
    factors = read_mtz(folder / "structure_factors" / "iobs_all.mtz", "I(+),SIGI(+),I(-),SIGI(-)")
    for number in range(N_SHOTS):
        stem = folder / "indexed" / f"shot_{number:03d}"
        experiment = read_experiments(f"{stem}_refined.expt")[0]
        reflections = read_reflections(f"{stem}_indexed.refl")
        assert experiment.image is not None
        assert experiment.crystal is not None
        image = read_image(experiment.image, experiment.detector)
        assert image.spectrum is not None
        shot, _ = make_shot(image.raw, experiment.detector, reflections, gain=28.0, sigma_readout_adu=3.0)
        shot = shot.padded()

        def density(start: Parameters, e=experiment, shot=shot, spectrum=image.spectrum) -> LogDensity:
            scene = build_scene(e.detector, e.beam, spectrum, [e.crystal], shot, factors, start, options)
            constraint = CellConstraint.for_space_group(e.crystal.space_group_number, np.asarray(start.crystal.cell))
            layout, base = make_layout(PRIORS, start, constraint)
            return LogDensity(expected_photons, scene, options, shot, layout, base)

        cell = experiment.crystal.cell
        start = density(Parameters.start(np.concatenate([cell[:3], np.radians(cell[3:])]), n_abc=10.0))
        yield f"tutorial {number}", start.parameters(fit_map(start).x), density


def measure(shots: Iterator[tuple[str, Parameters, Maker]], n_per_shot: int) -> list[str]:
    """Rows of the table, and a line for the whole set."""
    rows, reached, statuses, n, done = [], 0, Counter[str](), 0, list[str]()
    for name, optimum, density in shots:
        at_optimum = density(optimum)
        reference = fit_map(at_optimum)
        fits: list[Fit] = []
        starts = []
        for seed in range(n_per_shot):
            start = perturbed_start(
                optimum, 10_000 + 1_000 * len(done) + seed, degrees=0.2, cell_percent=0.3, extreme=True
            )
            fits.append(fit_map(density(start)))
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
        print(rows[-1], flush=True)
    rows.append(f"\n**{reached} of {n}** ({100 * reached / max(n, 1):.1f} %) reached the optimum; {dict(statuses)}.")
    print(rows[-1], flush=True)
    return rows


def main(n_per_shot: int, folder: Path) -> None:
    """Measure, print and write the tables."""
    head = [
        "| shot | reached | best target | evaluations, median (most) | seconds per fit |",
        "|---|---|---|---|---|",
    ]
    text = ["# Basin of convergence", "", *(__doc__ or "").split("\n\n")[2].strip().splitlines(), ""]
    text += ["## Simulated shots", "", *head, *measure(simulated(), n_per_shot)]
    if folder.is_dir():
        text += ["", "## Tutorial shots (own background planes)", "", *head, *measure(tutorial(folder), n_per_shot)]
    (Path(__file__).parent / "results" / "basin.md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    beside = Path(__file__).resolve().parents[2] / "shared" / "tutorial"
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 40,
        Path(sys.argv[2]) if len(sys.argv) > 2 else beside,
    )

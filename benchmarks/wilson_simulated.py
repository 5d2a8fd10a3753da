"""Refinement without structure factors on new shots made after the tutorial's recipe: are its error bars right?

    python benchmarks/wilson_simulated.py TUTORIAL_FOLDER WORK_FOLDER [each=4] [bright=300] [known]

Sixteen shots tell 80 pulls of orientation and cell, too few to tell chance from a fault. Here ``each`` shots are made
with the spectrum and the brightness of every tutorial shot, the true amplitudes, 2 x 2 subpixels, the tutorial's mean
background, 3 % calibration error and readout noise, at random orientations; spots are found and indexed as in a run
(`bayesbragg.stills`), and fitted as in `wilson.py`, ``known`` with the amplitudes that made them. Besides pulls, the
table tells the squares of a shot's errors in all parameters together, correlations included, 8 on average (5 for
orientation and cell). What was made is kept in WORK_FOLDER and not made again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from posterior import tutorial_settings
from spotfinding import CELL, SPOTS
from wilson import misorientation, settings_of

import bayesbragg as bb
from bayesbragg.io.experiments import write_experiments
from bayesbragg.io.images import read_image, read_image_experiment
from bayesbragg.io.reflections import write_reflections
from bayesbragg.io.symmetry import lookup_space_group
from bayesbragg.model import Crystal, Detector
from bayesbragg.pipeline.device import remember_programs
from bayesbragg.stills.indexing import index_still
from bayesbragg.stills.spotfinding import find_spots

FloatArray = np.ndarray
GAIN = 28.0
NAMES = ("rotX", "rotY", "rotZ", "ucell_a", "ucell_c", "Na", "Nb", "Nc")


def scattering_angle(detector: Detector) -> FloatArray:
    """Angle of every pixel to the beam, ``(n_panels, n_slow, n_fast)``, radian."""
    n_fast, n_slow = detector.image_size[0]
    f, s = (np.arange(n_fast) + 0.5)[None, :, None], (np.arange(n_slow) + 0.5)[:, None, None]
    places = [
        origin + f * size[0] * fast + s * size[1] * slow
        for origin, fast, slow, size in zip(
            detector.origin_mm, detector.fast, detector.slow, detector.pixel_size_mm, strict=True
        )
    ]
    x = np.array(places)
    return np.asarray(np.arctan2(np.hypot(x[..., 0], x[..., 1]), np.abs(x[..., 2])))


def mean_background(images: list[Path], detector: Detector) -> FloatArray:
    """Photons of every pixel: means in rings over all images, without what stands out."""
    stack = np.array([np.array(read_image(read_image_experiment(p).image, detector).raw) for p in images]) / GAIN
    angle = scattering_angle(detector)
    ring = np.digitize(angle, np.linspace(0.0, angle.max(), 120))
    middles, levels = [], []
    for number in np.unique(ring):
        values = stack[:, ring == number]
        limit = np.median(values) + 6.0 * np.sqrt(max(float(np.median(values)), 0.3)) + 1.0
        middles.append(angle[ring == number].mean())
        levels.append(values[values < limit].mean())
    return np.asarray(np.interp(angle, middles, levels))


def make(tutorial: Path, work: Path, each: int) -> None:
    """Simulate what is not there yet."""
    images = sorted((tutorial / "images").glob("shot_*.h5"))
    first = read_image_experiment(images[0])
    np.save(work / "background.npy", mean_background(images, first.detector))
    settings = tutorial_settings(tutorial, sigma_gain=0.03, true_F=True)
    files = [tutorial / "indexed" / f"shot_000_{end}" for end in ("refined.expt", "indexed.refl")]
    (still,) = bb.load(*files, settings)
    fit = bb.refine(still, settings).fit
    G = dict(zip(fit.names, fit.values, strict=True))["G"]
    scale = [json.loads(p.read_text())["spot_scale"] for p in sorted((tutorial / "truth").glob("*.json"))]
    for number, path in enumerate(images):
        out = work / f"s{number:02d}"
        if len(list(out.glob("*.h5"))) >= each:
            continue
        spectrum = read_image(read_image_experiment(path).image, first.detector).spectrum
        assert spectrum is not None
        lam = work / f"{number:02d}.lam"
        np.savetxt(lam, np.column_stack([spectrum.wavelengths_A, spectrum.photons]), fmt="%.17g", delimiter=",")
        words = {
            "outdir": out, "seed": 1000 + number, "space_group": "P43212", "sigma_gain": 0.03,
            "simulate.n_shots": each, "simulate.prefix": f"s{number:02d}", "simulate.experiment": path,
            "simulate.unit_cell": ",".join(map(str, CELL)), "simulate.background.file": work / "background.npy",
            "simulate.spectrum": "file", "simulator.spectrum.filename": lam, "simulator.oversample": 2,
            "simulator.beam.size_mm": 0.001, "simulator.total_flux": float(spectrum.photons.sum()),
            "simulator.structure_factors.mtz_name": tutorial / "structure_factors" / "truth_F.mtz",
            "simulator.structure_factors.mtz_column": "F(+),F(-)", "init.Nabc": "10,10,10",
            "init.G": G * scale[number] / scale[0], "refiner.adu_per_photon": GAIN, "refiner.sigma_r": 3,
        }  # fmt: skip
        command = [sys.executable, "-m", "bayesbragg.cli.main", "simulate", *(f"{k}={v}" for k, v in words.items())]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def indexed(image: Path) -> tuple[Path, Path] | None:
    """Spots of an image and their lattice, as files; None where none is found."""
    experiments, table = image.with_suffix(".expt"), image.with_suffix(".refl")
    if not table.is_file():
        group = lookup_space_group("P43212")
        names = {"space_group": group.hm, "space_group_number": group.number, "hall_symbol": group.hall}
        reference = Crystal.from_cell(CELL, np.eye(3), to_primitive=group.to_primitive, **names)
        experiment = read_image_experiment(image)
        read = read_image(experiment.image, experiment.detector)
        spots = find_spots(read.raw, experiment.detector, experiment.beam, SPOTS, mask=read.mask)
        found = index_still(spots, experiment, reference, spectrum=read.spectrum)
        if not found.experiments:
            return None
        write_experiments(found.experiments, experiments)
        write_reflections(found.reflections, table)
    return experiments, table


def main(tutorial: Path, work: Path, words: list[str]) -> None:
    each = next((int(w.partition("=")[2]) for w in words if w.startswith("each=")), 4)
    bright = next((float(w.partition("=")[2]) for w in words if w.startswith("bright=")), 0.0)
    remember_programs()
    work.mkdir(parents=True, exist_ok=True)
    make(tutorial, work, each)
    settings = settings_of(tutorial, ["gain=0.03", f"bright={bright}"])
    if "known" in words:
        settings = tutorial_settings(tutorial, sigma_gain=0.03, true_F=True, min_expected=bright)
    pulls, squares, failed = [], [], 0
    for image in sorted(work.glob("s??/*.h5")):
        truth = json.loads((image.parent / "truth" / f"{image.stem}.json").read_text())
        try:
            files = indexed(image)
            if files is None:
                raise ValueError("no lattice")
            (still,) = bb.load(*files, settings)
            refined = bb.refine(still, settings)
        except Exception as error:
            failed += 1
            print(f"{image.stem}: {error}")
            continue
        fit = refined.fit
        value = dict(zip(fit.names, fit.values, strict=True))
        turn = misorientation(refined.crystals[0], np.array(truth["U"][0]))
        at = [fit.names.index(name) for name in NAMES]
        C = np.linalg.inv(fit.information)[np.ix_(at, at)]
        errors = np.array([*turn, value["ucell_a"] - CELL[0], value["ucell_c"] - CELL[2],
                           *(value[n] - 10.0 for n in ("Na", "Nb", "Nc"))])  # fmt: skip
        pulls.append(errors / np.sqrt(np.diag(C)))
        squares.append([errors @ np.linalg.solve(C, errors), errors[:5] @ np.linalg.solve(C[:5, :5], errors[:5])])
        print(f"{image.stem}: {fit.status.value}, {refined.prepared.shot.n_boxes} boxes, pulls "
              + " ".join(f"{n} {p:+.1f}" for n, p in zip(NAMES, pulls[-1], strict=True)), flush=True)  # fmt: skip
    table, n = np.array(pulls), len(pulls)
    print(f"{n} shots fitted, {failed} not; expected: mean 0 +- {n**-0.5:.2f}, sd 1 +- {(2 * n) ** -0.5:.2f}")
    for what, numbers in (("mean", table.mean(axis=0)), ("sd", table.std(axis=0))):
        print(f"{what}: " + ", ".join(f"{name} {v:+.2f}" for name, v in zip(NAMES, numbers, strict=True)))
    for what, part in (("orientation and cell", table[:, :5]), ("blocks", table[:, 5:])):
        inside, error = np.mean(np.abs(part) < 1.96), np.sqrt(0.05 * 0.95 / part.size)
        print(f"{what}: {inside:.3f} +- {error:.3f} inside 95 %, {int(np.sum(np.abs(part) < 3))} of {part.size} within "
              f"3 error bars, largest {np.abs(part).max():.1f}")  # fmt: skip
    total = np.sum(squares, axis=0)
    print(f"joint squares: {total[0]:.0f} of {8 * n} +- {np.sqrt(16 * n):.0f}; "
          f"orientation and cell {total[1]:.0f} of {5 * n} +- {np.sqrt(10 * n):.0f}")  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])

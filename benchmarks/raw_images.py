"""From raw images to refined models, against the truth, the spots of DIALS and the offsets of the classic runs.

    bayesbragg stills-process process.phil "TUTORIAL/images/*.h5" output.output_dir=OURS
    python benchmarks/raw_images.py TUTORIAL OURS [procBad=FOLDER] [procOpt=FOLDER]

TUTORIAL holds the simulated shots with their truth, DIALS' strong and indexed spots, and the classic program's refined
ones. Indexing of ours is done again here from the images, so that its orientations before pixel refinement can be told.
FOLDERs are runs from the images with the geometry of a classic run (reference_geometry). Angles are degrees, smallest
over the symmetry of P43212; offsets are micrometres. Prints the tables of results/raw_images.md.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from spotfinding import CELL, SPOTS

from bayesbragg.diagnostics.offsets import Offsets, combine, prediction_offsets, summary
from bayesbragg.io.experiments import read_experiments
from bayesbragg.io.images import read_image, read_image_experiment
from bayesbragg.io.reflections import read_reflections
from bayesbragg.io.symmetry import lookup_space_group
from bayesbragg.model import Crystal, Reflections
from bayesbragg.stills.indexing import index_still
from bayesbragg.stills.spotfinding import find_spots

OFFSET_SHOTS = range(8)
NEAR_PX = 0.5
"""Spots of two programs that lie nearer than this are the same."""


def misorientation(found: Crystal, U_true: npt.ArrayLike, rotations: npt.ArrayLike) -> float:
    """Smallest angle over operators that act on Miller indices as ``h @ R``, degree."""
    reciprocal = np.linalg.inv(found.B_real).T
    turns = [
        found.U @ reciprocal @ R.T @ np.linalg.inv(reciprocal) @ np.asarray(U_true).T for R in np.asarray(rotations)
    ]
    # From the antisymmetric part, as an arc cosine has no digits left at small angles.
    halves = [np.linalg.norm(turn - turn.T) / (2.0 * np.sqrt(2.0)) for turn in turns if np.trace(turn) > 1.0]
    return float(np.degrees(np.arcsin(min(*halves, 1.0))))


def common(ours: Reflections, theirs: Reflections) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of two tables that are the same spot."""
    places = [np.column_stack([1e5 * t["panel"], t["xyzobs.px.value"][:, :2]]) for t in (ours, theirs)]
    distance, match = cKDTree(places[0]).query(places[1])
    near = np.flatnonzero(distance < NEAR_PX)
    return match[near], near


def orientations(tutorial: Path, ours: Path) -> None:
    """Print a row for each shot: spots found and indexed, and angles to the truth."""
    group = lookup_space_group("P43212")
    names = {"space_group": group.hm, "space_group_number": group.number, "hall_symbol": group.hall}
    reference = Crystal.from_cell(CELL, np.eye(3), to_primitive=group.to_primitive, **names)
    print("| shot | strong: DIALS | ours | in common | indexed: DIALS | ours | DIALS, degree | indexing | refinement |")
    print("|---|---|---|---|---|---|---|---|---|")
    angles, counts = [], []
    for path in sorted((tutorial / "images").glob("shot_*.h5")):
        tag = path.stem
        experiment = read_image_experiment(path)
        assert experiment.image is not None
        image = read_image(experiment.image, experiment.detector)
        spots = find_spots(image.raw, experiment.detector, experiment.beam, SPOTS, mask=image.mask)
        indexed = index_still(spots, experiment, reference, spectrum=image.spectrum)
        strong = read_reflections(tutorial / "strong" / f"{tag}_strong.refl")
        theirs = read_reflections(tutorial / "indexed" / f"{tag}_indexed.refl")
        U = np.reshape(json.loads((tutorial / "truth" / f"{tag}.json").read_text())["U"], (3, 3))
        crystals = [
            read_experiments(tutorial / "indexed" / f"{tag}_refined.expt")[0].crystal,
            indexed.experiments[0].crystal,
            read_experiments(ours / f"idx-{tag}_refined.expt")[0].crystal,
        ]
        angles.append([misorientation(c, U, group.rotations) for c in crystals if c is not None])
        counts.append((len(strong), len(spots), len(common(spots, strong)[0]), len(theirs), len(indexed.reflections)))
        print(f"| {tag[-3:]} | " + " | ".join([*map(str, counts[-1]), *(f"{a:.4f}" for a in angles[-1])]) + " |")
    print("| all | " + " | ".join([*map(str, np.sum(counts, axis=0)), "", "", ""]) + " |")
    for name, value in (("median", np.median(angles, axis=0)), ("largest", np.max(angles, axis=0))):
        print(f"| {name} | | | | | | " + " | ".join(f"{a:.4f}" for a in value) + " |")


def offsets(tutorial: Path, run: str, ours: Path) -> None:
    """Print offsets of a classic run and of ours: all spots, and those that both have."""
    rows: dict[str, list[Offsets]] = {}
    for shot in OFFSET_SHOTS:
        tag = f"shot_{shot:03d}"
        mine = read_reflections(ours / f"idx-{tag}_indexed.refl")
        theirs = read_reflections(tutorial / "classic" / run / f"{tag}_indexed.refl")
        experiment = read_experiments(ours / f"idx-{tag}_refined.expt")[0]
        shared = common(mine, theirs)
        for name, table, column in (
            (f"classic {run}", theirs, "xyzcal.px"),
            (f"ours as {run}, indexing", mine, "dials.xyzcal.px"),
            (f"ours as {run}, pixel refinement", mine, "xyzcal.px"),
            (f"classic {run}, common spots", theirs.select(shared[1]), "xyzcal.px"),
            (f"ours as {run}, pixel refinement, common spots", mine.select(shared[0]), "xyzcal.px"),
        ):
            part = prediction_offsets(table, experiment.detector, experiment.beam, experiment.crystal, predicted=column)
            rows.setdefault(name, []).append(part)
    for name, parts in rows.items():
        numbers = list(asdict(summary(combine(parts))).values())
        print(f"| {name} | {numbers[0]} | " + " | ".join(f"{x:.1f}" for x in numbers[1:]) + " |")


def main(words: list[str]) -> None:
    """Print a row for each shot, and offsets of the shots that the classic runs share."""
    tutorial, ours = Path(words[0]), Path(words[1])
    orientations(tutorial, ours)
    print("\n| run | reflections | RMSD | radial | transverse | median |\n|---|---|---|---|---|---|")
    for run, folder in (("procPoly", ours), *((n, Path(f)) for n, f in (word.split("=", 1) for word in words[2:]))):
        offsets(tutorial, run, folder)


if __name__ == "__main__":
    main(sys.argv[1:])

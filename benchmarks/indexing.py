"""Indexing by simulation: how many lattices are recovered, and how many are believed that are not there.

    python benchmarks/indexing.py [TRIALS [FOLDER]]

Lattices of several symmetries on one panel 100 mm from the sample, wavelength 1.3 angstrom, spots 0.3 pixels off. A
lattice is recovered if it lies within 0.3 degree of the truth, modulo the symmetry of its lattice (where the crystal
has less symmetry than its lattice, either choice counts: positions alone cannot tell). A false one is believed and
lies near no truth. Where there are several lattices, or none, one more than there are is looked for. Errors are
binomial standard errors, (f (1 - f) / n)^(1/2), and half a count where all or none are. No setting was tuned here:
all are the defaults of `IndexingSettings`.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bayesbragg.io.symmetry import lookup_space_group
from bayesbragg.model import Beam, Crystal, Experiment, Reflections
from bayesbragg.stills.indexing import IndexingSettings, ambiguity_operators, index_still
from bayesbragg.stills.virtual import random_rotation
from bayesbragg.stills.virtual_spots import one_panel, virtual_spots

BEAM = Beam(np.array([0.0, 0.0, -1.0]), 1.3, np.array([0.0, 1.0, 0.0]))
FORMS: dict[str, tuple[float, ...]] = {
    "P43212": (79.1, 79.1, 38.4, 90, 90, 90),
    "P61": (92.9, 92.9, 130.4, 90, 90, 120),
    "P4": (79.1, 79.1, 38.4, 90, 90, 90),
    "R3:H": (80, 80, 90, 90, 90, 120),
    "C2": (110, 45, 80, 90, 105, 90),
}
NEAR_DEG = 0.3


@dataclass(frozen=True)
class Condition:
    """What is simulated: see the columns of the table."""

    form: str = "P43212"
    n_spots: int = 25
    spurious: float = 0.3
    distance_off: float = 0.0
    lattices: int = 1
    real: bool = True


@lru_cache
def crystal_of(form: str) -> tuple[Crystal, npt.NDArray[np.int64]]:
    """A crystal in a standard orientation, and all operators of its lattice's symmetry, ``(n, 3, 3)``."""
    group = lookup_space_group(form)
    crystal = Crystal.from_cell(
        FORMS[form],
        np.eye(3),
        space_group=group.hm,
        space_group_number=group.number,
        hall_symbol=group.hall,
        to_primitive=group.to_primitive,
    )
    extra = ambiguity_operators(crystal, group.rotations)
    own = np.asarray(group.rotations)
    return crystal, np.concatenate([own, *(e @ own for e in extra)])


def apart_deg(a: Crystal, b: Crystal, operators: npt.NDArray[np.int64]) -> float:
    """Smallest angle between two orientations, degree, over operators on Miller indices."""
    reciprocal = np.linalg.inv(a.B_real).T
    turns = a.U @ reciprocal @ np.swapaxes(operators, 1, 2) @ np.linalg.inv(reciprocal) @ b.U.T
    traces = np.trace(turns, axis1=1, axis2=2)
    return float(np.degrees(np.arccos(np.clip((traces.max() - 1.0) / 2.0, -1.0, 1.0))))


def trial(condition: Condition, seed: int) -> tuple[int, int, float]:
    """Lattices recovered and false ones of one simulated still, and the seconds of processor time it took."""
    generator = np.random.default_rng([seed, condition.n_spots, round(100 * condition.spurious), condition.lattices])
    crystal, operators = crystal_of(condition.form)
    truth = [
        crystal.with_cell_and_orientation(crystal.cell, random_rotation(generator)) for _ in range(condition.lattices)
    ]
    spots = virtual_spots(truth, one_panel(), BEAM, generator, n_spots=condition.n_spots, spurious=condition.spurious)
    if not condition.real:
        # Spots at random over the same disc.
        n = len(spots)
        angle, r = generator.uniform(0, 2 * np.pi, n), 900.0 * np.sqrt(generator.uniform(0, 1, n))
        xy = 1000.0 + np.column_stack([r * np.cos(angle), r * np.sin(angle), np.full(n, -1000.0)])
        spots = Reflections({**spots.columns, "xyzobs.px.value": xy})
        truth = []
    stated = one_panel(100.0 * (1.0 + condition.distance_off))
    start = time.process_time()
    extra = condition.lattices > 1
    found = index_still(
        spots, Experiment("", BEAM, stated), crystal, IndexingSettings(max_lattices=condition.lattices + extra)
    )
    seconds = time.process_time() - start
    near = [[apart_deg(e.crystal, t, operators) < NEAR_DEG for t in truth] for e in found.experiments if e.crystal]
    recovered = sum(any(row[i] for row in near) for i in range(len(truth)))
    false = sum(not any(row) for row in near)
    return recovered, false, seconds


def conditions() -> list[Condition]:
    """Every row of the table."""
    grid = [Condition(n_spots=n, spurious=s) for n in (10, 15, 25, 50) for s in (0.0, 0.3, 0.45, 0.6)]
    off = [Condition(distance_off=d, n_spots=n) for d in (-0.01, -0.005, 0.005, 0.01) for n in (15, 25)]
    many = [Condition(lattices=k, n_spots=n) for k in (2, 3) for n in (25, 50)]
    forms = [Condition(form=form, n_spots=n) for form in ("P61", "P4", "R3:H", "C2") for n in (15, 25)]
    nothing = [Condition(real=False, n_spots=n, spurious=0.0) for n in (10, 25, 50, 100)]
    return [*grid, *off, *many, *forms, *nothing]


def rate(count: int, n: int) -> tuple[float, float]:
    """A fraction and its standard error."""
    f = count / n
    if 0 < count < n:
        return f, float(np.sqrt(f * (1 - f) / n))
    return f, float(0.5 / (n + 1))


def row(condition: Condition, trials: int) -> str:
    """One row of the table."""
    results = [trial(condition, seed) for seed in range(trials)]
    got, error = rate(sum(r[0] for r in results), trials * condition.lattices)
    wrong, wrong_error = rate(sum(r[1] for r in results), trials)
    what = condition.form if condition.real else f"{condition.form}, random spots only"
    shown = f"{100 * got:.1f} ± {100 * error:.1f}" if condition.real else "-"
    cells = [
        what,
        f"{condition.lattices if condition.real else 0}",
        f"{condition.n_spots}",
        f"{100 * condition.spurious:.0f} %",
        f"{100 * condition.distance_off:+.1f} %",
        f"{trials}",
        shown,
        f"{100 * wrong:.1f} ± {100 * wrong_error:.1f}",
        f"{np.mean([r[2] for r in results]):.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = """# Indexing by simulation

`python benchmarks/indexing.py`, which says what the columns mean. Percent, with standard errors; seconds of one core.

| crystal | lattices | spots of each | spurious | distance off | stills | recovered | false per still | seconds |
|---|---|---|---|---|---|---|---|---|
"""


def main(trials: int, folder: Path) -> None:
    """Run every condition and write the table as it grows."""
    folder.mkdir(parents=True, exist_ok=True)
    text = HEAD
    for condition in conditions():
        text += row(condition, trials) + "\n"
        print(text.splitlines()[-1], flush=True)
        (folder / "indexing_simulation.md").write_text(text)


if __name__ == "__main__":
    default = Path(__file__).resolve().parent / "results"
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50, Path(sys.argv[2]) if len(sys.argv) > 2 else default)

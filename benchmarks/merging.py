"""Which integration agrees better with the true structure factors once merged? Ours and that of DIALS, same shots.

    bayesbragg stills-process process.phil "TUTORIAL/images/*.h5" output.output_dir=OURS
    /usr/bin/python3 benchmarks/dials_integrate.py TUTORIAL/dials_refined TUTORIAL/images \
        TUTORIAL/phil/dials_process.phil DIALS TUTORIAL/indexed
    python benchmarks/merging.py TUTORIAL OURS DIALS [skip_hopper=FOLDER]

Only shots that both integrated take part; shots without a refined model of dials.stills_process (12 to 15) are refined
by ``dials_integrate.py`` first. Orientation, cell and block size of ours come from pixel refinement against the
reference list (3 % noise on I); those of ``skip_hopper`` from the spots' positions alone. Reflections are predicted
with equal structure factors; of ours, those below a partiality of 0.1 (a property of orientation and model, not of the
answer) are left out. One program scales and merges all sets: polarization, one scale and one B factor per shot, fitted
by turns with the merged intensities, weights 1 / (sigma^2 + (0.15 I)^2); Friedel mates are merged. Truth comes in at
the very end: CC and R against |F|^2 (mean of the mates), R = sum |k I - |F|^2| / sum |F|^2 with the best k; standard
errors from 400 bootstrap samples of the merged reflections. CC1/2: correlation of merges of random halves of the shots,
mean over 40 halvings. Writes results/merging.md.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bayesbragg.io.experiments import read_experiments
from bayesbragg.io.reflections import read_reflections
from bayesbragg.io.structure_factors import read_mtz
from bayesbragg.io.symmetry import lookup_space_group

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LEAST_PARTIALITY = 0.1
D_RANGE = (2.1, 20.0)
RELATIVE_ERROR = 0.15
ROUNDS = 25


@dataclass(frozen=True)
class Observations:
    """Intensities of all shots: shot, unique reflection, value, standard deviation, 1/(4 d^2)."""

    shot: IntArray
    unique: IntArray
    value: FloatArray
    sigma: FloatArray
    s2: FloatArray

    def select(self, rows: npt.ArrayLike) -> Observations:
        return Observations(**{n: getattr(self, n)[rows] for n in self.__dataclass_fields__})


def polarization(s1: FloatArray, beam) -> FloatArray:
    """Polarization factor of each ray: mean of the two components of the beam, weighted by its polarization."""
    u = s1 / np.linalg.norm(s1, axis=1, keepdims=True)
    normal = np.asarray(beam.polarization_normal)
    in_plane = np.cross(beam.direction, normal)
    fraction = beam.polarization_fraction
    return fraction * (1 - (u @ in_plane) ** 2) + (1 - fraction) * (1 - (u @ normal) ** 2)


def load(folder: Path, tags: list[str], column: str, corrected: bool) -> tuple[Observations, IntArray]:
    """Observations of a folder and the unique Miller indices that they number."""
    group = lookup_space_group("P43212")
    parts, hkls = [], []
    for number, tag in enumerate(tags):
        experiment = read_experiments(folder / f"idx-{tag}_integrated.expt")[0]
        table = read_reflections(folder / f"idx-{tag}_integrated.refl")
        value, variance = table[f"{column}.value"], table[f"{column}.variance"]
        keep = (variance > 0) & np.isfinite(value)
        share = np.ones(len(table))
        if "partiality.applied" in table:
            keep &= table["partiality"] >= LEAST_PARTIALITY
            share = table["partiality"] if corrected else share
        d = table["d"]
        keep &= (d >= D_RANGE[0]) & (d <= D_RANGE[1])
        divisor = (share * polarization(table["s1"], experiment.beam))[keep]
        hkls.append(unique_index(table["miller_index"][keep], group))
        n = int(keep.sum())
        parts.append(
            (np.full(n, number), value[keep] / divisor, np.sqrt(variance[keep]) / divisor, 0.25 / d[keep] ** 2)
        )
    unique, inverse = np.unique(np.concatenate(hkls), axis=0, return_inverse=True)
    shot, value, sigma, s2 = (np.concatenate(x) for x in zip(*parts, strict=True))
    return Observations(shot, inverse.ravel(), value, sigma, s2), unique


def unique_index(hkl: IntArray, group) -> IntArray:
    """The largest of all symmetry equivalents and their Friedel mates."""
    equivalents = group.equivalents(hkl)[0]
    everything = np.concatenate([equivalents, -equivalents])
    key = (everything[..., 0] * 1000 + everything[..., 1]) * 1000 + everything[..., 2]
    return np.take_along_axis(everything, key.argmax(axis=0)[None, :, None], axis=0)[0]


def scale(data: Observations, n_shots: int) -> FloatArray:
    """Factor of each observation: shots brought together by scale and B factor, ``(n,)``."""
    G, B = np.zeros(n_shots), np.zeros(n_shots)
    # A start from the mean of each shot.
    for shot in range(n_shots):
        mine = data.shot == shot
        G[shot] = np.log(max(np.mean(data.value[mine]), 1e-9))
    n_unique = int(data.unique.max()) + 1
    level = np.exp(np.mean(G))
    for _ in range(ROUNDS):
        factor = np.exp(G[data.shot] - 2.0 * B[data.shot] * data.s2)
        merged, weight, _ = merge(data, factor, n_unique)
        others = weight[data.unique] > 1.01 * _weight(data, factor)
        for shot in range(n_shots):
            mine = np.flatnonzero((data.shot == shot) & others)
            model = merged[data.unique[mine]] * factor[mine]
            w = 1.0 / (data.sigma[mine] ** 2 + (RELATIVE_ERROR * np.abs(model)) ** 2)
            # value = model (1 + g - 2 b s2), to first order in the changes, with a weak hold on them.
            columns = np.stack([model, -2.0 * model * data.s2[mine]], axis=1)
            normal = columns.T @ (columns * w[:, None]) + np.diag([1.0, 1e-2])
            g, b = np.linalg.solve(normal, columns.T @ (w * (data.value[mine] - model)))
            G[shot] += 0.5 * np.clip(g, -0.5, 0.5)
            B[shot] += 0.5 * np.clip(b, -5.0, 5.0)
        G -= np.mean(G) - np.log(level)
        B -= np.mean(B)
    return np.exp(G[data.shot] - 2.0 * B[data.shot] * data.s2)


def _weight(data: Observations, factor: FloatArray) -> FloatArray:
    size = np.maximum(np.abs(data.value), data.sigma)
    return factor**2 / (data.sigma**2 + (RELATIVE_ERROR * size) ** 2)


def merge(data: Observations, factor: FloatArray, n_unique: int) -> tuple[FloatArray, FloatArray, IntArray]:
    """Weighted means of the unique reflections, their weights and numbers of observations; factors are divided out.

    The weights take the mean, not the single value, for the relative error, so that weak values are not favoured.
    """
    scaled, sigma = data.value / factor, data.sigma / factor
    count = np.bincount(data.unique, minlength=n_unique)
    mean = np.bincount(data.unique, scaled, n_unique) / np.maximum(count, 1)
    for _ in range(3):
        weight = 1.0 / (sigma**2 + (RELATIVE_ERROR * np.abs(mean[data.unique])) ** 2)
        total = np.bincount(data.unique, weight, n_unique)
        mean = np.bincount(data.unique, weight * scaled, n_unique) / np.maximum(total, 1e-300)
    return mean, total, count


def half_sets(data: Observations, factor: FloatArray, n_shots: int, seed: int = 0) -> tuple[float, float, float]:
    """Mean CC of random half sets, its standard deviation over the halvings, and the mean number of pairs."""
    generator, found, pairs = np.random.default_rng(seed), [], []
    n_unique = int(data.unique.max()) + 1
    for _ in range(40):
        first = np.isin(data.shot, generator.permutation(n_shots)[: n_shots // 2])
        a = merge(data.select(first), factor[first], n_unique)
        b = merge(data.select(~first), factor[~first], n_unique)
        both = (a[2] > 0) & (b[2] > 0)
        found.append(np.corrcoef(a[0][both], b[0][both])[0, 1])
        pairs.append(both.sum())
    return float(np.mean(found)), float(np.std(found)), float(np.mean(pairs))


def agreement(merged: FloatArray, truth: FloatArray) -> tuple[float, float]:
    """CC and R of intensities against true ones."""
    low, high = np.log(truth.sum() / merged.sum()) + np.array([-1.0, 1.0])
    ks = np.exp(np.linspace(low, high, 401))
    R = np.array([np.sum(np.abs(k * merged - truth)) for k in ks]).min() / truth.sum()
    return float(np.corrcoef(merged, truth)[0, 1]), float(R)


def bootstrap(merged: FloatArray, truth: FloatArray) -> tuple[FloatArray, FloatArray]:
    generator = np.random.default_rng(1)
    rows = [generator.integers(0, len(truth), len(truth)) for _ in range(400)]
    values = np.array([agreement(merged[r], truth[r]) for r in rows])
    return np.array(agreement(merged, truth)), values.std(axis=0)


def main(words: list[str]) -> None:
    tutorial, ours, dials = (Path(word) for word in words[:3])
    extra = dict(word.split("=", 1) for word in words[3:])
    tags = sorted(
        p.name.removeprefix("idx-").removesuffix("_integrated.refl")
        for p in dials.glob("idx-*_integrated.refl")
        if (ours / p.name).is_file()
    )
    truth = read_mtz(tutorial / "structure_factors/truth_F.mtz", "F(+),F(-)")
    sets = [
        ("DIALS, summation", dials, "intensity.sum", False),
        ("ours, summation", ours, "intensity.sum", False),
        ("ours, profile", ours, "intensity.prf", False),
        ("ours, posterior", ours, "intensity.posterior", False),
        ("ours, summation, partiality applied", ours, "intensity.sum", True),
        ("ours, profile, partiality applied", ours, "intensity.prf", True),
        ("ours, posterior, partiality applied", ours, "intensity.posterior", True),
    ]
    if "skip_hopper" in extra:
        folder = Path(extra["skip_hopper"])
        sets.append(("ours without pixel refinement, posterior", folder, "intensity.posterior", False))
        sets.append(
            ("ours without pixel refinement, posterior, partiality applied", folder, "intensity.posterior", True)
        )
    merges, rows = {}, []
    for name, folder, column, corrected in sets:
        data, unique = load(folder, tags, column, corrected)
        factor = scale(data, len(tags))
        merged, _, _ = merge(data, factor, len(unique))
        F2 = 0.5 * (np.abs(truth.lookup(unique)) ** 2 + np.abs(truth.lookup(-unique)) ** 2)
        merges[name] = {tuple(h): (m, f) for h, m, f in zip(unique.tolist(), merged, F2, strict=True)}
        (cc, R), (cc_se, R_se) = bootstrap(merged, F2)
        half = half_sets(data, factor, len(tags))
        rows.append(
            f"| {name} | {len(data.value)} | {len(unique)} | {cc:.4f} ± {cc_se:.4f} | {R:.3f} ± {R_se:.3f} | "
            f"{half[0]:.4f} ± {half[1]:.4f} ({half[2]:.0f}) |"
        )
        print(rows[-1], flush=True)
    common = set.intersection(*(set(m) for m in merges.values()))
    shared = []
    for name, found in merges.items():
        pair = np.array([found[h] for h in sorted(common)])
        (cc, R), (cc_se, R_se) = bootstrap(pair[:, 0], pair[:, 1])
        shared.append(f"| {name} | {cc:.4f} ± {cc_se:.4f} | {R:.3f} ± {R_se:.3f} |")
        print(shared[-1], flush=True)
    text = (__doc__ or "").split("\n\n")
    body = [
        "# Merging test",
        "",
        text[-1].replace("Writes results/merging.md.", "").strip(),
        "",
        f"{len(tags)} shots ({', '.join(tags)}), {D_RANGE[0]} to {D_RANGE[1]} A. Errors of CC1/2 are the spread over "
        "halvings; in brackets the pairs.",
        "",
        "## Each with all of its own reflections",
        "",
        "| integration | observations | unique | CC with true F^2 | R | CC1/2 |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        f"## On the {len(common)} reflections that all have",
        "",
        "| integration | CC with true F^2 | R |",
        "|---|---|---|",
        *shared,
        "",
    ]
    (Path(__file__).parent / "results" / "merging.md").write_text("\n".join(body), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

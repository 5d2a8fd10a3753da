"""Joint geometry of real stills from spot positions alone: RMSD, error bars, and two halves against each other.

    python benchmarks/metrology.py FOLDER

FOLDER holds `experiments.json` and `reflections.npz` (columns as DIALS names them, dots as underscores).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from scipy.stats import kurtosis

from bayesbragg.inference.centroid_fit import fit_centroids
from bayesbragg.inference.centroid_likelihood import CentroidTerm, Spots
from bayesbragg.inference.joint_types import JointFit, JointOptions
from bayesbragg.io.experiments import read_experiments
from bayesbragg.model.panel_groups import group_panels
from bayesbragg.priors.panels import PanelPriors, SharedPrior, shared_prior

CENTROID_OUTLIER = 1 << 17
N_SPLITS = 6


def agreement(one: JointFit, other: JointFit, prior: SharedPrior) -> tuple[float, int]:
    """Chi-square of the difference between two fits of independent data with one prior, and its degrees of freedom.

    Given the true panels, the estimates scatter by C - C P C (C posterior covariance, P prior precision).
    """
    free = np.ix_(prior.free, prior.free)
    P = prior.precision[free]
    scatter = np.zeros_like(P)
    for fit in (one, other):
        C = fit.covariance[free]
        scatter += C - C @ P @ C
    width = np.sqrt(np.diag(one.covariance + other.covariance))[prior.free]
    values, vectors = np.linalg.eigh(scatter / np.outer(width, width))
    # Below this, both estimates are the prior's mean and their difference says nothing.
    kept = values > 1e-3
    z = (vectors.T @ ((one.shared - other.shared)[prior.free] / width))[kept]
    return float(np.sum(z**2 / values[kept])), int(kept.sum())


def main(folder: Path) -> None:
    clock = time.perf_counter()
    experiments = read_experiments(folder / "experiments.json")
    table = np.load(folder / "reflections.npz")
    detector = experiments[0].detector
    kept = (table["flags"] & CENTROID_OUTLIER) == 0
    grouping = group_panels(detector, np.arange(detector.n_panels))
    prior = shared_prior(grouping, PanelPriors())

    def term(rows: np.ndarray) -> CentroidTerm:
        stills, number = np.unique(table["id"][rows], return_inverse=True)
        spots = Spots(
            number,
            table["panel"][rows],
            table["miller_index"][rows],
            table["xyzobs_mm_value"][rows, :2],
            table["xyzobs_mm_variance"][rows, :2],
        )
        return CentroidTerm(
            spots,
            detector,
            [experiments[i].beam for i in stills],
            [experiments[i].crystal for i in stills],
            grouping,
        )

    def rmsd(t: CentroidTerm, own: np.ndarray, shared: np.ndarray) -> np.ndarray:
        return np.sqrt(np.mean(t.residuals_mm(own, shared) ** 2, axis=0))

    options = JointOptions(tolerance=0.1)
    all_rows = np.flatnonzero(kept)
    t = term(all_rows)
    print(f"{len(all_rows)} reflections, {len(t.start)} stills; RMSD x, y at the start (mm):",
          rmsd(t, t.start, np.zeros(prior.n)).round(5))  # fmt: skip
    fit, population = fit_centroids(t, prior, options)
    print(f"maximum of the density: {fit.status.value}; RMSD {rmsd(t, fit.own[0], fit.shared).round(5)}")
    print(f"spreads of the run: {population.words()}")
    z = t.residuals(fit.own[0], fit.shared) / np.sqrt(t.variance)
    print(f"normalised residuals, radial, transverse, angle: sd {z.std(axis=0).round(3)}, "
          f"kurtosis {kurtosis(z, axis=0, fisher=False).round(2)}")  # fmt: skip
    print(f"variances multiplied by {t.dispersion:.3f} because spots of a still err together")
    print(f"seconds, reading and compilation included: {time.perf_counter() - clock:.1f}")
    n = np.bincount(t.spots.panel, minlength=detector.n_panels)
    sd = fit.standard_errors[: 6 * grouping.n_groups].reshape(-1, 6)
    for label, which in (("30 reflections or more", n >= 30), ("fewer", (n < 30) & (n > 0)), ("none", n == 0)):
        shown = 1e6 * np.median(sd[which, 3:], axis=0)
        print(f"panels with {label}: {which.sum()}; median sd of the shifts x, y, z (um) {shown.round(1)}")
    for seed in range(N_SPLITS):
        half = np.random.default_rng(seed).permutation(len(experiments)) < len(experiments) // 2
        parts = [all_rows[half[table["id"][all_rows]] == h] for h in (True, False)]
        terms = [term(rows) for rows in parts]
        fits = [fit_centroids(x, prior, options)[0] for x in terms]
        chi2, dof = agreement(*fits, prior)
        print(f"halves, seed {seed}: chi-square {chi2:.1f} for {dof} degrees of freedom ({chi2 / dof:.3f}), factors "
              f"{terms[0].dispersion:.3f}, {terms[1].dispersion:.3f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Are the panels' error bars right? Simulated data sets, panels drawn from the prior, intervals counted.

python benchmarks/geometry_calibration.py [DATA_SETS]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy.stats import chi2, kstest

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "inference"))
from joint_simulation import simulate

from bayesbragg.inference.joint import fit_joint
from bayesbragg.inference.joint_types import JointOptions

IDENTIFIABLE = 0.5
"""Posterior over prior sd below which a direction counts as told by the data."""


def main(n: int) -> None:
    inside, total, whitened, sizes, all_chi, statuses, identifiable, shares = 0, 0, [], [], [], [], 0, []
    for seed in range(n):
        data = simulate(seed)
        fit = fit_joint(data.terms, data.prior, JointOptions(tolerance=0.01))
        statuses.append(fit.status.value)
        free = np.ix_(data.prior.free, data.prior.free)
        C, P = fit.covariance[free], fit.prior_covariance[free]
        d = (fit.shared - data.truth)[data.prior.free]
        sd = np.sqrt(np.diag(C))
        inside += int(np.sum(np.abs(d) < 1.959964 * sd))
        shares.append(np.mean(np.abs(d) < 1.959964 * sd))
        total += len(d)
        width = np.sqrt(np.diag(P))
        L = np.linalg.cholesky(P / np.outer(width, width))
        G = np.linalg.solve(L, (C / np.outer(width, width)))
        G = np.linalg.solve(L, G.T)
        values, vectors = np.linalg.eigh(0.5 * (G + G.T))
        y = vectors.T @ np.linalg.solve(L, d / width)
        told = np.sqrt(values) < IDENTIFIABLE
        identifiable += int(told.sum())
        whitened.append(float(np.sum(y[told] ** 2 / values[told])))
        sizes.append(int(told.sum()))
        all_chi.append(float(np.sum(y**2 / values)))
        print(f"{seed}: {fit.status.value} in {fit.iterations}, inside {shares[-1]:.3f}, chi-square "
              f"{whitened[-1]:.1f} of {sizes[-1]}, all {all_chi[-1]:.1f} of {len(d)}", flush=True)  # fmt: skip
    error = np.std(shares, ddof=1) / np.sqrt(n)
    print(f"{statuses.count('converged')} of {n} converged; 95 % intervals hold {inside / total:.4f} +- {error:.4f}")
    print(f"identifiable: chi-square {sum(whitened):.1f} of {sum(sizes)}, p {chi2.sf(sum(whitened), sum(sizes)):.3f}")
    u = chi2.cdf(whitened, sizes)
    print(f"its distribution over data sets: Kolmogorov-Smirnov p {kstest(u, 'uniform').pvalue:.3f}")
    print(f"all directions: chi-square {sum(all_chi):.1f} of {total}, p {chi2.sf(sum(all_chi), total):.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 24)

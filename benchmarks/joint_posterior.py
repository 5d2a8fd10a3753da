"""The joint posterior of a geometry by NUTS, and how corrected Laplace compares with it.

bayesbragg posterior GEOMETRY inference=nuts --strict;  cp GEOMETRY/panels_posterior.nc nuts.nc
bayesbragg posterior GEOMETRY inference=laplace;        cp GEOMETRY/panels_posterior.nc laplace.nc
python benchmarks/joint_posterior.py nuts.nc laplace.nc
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bayesbragg.diagnostics.arviz_container import groups_of, read_netcdf
from bayesbragg.inference.verdict import convergence


def flat(posterior: Any, names: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """Names and draws ``(n_chains, n_draws, n)`` of variables with any further dimensions."""
    labels: list[str] = []
    columns = []
    for name in names:
        array = posterior[name]
        shape = array.shape[2:]
        coordinates = [np.asarray(array[d]) for d in array.dims[2:]]
        for place in np.ndindex(*shape):
            labels.append(f"{name}[{', '.join(str(c[i]) for c, i in zip(coordinates, place, strict=True))}]")
        columns.append(np.asarray(array).reshape(*array.shape[:2], -1))
    return labels, np.concatenate(columns, axis=2)


def main(paths: list[Path]) -> None:
    kept: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for path in paths:
        posterior = groups_of(read_netcdf(path))["posterior"]
        about = posterior.attrs
        print(f"{path.name}: {about['method']}, {about['verdict']}; {about['sampling_time']:.0f} s, "
              f"{about['evaluations']} evaluations")  # fmt: skip
        print("; ".join(json.loads(about["checks"])))
        print(json.loads(about["settings"]))
        panels = tuple(name for name in ("rotation", "shift") if name in posterior)
        others = tuple(str(n) for n in posterior.data_vars if n not in panels)
        for what, names in (("panels", panels), ("shots", others)):
            labels, draws = flat(posterior, names)
            means, sds = draws.mean(axis=(0, 1)), draws.std(axis=(0, 1))
            if about["method"] != "laplace":
                found = convergence(draws)
                for text, values in (("bulk", found.ess_bulk), ("tail", found.ess_tail)):
                    print(f"  {what}, {len(labels)} numbers: {text} ESS {values.min():.0f} "
                          f"({labels[int(np.argmin(values))]}) to {values.max():.0f}")  # fmt: skip
                print(f"  {what}: R-hat at most {found.r_hat.max():.4f} ({labels[int(np.argmax(found.r_hat))]})")
            if what in kept:
                mean, sd = kept[what]
                ratio, off = sds / sd, (means - mean) / sd
                outside = [f"{labels[i]} {ratio[i]:.3f}" for i in np.flatnonzero(np.abs(ratio - 1) > 0.1)]
                print(f"  {what}: sd over that of {paths[0].name}: {ratio.min():.3f} to {ratio.max():.3f}, median "
                      f"{np.median(ratio):.3f}; beyond 10 %: {', '.join(outside) or 'none'}")  # fmt: skip
                print(f"  {what}: means differ by at most {np.abs(off).max():.3f} sd")
            kept.setdefault(what, (means, sds))


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])

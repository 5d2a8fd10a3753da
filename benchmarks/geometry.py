"""Panel errors of a geometry-refine run against a true geometry: raw, without the rotation about the beam, without one
rigid motion of everything.

    python benchmarks/geometry.py TRUE.expt FAULTY.expt RUN_FOLDER [OPTIMIZED.expt]

Shifts are those of the groups' centroids, micrometres; rotations are about the groups' own axes (O, F, S), degree.
"""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from bayesbragg.io.experiments import read_detector
from bayesbragg.model import Detector
from bayesbragg.model.panel_groups import panel_centres_mm

FloatArray = npt.NDArray[np.float64]
ENOUGH = 30
"""Reflections of a group from which on it counts in the plain means."""


def nearest_motion(start: FloatArray, end: FloatArray, weight: FloatArray, kind: str) -> tuple[FloatArray, FloatArray]:
    """Rotation and shift that take points nearest to others: none, about the beam (z), or any rigid motion."""
    if kind == "raw":
        return np.eye(3), np.zeros(3)
    if kind == "no rotation about the beam":
        sine = np.sum(weight * (start[:, 0] * end[:, 1] - start[:, 1] * end[:, 0]))
        angle = np.arctan2(sine, np.sum(weight[:, None] * start[:, :2] * end[:, :2]))
        c, s = np.cos(angle), np.sin(angle)
        return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]), np.zeros(3)
    middle = [np.average(points, axis=0, weights=weight) for points in (start, end)]
    U, _, Vt = np.linalg.svd((weight[:, None] * (start - middle[0])).T @ (end - middle[1]))
    R = (U @ np.diag([1.0, 1.0, np.sign(np.linalg.det(U @ Vt))]) @ Vt).T
    return R, middle[1] - R @ middle[0]


def group_frames(detector: Detector, group: npt.NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """Centroid of every group (mm), and the axes (rows: normal, fast, slow) of its first panel."""
    centres = panel_centres_mm(detector)
    numbers = range(int(group.max()) + 1)
    first = [int(np.flatnonzero(group == g)[0]) for g in numbers]
    axes = np.stack([detector.normal, detector.fast, detector.slow], axis=1)[first]
    return np.stack([centres[group == g].mean(axis=0) for g in numbers]), axes


def main(true: Path, faulty: Path, folder: Path, name: str) -> None:
    with h5py.File(folder / "panels.h5") as file:
        group, n = file["group_of_panel"][()], file["reflections_of_group"][()]
        sd = np.sqrt(np.diag(file["covariance"][()]))[: 6 * len(n)].reshape(-1, 6)
    target, target_axes = group_frames(read_detector(true), group)
    enough = n >= ENOUGH
    print(f"{enough.sum()} of {len(n)} groups have {ENOUGH} reflections or more")
    for label, path in (("faulty", faulty), ("fitted", folder / name)):
        centre, axes = group_frames(read_detector(path), group)
        for kind in ("raw", "no rotation about the beam", "no rigid motion"):
            R, shift = nearest_motion(centre, target, n.astype(float), kind)
            error = 1e3 * np.abs(centre @ R.T + shift - target)
            moved = axes @ R.T
            turn = np.einsum("gik,gjk->gij", target_axes, moved)
            angle = 0.5 * np.abs(np.stack([turn[:, 1, 2] - turn[:, 2, 1], turn[:, 0, 2] - turn[:, 2, 0],
                                           turn[:, 0, 1] - turn[:, 1, 0]], axis=-1))  # fmt: skip
            plain, weighted = error[enough].mean(axis=0), np.average(error, axis=0, weights=n)
            print(
                f"{label}, {kind}: mean |x y z| {plain.round(2)}, in the plane {plain[:2].mean():.2f}; weighted by "
                f"reflections {weighted.round(2)}; rotations {np.degrees(angle[enough].mean(axis=0)).round(4)}"
            )
        common = np.average((centre - target)[:, 2], weights=n)
        print(f"{label}: common error along z {1e3 * common:.1f}")
    print(f"median error bars: shifts {1e6 * np.median(sd[enough, 3:], axis=0).round(7)}, "
          f"rotations {np.degrees(np.median(sd[enough, :3], axis=0)).round(4)}")  # fmt: skip


if __name__ == "__main__":
    paths = [Path(word) for word in sys.argv[1:4]]
    main(paths[0], paths[1], paths[2], sys.argv[4] if len(sys.argv) > 4 else "optGeo.expt")

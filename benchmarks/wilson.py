"""Refinement without structure factors: every tutorial shot, its orientation, cell and block size against the truth.

python benchmarks/wilson.py TUTORIAL_FOLDER [known] [inferred] [gain=0.03] [bright=300] [laplace] [first=0] [last=15]

``known`` fits with the reference structure factors instead, ``inferred`` infers the background planes with the rest,
``gain`` states the calibration error of the pixels, ``bright`` leaves out boxes of fewer expected photons,
``laplace`` corrects the error bars by importance sampling.
A pull is the error over the stated standard deviation. The images were made with 2 x 2 subpixels, which the fit is
told, and with blocks of 10 x 10 x 10 cells without mosaic spread.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

import bayesbragg as bb
from bayesbragg.inference.laplace import LaplaceOptions, laplace, target_of_fit
from bayesbragg.io.symmetry import lookup_space_group
from bayesbragg.model import Crystal
from bayesbragg.model.crystal import cell_matrix
from bayesbragg.pipeline.device import remember_programs
from bayesbragg.pipeline.settings import FactorSettings


def settings_of(folder: Path, words: list[str]) -> bb.RefineSettings:
    """The settings of this benchmark."""
    gain, bright = (
        next((float(w.partition("=")[2]) for w in words if w.startswith(f"{name}=")), 0.0)
        for name in ("gain", "bright")
    )
    mtz = folder / "structure_factors" / "iobs_all.mtz"
    known = FactorSettings(mtz=mtz, columns="I(+),SIGI(+),I(-),SIGI(-)")
    return bb.RefineSettings(
        counts=bb.CountSettings(28.0, 3.0, sigma_gain=gain),
        spectrum=bb.SpectrumSettings(source="image"),
        factors=known if "known" in words else FactorSettings(intensities="wilson"),
        model=bb.ModelSettings(oversample=2),
        background="inferred" if "inferred" in words else "poisson",
        min_expected=bright,
    )


def misorientation(found: Crystal, U_true: np.ndarray) -> np.ndarray:
    """Rotation vector from the fit to the truth in the laboratory frame, the smallest over the symmetry, radian."""
    group = lookup_space_group(found.hall_symbol.strip())
    B = cell_matrix(found.cell)
    candidates = []
    for op in group.rotations:
        turn = B @ op.T @ np.linalg.inv(B)  # acts on the crystal's own axes
        if np.linalg.det(turn) > 0:
            candidates.append(Rotation.from_matrix(U_true @ turn @ found.U.T).as_rotvec())
    return min(candidates, key=lambda v: float(np.linalg.norm(v)))


def main(folder: Path, words: list[str]) -> None:
    first, last = (
        next((int(w.partition("=")[2]) for w in words if w.startswith(f"{name}=")), default)
        for name, default in (("first", 0), ("last", 15))
    )
    settings = settings_of(folder, words)
    remember_programs()
    pulls: list[np.ndarray] = []
    names = ("rotX", "rotY", "rotZ", "a", "c", "Na", "Nb", "Nc")
    for number in range(first, last + 1):
        tag = f"shot_{number:03d}"
        truth = json.loads((folder / "truth" / f"{tag}.json").read_text())
        paths = [folder / "indexed" / f"{tag}_{kind}" for kind in ("refined.expt", "indexed.refl")]
        (still,) = bb.load(*paths, settings)
        clock = time.perf_counter()
        refined = bb.refine(still, settings)
        fit = refined.fit
        sd = dict(zip(fit.names, fit.standard_errors, strict=True))
        k_hat = float("nan")
        if "laplace" in words:
            found = laplace(target_of_fit(refined.prepared.density, fit), LaplaceOptions(n_draws=1000), seed=number)
            sd, k_hat = dict(zip(found.names, found.sd, strict=True)), float(found.settings["k_hat"])
        value = dict(zip(fit.names, fit.values, strict=True))
        turn = misorientation(refined.crystals[0], np.array(truth["U"]))
        errors = [*turn, value["ucell_a"] - 79.1, value["ucell_c"] - 38.4] if "ucell_a" in value else [*turn]
        keys = ["rotX", "rotY", "rotZ", "ucell_a", "ucell_c"][: len(errors)]
        if "Na" not in value:
            raise SystemExit(f"names are {fit.names}")
        errors += [value[n] - 10.0 for n in ("Na", "Nb", "Nc")]
        keys += ["Na", "Nb", "Nc"]
        row = np.array(errors) / np.array([sd[k] for k in keys])
        pulls.append(row)
        print(
            f"{tag}: {fit.status.value}, {refined.prepared.shot.n_boxes} boxes, {fit.evaluations} evaluations, "
            f"{time.perf_counter() - clock:.1f} s, {refined.prepared.form.name}, sigma-Z {fit.sigma_z:.3f}, "
            f"off by {np.degrees(np.linalg.norm(turn)):.4f} deg, "
            f"Nabc {value['Na']:.2f} {value['Nb']:.2f} {value['Nc']:.2f}, k-hat {k_hat:.2f}, pulls "
            + " ".join(f"{n} {p:+.1f}" for n, p in zip(names, row, strict=True)),
            flush=True,
        )
    table = np.array(pulls)
    squares = np.sqrt(np.mean(table**2, axis=0))
    print(f"root mean square pulls of {len(table)} shots: "
          + ", ".join(f"{n} {v:.2f}" for n, v in zip(names, squares, strict=True)))  # fmt: skip
    error = np.std(table, axis=0) / np.sqrt(len(table))
    print("mean pulls: " + ", ".join(f"{n} {m:+.2f} +- {e:.2f}"
                                     for n, m, e in zip(names, table.mean(axis=0), error, strict=True)))  # fmt: skip
    for what, part in (("orientation and cell", table[:, :5]), ("blocks", table[:, 5:])):
        inside, error = np.mean(np.abs(part) < 1.96), np.sqrt(0.05 * 0.95 / part.size)
        print(f"{what}: {inside:.3f} +- {error:.3f} inside 95 %, largest {np.abs(part).max():.1f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

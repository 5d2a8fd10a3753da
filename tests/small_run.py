"""A folder of tiny simulated shots on four panels of 96 x 96 pixels, with everything that `bayesbragg refine` reads."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import gemmi
import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from bayesbragg.forward import Options, Parameters
from bayesbragg.io.experiments import write_experiments
from bayesbragg.io.reflections import write_reflections
from bayesbragg.io.structure_factors import read_mtz
from bayesbragg.io.tables import write_table
from bayesbragg.model import Crystal, Detector, Experiment, ImageReference, Reflections, Shoebox
from bayesbragg.stills.simulation import Camera, Still, simulate_still
from bayesbragg.stills.virtual import (
    LYSOZYME_CELL,
    VirtualExperiment,
    four_panels,
    virtual_experiment,
    wilson_amplitudes,
)

D_MIN = 3.0
BLOCKS = (7.0, 8.0, 13.0)
SCALE = 1000.0
GAIN = 28.0
N_LISTED = 56
COLUMNS = "I(+),SIGI(+),I(-),SIGI(-)"
PHIL = f"""
spectrum_from_imageset = True
downsamp_spec.skip = True
roi {{ shoebox_size = 10; pad_shoebox_for_background_estimation = 4 }}
refiner {{ adu_per_photon = {GAIN:g}; sigma_r = 3 }}
simulator {{
  oversample = 1
  structure_factors {{ mtz_name = factors.mtz; mtz_column = "{COLUMNS}" }}
  beam.size_mm = 0.001
}}
init.Nabc = 9 9 9
mins.RotXYZ = -0.05 -0.05 -0.05
maxs.RotXYZ = 0.05 0.05 0.05
"""


@dataclass(frozen=True, eq=False)
class SmallShot:
    """One simulated image: the truth, what indexing is taken to have left, and its pixels."""

    world: VirtualExperiment
    crystals: tuple[Crystal, ...]
    started: tuple[Crystal, ...]
    still: Still
    identifiers: tuple[str, ...]

    def experiments(self, image: Path, index: int = 0) -> list[Experiment]:
        reference = ImageReference(image, index)
        return [
            Experiment(name, self.world.beam, self.world.detector, crystal, reference)
            for name, crystal in zip(self.identifiers, self.started, strict=True)
        ]

    def reflections(self) -> Reflections:
        """The brightest of each lattice: few boxes, and the same number for every shot."""
        table, photons = self.still.reflections, self.still.photons[self.still.strong]
        lattice = np.asarray(table["id"])
        rows = [np.flatnonzero(lattice == n) for n in range(len(self.crystals))]
        bright = [np.sort(r[np.argsort(-photons[r])][:N_LISTED]) for r in rows]
        chosen = table.select(np.concatenate(bright))
        return Reflections(chosen.columns, dict(enumerate(self.identifiers)))


def turned(crystal: Crystal, degree: float, axis: npt.ArrayLike) -> Crystal:
    """The crystal turned about an axis of the laboratory."""
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degree)
    turn = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
    return replace(crystal, real_space_A=crystal.real_space_A @ turn.T)


def write_factors(path: Path) -> None:
    group, cell = gemmi.SpaceGroup("P 43 21 2"), gemmi.UnitCell(*LYSOZYME_CELL)
    hkl = np.array(gemmi.make_miller_array(cell, group, D_MIN), dtype=np.int32)
    intensity = wilson_amplitudes(cell.calculate_d_array(hkl), np.random.default_rng(5)) ** 2
    mtz = gemmi.Mtz(with_base=True)
    mtz.spacegroup = group
    mtz.set_cell_for_all(cell)
    mtz.add_dataset("simulated")
    for label, kind in zip(COLUMNS.split(","), "KMKM", strict=True):
        mtz.add_column(label, kind)
    mtz.set_data(np.column_stack([hkl, intensity, intensity, intensity, intensity]).astype(np.float32))
    mtz.write_to_file(str(path))


def make_shot(seed: int, factors: Path, n_lattices: int = 1, detector: Detector | None = None) -> SmallShot:
    """One image with its lattices; the starts are off by 0.1 degree and 0.2 per cent."""
    detector = detector or four_panels(side=96, distance_mm=30.0)
    world = replace(virtual_experiment(seed, n_channels=3), detector=detector)
    crystals = [world.crystal]
    crystals += [turned(world.crystal, 40.0 * n, [1, 2, 3]) for n in range(1, n_lattices)]
    cell = np.concatenate([LYSOZYME_CELL[:3], np.radians(LYSOZYME_CELL[3:])])
    still = simulate_still(
        Parameters.start(cell, n_lattices=n_lattices, n_abc=BLOCKS, G=SCALE),
        world.detector,
        world.beam,
        world.spectrum,
        crystals,
        read_mtz(factors, COLUMNS),
        Options(),
        background=1.0,
        camera=Camera(GAIN, 3.0),
        d_min=D_MIN + 0.1,
        seed=seed,
    )
    started = []
    for number, crystal in enumerate(crystals):
        off = turned(crystal, 0.1, np.random.default_rng([seed, number]).standard_normal(3))
        started.append(replace(off, real_space_A=off.real_space_A * [[1.002], [1.002], [0.998]]))
    names = tuple(str(uuid.UUID(int=1000 * seed + n)) for n in range(n_lattices))
    return SmallShot(world, tuple(crystals), tuple(started), still, names)


def write_image(shots: Sequence[SmallShot], path: Path) -> None:
    spectrum = shots[0].world.spectrum
    with h5py.File(path, "w") as file:
        file["images"] = np.stack([np.stack(shot.still.panels()) for shot in shots])
        file["wavelengths"], file["spectrum"] = spectrum.wavelengths_A, spectrum.photons


def write_shot(shot: SmallShot, folder: Path, name: str) -> None:
    """``NAME.h5``, ``NAME.expt`` and ``NAME.refl``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_image([shot], folder / f"{name}.h5")
    write_experiments(shot.experiments(folder / f"{name}.h5"), folder / f"{name}.expt")
    write_reflections(shot.reflections(), folder / f"{name}.refl")


def with_shoeboxes(shot: SmallShot, table: Reflections, margin: int) -> Reflections:
    """The table with shoeboxes of the image's own pixels, ``margin`` pixels about each centroid."""
    panels = shot.still.panels()
    boxes = np.empty(len(table), dtype=object)
    for i, (panel, xyz) in enumerate(zip(table["panel"], table["xyzobs.px.value"], strict=True)):
        n_slow, n_fast = panels[panel].shape
        x0, y0 = (max(int(v) - margin, 0) for v in xyz[:2])
        x1, y1 = min(int(xyz[0]) + margin, n_fast), min(int(xyz[1]) + margin, n_slow)
        data = panels[panel][None, y0:y1, x0:x1].astype(np.float32)
        mask = np.full(data.shape, 5, dtype=np.int32)
        boxes[i] = Shoebox(int(panel), (x0, x1, y0, y1, 0, 1), data, mask, np.zeros_like(data))
    return table.with_columns(shoebox=boxes)


def write_run(folder: Path, shots: dict[str, SmallShot]) -> None:
    """Shots, structure factors and parameters (``run.phil``) in one folder."""
    for name, shot in shots.items():
        write_shot(shot, folder, name)
    write_factors(folder / "factors.mtz")
    (folder / "run.phil").write_text(PHIL)


def run_folder(folder: Path, shots: dict[str, SmallShot]) -> None:
    """Shots, factors, parameters and a table that starts every shot at its true blocks and scale."""
    write_run(folder, shots)
    rows = [
        {
            "exp_name": str(folder / f"{name}.expt"), "stage1_refls": str(folder / f"{name}.refl"),
            "ncells": list(BLOCKS), "spot_scales": SCALE, "lam0": 0.0, "lam1": 1.0,
        }
        for name in shots
    ]  # fmt: skip
    write_table(pd.DataFrame(rows), folder / "table.pkl")

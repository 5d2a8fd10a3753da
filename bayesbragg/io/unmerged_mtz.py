"""Unmerged intensities of stills as an MTZ file: one batch for each lattice, indices in the asymmetric unit.

Columns beside H, K, L, M/ISYM and BATCH: I, SIGI (posterior), IPR, SIGIPR (profile), ISUM, SIGISUM (summation),
FRACTIONCALC (partiality that a merging program may still divide by; 1 where it was applied), XDET, YDET (pixels),
PANEL, LAMBDA (angstrom), PHOTONSF2 (photons per squared electron of the model). Intensities are in detector units.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import gemmi
import numpy as np
import numpy.typing as npt

from bayesbragg.io.files import atomic_path
from bayesbragg.io.symmetry import lookup_space_group
from bayesbragg.model.errors import InputError
from bayesbragg.model.experiment import Experiment
from bayesbragg.model.reflections import Reflections

__all__ = ["write_unmerged_mtz"]

FloatArray = npt.NDArray[np.float64]

INTENSITIES = (("I", "intensity.posterior"), ("IPR", "intensity.prf"), ("ISUM", "intensity.sum"))
OTHERS = (
    ("FRACTIONCALC", "R", "partiality"),
    ("XDET", "R", "xyzcal.px"),
    ("YDET", "R", "xyzcal.px"),
    ("PANEL", "R", "panel"),
    ("LAMBDA", "R", "wavelength_cal"),
    ("PHOTONSF2", "R", "model.photons_per_F2"),
)


def write_unmerged_mtz(
    lattices: Iterable[tuple[Experiment, Reflections]], path: str | os.PathLike[str]
) -> tuple[int, int]:
    """Write an unmerged MTZ file, atomically.

    Args:
        lattices: experiment with crystal, and its integrated reflections. All share the space group of the first;
            the cell of the file is the mean of theirs.

    Returns:
        numbers of lattices and of reflections that were written.

    Raises:
        InputError: nothing to write, or another space group.
    """
    cells: list[FloatArray] = []
    batches: list[tuple[int, FloatArray, Experiment]] = []
    parts: list[npt.NDArray[np.float32]] = []
    symbol = ""
    wavelengths: list[float] = []
    for experiment, table in lattices:
        crystal = experiment.crystal
        if crystal is None:
            continue
        symbol = symbol or crystal.space_group
        if crystal.space_group != symbol:
            raise InputError(
                f"{path}: space groups {symbol} and {crystal.space_group}; one MTZ file holds one, write two"
            )
        keep = np.asarray(table["intensity.posterior.variance"]) > 0
        kept = table.select(keep)
        number = len(cells) + 1
        columns = [np.asarray(kept["miller_index"], dtype=np.float64), np.ones((len(kept), 1))]
        columns.append(np.full((len(kept), 1), float(number)))
        for _, name in INTENSITIES:
            variance = np.asarray(kept[f"{name}.variance"])
            good = variance > 0
            columns.append(np.where(good, kept[f"{name}.value"], np.nan)[:, None])
            columns.append(np.sqrt(np.where(good, variance, np.nan))[:, None])
        for label, _, name in OTHERS:
            values = np.asarray(kept[name], dtype=np.float64)
            columns.append(values[:, [1 if label == "YDET" else 0]] if values.ndim == 2 else values[:, None])
        parts.append(np.hstack(columns).astype(np.float32))
        cells.append(crystal.cell)
        wavelengths.append(experiment.beam.wavelength_A)
        batches.append((number, crystal.cell, experiment))
    n = sum(len(part) for part in parts)
    if not n:
        raise InputError(f"{path}: no integrated reflections; integrate some stills first")
    mtz = gemmi.Mtz(with_base=True)
    mtz.title = "unmerged intensities of stills"
    mtz.spacegroup = gemmi.SpaceGroup(lookup_space_group(symbol).hm)
    mtz.set_cell_for_all(gemmi.UnitCell(*np.mean(cells, axis=0)))
    mtz.add_dataset("stills").wavelength = float(np.mean(wavelengths))
    mtz.add_column("M/ISYM", "Y")
    mtz.add_column("BATCH", "B")
    for label, _ in INTENSITIES:
        mtz.add_column(label, "J")
        mtz.add_column(f"SIG{label}", "Q")
    for label, kind, _ in OTHERS:
        mtz.add_column(label, kind)
    for number, cell, experiment in batches:
        batch = gemmi.Mtz.Batch()
        batch.number = number
        batch.cell = gemmi.UnitCell(*cell)
        batch.wavelength = float(experiment.beam.wavelength_A)
        batch.dataset_id = 1
        image = "" if experiment.image is None else f"{experiment.image.path.name} {experiment.image.index}"
        batch.title = image[:70]
        mtz.batches.append(batch)
    mtz.set_data(np.concatenate(parts))
    mtz.history = ["unmerged stills; FRACTIONCALC is the partiality that is not yet applied (1: none or applied)"]
    with atomic_path(path) as temporary:
        mtz.write_to_file(str(temporary))
        # M/ISYM is 1, the identity: read as original indices, they can be moved to the asymmetric unit. gemmi knows the
        # operators of a file that it has read only.
        mtz = gemmi.read_mtz_file(str(temporary))
        mtz.switch_to_original_hkl()
        mtz.switch_to_asu_hkl()
        mtz.write_to_file(str(temporary))
    return len(cells), n

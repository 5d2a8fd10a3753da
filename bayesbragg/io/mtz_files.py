"""MTZ files as a whole: what one holds, its cell and space group, and structure factors written to a new one."""

from __future__ import annotations

from pathlib import Path

import gemmi
import numpy as np
import numpy.typing as npt

from bayesbragg.io.files import atomic_path
from bayesbragg.io.structure_factors import mtz_space_group, open_mtz
from bayesbragg.io.symmetry import SpaceGroup, lookup_space_group
from bayesbragg.model.structure_factors import StructureFactors

__all__ = ["mtz_summary", "read_mtz_symmetry", "write_mtz"]


def read_mtz_symmetry(path: str | Path) -> tuple[npt.NDArray[np.float64], SpaceGroup]:
    """Unit cell (angstrom, degree), ``(6,)``, and space group that an MTZ file states.

    Raises:
        InputError: a missing or damaged file, or no space group that is known.
    """
    path = Path(path)
    mtz = open_mtz(path)
    return np.array(mtz.cell.parameters), mtz_space_group(path, mtz)


def mtz_summary(path: str | Path) -> list[str]:
    """What an MTZ file holds: reflections, cell, space group, resolution, columns with their ranges."""
    path = Path(path)
    mtz = open_mtz(path)
    group = "unknown" if mtz.spacegroup is None else f"{mtz.spacegroup.hm} (number {mtz.spacegroup.number})"
    lines = [f"{mtz.nreflections} reflections, {len(mtz.columns)} columns, {len(mtz.datasets)} data sets"]
    lines.append("unit cell: " + ", ".join(f"{x:.3f}" for x in mtz.cell.parameters) + " (A, degree)")
    lines.append(f"space group: {group}")
    if mtz.nreflections:
        d = np.array(mtz.make_d_array(), dtype=np.float64)
        d = d[np.isfinite(d)]
        if len(d):
            lines.append(f"resolution: {d.max():.3f} to {d.min():.3f} A")
    for column in mtz.columns:
        values = np.array(column.array, dtype=np.float64)
        there = values[np.isfinite(values)]
        span = f"{there.min():.6g} to {there.max():.6g}, mean {there.mean():.6g}" if len(there) else "no values"
        lines.append(f"{column.label} ({column.type}): {len(there)} values, {span}")
    return lines


def write_mtz(path: str | Path, factors: StructureFactors, cell: npt.ArrayLike, space_group: str | int) -> None:
    """Amplitudes with both Friedel mates, columns F(+) and F(-), one row for each index of the asymmetric unit.

    Args:
        factors: in the basis of the primitive cell, as the readers make them.
        cell: a, b, c (angstrom), alpha, beta, gamma (degree).
        space_group: symbol or number.
    """
    group = lookup_space_group(space_group)
    known = gemmi.find_spacegroup_by_name(group.hm) or gemmi.find_spacegroup_by_number(group.number)
    operations = known.operations()
    conventional = np.rint(factors.hkl @ np.linalg.inv(group.to_primitive).T).astype(np.int32)
    unit = gemmi.ReciprocalAsu(known)
    rows = [h for h in conventional.tolist() if unit.is_in(h) and not operations.is_systematically_absent(h)]
    hkl = np.array(rows, dtype=np.int64)
    amplitudes = [np.abs(factors.lookup(group.to_primitive_index(sign * hkl))) for sign in (1, -1)]
    mtz = gemmi.Mtz(with_base=True)
    mtz.spacegroup = known
    mtz.set_cell_for_all(gemmi.UnitCell(*np.asarray(cell, dtype=float)))
    mtz.add_dataset("bayesbragg")
    for label in ("F(+)", "F(-)"):
        mtz.add_column(label, "G")
    mtz.set_data(np.column_stack([hkl, *amplitudes]).astype(np.float32))
    with atomic_path(path) as temporary:
        mtz.write_to_file(str(temporary))

"""MTZ files as a whole: what one holds, its cell and space group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from bayesbragg.io.structure_factors import mtz_space_group, open_mtz
from bayesbragg.io.symmetry import SpaceGroup

__all__ = ["mtz_summary", "read_mtz_symmetry"]


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

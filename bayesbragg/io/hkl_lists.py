"""Structure factors from ``.hkl`` lists: those of nanoBragg (h k l F) and reflection lists of CrystFEL (h k l I ...).

A list of nanoBragg has four numbers in a line, the last an amplitude in electrons. CrystFEL's has a first line that
says so, a title line, and intensities, which may be negative; their amplitudes are then taken as 0. Both hold
independent reflections or more.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bayesbragg.io.files import read_bytes
from bayesbragg.io.structure_factors import structure_factors_from_arrays
from bayesbragg.io.symmetry import SpaceGroup
from bayesbragg.model.errors import InputError
from bayesbragg.model.structure_factors import StructureFactors

__all__ = ["read_hkl"]

WHAT = "list of reflections (.hkl: h k l F in a line, or a reflection list of CrystFEL)"
CRYSTFEL, END = "CrystFEL reflection list", "End of reflections"


def read_hkl(path: Path, space_group: str | int | SpaceGroup = 1, *, default_F: float = 0.0) -> StructureFactors:
    """Structure factors of a list, expanded by the space group.

    Args:
        path: the file.
        space_group: symbol, number, or a `SpaceGroup`; the list does not say.
        default_F: amplitude outside the box of listed indices, electrons.

    Raises:
        InputError: a missing file, or a line that is no reflection.
    """
    lines = read_bytes(path, WHAT).decode("utf-8", "replace").splitlines()
    intensities = bool(lines) and lines[0].startswith(CRYSTFEL)
    hkl: list[tuple[int, ...]] = []
    values: list[float] = []
    for number, line in enumerate(lines, start=1):
        words = line.split("#", 1)[0].split()
        if intensities and line.startswith(END):
            break
        if not words or (intensities and (number == 1 or line.startswith("Symmetry:") or words[0] == "h")):
            continue
        try:
            hkl.append(tuple(int(w) for w in words[:3]))
            values.append(float(words[3]))
            usable = len(hkl[-1]) == 3 and max(map(abs, hkl[-1])) < 10_000 and np.isfinite(values[-1])
        except (ValueError, IndexError):
            usable = False
        if not usable:
            raise InputError(f"{path}: line {number} is {line.strip()[:60]!r}; expected a {WHAT}")
    if not hkl:
        raise InputError(f"{path}: no reflections; expected a {WHAT}")
    F = np.array(values)
    if intensities:
        F = np.sqrt(np.maximum(F, 0.0))
    try:
        return structure_factors_from_arrays(np.array(hkl), F, space_group, default_F=default_F)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None

"""Space groups by name: symbols, operators, the change of basis to the primitive cell, and whether a cell fits.

Tables and operators come from gemmi. The change of basis to the primitive cell depends on a choice of primitive
axes; the choice here is that of cctbx (sgtbx), because mosaic block sizes count cells along those axes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import gemmi
import numpy as np
import numpy.typing as npt

from bayesbragg.model.crystal_system import RHOMBOHEDRAL, crystal_system
from bayesbragg.model.errors import InputError

__all__ = [
    "SpaceGroup",
    "cell_misfit",
    "laue_rotations",
    "lookup_space_group",
    "space_group_from_hall",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SpaceGroup:
    """A space group in one setting.

    Attributes:
        hm: Hermann-Mauguin symbol, such as ``P 43 21 2``; with ``:H``, ``:R``, ``:1``, ``:2`` where settings differ.
        number: number in the International Tables, 1 to 230.
        hall: Hall symbol as DIALS writes it: with a leading space unless it starts with a minus sign.
        to_primitive: ``h_primitive = to_primitive @ h_conventional``, ``(3, 3)``; the identity for P lattices.
        rotations: rotation parts R of all operators x' = R x + t but the centring translations, ``(n, 3, 3)``.
        translations: their translation parts t, fractions of the cell, ``(n, 3)``.
    """

    hm: str
    number: int
    hall: str
    to_primitive: FloatArray
    rotations: IntArray
    translations: FloatArray

    @property
    def crystal_system(self) -> str:
        """triclinic, monoclinic, orthorhombic, tetragonal, trigonal, hexagonal or cubic."""
        return crystal_system(self.number)

    def equivalents(self, hkl: npt.ArrayLike) -> tuple[IntArray, FloatArray]:
        """Symmetry-equivalent reflections, without Friedel mates.

        Args:
            hkl: Miller indices in this setting, ``(n, 3)``.

        Returns:
            indices h R of every operator, ``(n_operators, n, 3)``, and the phase factors' arguments -2 pi h.t that
            turn F(h) into F(h R), radian, ``(n_operators, n)``.
        """
        h = np.asarray(hkl, dtype=np.int64)
        indices = np.einsum("ni,oij->onj", h, self.rotations)
        return indices, np.asarray(-2.0 * np.pi * np.einsum("ni,oi->on", h, self.translations))

    def to_primitive_index(self, hkl: npt.ArrayLike) -> IntArray:
        """Miller indices ``(..., 3)`` in the basis of the primitive cell; of reflections that the centring allows."""
        primitive = np.asarray(hkl, dtype=float) @ self.to_primitive.T
        rounded = np.rint(primitive)
        if not np.allclose(primitive, rounded, atol=1e-6):
            raise ValueError(f"some indices are absent in the centred lattice of {self.hm}")
        return rounded.astype(np.int64)


def _all_names() -> Iterator[str]:
    for group in gemmi.spacegroup_table():
        yield group.xhm()
        yield group.short_name()


def _build(group: gemmi.SpaceGroup) -> SpaceGroup:
    hall = group.hall if group.hall.startswith("-") else " " + group.hall.strip()
    return _from_operations(group.operations(), group.xhm(), group.number, hall, group)


def _from_operations(operations: gemmi.GroupOps, hm: str, number: int, hall: str, like: gemmi.SpaceGroup) -> SpaceGroup:
    matrix = np.array(like.centred_to_primitive().rot, dtype=float).T / gemmi.Op.DEN
    rotations = np.array([op.rot for op in operations.sym_ops], dtype=np.int64) // gemmi.Op.DEN
    translations = np.array([op.tran for op in operations.sym_ops], dtype=float) / gemmi.Op.DEN
    for array in (matrix, rotations, translations):
        array.setflags(write=False)
    return SpaceGroup(hm, number, hall, matrix, rotations, translations)


@lru_cache(maxsize=256)
def lookup_space_group(symbol: str | int) -> SpaceGroup:
    """The space group of a number, a Hermann-Mauguin symbol (spaces or not) or a Hall symbol.

    A text that is both a Hermann-Mauguin and a Hall symbol counts as Hermann-Mauguin; `space_group_from_hall`
    reads Hall symbols only. A number, and a symbol without a setting, mean the standard setting.

    Raises:
        InputError: no such space group; the message names the nearest symbols.
    """
    text = str(symbol).strip()
    group = None
    if text.isdigit():
        if 1 <= int(text) <= 230:
            group = gemmi.find_spacegroup_by_number(int(text))
    elif text:
        group = gemmi.find_spacegroup_by_name(text)
    if group is not None:
        return _build(group)
    try:
        return space_group_from_hall(text)
    except InputError:
        pass
    near = difflib.get_close_matches(text.replace(" ", ""), list(dict.fromkeys(_all_names())), 3, 0.5)
    hint = (
        f"; did you mean {' or '.join(near)}?" if near else "; give a Hermann-Mauguin symbol or a number from 1 to 230"
    )
    raise InputError(f"no space group is called {symbol!r}{hint}")


@lru_cache(maxsize=256)
def space_group_from_hall(hall: str) -> SpaceGroup:
    """The space group of a Hall symbol, as in DIALS files; settings that no table lists are read by their operators.

    Raises:
        InputError: not a Hall symbol, or a lattice centred in a way that has no letter.
    """
    text = hall.strip()
    if not text:
        raise InputError("an empty Hall symbol; expected one such as 'P 4nw 2abw'")
    try:
        operations = gemmi.symops_from_hall(text)
    except (RuntimeError, ValueError, IndexError) as error:
        raise InputError(f"{hall!r} is not a Hall symbol ({error}); expected one such as 'P 4nw 2abw'") from None
    group = gemmi.find_spacegroup_by_ops(operations)
    if group is not None:
        return _build(group)
    base = gemmi.find_spacegroup_by_ops(gemmi.symops_from_hall(text.split("(")[0].strip()))
    centring = operations.find_centering()
    like = None
    if base is not None and centring in "PABCIFR":
        like = next((g for g in gemmi.spacegroup_table() if g.centring_type() == centring and g.ext != "R"), None)
    if base is None or like is None:
        raise InputError(
            f"space group with Hall symbol {hall!r}: a setting without a standard lattice letter; "
            "reindex the crystal to a standard setting (dials.reindex)"
        )
    hall = text if text.startswith("-") else " " + text
    return _from_operations(operations, f"Hall: {text}", base.number, hall, like)


def cell_misfit(cell: npt.ArrayLike, number: int, tolerance: float = 0.01) -> str | None:
    """What the symmetry asks of a cell and the cell does not keep, or None where it fits.

    Args:
        cell: a, b, c (angstrom), alpha, beta, gamma (degree), ``(6,)``.
        number: space-group number. A monoclinic cell may have any unique axis; groups with an R lattice may be in
            the hexagonal or the rhombohedral setting.
        tolerance: relative difference of lengths, and difference of angles in radian, that still counts as equal.
    """
    a, b, c, *angles = (float(x) for x in np.asarray(cell, dtype=float))
    degrees = float(np.degrees(tolerance))

    def equal(*lengths: float) -> bool:
        return max(lengths) - min(lengths) <= tolerance * max(lengths)

    def close(angle: float, value: float) -> bool:
        return abs(angle - value) <= degrees

    right = [close(x, 90.0) for x in angles]
    system = crystal_system(number)
    hexagonal = equal(a, b) and right[0] and right[1] and close(angles[2], 120.0)
    rhombohedral = equal(a, b, c) and max(angles) - min(angles) <= degrees
    fits, rule = {
        "triclinic": (True, ""),
        "monoclinic": (sum(right) >= 2, "two angles of 90 degrees"),
        "orthorhombic": (all(right), "angles of 90 degrees"),
        "tetragonal": (all(right) and equal(a, b), "a = b and angles of 90 degrees"),
        "trigonal": (
            hexagonal or (number in RHOMBOHEDRAL and rhombohedral),
            "a = b and angles 90, 90, 120 degrees" + (", or a = b = c and equal angles" * (number in RHOMBOHEDRAL)),
        ),
        "hexagonal": (hexagonal, "a = b and angles 90, 90, 120 degrees"),
        "cubic": (all(right) and equal(a, b, c), "a = b = c and angles of 90 degrees"),
    }[system]
    return None if fits else f"a {system} cell has {rule}"


def laue_rotations(number: int) -> FloatArray:
    """Proper rotations of a space group's Laue group acting on Miller indices, ``(n, 3, 3)``."""
    operators = lookup_space_group(number).rotations
    proper = np.where(np.linalg.det(operators)[:, None, None] < 0, -operators, operators)
    # h' = h R for row vectors is R^T acting on columns.
    return np.asarray(np.unique(np.rint(proper).transpose(0, 2, 1), axis=0), dtype=np.float64)

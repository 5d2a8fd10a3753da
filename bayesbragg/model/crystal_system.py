"""The seven crystal systems by space-group number (International Tables for Crystallography A)."""

from __future__ import annotations

from bayesbragg.model.errors import InputError

__all__ = ["RHOMBOHEDRAL", "crystal_system"]

_LAST = {
    "triclinic": 2,
    "monoclinic": 15,
    "orthorhombic": 74,
    "tetragonal": 142,
    "trigonal": 167,
    "hexagonal": 194,
    "cubic": 230,
}
RHOMBOHEDRAL = frozenset({146, 148, 155, 160, 161, 166, 167})
"""Space groups with an R lattice, which have a hexagonal and a rhombohedral setting."""


def crystal_system(number: int) -> str:
    """Crystal system of a space-group number (1 to 230); rhombohedral groups count as trigonal.

    Raises:
        InputError: if there is no such space group.
    """
    if not 1 <= number <= 230:
        raise InputError(f"space group number {number}: expected 1 to 230; give a number of the International Tables")
    return next(system for system, last in _LAST.items() if number <= last)

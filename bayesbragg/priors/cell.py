"""Free cell parameters of each crystal system: which of the six numbers may vary, and how the others follow.

Every constraint is the same simple map: each of a, b, c, alpha, beta, gamma is either one of the free numbers or a
constant (90 or 120 degree). Lengths in angstrom, angles in radian, as in `Parameters`. Source: International Tables
for Crystallography A, conventional cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bayesbragg.model.crystal_system import RHOMBOHEDRAL, crystal_system
from bayesbragg.model.errors import InputError

__all__ = ["CellConstraint", "crystal_system"]

Array = Any

_NAMES = ("ucell_a", "ucell_b", "ucell_c", "ucell_alpha", "ucell_beta", "ucell_gamma")
_RIGHT, _HEX = np.pi / 2, 2 * np.pi / 3

# Per system: for each of the six numbers, the position (in the six) of the free number that it equals, or a constant.
_RULES: dict[str, tuple[int | float, ...]] = {
    "triclinic": (0, 1, 2, 3, 4, 5),
    "monoclinic": (0, 1, 2, _RIGHT, 4, _RIGHT),
    "monoclinic, unique axis a": (0, 1, 2, 3, _RIGHT, _RIGHT),
    "monoclinic, unique axis c": (0, 1, 2, _RIGHT, _RIGHT, 5),
    "orthorhombic": (0, 1, 2, _RIGHT, _RIGHT, _RIGHT),
    "tetragonal": (0, 0, 2, _RIGHT, _RIGHT, _RIGHT),
    "trigonal": (0, 0, 2, _RIGHT, _RIGHT, _HEX),
    "rhombohedral": (0, 0, 0, 3, 3, 3),
    "hexagonal": (0, 0, 2, _RIGHT, _RIGHT, _HEX),
    "cubic": (0, 0, 0, _RIGHT, _RIGHT, _RIGHT),
}
_RULE_TEXT = {
    "triclinic": "no constraint",
    "monoclinic": "alpha = gamma = 90",
    "monoclinic, unique axis a": "beta = gamma = 90",
    "monoclinic, unique axis c": "alpha = beta = 90",
    "orthorhombic": "alpha = beta = gamma = 90",
    "tetragonal": "a = b, alpha = beta = gamma = 90",
    "trigonal": "a = b, alpha = beta = 90, gamma = 120",
    "rhombohedral": "a = b = c, alpha = beta = gamma, or a = b, alpha = beta = 90, gamma = 120",
    "hexagonal": "a = b, alpha = beta = 90, gamma = 120",
    "cubic": "a = b = c, alpha = beta = gamma = 90",
}


@dataclass(frozen=True)
class CellConstraint:
    """How a cell follows from its free numbers. Hashable, so that it can be part of a compilation key.

    Attributes:
        setting: the crystal system, with its setting where there is a choice.
    """

    setting: str = "triclinic"

    @classmethod
    def for_space_group(cls, number: int, cell_A_rad: npt.ArrayLike, *, tolerance: float = 1e-3) -> CellConstraint:
        """The constraint of a space group, in the setting that the cell is in.

        Args:
            number: number in the International Tables.
            cell_A_rad: a, b, c (angstrom), alpha, beta, gamma (radian), ``(6,)``. It decides between the axes of a
                monoclinic cell (b if all angles are right) and between rhombohedral and hexagonal axes.
            tolerance: largest deviation from the constraint: relative for lengths, radian for angles.

        Raises:
            InputError: if the cell does not obey the constraint of its system.
        """
        cell = _checked(cell_A_rad)
        system = crystal_system(number)
        candidates = [system]
        if system == "monoclinic":
            candidates += ["monoclinic, unique axis c", "monoclinic, unique axis a"]
        if number in RHOMBOHEDRAL:
            candidates = ["trigonal", "rhombohedral"]
        for setting in candidates:
            constraint = cls(setting)
            if constraint.deviation(cell) <= tolerance:
                return constraint
        shown = " ".join(f"{v:.6g}" for v in (*cell[:3], *np.degrees(cell[3:])))
        name = "rhombohedral" if number in RHOMBOHEDRAL else system
        raise InputError(
            f"unit cell {shown} (angstrom, degree) does not fit space group number {number}, which is {name} "
            f"({_RULE_TEXT[name]}): correct the cell, or name the space group that it belongs to"
        )

    @property
    def positions(self) -> tuple[int, ...]:
        """Positions of the free numbers among the six."""
        return tuple(i for i, rule in enumerate(_RULES[self.setting]) if isinstance(rule, int) and rule == i)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the free numbers, such as ``ucell_a``."""
        return tuple(_NAMES[i] for i in self.positions)

    def is_angle(self, name: str) -> bool:
        """Whether a free number is an angle (radian) rather than a length (angstrom)."""
        return _NAMES.index(name) >= 3

    def free(self, cell_A_rad: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Free numbers of a cell, ``(n_free,)``: the mean of those that must be equal."""
        cell = np.asarray(cell_A_rad, dtype=np.float64)
        rules = _RULES[self.setting]
        return np.array(
            [
                np.mean([cell[i] for i, rule in enumerate(rules) if isinstance(rule, int) and rule == p])
                for p in self.positions
            ]
        )

    def expand(self, free: Array) -> Array:
        """The six numbers (angstrom, radian), ``(6,)``, from the free ones; differentiable."""
        column = {p: k for k, p in enumerate(self.positions)}
        parts = [
            free[column[rule]] if isinstance(rule, int) else jnp.asarray(rule, dtype=jnp.result_type(free, float))
            for rule in _RULES[self.setting]
        ]
        return jnp.stack(parts)

    def deviation(self, cell_A_rad: npt.ArrayLike) -> float:
        """Largest deviation of a cell from the constraint: relative for lengths, radian for angles."""
        cell = np.asarray(cell_A_rad, dtype=np.float64)
        ideal = np.asarray(self.expand(self.free(cell)))
        difference = np.abs(cell - ideal)
        # The mean of two unequal lengths halves their difference: the user thinks of the difference itself.
        return float(2.0 * np.max(np.concatenate([difference[:3] / cell[:3], difference[3:]])))


def _checked(cell_A_rad: npt.ArrayLike) -> npt.NDArray[np.float64]:
    cell = np.asarray(cell_A_rad, dtype=np.float64)
    if cell.shape != (6,):
        raise InputError(f"unit cell: expected six numbers (angstrom, radian), got {cell.tolist()}")
    angles_fit = np.all((cell[3:] > 0) & (cell[3:] < np.pi))
    if not (np.all(np.isfinite(cell)) and np.all(cell[:3] > 0) and angles_fit):
        raise InputError(
            f"unit cell {cell.tolist()}: expected positive lengths (angstrom) and angles between 0 and pi (radian)"
        )
    return cell

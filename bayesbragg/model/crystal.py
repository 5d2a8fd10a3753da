"""The crystal: real-space cell vectors, their split into orientation and cell, and the space group's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Crystal", "cell_from_vectors", "cell_matrix"]

FloatArray = npt.NDArray[np.float64]


def cell_matrix(cell: npt.ArrayLike) -> FloatArray:
    """Real-space matrix B_real of a cell, columns a, b, c in angstrom, a along x and b in the xy plane.

    Args:
        cell: a, b, c (angstrom), alpha, beta, gamma (degree), ``(6,)``.
    """
    a, b, c, *angles = np.asarray(cell, dtype=float)
    ca, cb, cg = np.cos(np.radians(angles))
    sg = np.sin(np.radians(angles[2]))
    y = (ca - cb * cg) / sg
    z = np.sqrt(1.0 - cb * cb - y * y)
    return np.array([[a, b * cg, c * cb], [0.0, b * sg, c * y], [0.0, 0.0, c * z]])


def cell_from_vectors(real_space_A: npt.ArrayLike) -> FloatArray:
    """Cell lengths (angstrom) and angles (degree), ``(6,)``, of the rows a, b, c."""
    vectors = np.asarray(real_space_A, dtype=float)
    lengths = np.linalg.norm(vectors, axis=1)
    cosines = [np.dot(vectors[i], vectors[j]) / (lengths[i] * lengths[j]) for i, j in ((1, 2), (0, 2), (0, 1))]
    return np.concatenate([lengths, np.degrees(np.arccos(np.clip(cosines, -1, 1)))])


def _kept(array: npt.ArrayLike) -> FloatArray:
    """The array, not to be written to."""
    array = np.asarray(array, dtype=np.float64)
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class Crystal:
    """One lattice in its conventional setting.

    Attributes:
        real_space_A: rows are the cell vectors a, b, c in the laboratory frame, ``(3, 3)``, angstrom.
        space_group: Hermann-Mauguin symbol, such as ``P 43 21 2``.
        space_group_number: number in the International Tables, 1 to 230.
        hall_symbol: Hall symbol, as DIALS files store it.
        to_primitive: change of basis O that takes conventional Miller indices to those of the primitive cell,
            ``h_primitive = O @ h_conventional``, ``(3, 3)``; the identity for primitive lattices.
        document: the JSON object of the file that the crystal came from, or None.
    """

    real_space_A: FloatArray
    space_group: str = "P 1"
    space_group_number: int = 1
    hall_symbol: str = " P 1"
    to_primitive: FloatArray = field(default_factory=lambda: np.eye(3))
    document: Mapping[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        vectors = np.array(self.real_space_A, dtype=np.float64)
        if vectors.shape != (3, 3):
            raise ValueError(f"crystal: real-space vectors must be 3 x 3, got {vectors.shape}")
        if not np.all(np.isfinite(vectors)) or np.linalg.det(vectors) == 0:
            raise ValueError("crystal: the real-space vectors span no volume")
        vectors.setflags(write=False)
        object.__setattr__(self, "real_space_A", vectors)
        object.__setattr__(self, "to_primitive", np.array(self.to_primitive, dtype=np.float64))

    @classmethod
    def from_cell(cls, cell: npt.ArrayLike, U: npt.ArrayLike, **symmetry: Any) -> Crystal:
        """A crystal of the given cell (angstrom, degree) turned by the rotation U."""
        return cls((np.asarray(U) @ cell_matrix(cell)).T, **symmetry)

    # Worked out once: searches over orientations ask for these thousands of times. Not to be written to.
    @cached_property
    def cell(self) -> FloatArray:
        """a, b, c (angstrom), alpha, beta, gamma (degree), ``(6,)``."""
        return _kept(cell_from_vectors(self.real_space_A))

    @cached_property
    def B_real(self) -> FloatArray:
        """Columns a, b, c of the unrotated cell, ``(3, 3)``, angstrom."""
        return _kept(cell_matrix(self.cell))

    @cached_property
    def U(self) -> FloatArray:
        """Orientation: ``real_space_A.T = U @ B_real``, a proper rotation for a right-handed cell."""
        return _kept(self.real_space_A.T @ np.linalg.inv(self.B_real))

    @cached_property
    def A_reciprocal(self) -> FloatArray:
        """Columns a*, b*, c* in the laboratory frame, ``(3, 3)``, 1/angstrom."""
        return _kept(np.linalg.inv(self.real_space_A))

    def with_cell_and_orientation(self, cell: npt.ArrayLike, U: npt.ArrayLike) -> Crystal:
        """The same symmetry with another cell (angstrom, degree) and orientation."""
        return replace(self, real_space_A=(np.asarray(U) @ cell_matrix(cell)).T)

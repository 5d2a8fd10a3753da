"""Structure factors of the whole reciprocal lattice (P1, both Friedel mates), looked up by Miller index.

As the classic program has it: a dense box of indices spans the list; an index inside the box that is not listed
has amplitude 0, an index outside has `default_F`; F(000) is 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["StructureFactors"]


@dataclass(frozen=True, eq=False)
class StructureFactors:
    """Amplitudes or complex structure factors by Miller index.

    Attributes:
        hkl: every index of the sphere (expanded to P1 with Friedel mates), in the basis that the lattice sum uses
            (the primitive basis for centred lattices), ``(n, 3)``.
        F: amplitudes (real) or structure factors (complex), electrons, ``(n,)``.
        default_F: amplitude outside the box of listed indices, electrons.
        table_min, table_max: the box of listed indices, inclusive, ``(3,)``; from the list if not given.
    """

    hkl: npt.NDArray[np.int64]
    F: npt.NDArray[np.float64] | npt.NDArray[np.complex128]
    default_F: float = 0.0
    table_min: npt.NDArray[np.int64] | None = None
    table_max: npt.NDArray[np.int64] | None = None
    _keys: npt.NDArray[np.int64] = field(init=False, repr=False)
    _order: npt.NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        hkl = np.ascontiguousarray(self.hkl, dtype=np.int64)
        F = np.asarray(self.F)
        if hkl.ndim != 2 or hkl.shape[1] != 3 or len(hkl) != len(F) or len(hkl) == 0:
            raise ValueError(f"structure factors: {hkl.shape} indices and {F.shape} values do not match")
        if not np.all(np.isfinite(F)):
            raise ValueError(f"structure factors: {np.sum(~np.isfinite(F))} values are not finite numbers")
        set_ = object.__setattr__
        set_(self, "hkl", hkl)
        set_(self, "F", F.astype(np.complex128 if np.iscomplexobj(F) else np.float64))
        set_(self, "table_min", np.asarray(hkl.min(0) if self.table_min is None else self.table_min, np.int64))
        set_(self, "table_max", np.asarray(hkl.max(0) if self.table_max is None else self.table_max, np.int64))
        keys = self._key(hkl)
        order = np.argsort(keys, kind="stable")
        set_(self, "_order", order)
        set_(self, "_keys", keys[order])

    def _key(self, hkl: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        span = np.asarray(self.table_max) - np.asarray(self.table_min) + 1
        h = hkl - np.asarray(self.table_min)
        return np.asarray((h[..., 0] * span[1] + h[..., 1]) * span[2] + h[..., 2])

    def inside(self, hkl: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which indices lie inside the box of listed ones, ``(...)``."""
        h = np.asarray(hkl)
        return np.asarray(np.all((h >= self.table_min) & (h <= self.table_max), axis=-1))

    def lookup(self, hkl: npt.ArrayLike) -> npt.NDArray[np.float64] | npt.NDArray[np.complex128]:
        """Values at the indices ``(..., 3)``; see the class for indices that are not listed."""
        h = np.asarray(hkl, dtype=np.int64)
        inside = self.inside(h)
        position, found = self._places(h, inside)
        result = np.where(found, self.F[self._order[position]], 0)
        result = np.where(inside, result, self.default_F)
        result = np.where(np.all(h == 0, axis=-1), 0, result)
        return result.astype(np.complex128) if np.iscomplexobj(self.F) else result.astype(np.float64)

    def contains(self, hkl: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which indices are listed, ``(...)``."""
        h = np.asarray(hkl, dtype=np.int64)
        return self._places(h, self.inside(h))[1]

    def _places(
        self, h: npt.NDArray[np.int64], inside: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Where indices stand in the sorted list, and which of them do."""
        keys = np.where(inside, self._key(h), -1)
        position = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return position, np.asarray(inside & (self._keys[position] == keys))

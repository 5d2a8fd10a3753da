"""A table of reflections: named columns of equal length, and the identifiers that tie rows to experiments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Reflections", "Shoebox"]


@dataclass(frozen=True, eq=False)
class Shoebox:
    """The pixels cut out around one spot, as DIALS stores them.

    Attributes:
        panel: panel number.
        bbox: x0, x1, y0, y1, z0, z1 in pixels and frames, half open.
        data: raw values, ``(nz, ny, nx)``.
        mask: DIALS mask codes (bit 0 valid, 1 background, 2 foreground, 3 strong, ...), ``(nz, ny, nx)``.
        background: background values, ``(nz, ny, nx)``.
    """

    panel: int
    bbox: tuple[int, int, int, int, int, int]
    data: npt.NDArray[np.float32]
    mask: npt.NDArray[np.int32]
    background: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Reflections:
    """Columns by their DIALS names (``miller_index``, ``xyzobs.px.value``, ``panel``, ``id``, ...).

    Vector columns have a second axis: ``miller_index`` is ``(n, 3)``, ``bbox`` is ``(n, 6)``. A ``shoebox`` column is
    an object array of `Shoebox`. Columns of types nobody knows are carried as opaque bytes per row.

    Attributes:
        columns: name to array, all of the same length.
        identifiers: value of the ``id`` column to experiment identifier.
        types: DIALS type name of each column that came from a file, for writing it back unchanged.
    """

    columns: Mapping[str, npt.NDArray[Any]]
    identifiers: Mapping[int, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"reflection columns differ in length: {lengths}")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        try:
            return self.columns[name]
        except KeyError:
            raise KeyError(f"no column {name!r}; there are: {', '.join(sorted(self.columns))}") from None

    def select(self, rows: npt.ArrayLike) -> Reflections:
        """The rows of a boolean mask or an index array, in that order."""
        rows = np.asarray(rows)
        return Reflections({k: v[rows] for k, v in self.columns.items()}, self.identifiers, self.types)

    def with_columns(self, **columns: npt.NDArray[Any]) -> Reflections:
        """A copy with columns added or replaced; write dots in names as ``with_columns(**{"a.b": ...})``."""
        return Reflections({**self.columns, **columns}, self.identifiers, self.types)

    def without_columns(self, names: Iterable[str]) -> Reflections:
        drop = set(names)
        kept = {k: v for k, v in self.columns.items() if k not in drop}
        return Reflections(kept, self.identifiers, {k: v for k, v in self.types.items() if k not in drop})

    def renamed(self, names: Mapping[str, str]) -> Reflections:
        """Columns renamed, old name to new name; names that are not there are ignored."""
        columns = {names.get(k, k): v for k, v in self.columns.items()}
        return Reflections(columns, self.identifiers, {names.get(k, k): v for k, v in self.types.items()})

"""Pickled pandas tables: read by stand-ins whatever pandas wrote them, written so that old pandas reads them.

A pickled DataFrame is a block manager: axes (column names, row labels) and blocks, each a 2-D array of the columns
that share a number type with the places of those columns. That layout has been the same since pandas 0.14; only the
names around it moved.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Iterator
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from bayesbragg.io.safe_pickle import MALFORMED, StandIn, allowance, numpy_globals, plain, restricted_load
from bayesbragg.model.errors import InputError

__all__ = ["frame_from_pickle", "frame_to_pickle"]

WHAT = "table of shots (a pickled pandas DataFrame)"
REMEDY = "write the table again, as Parquet if you can"


class _Index(StandIn):
    def __init__(self, data: Any = None) -> None:
        self.data = data

    def __setstate__(self, state: Any) -> None:
        self.data = state.get("data") if isinstance(state, dict) else state[0]

    def labels(self, left: Iterator[int]) -> list[Any]:
        values = np.asarray(plain(self.data, left)).tolist()
        return [x.item() if isinstance(x, np.generic) else x for x in values]


class _RangeIndex(_Index):
    pass


def _new_index(kind: Any, state: Any) -> _Index:
    if kind is _RangeIndex:
        start, stop, step = (int(state[k]) for k in ("start", "stop", "step"))
        if len(range(start, stop, step)) > 10**7:
            raise ValueError("an index of more than ten million rows")
        return _Index(np.arange(start, stop, step))
    return _Index(state["data"])


class _Block:
    def __init__(self, values: Any, placement: Any, ndim: Any = 2, **_: Any) -> None:
        self.values, self.placement = values, placement


class _Manager(StandIn):
    """Block manager; old pandas gives its content as a state, new pandas as arguments."""

    def __init__(self, blocks: Any = (), axes: Any = (), *_: Any) -> None:
        self.blocks, self.axes = blocks, axes

    def __setstate__(self, state: Any) -> None:
        content = state[-1]["0.14.1"]
        self.axes = content["axes"]
        self.blocks = [_Block(b["values"], b["mgr_locs"]) for b in content["blocks"]]


class _Frame(StandIn):
    def __init__(self) -> None:
        self.manager: Any = None

    def __setstate__(self, state: Any) -> None:
        self.manager = state["_mgr"] if "_mgr" in state else state["_data"]


def _globals() -> dict[tuple[str, str], Any]:
    indexes = {
        "Index": ("pandas", "pandas.core.indexes.base", "pandas.core.index"),
        "Int64Index": ("pandas.core.indexes.numeric", "pandas.core.index"),
        "Float64Index": ("pandas.core.indexes.numeric", "pandas.core.index"),
    }
    table = numpy_globals()
    table |= {(module, name): _Index for name, modules in indexes.items() for module in modules}
    table |= {(module, "RangeIndex"): _RangeIndex for module in ("pandas", "pandas.core.indexes.range")}
    table |= {(module, "DataFrame"): _Frame for module in ("pandas", "pandas.core.frame")}
    table |= {(f"pandas.core.internals{m}", "BlockManager"): _Manager for m in ("", ".managers")}
    table |= {(f"pandas.core.{m}", "_new_Index"): _new_index for m in ("indexes.base", "index")}
    table["pandas._libs.internals", "_unpickle_block"] = _Block
    table["pandas.core.internals.blocks", "new_block"] = _Block
    return table


def frame_from_pickle(data: bytes, path: str | os.PathLike[str]) -> pd.DataFrame:
    """The table of a pickle.

    Raises:
        InputError: the pickle is damaged, is no table, or asks for anything but the parts of a table.
    """
    found = restricted_load(data, _globals(), path, WHAT, REMEDY)
    if not isinstance(found, _Frame):
        raise InputError(f"{path}: a pickle of something else; expected a {WHAT}; {REMEDY}")
    try:
        return _assemble(found, allowance(data))
    except MALFORMED as error:
        raise InputError(f"{path}: {' '.join(str(error).split())[:120]}; expected a {WHAT}; {REMEDY}") from None


def _assemble(frame: _Frame, left: Iterator[int]) -> pd.DataFrame:
    names, rows = (axis.labels(left) for axis in frame.manager.axes[:2])
    columns: list[npt.NDArray[Any] | None] = [None] * len(names)
    for block in frame.manager.blocks:
        values = plain(block.values, left)
        where = block.placement
        places = (
            range(*where.indices(len(names))) if isinstance(where, slice) else np.asarray(plain(where, left)).tolist()
        )
        if not isinstance(values, np.ndarray) or values.shape != (len(places), len(rows)):
            raise ValueError(f"a block of shape {np.shape(values)} for {len(places)} columns of {len(rows)} rows")
        for place, column in zip(places, values, strict=True):
            columns[place] = column
    if any(c is None for c in columns):
        raise ValueError("columns without values")
    series = [pd.Series(c, dtype=c.dtype, index=rows) for c in columns if c is not None]
    if not series:
        return pd.DataFrame(index=rows)
    table = pd.concat(series, axis=1)
    table.columns = pd.Index(names, dtype=object)
    return table


class _OldNames(pickle._Pickler):
    """Writes the names that numpy's parts had before numpy 2, which numpy 2 still knows."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = getattr(obj, "__module__", None) or ""
        if not module.startswith("numpy._core."):
            cast(Any, super()).save_global(obj, name)
            return
        old = module.replace("numpy._core.", "numpy.core.", 1)
        cast(Any, self).write(pickle.GLOBAL + f"{old}\n{obj.__qualname__}\n".encode())
        cast(Any, self).memoize(obj)

    dispatch: ClassVar[dict[Any, Any]] = dict(cast(Any, pickle._Pickler).dispatch)
    dispatch[type(pickle.loads)] = dispatch[type(frame_from_pickle)] = save_global


def _objects(column: Any) -> npt.NDArray[Any]:
    """The cells of a column of an extension type, None where missing."""
    cells = np.empty(len(column), dtype=object)
    cells[:] = [None if missing else x for x, missing in zip(column, column.isna(), strict=True)]
    return cells


def frame_to_pickle(table: pd.DataFrame) -> bytes:
    """A pickle of a table that pandas 1 and 2 read too: no extension types, old names, protocol 4."""
    columns = {}
    for place, name in enumerate(table.columns):
        column = table.iloc[:, place]
        simple = isinstance(column.dtype, np.dtype)
        values = column.to_numpy() if simple else _objects(column)
        columns[name] = pd.Series(values, dtype=values.dtype)
    plain_table = pd.DataFrame(columns) if columns else pd.DataFrame(index=range(len(table)))
    plain_table.columns = pd.Index([str(c) for c in columns], dtype=object)
    buffer = io.BytesIO()
    _OldNames(buffer, protocol=4).dump(plain_table)
    return buffer.getvalue()

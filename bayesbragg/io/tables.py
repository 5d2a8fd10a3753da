"""The table of shots: one row per shot, in files that old scripts and new ones read.

`write_table` writes ``hopper_process_summary.pkl`` (a pandas pickle, for old scripts) and the same as Parquet. While a
run goes on, `bayesbragg.io.table_rows` leaves one file per finished shot, from which `rebuild_table` makes the table
again after a crash. Pickles are read by `bayesbragg.io.frame_pickle`, which runs nothing of them.
"""

from __future__ import annotations

import glob
import io
import logging
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from bayesbragg.io.files import read_bytes, write_bytes
from bayesbragg.io.frame_pickle import frame_from_pickle, frame_to_pickle
from bayesbragg.io.table_rows import ROW_FOLDER, plain_cell, uniform
from bayesbragg.model.errors import InputError

__all__ = ["TABLE_NAME", "read_table", "rebuild_table", "write_table"]

TABLE_NAME = "hopper_process_summary"
WHAT = "table of shots (.parquet or .pkl)"

log = logging.getLogger(__name__)


def _to_parquet(table: pd.DataFrame) -> bytes:
    columns: dict[str, Any] = {}
    for place, name in enumerate(table.columns):
        column = table.iloc[:, place]
        if column.dtype != object:
            columns[str(name)] = column.reset_index(drop=True)
            continue
        columns[str(name)] = pd.Series(uniform(name, [plain_cell(x) for x in column]), dtype=object)
    buffer = io.BytesIO()
    pd.DataFrame(columns).to_parquet(buffer, engine="pyarrow", index=False)
    return buffer.getvalue()


def _read_file(path: Path) -> pd.DataFrame:
    data = read_bytes(path, WHAT)
    if not data.startswith(b"PAR1"):
        if path.suffix == ".parquet":
            raise InputError(f"{path}: not a Parquet file, or cut short; expected a {WHAT}; write it again")
        return frame_from_pickle(data, path)
    try:
        table = pd.read_parquet(io.BytesIO(data), engine="pyarrow")
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: {reason}; expected a {WHAT}; write it again") from None
    for name, dtype in table.dtypes.items():
        if pd.api.types.is_string_dtype(dtype) and not pd.api.types.is_object_dtype(dtype):
            # One kind of text column, whatever pandas reads it: objects, None where missing.
            texts = [None if pd.isna(x) else x for x in table[name]]
            table[name] = pd.Series(texts, index=table.index, dtype=object)
    return table


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        for name in (f"{TABLE_NAME}.parquet", f"{TABLE_NAME}.pkl"):
            if (path / name).is_file():
                return [path / name]
        for folder in (path / ROW_FOLDER, path):
            for pattern in ("*.parquet", "*.pkl"):
                found = sorted(p for p in folder.rglob(pattern) if not p.name.startswith("."))
                if found:
                    return found
        raise InputError(f"{path}: no {WHAT} in this folder; give the output folder of a refinement")
    if not path.exists() and glob.has_magic(str(path)):
        found = sorted(Path(p) for p in glob.glob(str(path), recursive=True))
        if not found:
            raise InputError(f"{path}: no file of that pattern; expected {WHAT}s")
        return found
    return [path]


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """A table of shots.

    Args:
        path: a ``.pkl`` or ``.parquet`` file; a folder, whose summary is read, or where there is none the rows of its
            shots; or a pattern such as ``run*/hopper_process_summary.pkl``, whose tables are joined.

    Raises:
        InputError: nothing there, a damaged file, or a pickle of something else (nothing of it is run).
    """
    tables = [_read_file(p) for p in _files_of(Path(path))]
    return tables[0] if len(tables) == 1 else _joined(tables)


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    names = list(dict.fromkeys(name for t in tables for name in t.columns))
    # Columns are joined cell by cell: pandas.concat would warn about, and change, columns that are empty in some.
    columns = {}
    for name in names:
        parts = [t[name].tolist() if name in t.columns else [None] * len(t) for t in tables]
        kinds = {str(t[name].dtype) if name in t.columns else "missing" for t in tables}
        cells = [x for part in parts for x in part]
        dtype = next(iter(kinds)) if len(kinds) == 1 and "object" not in kinds else None
        columns[name] = pd.Series(cells, dtype=dtype) if dtype else pd.Series(cells, dtype=object).infer_objects()
    return pd.DataFrame(columns)


def write_table(table: pd.DataFrame, path: str | os.PathLike[str]) -> list[Path]:
    """Write a table of shots, atomically.

    Args:
        table: the table; cells may be lists, tuples and arrays.
        path: a ``.pkl`` or ``.parquet`` file; anything else is a folder, which gets both.

    Returns:
        the files that were written.
    """
    path = Path(path)
    if path.suffix in (".pkl", ".pickle"):
        write_bytes(path, frame_to_pickle(table))
        return [path]
    if path.suffix == ".parquet":
        write_bytes(path, _to_parquet(table))
        return [path]
    return [*write_table(table, path / f"{TABLE_NAME}.pkl"), *write_table(table, path / f"{TABLE_NAME}.parquet")]


def rebuild_table(folder: str | os.PathLike[str]) -> pd.DataFrame:
    """Make the table of a run from the rows of its shots, write it, and return it. Damaged rows are left out.

    Raises:
        InputError: the folder has no whole rows.
    """
    files = sorted(p for p in (Path(folder) / ROW_FOLDER).rglob("*.parquet") if not p.name.startswith("."))
    rows = []
    for file in files:
        try:
            rows.append(_read_file(file))
        except InputError as error:
            log.warning("a row is left out: %s", error)
    if not rows:
        raise InputError(
            f"{Path(folder) / ROW_FOLDER}: no rows of finished shots; give the output folder of a refinement"
        )
    table = _joined(rows)
    write_table(table, folder)
    return table

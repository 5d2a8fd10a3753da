"""Rows of finished shots, one Parquet file each, from which `bayesbragg.io.tables` makes the table of a run.

Written while a run goes on, and without pandas, which takes a while to be imported.
"""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bayesbragg.io.files import write_bytes

__all__ = ["ROW_FOLDER", "plain_cell", "row_path", "uniform", "write_row"]

ROW_FOLDER = "pandas"
"""Subfolder of the rows in the output folder, with the name that the classic program gave it."""

log = logging.getLogger(__name__)


def plain_cell(value: Any) -> Any:
    """A cell as plain lists and numbers, which Parquet holds."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (list, tuple)):
        return [plain_cell(x) for x in value]
    return value


def uniform(name: Any, cells: list[Any]) -> list[Any]:
    """Plain cells of one kind, which is text where they are of several."""
    try:
        pa.array(cells, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        log.warning("column %r holds values of several kinds; Parquet keeps them as JSON text", name)
        return [None if x is None else json.dumps(x, default=str) for x in cells]
    return cells


def row_path(folder: str | os.PathLike[str], name: str) -> Path:
    """The file of one finished shot's row: names that differ have files that differ, in whatever script."""
    return Path(folder) / ROW_FOLDER / f"{name.replace('/', '_')}.parquet"


def write_row(row: Mapping[str, Any], folder: str | os.PathLike[str], name: str) -> Path:
    """Write the row of one finished shot as ``folder/pandas/name.parquet``, atomically."""
    path = row_path(folder, name)
    buffer = io.BytesIO()
    cells = {key: pa.array(uniform(key, [plain_cell(value)])) for key, value in row.items()}
    pq.write_table(pa.table(cells), buffer)
    write_bytes(path, buffer.getvalue())
    return path

"""The table of shots with the error bars of their posteriors, beside the table that the run itself wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bayesbragg.io.tables import read_table, write_table

__all__ = ["POSTERIOR_TABLE", "rows_of", "with_posteriors", "write_posteriors"]

POSTERIOR_TABLE = "posterior_summary"

Row = dict[str, Any]


def rows_of(table: Any) -> list[Row]:
    """The rows of a table of shots (a data frame)."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def with_posteriors(rows: Sequence[Row], folder: Path) -> list[Row]:
    """The rows of a run, with error bars where the folder holds posteriors of these very fits."""
    known = _known(folder)
    return [known.get(_fit(row), row) for row in rows]


def write_posteriors(table: Any, columns: Mapping[str, Sequence[Row]], folder: Path) -> Path:
    """Write the table; posteriors of other shots that it held stay in it.

    Args:
        table: of the run.
        columns: of the posteriors by shot, for each of its lattices.
    """
    known, found = _known(folder), []
    for row in rows_of(table):
        tag, lattice, _ = fit = _fit(row)
        if tag in columns:
            found.append(row | columns[tag][lattice])
        elif fit in known:
            found.append(known[fit])
    for ending in (".pkl", ".parquet"):
        write_table(type(table)(found), folder / f"{POSTERIOR_TABLE}{ending}")
    return folder / f"{POSTERIOR_TABLE}.parquet"


def _known(folder: Path) -> dict[tuple[Any, ...], Row]:
    path = folder / f"{POSTERIOR_TABLE}.parquet"
    return {_fit(row): row for row in rows_of(read_table(path))} if path.is_file() else {}


def _fit(row: Mapping[str, Any]) -> tuple[str, int, Any]:
    """What tells a fit from others of the same shot: a posterior belongs to one."""
    lattice = row.get("exp_idx")
    return str(row.get("tag")), 0 if lattice is None or lattice != lattice else int(lattice), row.get("target")

"""Shots of a joint fit from the table of an earlier run: their files, and where their fits start."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bayesbragg.io.phil import ResolvedParameters
from bayesbragg.io.tables import read_table
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.geometry_job import ShotRow
from bayesbragg.pipeline.shot_files import ShotFiles, stem, unique_tags

__all__ = ["table_rows"]

log = logging.getLogger(__name__)

IDX = "idx-"
"""The classic program puts it before its file names."""


def table_rows(parameters: ResolvedParameters) -> list[ShotRow]:
    """The shots of the table.

    Raises:
        InputError: no table, a row without files or with numbers that are none.
    """
    geometry = parameters.geometry
    given = geometry.input_pkl or geometry.input_pkl_glob
    if not given:
        raise InputError("no shots: give the table of an earlier run, input_pkl=FOLDER/hopper_process_summary.pkl")
    source = parameters.path(given)
    assert source is not None
    table = read_table(source)
    n = geometry.first_n
    if parameters.max_process is not None and parameters.max_process >= 0:
        n = parameters.max_process if n is None else min(n, parameters.max_process)
    records = table.to_dict("records")[:n]
    if not records:
        raise InputError(f"{source}: no shots in it (after first_n and max_process)")
    grouped: dict[str, list[dict[str, Any]]] = {}
    for number, record in enumerate(records):
        key = str(record.get("opt_exp_name") or record.get("exp_name"))
        grouped.setdefault(key, []).append({str(k): v for k, v in record.items()} | {"_row": number})
    rows = [_row(lattices, source, geometry.refls_key) for lattices in _refined(grouped, source)]
    # Several runs in one table may have shots of one name, whose files would overwrite each other.
    tags = [files.tag for files in unique_tags(ShotFiles(r.experiments, r.reflections, tag=r.tag) for r in rows)]
    return [replace(row, tag=tag) for row, tag in zip(rows, tags, strict=True)]


def _refined(grouped: dict[str, list[dict[str, Any]]], source: Path) -> list[list[dict[str, Any]]]:
    """The shots without those that hold a crystal and no fit, as a run over stills leaves them where a fit failed."""
    found = []
    for name, lattices in grouped.items():
        if any(_missing(row.get(column)) for row in lattices for column in ("ncells", "spot_scales")):
            log.warning("%s: row %d: %s was not refined, and is left out", source, lattices[0]["_row"], name)
        else:
            found.append(lattices)
    # None at all is another table, of which the first row says what is wrong.
    return found or list(grouped.values())


def _missing(value: Any) -> bool:
    """Whether a table has no value there."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _row(lattices: list[dict[str, Any]], source: Path, refls_key: str) -> ShotRow:
    first = lattices[0]
    where = f"{source}: row {first['_row']}"
    names = [first.get("opt_exp_name") or first.get("exp_name"), first.get(refls_key)]
    for name, column in zip(names, ("exp_name", refls_key), strict=True):
        if not isinstance(name, str) or not name:
            raise InputError(f"{where}: no file in column {column}; give the table of shots of an earlier run")
    experiments, reflections = (_find(str(name), source, where) for name in names)
    try:
        start: dict[str, Any] = {
            "n_abc": np.array([row["ncells"] for row in lattices], dtype=float).reshape(len(lattices), 3).tolist(),
            "G": [float(row["spot_scales"]) for row in lattices],
            "n_def": [_optional(row, "ncells_def", (0, 0, 0)) for row in lattices],
            "eta_deg": _optional(first, "eta_abc", (0, 0, 0)),
            "eta_def_deg": _optional(first, "eta_def", (0, 0, 0)),
            "lambda_offset_A": _optional(first, "lam0", 0.0),
            "lambda_scale": _optional(first, "lam1", 1.0),
            "gamma_A": _optional(first, "diffuse_gamma", (1, 1, 1)),
            "sigma_A": _optional(first, "diffuse_sigma", (0.01,) * 3),
            "b_factor_A2": _optional(first, "B", 0.0),
        }
    except KeyError as error:
        raise InputError(f"{where}: no column {error.args[0]!r}; give the table of shots of an earlier run") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: unreadable ({error}); give the table of shots of an earlier run") from None
    flat = [v for value in start.values() for v in np.ravel(value)]
    if not all(math.isfinite(v) for v in flat):
        raise InputError(f"{where}: a start value is not a finite number; leave the row out or refine the shot again")
    if start["lambda_scale"] <= 0:
        raise InputError(f"{where}: lam1 = {start['lambda_scale']} must be positive")
    tag = str(first.get("tag") or stem(experiments)).removeprefix(IDX)
    return ShotRow(tag, experiments, reflections, start, tuple(row["_row"] for row in lattices))


def _optional(row: dict[str, Any], name: str, default: Any) -> Any:
    """Numbers of a column that old tables lack; in tables that were joined it is there, and empty in their rows."""
    value = row.get(name)
    return np.array(default if _missing(value) else value, dtype=float).tolist()


def _find(name: str, source: Path, where: str) -> Path:
    """A file of the table: as named, else beside the table, with or without the classic prefix."""
    path = Path(name)
    folder = source if source.is_dir() else source.parent
    candidates = [path, folder.parent / path, folder / path, folder / path.name]
    candidates += [folder / path.name.removeprefix(IDX)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise InputError(f"{where}: {name}: no such file here or beside the table; run where the table's names hold")

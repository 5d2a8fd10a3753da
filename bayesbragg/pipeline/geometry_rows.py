"""Shots of a joint fit from the table of an earlier run: their files, and where their fits start."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from bayesbragg.io.phil import ResolvedParameters
from bayesbragg.io.tables import read_table
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.geometry_job import ShotRow
from bayesbragg.pipeline.shot_files import stem

__all__ = ["table_rows"]

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
    return [_row(lattices, source, geometry.refls_key) for lattices in grouped.values()]


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
            "n_def": np.array([row.get("ncells_def", (0, 0, 0)) for row in lattices], dtype=float).tolist(),
            "eta_deg": np.array(first.get("eta_abc", (0, 0, 0)), dtype=float).tolist(),
            "eta_def_deg": np.array(first.get("eta_def", (0, 0, 0)), dtype=float).tolist(),
            "lambda_offset_A": float(first.get("lam0", 0.0)),
            "lambda_scale": float(first.get("lam1", 1.0)),
            "gamma_A": np.array(first.get("diffuse_gamma", (1, 1, 1)), dtype=float).tolist(),
            "sigma_A": np.array(first.get("diffuse_sigma", (0.01,) * 3), dtype=float).tolist(),
            "b_factor_A2": float(first.get("B", 0.0) or 0.0),
        }
    except KeyError as error:
        raise InputError(f"{where}: no column {error.args[0]!r}; give the table of shots of an earlier run") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: unreadable ({error}); give the table of shots of an earlier run") from None
    flat = [v for value in start.values() for v in np.ravel(value)]
    if not all(math.isfinite(v) for v in flat):
        raise InputError(f"{where}: a start value is not a finite number; leave the row out or refine the shot again")
    if float(first.get("lam1", 1.0)) <= 0:
        raise InputError(f"{where}: lam1 = {first['lam1']} must be positive")
    tag = str(first.get("tag") or stem(experiments)).removeprefix(IDX)
    return ShotRow(tag, experiments, reflections, start)


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

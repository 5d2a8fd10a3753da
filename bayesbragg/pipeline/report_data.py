"""What a report reads: the record, the table, the log and the results in the folder of a run, finished or under way.

Nothing of it is needed: a run that has just begun has a log only, one that was killed has rows but no record. Failures
of a run without a record come from its log, which names shot, status and reason on a line.
"""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesbragg.io.tables import TABLE_NAME, read_table
from bayesbragg.model.errors import InputError
from bayesbragg.model.fit import FitStatus
from bayesbragg.pipeline.stills_process import StillStatus
from bayesbragg.pipeline.stills_write import read_records
from bayesbragg.pipeline.write import MODELERS

__all__ = ["Outcome", "RunData", "column", "read_run_data"]

FloatArray = npt.NDArray[np.float64]
Row = dict[str, Any]

RECORD, LOG, ROWS = "run.json", "bayesbragg.log", "pandas"
POSTERIOR = "posterior_summary.parquet"
QUIET_S = 180.0
"""A run without a word for so long is not thought to go on."""

_LINE = re.compile(r"^\S+ \S+ INFO +bayesbragg\S*: (?P<tag>[^:]+): (?P<status>bad input|error|no \w+): (?P<reason>.*)$")
_TOTAL = re.compile(r" INFO +bayesbragg\S*: (?:device: .*; )?(\d+) (?:shots|tasks)(?:,.*)?$")
_DEVICE = re.compile(r" INFO +bayesbragg\S*: device: ([^;]*)")
_COMMAND = re.compile(r" bayesbragg: command: (.*)$")


@dataclass(frozen=True)
class Outcome:
    """How one shot went: its tag, status, the reason in a line, and the seconds that it took (0 if unknown)."""

    tag: str
    status: str
    reason: str
    seconds: float = 0.0

    @property
    def empty(self) -> bool:
        """Whether the still shows no crystal: no fault of anything."""
        return self.status in _EMPTY

    @property
    def failed(self) -> bool:
        return self.status not in (*_GOOD, *_EMPTY, FitStatus.ITERATION_LIMIT.value, FitStatus.STALLED.value)


_EMPTY = (StillStatus.NO_SPOTS.value, StillStatus.NOT_A_HIT.value, StillStatus.FEW_SPOTS.value)
_GOOD: tuple[str, ...] = (
    FitStatus.CONVERGED.value,
    "existing",
    "finished",
    StillStatus.INTEGRATED.value,
    StillStatus.REFINED.value,
)
_GOOD += (StillStatus.INDEXED.value, StillStatus.SPOTS.value)


@dataclass(frozen=True, eq=False)
class RunData:
    """A run as its folder tells it.

    Attributes:
        folder: where it is.
        kind: ``refine``, ``geometry-refine`` or ``stills-process``.
        state: ``finished``, ``running`` or ``stopped`` (no record, and nothing has happened for a while).
        record: of ``run.json``; empty where there is none.
        rows: of the table of shots.
        outcomes: of every shot that is known of.
        stills: records of raw stills, where the run began with images.
        n_shots: shots that the run was asked for, where known, else those known of.
        finished_at: times at which rows were written, seconds since 1970, sorted.
        posterior: rows of the table of posteriors.
        panels: rows of the table of panel groups (radian, metre).
        identifiability: the text of a joint geometry fit.
        modelers: files of pixels with their model.
        command, device: as the record or the log has them.
    """

    folder: Path
    kind: str
    state: str
    record: dict[str, Any]
    rows: list[Row]
    outcomes: tuple[Outcome, ...]
    stills: list[Row]
    n_shots: int
    finished_at: FloatArray
    posterior: list[Row]
    panels: list[dict[str, float]]
    identifiability: str
    modelers: tuple[Path, ...]
    command: str
    device: str

    def row_of(self, tag: str) -> Row | None:
        """The first row of a shot."""
        return next((row for row in self.rows if str(row.get("tag")) == tag), None)


def read_run_data(folder: Path) -> RunData:
    """Everything that the folder of a run holds.

    Raises:
        InputError: no such folder, or nothing of a run in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the output folder of a run")
    record = _json(folder / RECORD)
    log = _log_lines(folder / LOG)
    stills = read_records(folder)
    done = (folder / "records").glob("*.json") if stills else (folder / ROWS).glob("*.parquet")
    written = np.sort([path.stat().st_mtime for path in done])
    recorded = (folder / RECORD).stat().st_mtime if record else 0.0
    last = max([recorded, *written[-1:], _mtime(folder / LOG)])
    complete = bool(record) and record.get("state", "finished") == "finished"
    complete = complete and not (len(written) and written[-1] > recorded + 2.0)
    state = "finished" if complete else "running" if time.time() - last < QUIET_S else "stopped"
    rows = _table(folder, complete)
    outcomes = _of_stills(stills) if stills else _outcomes(record, rows, log, complete)
    if not (record or rows or outcomes or log):
        raise InputError(
            f"{folder}: neither {RECORD} nor {LOG} nor rows of shots in it; give the output folder of a run"
        )
    total = _first(_TOTAL, log)
    command = " ".join(str(word) for word in record.get("command", [])) or _first(_COMMAND, log)
    return RunData(
        folder=folder,
        kind=_kind(command, folder),
        state=state,
        record=record,
        rows=rows,
        outcomes=outcomes,
        stills=stills,
        n_shots=max(int(total) if total and not complete else 0, len(outcomes)),
        finished_at=np.asarray(written, dtype=np.float64),
        posterior=_rows_of(folder / POSTERIOR),
        panels=_panels(folder / "panels.csv"),
        identifiability=_text(folder / "identifiability.txt"),
        modelers=tuple(sorted((folder / MODELERS).glob("*_modeler.npz"))),
        command=command,
        device=str(record.get("device") or _first(_DEVICE, log)),
    )


def column(rows: Sequence[Row], name: str, place: int | None = None) -> FloatArray:
    """Numbers of a column, or of one place in a column of several numbers; not a number where there is none."""
    values = []
    for row in rows:
        value = row.get(name)
        try:
            if place is not None:
                value = None if value is None else value[place]
            values.append(np.nan if value is None else float(value))
        except (TypeError, ValueError, IndexError):
            values.append(np.nan)
    return np.array(values, dtype=np.float64)


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _log_lines(path: Path) -> list[str]:
    """The log from its last command on: later runs append to it."""
    lines = _text(path).splitlines()
    starts = [i for i, line in enumerate(lines) if _COMMAND.search(line)]
    return lines[starts[-1] :] if starts else lines


def _first(pattern: re.Pattern[str], lines: Sequence[str]) -> str:
    return next((found[1] for line in lines if (found := pattern.search(line))), "")


def _rows_of(path: Path) -> list[Row]:
    try:
        return [{str(k): v for k, v in row.items()} for row in read_table(path).to_dict("records")]
    except (InputError, OSError):
        return []


def _table(folder: Path, complete: bool) -> list[Row]:
    """The table of a run that is complete, else the rows of the shots that are done."""
    if not complete and (folder / ROWS).is_dir():
        return _rows_of(folder / ROWS)
    if any((folder / f"{TABLE_NAME}{ending}").is_file() for ending in (".parquet", ".pkl")):
        return _rows_of(folder)
    return _rows_of(folder / ROWS) if (folder / ROWS).is_dir() else []


def _outcomes(record: dict[str, Any], rows: Sequence[Row], log: Sequence[str], complete: bool) -> tuple[Outcome, ...]:
    """Outcomes by shot: those of rows, then those of the record, or of the log while there is none."""
    found: dict[str, Outcome] = {}
    for row in rows:
        tag = str(row.get("tag") or row.get("exp_name") or len(found))
        found[tag] = Outcome(tag, str(row.get("status") or "finished"), str(row.get("reason") or ""))
    if complete:
        for shot in record.get("shots", []):
            tag, status = str(shot.get("tag")), str(shot.get("status"))
            if status == "existing" and tag in found:
                continue
            found[tag] = Outcome(tag, status, str(shot.get("reason", "")), float(shot.get("seconds") or 0.0))
    else:
        for line in log:
            if match := _LINE.match(line):
                found[match["tag"]] = Outcome(match["tag"], match["status"], match["reason"])
    return tuple(found.values())


def _of_stills(records: Sequence[Row]) -> tuple[Outcome, ...]:
    return tuple(
        Outcome(str(r["tag"]), str(r.get("status")), str(r.get("reason") or ""), float(r.get("seconds") or 0.0))
        for r in records
    )


def _panels(path: Path) -> list[dict[str, float]]:
    lines = [line for line in _text(path).splitlines() if line and not line.startswith("#")]
    try:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]
    except (ValueError, TypeError):
        return []


def _kind(command: str, folder: Path) -> str:
    for kind in ("geometry-refine", "stills-process", "refine"):
        if f" {kind}" in f" {command}":
            return kind
    return "geometry-refine" if (folder / "panels.csv").is_file() else "refine"

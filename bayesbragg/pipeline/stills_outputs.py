"""What a run over stills leaves as a whole: one structured log, composite files, and unmerged intensities."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bayesbragg.io.crystfel_stream import write_stream
from bayesbragg.io.experiments import read_experiments, write_experiments
from bayesbragg.io.files import write_bytes
from bayesbragg.io.matching import match
from bayesbragg.io.reflections import read_reflections, write_reflections
from bayesbragg.io.unmerged_mtz import write_unmerged_mtz
from bayesbragg.model import Experiment, Reflections
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.stills_write import ENDINGS, PREFIX

__all__ = [
    "LOG",
    "MTZ",
    "STREAM",
    "integrated_lattices",
    "join_tables",
    "write_composite",
    "write_log",
    "write_unmerged",
]

LOG, MTZ, STREAM = "stills.jsonl", "integrated.mtz", "integrated.stream"
COMPOSITE = f"{PREFIX}0000"

log = logging.getLogger(__name__)


def write_log(records: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write the structured log: one JSON object in each line, one line for each still, by tag."""
    lines = [json.dumps(dict(record)) for record in sorted(records, key=lambda r: str(r["tag"]))]
    write_bytes(folder / LOG, ("\n".join(lines) + "\n").encode())
    return folder / LOG


def integrated_lattices(records: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Experiment, Reflections]]:
    """Experiment and integrated reflections of every lattice, read one still at a time, by tag.

    A file that cannot be read is left out with a warning.
    """
    for record in sorted(records, key=lambda r: str(r["tag"])):
        files = record.get("files") or {}
        if "integrated" not in files:
            continue
        try:
            groups = match(read_experiments(files["integrated_expt"]), read_reflections(files["integrated"]))
        except InputError as error:
            log.warning("%s (left out)", error)
            continue
        for group in groups:
            lattice = np.asarray(group.reflections["id"])
            for number, experiment in enumerate(group.experiments):
                yield experiment, group.reflections.select(lattice == number)


def write_unmerged(records: Sequence[Mapping[str, Any]], folder: Path) -> tuple[int, int]:
    """Write ``integrated.mtz`` and ``integrated.stream``; returns the numbers of lattices and reflections."""
    if not any("integrated" in (record.get("files") or {}) for record in records):
        return 0, 0
    write_stream(integrated_lattices(records), folder / STREAM)
    return write_unmerged_mtz(integrated_lattices(records), folder / MTZ)


def write_composite(records: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """One file of each kind for the whole run: ``idx-0000_strong.refl``, ``idx-0000_refined.expt`` and so on.

    A file that cannot be read is left out with a warning.
    """
    written: list[Path] = []
    all_files = [record.get("files") or {} for record in sorted(records, key=lambda r: str(r["tag"]))]
    for table, lists in (("indexed", "refined"), ("integrated", "integrated_expt")):
        experiments: list[Experiment] = []
        parts: list[Reflections] = []
        for files in all_files:
            if lists not in files:
                continue
            try:
                here, rows = read_experiments(files[lists]), read_reflections(files[table])
            except InputError as error:
                log.warning("%s (left out)", error)
                continue
            parts.append(_renumbered(rows, len(experiments)))
            experiments += [_shared(experiment, experiments) for experiment in here]
        if not experiments:
            continue
        write_experiments(experiments, folder / f"{COMPOSITE}{ENDINGS[lists]}")
        write_reflections(join_tables(parts), folder / f"{COMPOSITE}{ENDINGS[table]}")
        written += [folder / f"{COMPOSITE}{ENDINGS[kind]}" for kind in (lists, table)]
    strong: list[Reflections] = []
    for files in all_files:
        if "strong" not in files:
            continue
        try:
            strong.append(_renumbered(read_reflections(files["strong"]), len(strong)))
        except InputError as error:
            log.warning("%s (left out)", error)
    if strong:
        write_reflections(join_tables(strong), folder / f"{COMPOSITE}{ENDINGS['strong']}")
        written.append(folder / f"{COMPOSITE}{ENDINGS['strong']}")
    return written


def _renumbered(table: Reflections, first: int) -> Reflections:
    """The table with its lattices counted from another number, in ``id`` and ``imageset_id``."""
    identifiers = {number + first: name for number, name in table.identifiers.items()}
    columns = {**table.columns, "id": np.asarray(table["id"]) + first}
    if "imageset_id" in table:
        columns["imageset_id"] = np.asarray(table["imageset_id"]) + first
    return Reflections(columns, identifiers, table.types)


def _shared(experiment: Experiment, others: Sequence[Experiment]) -> Experiment:
    """The experiment with the last one's detector object where the panels are the same, so that it is written once."""
    if not others:
        return experiment
    last, own = others[-1].detector, experiment.detector
    names = ("origin_mm", "fast", "slow", "pixel_size_mm", "image_size")
    same = last.n_panels == own.n_panels and all(np.array_equal(getattr(last, n), getattr(own, n)) for n in names)
    return replace(experiment, detector=last) if same else experiment


def join_tables(tables: Sequence[Reflections]) -> Reflections:
    """Tables one below the other, with the columns that all of them have."""
    names = [name for name in tables[0].columns if all(name in other for other in tables)]
    columns = {name: np.concatenate([np.asarray(t[name]) for t in tables]) for name in names}
    identifiers = {number: name for table in tables for number, name in table.identifiers.items()}
    return Reflections(columns, identifiers, {n: k for n, k in tables[0].types.items() if n in columns})

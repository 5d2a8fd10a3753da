"""Folders of results: the pairs of experiment and reflection files in them, their offsets, and one table of all.

A run is a folder with ``*_refined.expt`` and ``*_indexed.refl`` of the same beginning, as ``bayesbragg refine``,
``dials.stills_process`` and the classic program write them; failing those, any ``X.expt`` with its ``X.refl``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bayesbragg.cli.common import progress
from bayesbragg.diagnostics.offsets import PREDICTED, Offsets, combine, prediction_offsets
from bayesbragg.io.experiments import read_experiments
from bayesbragg.io.matching import match
from bayesbragg.io.reflections import read_reflections
from bayesbragg.model import Experiment, Reflections
from bayesbragg.model.errors import InputError

__all__ = ["COMBINED", "Run", "find_pairs", "load_run", "one_table", "run_names"]

COMBINED = "comb"
"""Beginning of the names of combined files, which are an output and never read back as a shot."""

logger = logging.getLogger("bayesbragg")


@dataclass(frozen=True, eq=False)
class Run:
    """A folder of results.

    Attributes:
        folder: where it is.
        shots: experiment and its reflections, one pair for each lattice.
        offsets: offsets of each of them, in the same order.
        files: what was read.
        tags: name of the shot that each pair comes from, in the same order.
    """

    folder: Path
    shots: tuple[tuple[Experiment, Reflections], ...]
    offsets: tuple[Offsets, ...]
    files: tuple[Path, ...]
    tags: tuple[str, ...] = ()

    @property
    def all_offsets(self) -> Offsets:
        """Offsets of every reflection of the run."""
        return combine(self.offsets)


def find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Experiment and reflection files that belong together, sorted by name.

    Raises:
        InputError: the folder is missing or holds no pair.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a folder of refined .expt and .refl files")
    for expt_end, refl_end in (("_refined.expt", "_indexed.refl"), (".expt", ".refl")):
        pairs = []
        for expt in sorted(folder.glob(f"*{expt_end}")):
            refl = expt.with_name(expt.name.removesuffix(expt_end) + refl_end)
            if expt.stem == COMBINED or expt.name.startswith("."):
                continue
            if refl.is_file():
                pairs.append((expt, refl))
            else:
                logger.warning("%s has no %s beside it and is left out", expt, refl.name)
        if pairs:
            return pairs
    raise InputError(
        f"{folder}: no pair of *_refined.expt and *_indexed.refl (nor of *.expt and *.refl) in it; "
        "give the output folder of a refinement"
    )


def load_run(folder: Path, *, predicted: str = PREDICTED, max_shots: int | None = None, quiet: bool = False) -> Run:
    """Read a folder of results. A file that cannot be read is left out with a warning.

    Args:
        folder: the run.
        predicted: column of calculated centroids, pixels.
        max_shots: read the first so many pairs only (by name).
        quiet: no progress bar.

    Raises:
        InputError: no pair of files, or none that can be used.
    """
    pairs = find_pairs(folder)[:max_shots]
    shots: list[tuple[Experiment, Reflections]] = []
    offsets: list[Offsets] = []
    files: list[Path] = []
    tags: list[str] = []
    last: InputError | None = None
    with progress(len(pairs), f"reading {folder.name}", quiet=quiet) as bar:
        for expt, refl in pairs:
            try:
                found = []
                for group in match(read_experiments(expt), read_reflections(refl)):
                    lattice = np.asarray(group.reflections["id"])
                    for number, experiment in enumerate(group.experiments):
                        part = group.reflections.select(lattice == number)
                        found.append((experiment, part, _offsets(experiment, part, predicted)))
            except InputError as error:
                last = InputError(
                    str(error) if str(refl) in str(error) or str(expt) in str(error) else f"{refl}: {error}"
                )
                logger.warning("%s (left out)", last)
            else:
                files += [expt, refl]
                shots += [(experiment, part) for experiment, part, _ in found]
                offsets += [part_offsets for _, _, part_offsets in found]
                tags += [expt.stem.removesuffix("_refined")] * len(found)
            bar.advance(expt.name)
    if not shots:
        raise InputError(f"{folder}: none of its {len(pairs)} pairs of files can be used; the last: {last}")
    return Run(folder, tuple(shots), tuple(offsets), tuple(files), tuple(tags))


def _offsets(experiment: Experiment, table: Reflections, predicted: str) -> Offsets:
    return prediction_offsets(table, experiment.detector, experiment.beam, experiment.crystal, predicted=predicted)


def one_table(run: Run) -> tuple[list[Experiment], Reflections]:
    """All experiments of a run and one table of the reflections that have an offset, numbered to match.

    Columns that some shots lack, or have in another type, are left out. `delpsical.rad` is added (as zeros) where
    there is none, since the classic program that draws detector residuals asks for it. Experiments with the same
    panels share one detector object, so that it is written once.
    """
    experiments: list[Experiment] = []
    names = _common_columns([table for _, table in run.shots])
    parts: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in names}
    identifiers: dict[int, str] = {}
    images: dict[object, int] = {}
    for number, ((experiment, table), offsets) in enumerate(zip(run.shots, run.offsets, strict=True)):
        shared = next((e.detector for e in experiments if _same_panels(e, experiment)), experiment.detector)
        experiments.append(replace(experiment, detector=shared))
        if experiment.identifier:
            identifiers[number] = experiment.identifier
        image = (experiment.image.path, experiment.image.index) if experiment.image else number
        renumbered = {"id": number, "imageset_id": images.setdefault(image, len(images))}
        kept = table.select(offsets.row)
        for name in names:
            column = np.asarray(kept[name])
            parts[name].append(np.full_like(column, renumbered[name]) if name in renumbered else column)
    columns = {name: np.concatenate(columns) for name, columns in parts.items()}
    if "delpsical.rad" not in columns and columns:
        columns["delpsical.rad"] = np.zeros(len(next(iter(columns.values()))))
    first = run.shots[0][1]
    types = {name: kind for name, kind in first.types.items() if name in columns}
    if len(set(identifiers.values())) < len(experiments):
        identifiers = {}
    return experiments, Reflections(columns, identifiers, types)


def _common_columns(tables: Sequence[Reflections]) -> list[str]:
    def kinds(table: Reflections) -> dict[str, tuple[Any, ...]]:
        return {
            name: (np.asarray(column).dtype, np.shape(column)[1:], table.types.get(name))
            for name, column in table.columns.items()
        }

    first, *others = [kinds(table) for table in tables]
    return [name for name, kind in first.items() if all(other.get(name) == kind for other in others)]


def _same_panels(one: Experiment, other: Experiment) -> bool:
    a, b = one.detector, other.detector
    if a is b:
        return True
    return a.n_panels == b.n_panels and all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("origin_mm", "fast", "slow", "pixel_size_mm", "image_size")
    )


def run_names(folders: Sequence[Path]) -> list[str]:
    """Short names for tables and legends: as few last parts of each path as tell the folders apart."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(set(parts)):
            break
    return names

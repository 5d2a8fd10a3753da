"""A run over many shots: each is read, fitted and written on its own, here or in worker processes.

A shot that fails is an outcome with its reason; it never stops the others. Rows of the table are files that appear as
shots finish, so that a run that was killed keeps what it had.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from bayesbragg.forward import Parameters
from bayesbragg.inference.map import fit_many
from bayesbragg.model.fit import Fit
from bayesbragg.pipeline.device import choose_device, forget_programs, remember_programs
from bayesbragg.pipeline.error_bars import error_columns
from bayesbragg.pipeline.load import StillSource, find_stills, structure_factors
from bayesbragg.pipeline.outcomes import ERROR, EXISTING, Outcome, failure
from bayesbragg.pipeline.refine import Prepared, Refined, fit_options, prepare, refine_prepared
from bayesbragg.pipeline.results import parameters_from_row
from bayesbragg.pipeline.settings import RefineSettings
from bayesbragg.pipeline.shot_files import ShotFiles
from bayesbragg.pipeline.still import Still
from bayesbragg.pipeline.work_ahead import ahead
from bayesbragg.pipeline.workers import share_out
from bayesbragg.pipeline.write import forget, is_written, write_refined

__all__ = ["Job", "Outcome", "run_shots"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What every shot of a run shares.

    Attributes:
        settings: of the refinement.
        folder: where results go.
        reference_geometry: an ``.expt`` whose detector replaces the shots' own.
        device: auto, cpu or gpu.
        starts: rows of an earlier table by shot tag, from which fits start.
        starts_from: name of that table, for messages.
        reference_beam: an ``.expt`` whose beam replaces the shots' own.
        keep_existing: leave out shots whose rows the folder holds.
        batch: shots that are fitted together, in one compiled program.
    """

    settings: RefineSettings
    folder: Path
    reference_geometry: Path | None = None
    device: str = "auto"
    starts: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    starts_from: str = ""
    reference_beam: Path | None = None
    keep_existing: bool = False
    batch: int = 1


def run_shots(job: Job, shots: Sequence[ShotFiles], n_processes: int = 1) -> Generator[Outcome, None, None]:
    """Refine the shots and yield their outcomes as they finish.

    Args:
        n_processes: worker processes; 1 works in this one.
    """
    if n_processes <= 1 or len(shots) <= 1:
        yield from _refine_here(job, shots)
        return
    yield from share_out(shots, prepare_worker, job, n_processes, _lost)


def prepare_worker(job: Job) -> Callable[[ShotFiles], Iterator[Outcome]]:
    """What a worker process does first, and the function that refines the stills of a pair of files."""
    choose_device(job.device)
    remember_programs(purpose="refine")
    return partial(_refine_files, job)


def _lost(files: ShotFiles, how: str) -> Outcome:
    reason = f"{files.experiments}: {how}; run it again with ignore_existing=True, and with fewer processes (nproc)"
    return Outcome(files.name, ERROR, reason)


def _refine_files(job: Job, files: ShotFiles) -> Iterator[Outcome]:
    return _refine_here(job, [files])


@dataclass(frozen=True, eq=False)
class _Ready:
    """A still that waits for its fit, and the seconds that it took so far."""

    prepared: Prepared
    goes_on: bool
    seconds: float


def _refine_here(job: Job, shots: Sequence[ShotFiles]) -> Iterator[Outcome]:
    """Shots one after the other: the next one is read, and the last one written, while one is fitted."""
    ready = ahead(partial(_make_ready, job), _sources(job, shots))
    for number, (_, outcome) in enumerate(ahead(partial(_write, job), _fits(job, ready), depth=1)):
        if number % 16 == 0:
            forget_programs()
        yield outcome


def _sources(job: Job, shots: Sequence[ShotFiles]) -> Iterator[tuple[ShotFiles, StillSource | Outcome]]:
    for files in shots:
        clock = time.perf_counter()
        try:
            sources = find_stills(
                files, job.settings, reference_geometry=job.reference_geometry, reference_beam=job.reference_beam
            )
        except Exception as error:
            if not job.keep_existing:
                forget(job.folder, files.name)
            yield files, failure(files.name, files, error, clock)
            continue
        for source in sources:
            if job.keep_existing and is_written(job.folder, source.tag):
                yield files, Outcome(source.tag, EXISTING, "its rows are in the output folder")
            else:
                yield files, source


def _make_ready(job: Job, entry: tuple[ShotFiles, StillSource | Outcome]) -> _Ready | Outcome:
    files, source = entry
    if isinstance(source, Outcome):
        return source
    clock = time.perf_counter()
    try:
        still = source.read()
        factors = structure_factors(still, job.settings)
        start = _start(job, source, still)
        prepared = prepare(still, factors, job.settings, start=start)
        return _Ready(prepared, start is not None, time.perf_counter() - clock)
    except Exception as error:
        forget(job.folder, source.tag)
        return failure(source.tag, files, error, clock)


def _start(job: Job, source: StillSource, still: Still) -> Parameters | None:
    if not job.starts_from:
        return None
    rows = job.starts.get(source.tag)
    if rows is None:
        log.warning("%s: not in %s; starts from the init values", source.tag, job.starts_from)
        return None
    crystals = still.crystals[: job.settings.max_lattices]
    return parameters_from_row(rows, f"{job.starts_from}: {source.tag}", crystals, job.settings.start)


_Fitted = tuple[ShotFiles, Refined | Outcome, float]
"""Files of a shot, its fit or how it failed, and the seconds that it took so far."""


def _fits(
    job: Job, entries: Iterator[tuple[tuple[ShotFiles, StillSource | Outcome], _Ready | Outcome]]
) -> Iterator[_Fitted]:
    """Fits of the shots, ``job.batch`` of them at a time."""
    waiting: list[tuple[ShotFiles, _Ready]] = []
    for (files, _), ready in entries:
        if isinstance(ready, Outcome):
            yield files, ready, ready.seconds
        elif job.batch <= 1:
            yield _fit(job, files, ready)
        else:
            waiting.append((files, ready))
            if len(waiting) == job.batch:
                yield from _fit_batch(job, waiting)
                waiting = []
    yield from _fit_batch(job, waiting)


def _fit_batch(job: Job, waiting: Sequence[tuple[ShotFiles, _Ready]]) -> Iterator[_Fitted]:
    for goes_on in (False, True):
        group = [entry for entry in waiting if entry[1].goes_on is goes_on]
        clock = time.perf_counter()
        fits: Sequence[Fit | None] = [None] * len(group)
        try:
            options = fit_options(job.settings, goes_on=goes_on)
            fits = fit_many([ready.prepared.density for _, ready in group], options, size=job.batch)
        except Exception as error:
            log.warning("%d shots could not be fitted together (%s); they are fitted one by one", len(group), error)
        share = (time.perf_counter() - clock) / max(len(group), 1)
        for (files, ready), fit in zip(group, fits, strict=True):
            fitted = fit if fit is None else replace(fit, seconds=share)
            yield _fit(job, files, replace(ready, seconds=ready.seconds + share), fitted)


def _fit(job: Job, files: ShotFiles, ready: _Ready, fit: Fit | None = None) -> _Fitted:
    clock = time.perf_counter()
    tag = ready.prepared.still.tag
    try:
        refined = refine_prepared(ready.prepared, goes_on=ready.goes_on, fit=fit)
    except Exception as error:
        forget(job.folder, tag)
        return files, failure(tag, files, error, clock), ready.seconds
    return files, refined, ready.seconds + time.perf_counter() - clock


def _write(job: Job, fitted: _Fitted) -> Outcome:
    files, refined, seconds = fitted
    if isinstance(refined, Outcome):
        return refined
    clock, tag = time.perf_counter(), refined.prepared.still.tag
    try:
        # A row that an earlier run left must not stand for this one, should writing fail half-way.
        forget(job.folder, tag)
        bars = error_columns(refined, job.settings, job.folder)
        written = write_refined(refined, job.settings, job.folder, bars)
        _log(refined)
    except Exception as error:
        forget(job.folder, tag)
        return failure(tag, files, error, clock)
    fit = refined.fit
    return Outcome(tag, fit.status.value, fit.reason, tuple(written), seconds + time.perf_counter() - clock)


def _log(refined: Refined) -> None:
    prepared, fit = refined.prepared, refined.fit
    still, options = prepared.still, prepared.options
    fixed = [name for name in ("n_def", "eta_deg") if not any(s.place[1] == name for s in prepared.layout.sites)]
    log.info("%s: boxes: %s", still.tag, prepared.report.summary())
    log.info("%s: spectrum: %s", still.tag, still.spectrum_name)
    log.info(
        "%s: %d x %d subpixels, mosaic spread %s, diffuse scattering %s, %s",
        still.tag, options.oversample, options.oversample, options.spread, "on" if options.diffuse else "off",
        options.precision,
    )  # fmt: skip
    log.info("%s: lattice sum: %s (%s)", still.tag, prepared.form.name, prepared.form.reason)
    log.info("%s: varied: %s; fixed: all others (%s among them)", still.tag, ", ".join(fit.names), ", ".join(fixed))
    log.info(
        "%s: %s (%s); target %.2f from %.2f in %d iterations, %d evaluations, %.2f s; sigma-Z %.3f",
        still.tag, fit.status.value, fit.reason, fit.target, fit.start_target, fit.iterations, fit.evaluations,
        fit.seconds, fit.sigma_z,
    )  # fmt: skip
    for name, value, unit in zip(fit.names, fit.values, fit.units, strict=True):
        log.debug("%s: %s = %.8g %s", still.tag, name, value, unit)

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

import numpy as np

from bayesbragg.io.symmetry import lookup_space_group
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.device import choose_device, remember_programs
from bayesbragg.pipeline.load import StillSource, find_stills, load_factors
from bayesbragg.pipeline.refine import Refined, refine_still
from bayesbragg.pipeline.results import parameters_from_row
from bayesbragg.pipeline.settings import RefineSettings
from bayesbragg.pipeline.shot_files import ShotFiles
from bayesbragg.pipeline.workers import share_out
from bayesbragg.pipeline.write import forget, is_written, write_refined

__all__ = ["Job", "Outcome", "run_shots"]

log = logging.getLogger(__name__)

BAD_INPUT, ERROR, EXISTING = "bad input", "error", "existing"


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
    """

    settings: RefineSettings
    folder: Path
    reference_geometry: Path | None = None
    device: str = "auto"
    starts: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    starts_from: str = ""
    reference_beam: Path | None = None
    keep_existing: bool = False


@dataclass(frozen=True)
class Outcome:
    """How one shot went.

    Attributes:
        tag: the shot.
        status: of the fit, or ``bad input``, ``error`` or ``existing``.
        reason: one line.
        rows: its rows of the table; none if it failed.
        seconds: wall time with reading and writing.
        bad_input: the reason is the input, not the program.
    """

    tag: str
    status: str
    reason: str
    rows: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0
    bad_input: bool = False

    @property
    def done(self) -> bool:
        """Whether the shot was fitted in this run."""
        return bool(self.rows)

    @property
    def failed(self) -> bool:
        return self.status in (BAD_INPUT, ERROR)


def run_shots(job: Job, shots: Sequence[ShotFiles], n_processes: int = 1) -> Generator[Outcome, None, None]:
    """Refine the shots and yield their outcomes as they finish.

    Args:
        n_processes: worker processes; 1 works in this one.
    """
    if n_processes <= 1 or len(shots) <= 1:
        for files in shots:
            yield from _refine_files(job, files)
        return
    yield from share_out(shots, prepare_worker, job, n_processes, _lost)


def prepare_worker(job: Job) -> Callable[[ShotFiles], Iterator[Outcome]]:
    """What a worker process does first, and the function that refines the stills of a pair of files."""
    choose_device(job.device)
    remember_programs()
    return partial(_refine_files, job)


def _lost(files: ShotFiles, how: str) -> Outcome:
    reason = f"{files.experiments}: {how}; run it again with ignore_existing=True, and with fewer processes (nproc)"
    return Outcome(files.name, ERROR, reason)


def _refine_files(job: Job, files: ShotFiles) -> Iterator[Outcome]:
    clock = time.perf_counter()
    try:
        sources = find_stills(
            files, job.settings, reference_geometry=job.reference_geometry, reference_beam=job.reference_beam
        )
    except Exception as error:
        yield _failure(files.name, files, error, clock)
        return
    for source in sources:
        if job.keep_existing and is_written(job.folder, source.tag):
            yield Outcome(source.tag, EXISTING, "its rows are in the output folder")
            continue
        clock = time.perf_counter()
        try:
            refined = _refine_source(job, source)
            # A row that an earlier run left must not stand for this one, should writing fail half-way.
            forget(job.folder, source.tag)
            written = write_refined(refined, job.settings, job.folder)
        except Exception as error:
            forget(job.folder, source.tag)
            yield _failure(source.tag, files, error, clock)
        else:
            _log(refined)
            fit = refined.fit
            yield Outcome(source.tag, fit.status.value, fit.reason, tuple(written), time.perf_counter() - clock)


def _refine_source(job: Job, source: StillSource) -> Refined:
    still = source.read()
    crystal = still.crystals[0]
    factors = load_factors(
        job.settings.factors, crystal.hall_symbol.strip() or "P 1", still.experiments[0].beam.wavelength_A
    )
    rotations = laue_rotations(crystal.space_group_number) if job.settings.model.diffuse else None
    start = None
    if job.starts_from:
        rows = job.starts.get(source.tag)
        if rows is None:
            log.warning("%s: not in %s; starts from the init values", source.tag, job.starts_from)
        else:
            crystals = still.crystals[: job.settings.max_lattices]
            start = parameters_from_row(rows, f"{job.starts_from}: {source.tag}", crystals, job.settings.start)
    return refine_still(still, factors, job.settings, start=start, laue_rotations=rotations)


def laue_rotations(number: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Proper rotations of a space group's Laue group acting on Miller indices, ``(n, 3, 3)``."""
    operators = lookup_space_group(number).rotations
    proper = np.where(np.linalg.det(operators)[:, None, None] < 0, -operators, operators)
    # h' = h R for row vectors is R^T acting on columns.
    return np.asarray(np.unique(np.rint(proper).transpose(0, 2, 1), axis=0), dtype=np.float64)


def _failure(tag: str, files: ShotFiles, error: Exception, clock: float) -> Outcome:
    bad = isinstance(error, InputError)
    reason = " ".join(str(error).split())
    if not bad:
        reason = f"{type(error).__name__}: {reason}"
    log.debug("%s: %s", tag, "bad input" if bad else "failed", exc_info=error)
    # A message of the numerical rooms knows its shot at most by its tag.
    if "/" not in reason.split(": ", 1)[0] and not _names(reason, files):
        reason = f"{files.experiments}: {reason.removeprefix(f'{tag}: ')}"
    return replace(
        Outcome(tag, BAD_INPUT if bad else ERROR, reason), seconds=time.perf_counter() - clock, bad_input=bad
    )


def _names(reason: str, files: ShotFiles) -> bool:
    return any(str(path) in reason for path in (files.experiments, files.reflections, files.spectrum) if path)


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

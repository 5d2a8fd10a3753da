"""A run over many shots: each is read, fitted and written on its own, here or in worker processes.

A shot that fails is an outcome with its reason; it never stops the others. Rows of the table are files that appear as
shots finish, so that a run that was killed keeps what it had.
"""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bayesbragg.io.symmetry import lookup_space_group
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.device import choose_device, remember_programs
from bayesbragg.pipeline.load import ShotFiles, load_factors, load_stills
from bayesbragg.pipeline.refine import Refined, refine_still
from bayesbragg.pipeline.results import parameters_from_row
from bayesbragg.pipeline.settings import RefineSettings
from bayesbragg.pipeline.write import write_refined

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
    """

    settings: RefineSettings
    folder: Path
    reference_geometry: Path | None = None
    device: str = "auto"
    starts: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    starts_from: str = ""


@dataclass(frozen=True)
class Outcome:
    """How one shot went.

    Attributes:
        tag: the shot.
        status: of the fit, or ``bad input`` or ``error``.
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
        return bool(self.rows)


def run_shots(job: Job, shots: Sequence[ShotFiles], n_processes: int = 1) -> Iterator[Outcome]:
    """Refine the shots and yield their outcomes as they finish.

    Args:
        n_processes: worker processes; 1 works in this one.
    """
    if n_processes <= 1 or len(shots) <= 1:
        for files in shots:
            yield from _refine_files(job, files)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(n_processes, len(shots)), mp_context=context, initializer=_worker, initargs=(job,)
    ) as pool:
        futures = {pool.submit(_in_worker, files): files for files in shots}
        for future in as_completed(futures):
            try:
                yield from future.result()
            except Exception as error:  # a worker that died takes its shots with it, not the run
                yield Outcome(futures[future].name, "error", f"the worker process failed: {error}")


_job: Job | None = None


def _worker(job: Job) -> None:
    global _job
    _job = job
    choose_device(job.device)
    remember_programs()


def _in_worker(files: ShotFiles) -> list[Outcome]:
    assert _job is not None
    return list(_refine_files(_job, files))


def _refine_files(job: Job, files: ShotFiles) -> Iterator[Outcome]:
    clock = time.perf_counter()
    try:
        stills = iter(load_stills(files, job.settings, reference_geometry=job.reference_geometry))
    except Exception as error:
        yield _failure(files.name, error, clock)
        return
    while True:
        tag = files.name
        try:
            still = next(stills, None)
            if still is None:
                return
            tag = still.tag
            crystal = still.crystals[0] if still.crystals else None
            if crystal is None:
                raise InputError(f"{tag}: no crystal model; index the shot first")
            factors = load_factors(
                job.settings.factors, crystal.hall_symbol.strip() or "P 1", still.experiments[0].beam.wavelength_A
            )
            rotations = None
            if job.settings.model.diffuse:
                rotations = laue_rotations(crystal.space_group_number)
            rows = job.starts.get(tag)
            start = None if rows is None else parameters_from_row(rows, job.starts_from)
            if job.starts and start is None:
                log.warning("%s: not in %s; starts from the init values", tag, job.starts_from)
            refined = refine_still(still, factors, job.settings, start=start, laue_rotations=rotations)
            written = write_refined(refined, job.settings, job.folder)
        except Exception as error:
            yield _failure(tag, error, clock)
            if tag == files.name:
                return
        else:
            _log(refined)
            yield Outcome(
                tag, refined.fit.status.value, refined.fit.reason, tuple(written), time.perf_counter() - clock
            )
        clock = time.perf_counter()


def laue_rotations(number: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Proper rotations of a space group's Laue group acting on Miller indices, ``(n, 3, 3)``."""
    operators = lookup_space_group(number).rotations
    proper = np.where(np.linalg.det(operators)[:, None, None] < 0, -operators, operators)
    # h' = h R for row vectors is R^T acting on columns.
    return np.asarray(np.unique(np.rint(proper).transpose(0, 2, 1), axis=0), dtype=np.float64)


def _failure(tag: str, error: Exception, clock: float) -> Outcome:
    bad = isinstance(error, InputError)
    reason = " ".join(str(error).split())
    if not bad:
        log.debug("%s failed", tag, exc_info=error)
        reason = f"{type(error).__name__}: {reason}"
    return replace(
        Outcome(tag, "bad input" if bad else "error", reason), seconds=time.perf_counter() - clock, bad_input=bad
    )


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
    log.info("%s: varied: %s; fixed: all others (%s among them)", still.tag, ", ".join(fit.names), ", ".join(fixed))
    log.info(
        "%s: %s (%s); target %.2f from %.2f in %d iterations, %d evaluations, %.2f s; sigma-Z %.3f",
        still.tag, fit.status.value, fit.reason, fit.target, fit.start_target, fit.iterations, fit.evaluations,
        fit.seconds, fit.sigma_z,
    )  # fmt: skip
    for name, value, unit in zip(fit.names, fit.values, fit.units, strict=True):
        log.debug("%s: %s = %.8g %s", still.tag, name, value, unit)

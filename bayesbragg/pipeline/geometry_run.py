"""A joint geometry fit from a table of shots to a refined detector, in one process or several.

Every process reads its own rows, from ``rank`` in steps of ``size``, and runs the same search; sums cross between them.
The state of the search is saved after each step, so that a run that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bayesbragg.forward import Parameters
from bayesbragg.inference.communicator import Communicator
from bayesbragg.inference.joint import fit_joint
from bayesbragg.inference.joint_lbfgs import fit_lbfgs
from bayesbragg.inference.joint_types import Iteration, JointFit, JointState, Term
from bayesbragg.io.experiments import read_experiments
from bayesbragg.io.geometry_results import read_arrays, write_arrays
from bayesbragg.model import Detector
from bayesbragg.model.errors import InputError
from bayesbragg.model.panel_groups import PanelGrouping
from bayesbragg.pipeline.device import choose_device, remember_programs
from bayesbragg.pipeline.geometry import GeometryShot, LazyTerm, ShotResult, check_detector, geometry_shot, shot_result
from bayesbragg.pipeline.geometry import windows_hold as _windows_hold
from bayesbragg.pipeline.geometry_settings import GeometrySettings, make_grouping
from bayesbragg.pipeline.load import ShotFiles, load_factors, load_stills
from bayesbragg.priors.panels import SharedPrior, shared_prior

__all__ = ["GeometryJob", "GeometryResult", "ShotRow", "refine_geometry"]

log = logging.getLogger(__name__)
STATE = "geometry_state.npz"


@dataclass(frozen=True)
class ShotRow:
    """A shot of the table: its files, and where its fit starts.

    Attributes:
        tag: its name; experiments, reflections: its files.
        start: columns of the table that give the start, as plain numbers.
    """

    tag: str
    experiments: Path
    reflections: Path
    start: dict[str, Any]


@dataclass(frozen=True)
class GeometryJob:
    """What every process of a run knows."""

    settings: GeometrySettings
    rows: tuple[ShotRow, ...]
    folder: Path
    reference_geometry: Path | None = None
    device: str = "auto"


@dataclass(frozen=True, eq=False)
class GeometryResult:
    """The optimum, and the results of this process's shots by their place in the table.

    Attributes:
        reflections_of_group: boxes on each group, over all shots.
        resumed: the step from which the search went on, 0 for a fresh one.
    """

    fit: JointFit
    prior: SharedPrior
    grouping: PanelGrouping
    detector: Detector
    shots: dict[int, ShotResult]
    reflections_of_group: np.ndarray[Any, np.dtype[np.int64]]
    resumed: int


def refine_geometry(
    comm: Communicator,
    job: GeometryJob,
    on_step: Callable[[JointState], None] | None = None,
    on_results: Callable[[int, ShotResult], None] | None = None,
) -> GeometryResult:
    """Fit the detector to the shots of the job; called once in every process.

    Args:
        on_step: called after each step (in every process).
        on_results: called with place in the table and result of each of this process's shots.

    Raises:
        InputError: in every process, if a shot of any of them cannot be used.
    """
    choose_device(job.device)
    remember_programs()
    places = list(range(comm.rank, len(job.rows), comm.size))
    shots: list[GeometryShot] = []
    message = ""
    detector = grouping = None
    try:
        detector = _detector(job)
        grouping = make_grouping(detector, job.settings.groups)
        shots = [_load(job, job.rows[i], grouping, detector) for i in places]
    except InputError as error:
        message = str(error)
    _raise_together(comm, message)
    assert detector is not None
    assert grouping is not None
    prior = shared_prior(grouping, job.settings.priors)
    counts = np.zeros(grouping.n_groups)
    for shot in shots:
        counts += np.bincount(grouping.group[shot.prepared.shot.panel], minlength=grouping.n_groups)
    counts = comm.sum(counts)
    terms: list[Term] = [s.term for s in shots]
    if not job.settings.keep_in_memory:
        terms = [
            LazyTerm(s.term, _reader(job, job.rows[i], grouping, detector)) for i, s in zip(places, shots, strict=True)
        ]
        shots = []
    keeper = _StateKeeper(job, comm, places)
    state = keeper.load(terms) if job.settings.resume else None
    resumed = state.iteration if state is not None else 0

    def after(now: JointState) -> None:
        keeper.save(now)
        if on_step is not None:
            on_step(now)

    search = fit_lbfgs if job.settings.solver == "lbfgsb" else fit_joint
    fit = search(terms, prior, job.settings.options, communicator=comm, state=state, on_step=after)
    results = {}
    for number, place in enumerate(places):
        shot = shots[number] if shots else _load(job, job.rows[place], grouping, detector)
        if not _windows_hold(shot, fit.own[number], fit.shared):
            log.warning("%s: spots left the structure factors around their boxes; run again from this result",
                        job.rows[place].tag)  # fmt: skip
        result = shot_result(shot, fit.own[number], fit.shared, fit.blocks[number][0])
        results[place] = result
        if on_results is not None:
            on_results(place, result)
    comm.sum(np.zeros(1))  # nobody goes on before all results are written
    return GeometryResult(fit, prior, grouping, detector, results, counts.astype(np.int64), resumed)


def _detector(job: GeometryJob) -> Detector:
    from bayesbragg.io.experiments import read_detector

    if job.reference_geometry is not None:
        return read_detector(job.reference_geometry)
    return read_experiments(job.rows[0].experiments)[0].detector


def _load(job: GeometryJob, row: ShotRow, grouping: PanelGrouping, detector: Detector) -> GeometryShot:
    settings = job.settings.shots
    files = ShotFiles(row.experiments, row.reflections, tag=row.tag)
    stills = list(load_stills(files, settings, reference_geometry=job.reference_geometry))
    if len(stills) != 1:
        raise InputError(f"{row.experiments}: {len(stills)} images; a row of the table is one image")
    still = stills[0]
    check_detector(detector, still.detector, job.rows[0].tag, row.tag)
    if not still.crystals:
        raise InputError(f"{row.tag}: no crystal model in {row.experiments}; refine the shot first")
    crystal = still.crystals[0]
    factors = load_factors(
        settings.factors, crystal.hall_symbol.strip() or "P 1", still.experiments[0].beam.wavelength_A
    )
    cell = np.concatenate([crystal.cell[:3], np.radians(crystal.cell[3:])])
    start = Parameters.start(cell, n_lattices=len(still.crystals), **row.start)
    return geometry_shot(still, factors, settings, grouping, start=start)


def _reader(job: GeometryJob, row: ShotRow, grouping: PanelGrouping, detector: Detector) -> Callable[[], Term]:
    return lambda: _load(job, row, grouping, detector).term


def _raise_together(comm: Communicator, message: str) -> None:
    """If any process has a message, all of them raise it: none is left waiting for the others."""
    codes = np.zeros((comm.size, 2000))
    text = message.encode()[:2000]
    codes[comm.rank, : len(text)] = list(text)
    codes = comm.sum(codes)
    for row in codes.astype(np.uint8):
        found = bytes(row[row > 0]).decode(errors="replace")
        if found:
            raise InputError(found)


def _stamp(path: Path) -> str:
    """Size and time of a file: an input that was written again makes a saved state worthless."""
    status = path.stat()
    return f"{path} {status.st_size} {status.st_mtime_ns}"


class _StateKeeper:
    """Saves the state of all processes in one file, and finds it again."""

    def __init__(self, job: GeometryJob, comm: Communicator, places: Sequence[int]) -> None:
        self.comm, self.places, self.n = comm, list(places), len(job.rows)
        self.path = job.folder / STATE
        known = [
            json.dumps(asdict(job.settings), default=str, sort_keys=True),
            *(f"{r.tag} {r.experiments} {r.reflections} {sorted(r.start.items())}" for r in job.rows),
            str(job.reference_geometry),
            *(_stamp(path) for row in job.rows for path in (row.experiments, row.reflections)),
        ]
        self.mark = hashlib.sha256("\n".join(known).encode()).hexdigest()

    def save(self, state: JointState) -> None:
        widths = np.zeros(self.comm.size)
        widths[self.comm.rank] = max((x.shape[1] for x in state.own), default=0)
        width = int(self.comm.sum(widths).max())
        own = np.zeros((self.n, width + 1))
        for place, x in zip(self.places, state.own, strict=True):
            own[place, : x.shape[1]] = x[0]
            own[place, -1] = x.shape[1]
        own = self.comm.sum(own)
        if self.comm.rank:
            return
        numbers = [state.target, state.damping, state.growth, state.iteration]
        trace = np.array([list(asdict(step).values()) for step in state.trace], dtype=float)
        arrays = {"own": own, "shared": state.shared, "numbers": np.array(numbers), "trace": trace}
        write_arrays(self.path, {**arrays, "mark": np.array(self.mark)})

    def load(self, terms: Sequence[Term]) -> JointState | None:
        found = read_arrays(self.path)
        if found is None or str(found.get("mark")) != self.mark:
            return None
        own = [found["own"][p, : int(found["own"][p, -1])][None] for p in self.places]
        if any(x.shape != t.start.shape for x, t in zip(own, terms, strict=True)):
            return None
        target, damping, growth, iteration = (float(v) for v in found["numbers"])
        trace = [
            Iteration(int(r[0]), float(r[1]), float(r[2]), float(r[3]), float(r[4]), float(r[5]), bool(r[6]))
            for r in found["trace"]
        ]
        return JointState(own, found["shared"], target, damping, growth, int(iteration), trace)


def fit_record(fit: JointFit) -> dict[str, Any]:
    """What of a fit goes into the run's record."""
    return {
        "status": fit.status.value,
        "reason": fit.reason,
        "target": fit.target,
        "target_start": fit.start_target,
        "sigma_z": fit.sigma_z,
        "iterations": fit.iterations,
        "evaluations": fit.evaluations,
        "seconds": round(fit.seconds, 3),
        "at_bound": list(fit.at_bound),
        "trace": [asdict(step) for step in fit.trace],
    }

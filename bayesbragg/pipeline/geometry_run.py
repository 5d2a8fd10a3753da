"""A joint geometry fit from a table of shots to a refined detector, in one process or several.

Every process reads its own rows, from ``rank`` in steps of ``size``, and runs the same search; sums cross between them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from bayesbragg.forward import Parameters
from bayesbragg.inference.communicator import Communicator
from bayesbragg.inference.joint import fit_joint
from bayesbragg.inference.joint_lbfgs import fit_lbfgs
from bayesbragg.inference.joint_types import JointFit, JointState
from bayesbragg.inference.joint_widths import fit_with_widths
from bayesbragg.io.experiments import read_detector, read_experiments
from bayesbragg.model import Detector
from bayesbragg.model.errors import InputError
from bayesbragg.model.panel_groups import PanelGrouping
from bayesbragg.pipeline.device import choose_device, remember_programs
from bayesbragg.pipeline.geometry import check_detector
from bayesbragg.pipeline.geometry_job import GeometryJob, ShotRow
from bayesbragg.pipeline.geometry_settings import make_grouping
from bayesbragg.pipeline.geometry_shots import ShotResult, shot_result
from bayesbragg.pipeline.geometry_start import ShotSpots, median_offset, own_start, spots_of, start_from_spots
from bayesbragg.pipeline.geometry_state import StateKeeper
from bayesbragg.pipeline.geometry_term import GeometryShot, ShotTerm, geometry_shot
from bayesbragg.pipeline.load import load_stills, structure_factors
from bayesbragg.pipeline.shot_files import ShotFiles
from bayesbragg.priors.panels import SharedPrior, shared_prior

__all__ = ["GeometryResult", "fit_record", "refine_geometry"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class GeometryResult:
    """The optimum.

    Attributes:
        reflections_of_group: boxes on each group, over all shots.
        resumed: the step from which the search went on, 0 for a fresh one.
        notes: what the run decided, in words.
        terms: this process's shots, as the fit left them.
    """

    fit: JointFit
    prior: SharedPrior
    grouping: PanelGrouping
    detector: Detector
    reflections_of_group: np.ndarray[Any, np.dtype[np.int64]]
    resumed: int
    notes: tuple[str, ...]
    terms: tuple[ShotTerm, ...] = ()


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
    choose_device(job.device, comm.rank)
    remember_programs(purpose="geometry-refine")
    settings, places = job.settings, list(range(comm.rank, len(job.rows), comm.size))
    terms, spots = [], []
    message = ""
    detector = grouping = None
    try:
        detector = _detector(job)
        grouping = make_grouping(detector, settings.groups)
        for place in places:
            read = partial(_load, job, job.rows[place], grouping, detector)
            shot = read()
            spots.append(spots_of(shot))
            terms.append(ShotTerm(shot, None if settings.keep_in_memory else read))
    except InputError as error:
        message = str(error)
    _raise_together(comm, message)
    assert detector is not None
    assert grouping is not None
    counts = np.zeros(grouping.n_groups)
    for s in spots:
        counts += np.bincount(grouping.group[s.spots[:, 1].astype(np.int64)], minlength=grouping.n_groups)
    counts = comm.sum(counts)
    keeper = StateKeeper(job, comm, places)
    state = keeper.load(terms) if settings.resume else None
    resumed = state.iteration if state is not None else 0
    notes = [f"{settings.shots.model.forward} lattice sum: " + terms[0].shot().prepared.form.reason] if terms else []
    if state is None:
        state, note = _start(comm, job, terms, spots, detector, grouping)
        notes.append(note)

    def after(now: JointState) -> None:
        keeper.save(now, terms)
        if on_step is not None:
            on_step(now)

    search = fit_lbfgs if settings.solver == "lbfgsb" else fit_joint
    fit, _, prior = fit_with_widths(
        search, terms, grouping, settings.priors, settings.options, settings.widths,
        communicator=comm, state=state, on_step=after,
    )  # fmt: skip
    for number, place in enumerate(places):
        if on_results is not None:
            shot, block = terms[number].shot(), fit.blocks[number][0]
            on_results(place, shot_result(shot, fit.own[number], fit.shared, block, fit.covariance))
    comm.sum(np.zeros(1))  # nobody goes on before all results are written
    notes = [note for note in notes if note]
    boxes = counts.astype(np.int64)
    return GeometryResult(fit, prior, grouping, detector, boxes, resumed, tuple(notes), tuple(terms))


def _start(
    comm: Communicator,
    job: GeometryJob,
    terms: list[ShotTerm],
    spots: list[ShotSpots],
    detector: Detector,
    grouping: PanelGrouping,
) -> tuple[JointState | None, str]:
    """Positions first, where these are asked for or the geometry is off by more than a spot."""
    settings = job.settings
    offset = median_offset(spots, comm)
    said = f"median prediction offset at the start {offset:.2f} pixel"
    if settings.positions_first == "no" or (settings.positions_first == "auto" and not offset > settings.off_by_px):
        return None, f"{said}: pixels from the start"
    prior = shared_prior(grouping, settings.priors)
    fit, starts = start_from_spots(
        spots, list(range(comm.rank, len(job.rows), comm.size)), len(job.rows), comm, detector, grouping, prior
    )
    own = [own_start(term.shot(), *start) for term, start in zip(terms, starts, strict=True)]
    shared = np.clip(fit.shared, prior.low, prior.high)
    state = JointState(own, shared, damping=settings.options.damping)
    after = fit.trace[-1].median_offset_px
    return state, f"{said}: positions of spots fitted first, median offset {after:.2f} pixel in {fit.seconds:.1f} s"


def _detector(job: GeometryJob) -> Detector:
    if job.reference_geometry is not None:
        return read_detector(job.reference_geometry)
    return read_experiments(job.rows[0].experiments)[0].detector


def _load(job: GeometryJob, row: ShotRow, grouping: PanelGrouping, detector: Detector) -> GeometryShot:
    settings = job.settings.shots
    files = ShotFiles(row.experiments, row.reflections, tag=row.tag)
    stills = list(
        load_stills(files, settings, reference_geometry=job.reference_geometry, reference_beam=job.reference_beam)
    )
    if len(stills) != 1:
        raise InputError(f"{row.experiments}: {len(stills)} images; a row of the table is one image")
    still = stills[0]
    check_detector(detector, still.detector, job.rows[0].tag, row.tag)
    if not still.crystals:
        raise InputError(f"{row.tag}: no crystal model in {row.experiments}; refine the shot first")
    crystal = still.crystals[0]
    cell = np.concatenate([crystal.cell[:3], np.radians(crystal.cell[3:])])
    start = Parameters.start(cell, n_lattices=len(still.crystals), **row.start)
    return geometry_shot(still, structure_factors(still, settings), settings, grouping, start=start)


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

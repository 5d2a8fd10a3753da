"""A run over many raw stills: what to do, who does it, and the outcome of each. One bad still stops no other.

Tasks are shared out among local processes, or dealt to the ranks of an MPI run. A still that has a record in the output
folder is finished; a run that goes on from there (``resume``) leaves it alone and does all others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bayesbragg.io.experiments import read_beam, read_detector, read_experiments, replace_detector
from bayesbragg.io.images import count_images, read_image_experiment
from bayesbragg.model import Experiment, ImageReference
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.device import choose_device, forget_programs, remember_programs
from bayesbragg.pipeline.load import find_stills
from bayesbragg.pipeline.shot_files import ShotFiles, unique_tags
from bayesbragg.pipeline.stills_process import ProcessedStill, StillStatus, process_image, process_indexed
from bayesbragg.pipeline.stills_settings import StillsSettings
from bayesbragg.pipeline.stills_write import PREFIX, forget_still, read_record, write_failure, write_still
from bayesbragg.pipeline.workers import share_out

__all__ = ["StillTask", "StillsJob", "image_tasks", "indexed_tasks", "run_stills", "without_finished"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StillTask:
    """One piece of work.

    Attributes:
        tag: name in outputs.
        path: image file, or the experiment list that names the image.
        index: number of the image in its file, or of the experiment in its list.
        from_list: `path` is an experiment list.
        files: indexed experiments and reflections instead; all stills of them.
        spectrum: a ``.lam`` file.
    """

    tag: str
    path: Path
    index: int = 0
    from_list: bool = False
    files: ShotFiles | None = None
    spectrum: Path | None = None


@dataclass(frozen=True)
class StillsJob:
    """What all stills of a run share.

    Attributes:
        settings: of every step.
        folder: where results go.
        reference_geometry, reference_beam: ``.expt`` files that replace the images' own.
        device: auto, cpu or gpu.
        resume: stills with a record are left alone.
    """

    settings: StillsSettings
    folder: Path
    reference_geometry: Path | None = None
    reference_beam: Path | None = None
    device: str = "auto"
    resume: bool = False


def image_tasks(paths: Sequence[Path], tag_words: Sequence[str] = ()) -> list[StillTask]:
    """A task for each image of the files; experiment lists without crystals stand for the images that they name.

    Names are those of the files; equal names in several folders get the folder's name, several images of a file a
    number.

    Args:
        tag_words: keep only stills whose tag holds one of these words (``input.image_tag``).
    """
    found: list[StillTask] = []
    for files in unique_tags([ShotFiles(path, path) for path in paths]):
        path, name = files.reflections, files.name
        listed = path.suffix in (".expt", ".json")
        try:
            n = len(read_experiments(path)) if listed else count_images(path)
        except InputError:
            # The reason comes up again, as the outcome of this file.
            n = 1
        tags = [name] if n == 1 else [f"{name}_{number:05d}" for number in range(n)]
        found += [StillTask(tag, path, number, listed) for number, tag in enumerate(tags)]
    return [task for task in found if not tag_words or any(word in task.tag for word in tag_words)]


def indexed_tasks(shots: Sequence[ShotFiles]) -> list[StillTask]:
    """A task for each pair of indexed experiments and reflections."""
    return [StillTask(files.name.removeprefix(PREFIX), files.experiments, files=files) for files in unique_tags(shots)]


def without_finished(tasks: Sequence[StillTask], job: StillsJob) -> tuple[list[StillTask], list[dict[str, Any]]]:
    """Tasks that have no record yet, and the records of the others."""
    left, records = [], []
    for task in tasks:
        record = None if task.files is not None else read_record(job.folder, task.tag, job.settings.composite)
        if record is None:
            left.append(task)
        else:
            records.append(record)
    return left, records


def run_stills(
    job: StillsJob, tasks: Sequence[StillTask], n_processes: int = 1
) -> Generator[dict[str, Any], None, None]:
    """Process the stills and yield their records as they finish.

    Args:
        n_processes: worker processes; 1 works in this one.
    """
    if n_processes <= 1 or len(tasks) <= 1:
        for task in tasks:
            yield from _do(job, task)
        return
    yield from share_out(tasks, prepare_worker, job, n_processes, partial(_lost, job.folder))


def prepare_worker(job: StillsJob) -> Callable[[StillTask], Iterator[dict[str, Any]]]:
    """What a worker process does first, and the function that processes a task."""
    choose_device(job.device)
    remember_programs(purpose="stills-process")
    return partial(_do, job)


def _lost(folder: Path, task: StillTask, how: str) -> dict[str, Any]:
    reason = f"{task.path}: {how}; run it again with --resume, and with fewer processes (mp.nproc)"
    # No record: a run that goes on tries this still again.
    return {"tag": task.tag, "image": str(task.path), "status": StillStatus.ERROR.value, "reason": reason}


def _do(job: StillsJob, task: StillTask) -> Iterator[dict[str, Any]]:
    if task.files is None:
        yield _record(job, task.tag, f"{task.path}#{task.index}", task.path, partial(_from_image, job, task))
        return
    clock = time.perf_counter()
    try:
        sources = find_stills(
            task.files,
            job.settings.refine,
            reference_geometry=job.reference_geometry,
            reference_beam=job.reference_beam,
        )
    except Exception as error:
        yield _failed(job, task.tag, str(task.path), task.path, error, clock)
        return
    for source in sources:
        tag = task.tag if len(sources) == 1 else source.tag.removeprefix(PREFIX)
        record = read_record(job.folder, tag, job.settings.composite) if job.resume else None
        if record is not None:
            yield {**record, "existing": True}
            continue

        def work(source: Any = source, tag: str = tag) -> ProcessedStill:
            return process_indexed(replace(source.read(), tag=tag), job.settings)

        yield _record(job, tag, str(task.path), task.path, work)


def _record(job: StillsJob, tag: str, image: str, path: Path, work: Callable[[], ProcessedStill]) -> dict[str, Any]:
    clock = time.perf_counter()
    forget_programs()
    try:
        processed = work()
        # What an earlier run left must not stand for this one, should writing fail half-way.
        forget_still(job.folder, tag, job.settings.composite)
        record = write_still(processed, job.settings, job.folder, image, time.perf_counter() - clock)
    except Exception as error:
        return _failed(job, tag, image, path, error, clock)
    counts = ", ".join(f"{record[n]} {n.removeprefix('n_')}" for n in ("n_strong", "n_indexed", "n_integrated"))
    log.info(
        "%s: %s; %s; %.1f s; %s", tag, record["status"], counts, record["seconds"], record["reason"] or "no remark"
    )
    return record


def _failed(job: StillsJob, tag: str, image: str, path: Path, error: Exception, clock: float) -> dict[str, Any]:
    bad = isinstance(error, InputError)
    reason = " ".join(str(error).split())
    if not bad:
        reason = f"{type(error).__name__}: {reason}"
    if path.name not in reason:
        reason = f"{path}: {reason}"
    log.debug("%s: %s", tag, "bad input" if bad else "failed", exc_info=error)
    status = StillStatus.BAD_INPUT if bad else StillStatus.ERROR
    forget_still(job.folder, tag, job.settings.composite)
    return write_failure(job.folder, tag, status, reason, image, time.perf_counter() - clock)


def _from_image(job: StillsJob, task: StillTask) -> ProcessedStill:
    return process_image(task.tag, _experiment(job, task), job.settings, task.spectrum)


def _experiment(job: StillsJob, task: StillTask) -> Experiment:
    """Beam, detector and image of a task, with the reference geometry where there is one."""
    if task.from_list:
        experiment = replace(read_experiments(task.path)[task.index], crystal=None)
    else:
        try:
            experiment = read_image_experiment(task.path, task.index)
        except InputError as error:
            if job.reference_geometry is None or "geometry" not in str(error):
                raise
            # A format that knows no geometry: all of it comes from the reference.
            reference = job.reference_geometry
            image = ImageReference(task.path.absolute(), task.index)
            experiment = Experiment("", read_beam(reference), read_detector(reference), None, image)
    if job.reference_geometry is not None:
        experiment = replace_detector([experiment], job.reference_geometry)[0]
    if job.reference_beam is not None:
        experiment = replace(experiment, beam=read_beam(job.reference_beam))
    return experiment

"""Take raw stills to refined models and integrated reflections: spots, indexing, pixel refinement, integration.

Input is images (quoted wildcards are expanded), or experiment lists (.expt) that name images, or indexed .expt and
.refl pairs, which go straight to pixel refinement. Parameters come from PHIL files and from key=value words, which
win; those of DIALS and of the classic program are understood (docs/parameters.md). DIALS is not needed.

examples:
  bayesbragg stills-process process.phil "images/run*/*.h5" output.output_dir=out mp.nproc=4
  bayesbragg stills-process process.phil images/*.cbf reference_geometry=optGeo.expt output.output_dir=out
  mpirun -n 8 bayesbragg stills-process process.phil "images/*.h5" mp.method=mpi output.output_dir=out --resume
  bayesbragg stills-process process.phil indexed/*.expt indexed/*.refl output.output_dir=out

output folder:
  idx-TAG_strong.refl, idx-TAG_indexed.refl, idx-TAG_refined.expt       spots, indexed spots, models
  idx-TAG_integrated.expt, idx-TAG_integrated.refl                      integrated reflections (DIALS reads them all)
  integrated.mtz, integrated.stream     unmerged intensities of the run, for merging programs (MTZ, CrystFEL)
  hopper_process_summary.pkl/.parquet   the table of shots
  stills.jsonl                          one line for each still: status, cause and remedy, counts, files
  run.json, bayesbragg.log              settings, versions, input hashes; the log
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesbragg.cli.common import (
    EXIT_BAD_INPUT,
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    add_logging_arguments,
    progress,
    provenance,
    set_up_folder,
    set_up_logging,
    write_json,
)
from bayesbragg.cli.ranks import local_rank, mpi_ranks
from bayesbragg.cli.words import sort_words
from bayesbragg.model.errors import InputError

if TYPE_CHECKING:
    from bayesbragg.io.phil import ResolvedParameters
    from bayesbragg.pipeline.stills_run import StillsJob, StillTask

__all__ = ["add_arguments", "run"]

log = logging.getLogger("bayesbragg.stills_process")

DEFAULT_FOLDER = "processed"
START = "started.json"
FREE_TO_CHANGE = {"nproc", "mp.nproc", "mp.method", "device", "outdir", "output.output_dir", "logging.disable"}
FREE_TO_CHANGE |= {"skip", "first_n", "max_process", "input.max_images", "input.image_tag"}
"""Parameters that a resumed run may have otherwise: how it runs, and which of the stills it does now."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words", nargs="+", metavar="PHIL|IMAGE|EXPT|REFL|KEY=VALUE", help="parameter files, images, single parameters"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with a run that was stopped: finished stills are left alone"
    )
    parser.add_argument("--show-phil", action="store_true", help="print the resolved parameters and stop")
    add_logging_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from bayesbragg.io.phil import load_phil

    phil, paths, overrides = sort_words(arguments.words)
    set_up_logging(None, quiet=arguments.quiet, verbose=arguments.verbose)
    parameters = load_phil(phil, overrides, program="stills_process")
    if arguments.show_phil:
        print(parameters.resolved_text())
        return 0
    return process(parameters, paths, resume=arguments.resume, quiet=arguments.quiet, verbose=arguments.verbose)


def process(parameters: ResolvedParameters, paths: list[Path], *, resume: bool, quiet: bool, verbose: bool) -> int:
    """Process the stills that the paths or the parameters name; returns the exit code."""
    from bayesbragg.pipeline.device import choose_device, remember_programs
    from bayesbragg.pipeline.from_phil import reference_geometry
    from bayesbragg.pipeline.load import check_inputs
    from bayesbragg.pipeline.stills_run import StillsJob, run_stills, without_finished
    from bayesbragg.pipeline.stills_settings import stills_settings

    ranks = mpi_ranks(parameters)
    rank, size = (0, 1) if ranks is None else (ranks.Get_rank(), ranks.Get_size())
    settings = stills_settings(parameters)
    tasks = _tasks(parameters, paths)
    if any(task.files is None for task in tasks) and settings.do_index:
        settings.lattice.crystal()
    device = choose_device(parameters.device, local_rank(ranks))
    remember_programs(purpose="stills-process")
    geometry, beam = reference_geometry(parameters), parameters.path(parameters.opt_beam)
    if settings.do_refine and settings.do_index:
        check_inputs(settings.refine, reference_geometry=geometry, reference_beam=beam)
    named = parameters.stills.output.output_dir if "output.output_dir" in parameters.explicit else None
    folder = Path(parameters.outdir or named or DEFAULT_FOLDER)
    log_file = set_up_folder(parameters, folder, quiet=quiet or rank > 0, verbose=verbose)
    job = StillsJob(settings, folder, geometry, beam, parameters.device, resume)
    finished: list[dict[str, Any]] = []
    problem = _start(parameters, job, tasks, resume) if rank == 0 else ""
    if ranks is not None:
        # Told to all, lest the others wait for ever.
        problem = ranks.bcast(problem, root=0)
    if problem:
        if rank > 0:
            return EXIT_BAD_INPUT
        raise InputError(problem)
    if rank == 0:
        log.info("device: %s; %d tasks, %d ranks", device, len(tasks), size)
        log.info("parameters that differ from their defaults:\n%s", parameters.changed_text())
    left = tasks
    if resume:
        left, finished = without_finished(tasks, job)
    if ranks is not None:
        # What is done is judged once: other ranks may have finished something meanwhile.
        left, finished = ranks.bcast((left, finished), root=0)
        left = left[rank::size]
    records = list(finished)
    interrupted = False
    n_processes = 1 if ranks is not None else parameters.n_processes
    outcomes = run_stills(job, left, n_processes)
    try:
        with progress(len(left), "stills", quiet=quiet or rank > 0) as bar:
            for record in outcomes:
                records.append(record)
                if record["reason"]:
                    print(f"bayesbragg: {record['tag']}: {record['status']}: {record['reason']}", file=sys.stderr)
                bar.advance(f"{record['tag']}: {record['status']}")
    except KeyboardInterrupt:
        interrupted = True
        log.info("interrupted")
        outcomes.close()
    if ranks is not None:
        gathered = ranks.gather(records[len(finished) :], root=0)
        if rank > 0:
            return 0
        records = finished + [record for part in gathered or [] for record in part]
    code = _close(parameters, job, tasks, records, len(finished), log_file, device)
    if interrupted:
        print("bayesbragg: interrupted; --resume goes on from here", file=sys.stderr)
        return EXIT_INTERRUPTED
    return code


def _tasks(parameters: ResolvedParameters, paths: list[Path]) -> list[StillTask]:
    """What the words and the ``input`` scope name: images, lists of images, or indexed stills."""
    import glob

    from bayesbragg.pipeline.shot_files import pair_files
    from bayesbragg.pipeline.stills_run import image_tasks, indexed_tasks

    scope = parameters.stills.input
    paths = list(paths)
    listed = parameters.path(scope.file_list)
    if listed is not None:
        try:
            lines = listed.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            raise InputError(
                f"{listed}: cannot be read; input.file_list is a text file, one image in each line"
            ) from None
        paths += [Path(line.strip()) for line in lines if line.strip() and not line.strip().startswith("#")]
    for pattern in scope.glob or []:
        if pattern:
            names = sorted(glob.glob(str(pattern)))
            if not names:
                raise InputError(f"input.glob={pattern}: no file fits this pattern; check it and the working directory")
            paths += [Path(name) for name in names]
    if not paths:
        raise InputError("no images: give image files, .expt files that name images, or indexed .expt and .refl files")
    if any(path.suffix == ".refl" for path in paths):
        tasks = indexed_tasks(pair_files(paths))
    else:
        tasks = image_tasks(paths, [word for word in scope.image_tag or [] if word])
    first = parameters.skip or 0
    tasks = tasks[first : None if parameters.first_n is None else first + parameters.first_n]
    for most in (scope.max_images, parameters.max_process):
        if most is not None and most >= 0:
            tasks = tasks[:most]
    if not tasks:
        raise InputError("no images are left after skip, first_n, image_tag and max_images")
    return tasks


def _start(parameters: ResolvedParameters, job: StillsJob, tasks: Sequence[StillTask], resume: bool) -> str:
    """Note what the run is made with; a resumed run must be made with the same, or the complaint is returned."""
    import json

    from bayesbragg.pipeline.stills_write import forget_still

    ours = {n: repr(parameters.get(n)) for n in sorted(parameters.changed) if n not in FREE_TO_CHANGE}
    path = job.folder / START
    if resume and path.is_file():
        try:
            noted = json.loads(path.read_bytes())["parameters"]
            before = {name: value for name, value in noted.items() if name not in FREE_TO_CHANGE}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            before = None
        if before is not None and before != ours:
            name = next(n for n in sorted({*before, *ours}) if before.get(n) != ours.get(n))
            return (
                f"{job.folder}: --resume with {name}={ours.get(name, 'its default')}, the run was started with "
                f"{before.get(name, 'its default')}; use the same parameters, or another output folder"
            )
        return ""
    if not resume:
        for task in tasks:
            forget_still(job.folder, task.tag, job.settings.composite)
    write_json(path, {"parameters": ours})
    return ""


def _close(
    parameters: ResolvedParameters,
    job: StillsJob,
    tasks: Sequence[StillTask],
    records: list[dict[str, Any]],
    n_before: int,
    log_file: Path | None,
    device: str,
) -> int:
    from bayesbragg.io.tables import rebuild_table
    from bayesbragg.pipeline.stills_outputs import write_composite, write_log, write_unmerged

    folder, settings = job.folder, job.settings
    factors = settings.refine.factors
    inputs = [str(path) for path in dict.fromkeys(task.path for task in tasks)]
    inputs += [str(path) for path in (factors.mtz, factors.pdb, job.reference_geometry) if path]
    record = provenance(configuration={"phil": parameters.resolved_text()}, inputs=inputs, seed=settings.refine.seed)
    record["device"], record["precision"] = device, settings.refine.model.precision
    write_json(folder / "run.json", record)
    write_log(records, folder)
    if any((r.get("files") or {}).get("refined") for r in records):
        rebuild_table(folder)
    n_lattices, n_reflections = write_unmerged(records, folder)
    if settings.composite:
        write_composite(records, folder)
    _print_summary(records, len(tasks), n_before, (n_lattices, n_reflections), folder, log_file)
    bad = [r for r in records if r["status"] in ("bad input", "error")]
    if records and len(bad) == len(records):
        return EXIT_BAD_INPUT if all(r["status"] == "bad input" for r in bad) else EXIT_FAILURE
    return 0


def _print_summary(
    records: list[dict[str, Any]],
    n_tasks: int,
    n_before: int,
    integrated: tuple[int, int],
    folder: Path,
    log_file: Path | None,
) -> None:
    """A line per still, then how many came how far, then where things are."""
    wide = max([24, *(len(str(r["tag"])) for r in records)])
    print(
        f"{'still':<{wide}} {'status':<15} {'spots':>6} {'indexed':>8} {'rmsd px':>8} {'sigma-Z':>8} {'integrated':>10}"
    )
    for r in sorted(records, key=lambda r: str(r["tag"])):
        numbers = [
            "-" if r.get(name) is None or r[name] != r[name] else format(r[name], kind)
            for name, kind in (
                ("n_strong", "d"),
                ("n_indexed", "d"),
                ("indexing_rmsd_px", ".2f"),
                ("sigma_z", ".3f"),
                ("n_integrated", "d"),
            )
        ]
        widths = (6, 8, 8, 8, 10)
        shown = " ".join(f"{text:>{width}}" for text, width in zip(numbers, widths, strict=True))
        print(f"{r['tag']:<{wide}} {r['status']:<15} {shown}")
    counts = Counter(r["status"] for r in records)
    before = f" ({n_before} of them were there before)" if n_before else ""
    print(
        f"{max(len(records), n_tasks)} stills{before}: " + ", ".join(f"{n} {name}" for name, n in counts.most_common())
    )
    if integrated[1]:
        print(f"{integrated[1]} integrated reflections of {integrated[0]} lattices; results are in {folder}")
    else:
        print(f"results are in {folder}")
    if any(r["reason"] for r in records):
        where = f"; the log is {log_file}" if log_file is not None else ""
        print(f"causes and remedies stand above and in {folder / 'stills.jsonl'}{where}")

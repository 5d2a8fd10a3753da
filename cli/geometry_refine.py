"""Refine one detector, and every shot's models with it, against the pixels of many shots.

Input is the table of shots that `bayesbragg refine` or the classic program wrote (input_pkl: .pkl, .parquet, a run's
folder, or wildcards in input_pkl_glob). Panel groups come from a panel group file, from the detector's hierarchy, or
from a word (joint.groups). Parameters are read from PHIL files, --cmdlinePhil words and plain key=value words, the
last winning.

units: geometry.min and max, geometry.center: degree (about orthogonal, fast, slow axis) and millimetre (x, y, z);
  geometry.betas: variances in radian^2 and metre^2, as the classic program takes them; with joint.beta_units=degree_mm
  in degree^2 and millimetre^2. joint.*_sd: degree and millimetre.

examples:
  bayesbragg geometry-refine --phil geom.phil --cmdlinePhil optimized_detector_name=optGeo.expt \\
      input_pkl=procBad/hopper_process_summary.pkl max_process=20 outdir=geom
  bayesbragg geometry-refine geom.phil input_pkl=refined outdir=geom joint.groups=quadrants nproc=2
  mpirun -n 8 bayesbragg geometry-refine geom.phil input_pkl=refined outdir=geom
  bayesbragg geometry-refine geom.phil input_pkl=refined outdir=geom inference=nuts --strict
  bayesbragg refine process.phil exp_ref_spec_file=shots.txt outdir=again reference_geometry=geom/optGeo.expt

output folder:
  optGeo.expt (optimized_detector_name)    the detector, for DIALS and for reference_geometry=
  TAG_refined.expt, TAG_indexed.refl       refined models and predictions of every shot
  hopper_process_summary.pkl/.parquet      the table of shots, with the refined values
  panels.csv, panels.h5                    motions of every group with error bars; the whole posterior covariance
  shifts.png, error_bars.png, progress.png pictures
  identifiability.txt                      what the data say, what the prior says
  run.json, bayesbragg.log                 settings, versions, input hashes, every step
  geometry_state.npz                       where a run that is killed goes on
  panels_posterior.nc, .csv, *.png         inference=nuts, or laplace with posterior.draws: draws, verdict, pictures
"""

from __future__ import annotations

import argparse
import logging
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesbragg.cli.common import add_logging_arguments, provenance, set_up_folder, set_up_logging, write_json
from bayesbragg.cli.words import is_parameter
from bayesbragg.model.errors import InputError

if TYPE_CHECKING:
    from bayesbragg.inference.communicator import Communicator
    from bayesbragg.inference.joint_types import JointState
    from bayesbragg.io.phil import ResolvedParameters
    from bayesbragg.pipeline.geometry_job import GeometryJob
    from bayesbragg.pipeline.geometry_run import GeometryResult

__all__ = ["add_arguments", "geometry_job", "run"]

log = logging.getLogger("bayesbragg.geometry")
DEFAULT_FOLDER = "geometry"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="PHIL|KEY=VALUE", help="parameter files and single parameters")
    parser.add_argument("--phil", action="append", default=[], help="a parameter file")
    parser.add_argument(
        "--cmdlinePhil",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="single parameters, as for the classic program",
    )
    parser.add_argument("--show-phil", action="store_true", help="print the resolved parameters and stop")
    parser.add_argument(
        "--strict", action="store_true", help="exit code 1 if the fit does not converge or a posterior's verdict fails"
    )
    add_logging_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from bayesbragg.inference.communicator import run_local
    from bayesbragg.io.phil import load_phil

    overrides = [*arguments.cmdlinePhil, *filter(is_parameter, arguments.words)]
    files = [*arguments.phil, *(word for word in arguments.words if not is_parameter(word))]
    communicator = _mpi()
    first = communicator is None or communicator.rank == 0
    set_up_logging(None, quiet=arguments.quiet or not first, verbose=arguments.verbose)
    parameters = load_phil(files, overrides, program="geometry", warn=first)
    if arguments.show_phil:
        print(parameters.resolved_text())
        return 0
    job = geometry_job(parameters)
    if first:
        set_up_folder(parameters, job.folder, quiet=arguments.quiet, verbose=arguments.verbose)
        log.info("parameters that differ from their defaults:\n%s", parameters.changed_text())
    if communicator is not None:
        result = _work(communicator, job, arguments.quiet)
    else:
        result = run_local(_work, min(parameters.n_processes, len(job.rows)), job, arguments.quiet)
    if not first:
        return 0
    record = _write(result, job, parameters)
    passed = _explore(result, job, record, quiet=arguments.quiet)
    converged = result.fit.status.value == "converged"
    return int(arguments.strict and not (converged and passed))


def _explore(result: GeometryResult, job: GeometryJob, record: dict[str, Any], *, quiet: bool) -> bool:
    """The posterior, where one is asked for; whether its verdict passed."""
    from bayesbragg.cli.posterior_geometry import explore, explore_folder

    how, seed = job.settings.shots.posterior, job.settings.shots.seed
    if how.inference == "map" or (how.inference == "laplace" and not how.draws):
        return True
    if result.fit.status.value == "failed":
        print(f"bayesbragg: error: no posterior: the joint fit failed ({result.fit.reason})", file=sys.stderr)
        return False
    if len(result.terms) < len(job.rows):
        # Sampling has one process, and takes the shots of the others in.
        return explore_folder(job.folder, how, seed, (), plots=True, quiet=quiet)
    return explore(result, job.folder, how, seed, (), record, plots=True, quiet=quiet)


def _mpi() -> Communicator | None:
    """The ranks of mpirun or srun; None where this is a single process."""
    import os

    if not any(name in os.environ for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "SLURM_PROCID")):
        return None
    try:
        from mpi4py import MPI
    except ImportError:
        if any(int(os.environ.get(name, 1)) > 1 for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")):
            log.warning("started as several processes, but mpi4py is not installed: each fits all shots by itself; "
                        "pip install bayesbragg[mpi]")  # fmt: skip
        return None
    from bayesbragg.inference.communicator import MpiRanks

    return MpiRanks(MPI.COMM_WORLD) if MPI.COMM_WORLD.Get_size() > 1 else None


def _work(communicator: Communicator, job: GeometryJob, quiet: bool) -> GeometryResult:
    """One process of the run."""
    from bayesbragg.pipeline.geometry_output import write_shot
    from bayesbragg.pipeline.geometry_run import refine_geometry

    def show(state: JointState) -> None:
        if communicator.rank == 0:
            _print_step(state.trace[-2:] if state.iteration == 1 else state.trace[-1:], quiet)

    return refine_geometry(communicator, job, show, partial(write_shot, job))


def _print_step(steps: list[Any], quiet: bool) -> None:
    for step in steps:
        text = (
            f"step {step.number:3d}  target {step.target:16.3f}  sigma-Z {step.sigma_z:7.4f}  "
            f"median offset {step.median_offset_px:6.3f} px"
        )
        if step.number:
            text += f"  predicted decrease {step.predicted:10.4g}" + ("" if step.accepted else "  (not taken)")
        log.info(text)
        if not quiet:
            print(text, file=sys.stderr, flush=True)


def geometry_job(parameters: ResolvedParameters) -> GeometryJob:
    """The shots and settings that parameters mean.

    Raises:
        InputError: a file that is not there, or a table of shots that cannot be used.
    """
    from bayesbragg.pipeline.from_phil import reference_geometry
    from bayesbragg.pipeline.geometry_job import GeometryJob
    from bayesbragg.pipeline.geometry_rows import table_rows
    from bayesbragg.pipeline.geometry_settings import geometry_settings
    from bayesbragg.pipeline.shot_files import ShotFiles, refuse_to_replace

    settings = geometry_settings(parameters)
    rows = table_rows(parameters)
    for path in (settings.shots.factors.mtz, settings.shots.factors.pdb, settings.groups.file):
        if path is not None and not path.is_file():
            raise InputError(f"{path}: no such file; check the name, the working directory and the PHIL file's folder")
    folder = Path(parameters.outdir or DEFAULT_FOLDER)
    refuse_to_replace(folder, (ShotFiles(row.experiments, row.reflections, tag=row.tag) for row in rows))
    geometry, beam = reference_geometry(parameters), parameters.path(parameters.opt_beam)
    return GeometryJob(settings, tuple(rows), folder, geometry, parameters.device, beam)


def _write(result: GeometryResult, job: GeometryJob, parameters: ResolvedParameters) -> dict[str, Any]:
    """Results as files and what is printed of them; returns their record."""
    from bayesbragg.pipeline.geometry_output import write_geometry
    from bayesbragg.pipeline.geometry_run import fit_record

    fit, folder = result.fit, job.folder
    name = Path(parameters.geometry.optimized_detector_name).name
    source = parameters.path(parameters.geometry.input_pkl or parameters.geometry.input_pkl_glob)
    assert source is not None
    report = write_geometry(result, job, name, source)
    inputs = [path for row in job.rows for path in (row.experiments, row.reflections)]
    factors = job.settings.shots.factors
    shared = (factors.mtz, factors.pdb, job.settings.groups.file, job.reference_geometry, job.reference_beam)
    inputs += [path for path in shared if path is not None]
    record = provenance(configuration={"phil": parameters.resolved_text()}, inputs=inputs, seed=None)
    record |= {"fit": fit_record(fit), "resumed_at_step": result.resumed, "notes": list(result.notes)}
    record["prior"] = list(result.prior.text)
    write_json(folder / "run.json", record)
    for line in report:
        log.info(line)
    print("\n".join(report))
    print(f"{fit.status.value}: {fit.reason}; target {fit.target:.3f} from {fit.start_target:.3f} in "
          f"{fit.iterations} steps, {fit.seconds:.1f} s; sigma-Z {fit.sigma_z:.4f}")  # fmt: skip
    if fit.at_bound:
        print(f"at a bound: {', '.join(fit.at_bound)}")
    print(f"the detector is {folder / name}")
    return record

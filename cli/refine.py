"""Refine each shot's crystal, mosaic and scale model against its pixels.

Input is what indexing leaves: experiment lists (.expt), reflection tables (.refl) and the images that they name, or a
classic list of shots (exp_ref_spec_file). Parameters come from PHIL files of the classic program and from key=value
words, which win.

examples:
  bayesbragg refine process.phil shot_000_refined.expt shot_000_indexed.refl outdir=refined
  bayesbragg refine process.phil exp_ref_spec_file=shots.txt outdir=refined nproc=2
  mpirun -n 16 bayesbragg refine process.phil exp_ref_spec_file=shots.txt outdir=refined mp.method=mpi
  bayesbragg refine process.phil indexed/*.expt indexed/*.refl outdir=corrected reference_geometry=optGeo.expt
  bayesbragg refine process.phil exp_ref_spec_file=shots.txt best_pickle=refined/hopper_process_summary.pkl \\
      fix.eta_abc=False simulator.crystal.num_mosaicity_samples=20 outdir=second_stage

output folder:
  TAG_refined.expt, TAG_indexed.refl   refined models, reflections with xyzcal from the model (DIALS reads both)
  hopper_process_summary.pkl/.parquet  the table of shots; its rows are in pandas/ while the run goes on
  modelers/                            with debug_mode=True: pixels, model and background, settings, spectrum
  run.json, bayesbragg.log             settings, versions, input hashes, the outcome of every shot; the log
"""

from __future__ import annotations

import argparse
import logging
import sys
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
    from bayesbragg.pipeline.outcomes import Outcome
    from bayesbragg.pipeline.shot_files import ShotFiles

__all__ = ["add_arguments", "run"]

log = logging.getLogger("bayesbragg.refine")

DEFAULT_FOLDER = "refined"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words", nargs="+", metavar="PHIL|EXPT|REFL|KEY=VALUE", help="parameter files, shots, and single parameters"
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="exit code 1 unless every fit converges and no verdict on error bars fails",
    )
    parser.add_argument("--show-phil", action="store_true", help="print the resolved parameters and stop")
    add_logging_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from bayesbragg.io.phil import load_phil

    phil, shots, overrides = sort_words(arguments.words)
    set_up_logging(None, quiet=arguments.quiet, verbose=arguments.verbose)
    parameters = load_phil(phil, overrides, program="refine")
    if arguments.show_phil:
        print(parameters.resolved_text())
        return 0
    return refine(parameters, shots, quiet=arguments.quiet, verbose=arguments.verbose, strict=arguments.strict)


def refine(
    parameters: ResolvedParameters, paths: list[Path], *, quiet: bool, verbose: bool, strict: bool = False
) -> int:
    """Refine the shots that the paths or the parameters name; returns the exit code."""
    from bayesbragg.pipeline.device import choose_device, remember_programs
    from bayesbragg.pipeline.from_phil import reference_geometry, settings_from_phil
    from bayesbragg.pipeline.load import check_inputs
    from bayesbragg.pipeline.run import Job, run_shots
    from bayesbragg.pipeline.shot_files import refuse_to_replace

    ranks = mpi_ranks(parameters)
    rank, size = (0, 1) if ranks is None else (ranks.Get_rank(), ranks.Get_size())
    settings = settings_from_phil(parameters)
    shots = _shots(parameters, paths)
    folder = Path(parameters.outdir or _output_dir(parameters) or DEFAULT_FOLDER)
    refuse_to_replace(folder, shots)
    device = choose_device(parameters.device, local_rank(ranks))
    remember_programs(purpose="refine")
    geometry, beam = reference_geometry(parameters), parameters.path(parameters.opt_beam)
    check_inputs(settings, reference_geometry=geometry, reference_beam=beam)
    starts, starts_from = _starts(parameters)
    log_file = set_up_folder(parameters, folder, quiet=quiet or rank > 0, verbose=verbose)
    log.info("device: %s", device)
    log.info("%d shots", len(shots))
    log.info("rank %d of %d", rank, size)
    log.info("structure factors: %s", settings.factors.mtz or settings.factors.pdb)
    log.info("parameters that differ from their defaults:\n%s", parameters.changed_text())
    job = Job(settings, folder, geometry, parameters.device, starts, starts_from, beam, parameters.ignore_existing,
              parameters.batch)  # fmt: skip
    outcomes: list[Outcome] = []
    own = shots[rank::size]
    finished = run_shots(job, own, 1 if size > 1 else parameters.n_processes)
    interrupted = False
    try:
        with progress(len(own), "refining", quiet=quiet or rank > 0) as bar:
            for outcome in finished:
                outcomes.append(outcome)
                if outcome.failed:
                    # The reason names the file and the remedy; the run goes on.
                    print(f"bayesbragg: error: {outcome.reason}", file=sys.stderr)
                    log.info("%s: %s: %s", outcome.tag, outcome.status, outcome.reason)
                bar.advance(outcome.tag)
    except KeyboardInterrupt:
        # What is finished stays, with its table and its record.
        interrupted = True
        log.info("interrupted")
        finished.close()
    if ranks is not None:
        gathered = ranks.gather(outcomes, root=0)
        if rank > 0:
            return 0
        outcomes = [outcome for part in gathered or [] for outcome in part]
    code = _close(parameters, settings, folder, shots, outcomes, device, log_file)
    if interrupted:
        print("bayesbragg: interrupted; ignore_existing=True goes on from here", file=sys.stderr)
        return EXIT_INTERRUPTED
    return code or int(strict and not all(_convincing(outcome) for outcome in outcomes))


def _convincing(outcome: Outcome) -> bool:
    """A fit that converged, or was there before, and error bars whose verdict did not fail."""
    fitted = outcome.status in ("converged", "existing")
    return fitted and not any(str(row.get("verdict")).startswith("FAILED") for row in outcome.rows)


def _close(
    parameters: ResolvedParameters,
    settings: Any,
    folder: Path,
    shots: list[ShotFiles],
    outcomes: list[Outcome],
    device: str,
    log_file: Path | None,
) -> int:
    from bayesbragg.io.tables import rebuild_table

    inputs = [path for shot in shots for path in (shot.experiments, shot.reflections, shot.spectrum) if path]
    inputs += [path for path in (settings.factors.mtz, settings.factors.pdb) if path]
    record = provenance(configuration={"phil": parameters.resolved_text()}, inputs=inputs, seed=settings.seed)
    record["device"], record["precision"] = device, settings.model.precision
    record["shots"] = [
        {"tag": o.tag, "status": o.status, "reason": o.reason, "seconds": round(o.seconds, 3)} for o in outcomes
    ]
    write_json(folder / "run.json", record)
    present = any(not outcome.failed for outcome in outcomes)
    if present:
        rebuild_table(folder)
    _print_summary(outcomes, len(shots), folder, log_file)
    if outcomes and not present:
        return EXIT_BAD_INPUT if all(outcome.bad_input for outcome in outcomes) else EXIT_FAILURE
    return 0


def _print_summary(outcomes: list[Outcome], n_files: int, folder: Path, log_file: Path | None) -> None:
    """A line per shot with units, then where things are."""
    titles = ("a (A)", 9), ("c (A)", 9), ("Na", 7), ("Nb", 7), ("Nc", 7), ("sigma-Z", 8)
    header = f"{'shot':<24} {'status':<16} boxes " + " ".join(f"{title:>{width}}" for title, width in titles)
    rows = [row for outcome in sorted(outcomes, key=lambda o: o.tag) for row in outcome.rows]
    if rows:
        print(header)
    for row in rows:
        blocks = " ".join(f"{value:7.2f}" for value in row["ncells"])
        print(
            f"{row['tag']:<24} {row['status']:<16} {row['n_boxes']:>5} {row['a']:9.4f} {row['c']:9.4f} {blocks} "
            f"{row['sigmaZ']:8.3f}"
        )
    done = sum(outcome.done for outcome in outcomes)
    failed = sum(outcome.failed for outcome in outcomes)
    kept = len(outcomes) - done - failed
    converged = sum(outcome.status == "converged" for outcome in outcomes)
    before = f", {kept} were there before" if kept else ""
    total = max(len(outcomes), n_files)
    print(f"{done} of {total} shots refined, {converged} of them converged{before}; results are in {folder}")
    if failed:
        where = f"; the log is {log_file}" if log_file is not None else ""
        print(f"the reasons of the {failed} others stand above and in {folder / 'run.json'}{where}")


def _shots(parameters: ResolvedParameters, paths: list[Path]) -> list[ShotFiles]:
    from bayesbragg.pipeline.shot_files import pair_files, read_shot_list, unique_tags, with_spectra

    listed = parameters.path(parameters.exp_ref_spec_file)
    if listed is not None and paths:
        raise InputError(f"{paths[0]}: give shots either here or in exp_ref_spec_file={listed}, not both")
    if listed is None and not paths:
        raise InputError("no shots: give .expt and .refl files, or exp_ref_spec_file=LIST")
    shots = unique_tags(read_shot_list(listed) if listed is not None else pair_files(paths))
    spectra = parameters.path(parameters.simulator.spectrum.filename_list)
    if spectra is not None:
        shots = with_spectra(shots, spectra)
    first = parameters.skip or 0
    shots = shots[first:] if parameters.first_n is None else shots[first : first + parameters.first_n]
    if parameters.max_process is not None and parameters.max_process >= 0:
        shots = shots[: parameters.max_process]
    if not shots:
        raise InputError("no shots are left after skip, first_n and max_process")
    return shots


def _output_dir(parameters: ResolvedParameters) -> str | None:
    return parameters.stills.output.output_dir if "output.output_dir" in parameters.explicit else None


def _starts(parameters: ResolvedParameters) -> tuple[dict[str, list[dict[str, Any]]], str]:
    """Rows of the table in best_pickle by shot, those of a shot's lattices in their order; and the table's name."""
    from bayesbragg.io.tables import read_table
    from bayesbragg.pipeline.shot_files import stem

    path = parameters.path(parameters.best_pickle)
    if path is None:
        return {}, ""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in read_table(path).to_dict("records"):
        name = row.get("tag") or stem(Path(str(row.get("stage1_refls") or row.get("exp_name") or "")))
        rows.setdefault(str(name).removeprefix("idx-"), []).append({str(key): value for key, value in row.items()})
    for lattices in rows.values():
        lattices.sort(key=lambda row: row.get("exp_idx") or 0)
    if not rows:
        raise InputError(f"{path}: a table without rows; give the table of shots of an earlier run")
    return rows, str(path)

"""Offsets between observed and predicted spots of refined shots: numbers, the detector picture, combined files.

For each folder DIR of results (pairs of *_refined.expt and *_indexed.refl, or of *.expt and *.refl) prints, in
micrometres,

  RMSD         root mean square distance between observed and calculated centroids
  radial       its part along the line from the beam to the spot: wrong cell, distance or wavelength
  transverse   its part around the beam: wrong orientation, or a turned panel
  median       median distance, which a few bad spots do not move

and writes into the folder

  residuals.png           the detector with panel numbers, each reflection coloured by its offset
  comb.expt, comb.refl    all shots in one pair of files, for DIALS or cctbx.xfel.detector_residuals

example:

  bayesbragg residuals procPoly procBad
  bayesbragg residuals /data/procPoly -o pictures    # where the folder of results cannot be written to
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bayesbragg.cli.common import add_logging_arguments, positive_integer, set_up_logging

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the command's options."""
    parser.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="folder of refined .expt and .refl files")
    parser.add_argument(
        "-o", "--output", metavar="OUT", type=Path, help="write to OUT (to OUT/NAME for several DIR) instead of DIR"
    )
    parser.add_argument(
        "--predicted",
        metavar="COLUMN",
        default="xyzcal.px",
        help="column of calculated centroids; dials.xyzcal.px shows the offsets before refinement (default: xyzcal.px)",
    )
    parser.add_argument(
        "--max-shots", metavar="N", type=positive_integer, help="only the first N pairs of files, by name"
    )
    parser.add_argument(
        "--colour-max", metavar="UM", type=float, help="offset of the last colour, micrometre, to compare pictures"
    )
    parser.add_argument("--no-combined", action="store_true", help="do not write comb.expt and comb.refl")
    parser.add_argument("--no-picture", action="store_true", help="do not draw residuals.png")
    add_logging_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the table of offsets and write pictures and combined files; 0 when done."""
    from bayesbragg.cli.runs import COMBINED, load_run, one_table, run_names
    from bayesbragg.diagnostics.offsets import summary
    from bayesbragg.model.errors import InputError

    set_up_logging(quiet=arguments.quiet, verbose=arguments.verbose)
    folders = [Path(folder) for folder in arguments.folders]
    names = run_names(folders)
    width = max(len("run"), *map(len, names))
    header = (
        f"{'run':{width}}  {'shots':>6} {'reflections':>12} {'RMSD':>8} {'radial':>8} {'transverse':>11} {'median':>8}"
    )
    written: list[Path] = []
    for number, (folder, name) in enumerate(zip(folders, names, strict=True)):
        results = load_run(folder, predicted=arguments.predicted, max_shots=arguments.max_shots, quiet=arguments.quiet)
        offsets = results.all_offsets
        s = summary(offsets)
        if number == 0:
            print(f"Offsets between observed and predicted spots, micrometre\n{header}")
        print(
            f"{name:{width}}  {len(results.shots):6d} {s.n_reflections:12d} {s.rmsd_um:8.1f} {s.radial_um:8.1f} "
            f"{s.transverse_um:11.1f} {s.median_um:8.1f}"
        )
        target = folder
        if arguments.output is not None:
            target = arguments.output if len(folders) == 1 else arguments.output / name
        try:
            if not arguments.no_picture:
                from bayesbragg.diagnostics.plots import detector_figure, save

                detector = results.shots[0][0].detector
                picture = detector_figure(detector, offsets, name, colour_max_um=arguments.colour_max)
                written.append(save(picture, target / "residuals.png"))
            if not arguments.no_combined:
                from bayesbragg.io.experiments import write_experiments
                from bayesbragg.io.reflections import write_reflections

                experiments, table = one_table(results)
                write_experiments(experiments, target / f"{COMBINED}.expt")
                write_reflections(table, target / f"{COMBINED}.refl")
                written += [target / f"{COMBINED}.expt", target / f"{COMBINED}.refl"]
        except OSError as error:
            raise InputError(
                f"{target}: cannot be written to ({error.strerror}); name another folder with -o OUT"
            ) from None
    if written and not arguments.quiet:
        print("\nwrote " + "\n      ".join(map(str, written)))
    return 0

"""Median offsets between observed and predicted spots against resolution, for one run or several.

Reflections of each folder DIR (pairs of *_refined.expt and *_indexed.refl, or of *.expt and *.refl) are put into bins
of equal numbers by resolution d. For each bin prints, in pixels, the medians of

  overall      distance between observed and calculated centroid
  radial       its part along the line from the beam to the spot
  tangential   its part around the beam

An overall offset that grows towards high resolution points to the cell, the distance or the spectrum; one that is there
at low resolution already, to the orientation or the panels. All runs go into one picture.

example:

  bayesbragg pred-offsets procPoly procBad procOpt --nbins 10 -o pred_offsets.png
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
        "--nbins",
        "-nbins",
        metavar="N",
        type=positive_integer,
        default=10,
        help="bins of resolution; more bins show more and scatter more (default: 10)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="PNG",
        type=Path,
        default=Path("pred_offsets.png"),
        help="the picture; its ending may be .pdf or .svg as well (default: pred_offsets.png)",
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
    parser.add_argument("--no-picture", action="store_true", help="print the numbers only")
    add_logging_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print a table per run and draw the picture; 0 when done."""
    from bayesbragg.cli.runs import load_run, run_names
    from bayesbragg.diagnostics.offsets import by_resolution
    from bayesbragg.model.errors import InputError

    set_up_logging(quiet=arguments.quiet, verbose=arguments.verbose)
    folders = [Path(folder) for folder in arguments.folders]
    binned = {}
    for folder, name in zip(folders, run_names(folders), strict=True):
        results = load_run(folder, predicted=arguments.predicted, max_shots=arguments.max_shots, quiet=arguments.quiet)
        try:
            bins = by_resolution(results.all_offsets, arguments.nbins)
        except InputError as error:
            raise InputError(f"{folder}: {error}") from None
        binned[name] = bins
        print(f"{name}: {bins.n_reflections.sum()} reflections, median offsets in pixels")
        print(f"{'d (Å)':>8} {'from':>7} {'to':>7} {'n':>6} {'overall':>8} {'radial':>8} {'tangential':>11}")
        for row in zip(
            bins.d_A,
            bins.d_max_A,
            bins.d_min_A,
            bins.n_reflections,
            bins.overall_px,
            bins.radial_px,
            bins.tangential_px,
            strict=True,
        ):
            print("{:8.2f} {:7.2f} {:7.2f} {:6d} {:8.3f} {:8.3f} {:11.3f}".format(*row))
        print()
    if not arguments.no_picture:
        from bayesbragg.diagnostics.plots import resolution_figure, save

        try:
            path = save(resolution_figure(binned), arguments.output)
        except OSError as error:
            raise InputError(
                f"{arguments.output}: cannot be written ({error.strerror}); name another file with -o"
            ) from None
        except ValueError as error:
            raise InputError(f"{arguments.output}: {error}; end the name in .png, .pdf or .svg") from None
        if not arguments.quiet:
            print(f"wrote {path}")
    return 0

"""What the crystals of a run have in common, and the priors that this suggests for the next run.

Reads the table of shots of an output folder of bayesbragg refine (or a table by name). For every parameter that varied
it prints mean and spread over the shots that converged, with the error bars of the single shots taken out of the
spread, and then centers and betas as PHIL. Written to a file, bayesbragg refine reads them.

example:
  bayesbragg summary refined --phil priors.phil
  bayesbragg refine refine.phil priors.phil shot_*_indexed.expt shot_*_indexed.refl outdir=again
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bayesbragg.cli.common import add_logging_arguments, set_up_logging

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", metavar="DIR", type=Path, help="output folders, or tables of shots")
    parser.add_argument("--phil", metavar="FILE", type=Path, help="write centers and betas there")
    add_logging_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from bayesbragg.io.files import write_bytes
    from bayesbragg.io.tables import read_table
    from bayesbragg.pipeline.posterior_table import rows_of, with_posteriors
    from bayesbragg.pipeline.summary import phil_of, summarize

    set_up_logging(None, quiet=arguments.quiet, verbose=arguments.verbose)
    rows: list[dict[str, Any]] = []
    for folder in arguments.folders:
        rows += with_posteriors(rows_of(read_table(folder)), folder)
    found = summarize(rows, ", ".join(map(str, arguments.folders)))
    suggestion = phil_of(found)
    print(found.text())
    print(
        f"\n# priors for bayesbragg refine: centers, and variances that hold the population's spread\n{suggestion}",
        end="",
    )
    if arguments.phil:
        write_bytes(arguments.phil, suggestion.encode())
    return 0

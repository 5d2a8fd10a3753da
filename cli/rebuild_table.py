"""Make the table of shots of a run again from the rows of its finished shots.

A run writes one row per finished shot into the subfolder pandas/ of its output folder, and joins them to
hopper_process_summary.pkl and .parquet when it ends. After a run that was killed, this command does so. Damaged rows
are left out with a warning.

example:
  bayesbragg rebuild-table refined
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bayesbragg.cli.common import add_logging_arguments, set_up_logging

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", metavar="DIR", type=Path, help="output folders of bayesbragg refine")
    add_logging_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from bayesbragg.io.tables import TABLE_NAME, rebuild_table

    set_up_logging(None, quiet=arguments.quiet, verbose=arguments.verbose)
    for folder in arguments.folders:
        table = rebuild_table(folder)
        print(f"{folder / TABLE_NAME}.pkl and .parquet: {len(table)} rows")
    return 0

"""Print the parameters of a command as an annotated PHIL file: default, unit and meaning of each.

examples:
  bayesbragg phil stills-process > process.phil     the whole file, to edit and give back
  bayesbragg phil refine eta                        only parameters called "eta..."
  bayesbragg phil geometry-refine --all             also the names of the classic programs that do nothing here
"""

from __future__ import annotations

import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("program", metavar="COMMAND", help="refine, stills-process, geometry-refine or simulate")
    parser.add_argument(
        "pattern", nargs="?", default="", metavar="TEXT", help="only names that begin with this text, or hold it"
    )
    parser.add_argument("--all", action="store_true", help="also names that are accepted and have no effect")


def run(arguments: argparse.Namespace) -> int:
    from bayesbragg.io.phil.annotated import annotated

    print(annotated(arguments.program, arguments.pattern, inert=arguments.all), end="")
    return 0

"""Write the report of a run: one HTML page that opens from disk and needs no network.

DIR is the output folder of bayesbragg refine, stills-process, geometry-refine or posterior. The page shows what was
run, which shots failed and why, distributions with suggested priors, offsets on the detector and against resolution,
the best and the worst spots, error bars and their verdicts, and a table of shots that sorts and filters.

A run that is still going on can be watched: --watch writes the page again and again, and the page in the browser
loads itself, until the run ends.

examples:
  bayesbragg report refined                        # writes refined/report.html
  bayesbragg report refined -o /tmp/report.html    # where the folder cannot be written to
  bayesbragg report refined --watch 30             # every 30 seconds while the run goes on
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bayesbragg.cli.common import add_logging_arguments, positive_integer, set_up_logging

if TYPE_CHECKING:
    from bayesbragg.pipeline.report_sections import Results

__all__ = ["add_arguments", "run", "write_report"]

MOST_SHOTS = 1000
BEFORE = "dials.xyzcal.px"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", type=Path, help="output folder of a run, finished or not")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="the page (default: DIR/report.html)")
    parser.add_argument(
        "--watch", metavar="SECONDS", type=positive_integer, help="write the page so often until the run ends"
    )
    parser.add_argument(
        "--max-shots",
        metavar="N",
        type=positive_integer,
        default=MOST_SHOTS,
        help=f"read the offsets of the first N shots only (default: {MOST_SHOTS})",
    )
    add_logging_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the page once, or until the run ends; 0 when done."""
    set_up_logging(quiet=arguments.quiet, verbose=arguments.verbose)
    target = arguments.output or arguments.folder / "report.html"
    every = arguments.watch or 0
    while True:
        state = write_report(arguments.folder, target, max_shots=arguments.max_shots, refresh_s=every)
        if not arguments.quiet:
            print(f"wrote {target} ({state})", flush=True)
        if not every or state != "running":
            return 0
        time.sleep(every)


def write_report(folder: Path, target: Path, *, max_shots: int = MOST_SHOTS, refresh_s: int = 0) -> str:
    """Write the page of a run under a temporary name, rename it, and return the state of the run."""
    from bayesbragg.io.files import write_bytes
    from bayesbragg.model.errors import InputError
    from bayesbragg.pipeline.report import report_html
    from bayesbragg.pipeline.report_data import read_run_data

    data = read_run_data(folder)
    page = report_html(data, _results(folder, max_shots), refresh_s=refresh_s)
    try:
        write_bytes(target, page.encode())
    except OSError as error:
        raise InputError(f"{target}: cannot be written to ({error.strerror}); name another file with -o FILE") from None
    return data.state


def _results(folder: Path, max_shots: int) -> Results | None:
    """Offsets of the refined reflections; None while there are none."""
    from bayesbragg.cli.runs import find_pairs, load_run
    from bayesbragg.diagnostics.offsets import combine, prediction_offsets, summary
    from bayesbragg.model.errors import InputError
    from bayesbragg.pipeline.report_sections import Results
    from bayesbragg.pipeline.stills_write import PREFIX, STILLS

    if (folder / STILLS).is_dir():
        folder = folder / STILLS  # composite output keeps the stills' own files apart
    try:
        pairs = find_pairs(folder)
        loaded = load_run(folder, max_shots=max_shots, quiet=True)
    except InputError:
        return None
    before = [
        prediction_offsets(table, shot.detector, shot.beam, shot.crystal, predicted=BEFORE)
        for shot, table in loaded.shots
        if BEFORE in table
    ]
    parts: dict[str, list[int]] = {}
    for i, tag in enumerate(loaded.tags):
        parts.setdefault(tag.removeprefix(PREFIX), []).append(i)
    return Results(
        detector=loaded.shots[0][0].detector,
        after=loaded.all_offsets,
        before=combine(before) if before else None,
        of_shot={tag: summary(combine(loaded.offsets[i] for i in rows)) for tag, rows in parts.items()},
        n_read=min(len(pairs), max_shots),
        n_all=len(pairs),
    )

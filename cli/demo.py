"""Refine the bundled shots and show what that brings: parameters against the truth, offsets before and after.

A picture shows boxes observed and modelled. It needs no data and takes a minute or two, most of which is spent on
compiling the model for the first time. What it does is `bayesbragg refine` on three small simulated stills; the files
of the run are in the output folder.

example:
  bayesbragg demo -o demo_output
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bayesbragg.cli.common import add_logging_arguments

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, default=Path("demo_output"), metavar="DIR", help="output folder")
    add_logging_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from bayesbragg.cli.refine import refine
    from bayesbragg.cli.runs import load_run
    from bayesbragg.io.phil import load_phil
    from bayesbragg.io.tables import read_table
    from bayesbragg.pipeline.api import demo_folder, demo_shots

    data, folder = demo_folder(), arguments.output
    # Named in full, so that later commands find the file from the record of this run.
    factors = f"simulator.structure_factors.mtz_name={data / 'structure_factors.mtz'}"
    parameters = load_phil([data / "refine.phil"], [f"outdir={folder}", "debug_mode=True", factors], program="refine")
    shots = [path for pair in demo_shots() for path in pair]
    print(f"Refining {len(shots) // 2} simulated stills (the first one compiles the model)\n", flush=True)
    code = refine(parameters, shots, quiet=arguments.quiet, verbose=arguments.verbose)
    if code:
        return code
    truth = json.loads((data / "truth.json").read_text(encoding="utf-8"))
    rows = {row["tag"]: row for row in read_table(folder).to_dict("records")}
    _print_truth(rows, truth)
    before, after = (
        load_run(folder, predicted=column, quiet=True).all_offsets for column in ("dials.xyzcal.px", "xyzcal.px")
    )
    _print_offsets(before, after)
    print(f"\nPicture: {_picture(folder, before, after)}")
    return 0


def _print_truth(rows: dict[str, Any], truth: dict[str, Any]) -> None:
    cell, blocks = truth["cell_A_deg"], truth["Nabc"]
    print("\nRefined against the truth of the simulation")
    print(f"{'shot':<10} {'misorientation':>15} {'a':>9} {'c':>9} {'Na':>7} {'Nb':>7} {'Nc':>7}")
    print(f"{'':<10} {'degree':>15} {'A':>9} {'A':>9} {'cells':>7} {'cells':>7} {'cells':>7}")
    print(f"{'truth':<10} {0:15.4f} {cell[0]:9.4f} {cell[2]:9.4f} {blocks[0]:7.2f} {blocks[1]:7.2f} {blocks[2]:7.2f}")
    for tag in sorted(rows):
        row = rows[tag]
        angle = _misorientation(row["Amats"], truth["shots"][tag]["real_space_A"])
        numbers = " ".join(f"{value:7.2f}" for value in row["ncells"])
        print(f"{tag:<10} {angle:15.4f} {row['a']:9.4f} {row['c']:9.4f} {numbers}")


def _misorientation(reciprocal: Any, real_space: Any) -> float:
    """Angle between the orientations of a reciprocal matrix (nine numbers) and of cell vectors (rows), degree."""
    import numpy as np

    from bayesbragg.model import Crystal

    fitted = Crystal(np.linalg.inv(np.asarray(reciprocal, dtype=float).reshape(3, 3))).U
    turn = fitted @ Crystal(np.asarray(real_space, dtype=float)).U.T
    return float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))


def _print_offsets(before: Any, after: Any) -> None:
    from bayesbragg.diagnostics.offsets import summary

    print("\nOffsets between observed and predicted spots, micrometre")
    print(f"{'':<8} {'reflections':>12} {'RMSD':>8} {'radial':>8} {'transverse':>11} {'median':>8}")
    for name, offsets in (("before", before), ("after", after)):
        s = summary(offsets)
        print(
            f"{name:<8} {s.n_reflections:12d} {s.rmsd_um:8.1f} {s.radial_um:8.1f} {s.transverse_um:11.1f} "
            f"{s.median_um:8.1f}"
        )


def _picture(folder: Path, before: Any, after: Any) -> Path:
    """Observed, modelled and residual boxes of the first shot."""
    import numpy as np

    from bayesbragg.diagnostics.offsets import summary
    from bayesbragg.diagnostics.plots import boxes_figure, save
    from bayesbragg.pipeline.write import read_modeler

    path = sorted((folder / "modelers").glob("*_modeler.npz"))[0]
    shot, bragg = read_modeler(path)
    medians = [summary(offsets).median_um for offsets in (before, after)]
    title = f"{path.name.split('_modeler')[0]}: median offset {medians[0]:.0f} → {medians[1]:.0f} µm (all shots)"
    return save(boxes_figure(shot, np.asarray(bragg), title=title), folder / "demo.png")

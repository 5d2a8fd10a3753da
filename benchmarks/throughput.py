"""Shots per second of `bayesbragg refine` over the tutorial's shots, all of it: reading, fitting, writing; and ranks.

    python benchmarks/throughput.py [--ranks] [--write]

The command runs in a process of its own: twice in one process's worth of defaults (the first time fills the cache of
compiled programs), then, with ``--ranks``, as one rank and as two ranks of MPI with one core each. The start-up of a
process is part of its wall time and is told beside it: the rate is that of the shots after the first result; in the
second half of the shots no program is compiled any more. With ``--write`` the table goes to
``benchmarks/results/throughput.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import numpy as np
from tutorial_shots import TUTORIAL

from bayesbragg.io.tables import read_table

MPIRUN = ("mpirun", "--allow-run-as-root", "--bind-to", "core")
NUMBERS = ("target", "rotX", "rotY", "rotZ", "a", "c", "spot_scales", "ncells")
REPEATS = 3
"""How often the sixteen shots of either geometry stand in the list of shots."""


def shot_list(folder: Path) -> tuple[Path, int]:
    """A list of the tutorial's shots under different names, so that there are enough of them to measure a rate."""
    lines = []
    # Image paths in the experiment lists are relative to them.
    (folder / "images").symlink_to(TUTORIAL / "images")
    folder = folder / "shots"
    folder.mkdir()
    for repeat in range(REPEATS):
        for name in ("indexed", "indexed_badGeo"):
            for expt in sorted((TUTORIAL / name).glob("*_refined.expt")):
                refl = expt.with_name(expt.name.replace("_refined.expt", "_indexed.refl"))
                tag = f"{name}_{repeat}_{expt.name}"
                (folder / tag).symlink_to(expt)
                (folder / tag.replace("_refined.expt", "_indexed.refl")).symlink_to(refl)
                lines.append(f"{folder / tag} {folder / tag.replace('_refined.expt', '_indexed.refl')}")
    path = folder / "shots.txt"
    path.write_text("\n".join(lines) + "\n")
    return path, len(lines)


def run(shots: Path, out: Path, *prefix: str, more: tuple[str, ...] = ()) -> dict[str, float]:
    """Wall seconds, seconds to the first result, and shots per second after it."""
    program = [sys.executable, "-m", "bayesbragg.cli.main", "refine", str(TUTORIAL / "phil" / "process.phil")]
    mtz = TUTORIAL / "structure_factors" / "iobs_all.mtz"
    words = [f"exp_ref_spec_file={shots}", f"outdir={out}", f"mtz_name={mtz}", "debug_mode=False", *more]
    clock, began = time.perf_counter(), datetime.now().timestamp()
    done = subprocess.run([*prefix, *program, *words, "-q"], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - clock
    if done.returncode:
        raise RuntimeError("\n".join(done.stderr.splitlines()[:3]))
    rows = sorted(path.stat().st_mtime for path in (out / "pandas").rglob("*") if path.is_file())
    first, last, n = rows[0] - began, rows[-1] - began, len(rows)
    record = json.loads((out / "run.json").read_text())
    # By then every shape has been met: what is left is the work itself.
    late = rows[n // 2 :]
    steady = (len(late) - 1) / (late[-1] - late[0])
    converged = sum(shot["status"] == "converged" for shot in record["shots"])
    return {"wall": seconds, "first": first, "rate": (n - 1) / (last - first), "steady": steady,
            "shots": n, "converged": converged}  # fmt: skip


def difference(left: Path, right: Path) -> float:
    """Largest relative difference of two tables."""
    a, b = (read_table(folder).sort_values("tag") for folder in (left, right))
    worst = 0.0
    for name in NUMBERS:
        x, y = (np.array(t[name].tolist(), dtype=float) for t in (a, b))
        worst = max(worst, float(np.max(np.abs(x - y) / np.maximum(np.abs(x).max(), 1e-300))))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", action="store_true", help="one and two ranks of MPI too")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/throughput.md")
    arguments = parser.parse_args()
    lines = [
        f"# Runs over the tutorial's shots ({os.cpu_count()} cores, float64; load before: {os.getloadavg()[0]:.1f})",
        "",
        "| run | shots | converged | wall, s | first result, s | shots per second after it | in the second half |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shots, _ = shot_list(folder)
        cases: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
            "one process, first": ((), ()),
            "one process, warm cache": ((), ()),
        }
        if arguments.ranks:
            cases |= {
                f"{n} rank{'s' * (n > 1)} of one core": ((*MPIRUN, "-n", str(n)), ("mp.method=mpi",)) for n in (1, 2)
            }
        rates = {}
        for number, (what, (prefix, more)) in enumerate(cases.items()):
            found = run(shots, folder / f"out{number}", *prefix, more=more)
            rates[what] = found["steady"]
            lines.append(
                f"| {what} | {found['shots']} | {found['converged']} | {found['wall']:.1f} | {found['first']:.1f} | "
                f"{found['rate']:.2f} | {found['steady']:.2f} |"
            )
            print(lines[-1], flush=True)
        if arguments.ranks:
            one, two = (rate for what, rate in rates.items() if re.search("rank", what))
            off = difference(folder / "out2", folder / "out3")
            lines += [
                "",
                f"Two ranks: {two / one:.2f} times one rank (second half); largest relative difference {off:.1e}.",
            ]
            print(lines[-1])
    if arguments.write:
        text = "\n".join(lines) + "\n"
        (Path(__file__).parent / "results" / "throughput.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

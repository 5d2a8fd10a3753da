"""Second-order fits of the tutorial's shots against L-BFGS-B on the exact sum.

    python benchmarks/second_order.py [--shots 0,6] [--write]

Each shot is fitted as `bayesbragg refine` does it (closed forms, second-order steps), warm, and once by L-BFGS-B on the
exact sum with a tenth of the usual tolerance. Differences are in standard deviations of the posterior. Seconds are the
least of three, processor seconds those of all threads; both leave compilation out. With ``--write`` the table goes to
``benchmarks/results/second_order.md``.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
from tutorial_shots import N_SHOTS, RUNS, classic_seconds, classic_settings, tutorial_stills

import bayesbragg as bb
from bayesbragg.inference.lm import lm_search
from bayesbragg.inference.start import start_values
from bayesbragg.pipeline.api import structure_factors
from bayesbragg.pipeline.device import remember_programs
from bayesbragg.pipeline.refine import refine_still

HEAD = [
    "| shot | boxes | evaluations | reference's | fit, s | all, s | processor, s | classic, s | "
    "largest difference, sd | form | error, noise |",
    "|---" * 11 + "|",
]


def rows_of(run: str, numbers: range | list[int]) -> list[tuple[str, float, int]]:
    """Table row, largest difference and evaluations of each shot."""
    rows = []
    classic = classic_seconds(run)
    reference = classic_settings(bb.MapOptions(method="lbfgs", tolerance=0.003), forward="exact")
    ours = classic_settings()
    for number in numbers:
        ((tag, still),) = tutorial_stills(run, range(number, number + 1))
        factors = structure_factors(still, ours)
        other = refine_still(still, factors, reference).fit
        refine_still(still, factors, ours)  # compiles
        times = []
        for _ in range(3):
            clock, processor = time.perf_counter(), time.process_time()
            refined = refine_still(still, factors, ours)
            times.append((time.perf_counter() - clock, refined.fit.seconds, time.process_time() - processor))
        whole, fit_s, processor = (min(column) for column in zip(*times, strict=True))
        fit, form = refined.fit, refined.prepared.form
        off = float(np.max(np.abs(fit.values - other.values) / other.standard_errors))
        rows.append(
            (
                f"| {tag} | {refined.prepared.shot.n_boxes} | {fit.evaluations} | {other.evaluations} | {fit_s:.3f} | "
                f"{whole:.3f} | {processor:.3f} | {classic[tag]:.0f} | {off:.4f} | {form.name} | {form.of_noise:.1e} |",
                off,
                fit.evaluations,
            )
        )
        print(rows[-1][0], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", help="numbers such as 0,6; all by default")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/second_order.md")
    arguments = parser.parse_args()
    remember_programs()
    numbers = [int(n) for n in arguments.shots.split(",")] if arguments.shots else list(range(N_SHOTS))
    before = os.getloadavg()[0]
    rows = [row for run in RUNS for row in rows_of(run, numbers)]
    worst, evaluations = max(r[1] for r in rows), np.array([r[2] for r in rows])
    compiled = lm_search.n_programs() + start_values.n_programs()
    text = [
        f"# Second-order fits of the tutorial's shots ({os.cpu_count()} cores, float64; load {before:.1f} before, "
        f"{os.getloadavg()[0]:.1f} after)",
        "",
        *(__doc__ or "").split("\n\n")[2].strip().splitlines(),
        "",
        *HEAD,
        *(row[0] for row in rows),
        "",
        f"Largest difference {worst:.4f} standard deviations; evaluations {np.median(evaluations):.0f} (median), "
        f"{evaluations.max()} (most), those of the start among them; {compiled} programs of starts and searches.",
    ]
    print("\n".join(text[-1:]))
    if arguments.write:
        (Path(__file__).parent / "results" / "second_order.md").write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Closed forms against converged sums for random blocks, spreads and spectra: page of the errors.

    python benchmarks/random_configurations.py [--seeds 0,100] [--rows FILE] [--write]

The configurations and the comparison are those of ``tests/forward/test_closed_random.py``. Finished seeds are lines of
FILE and are not compared again. With ``--write`` the page goes to ``benchmarks/results/random_configurations.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))
NAMES = {"none": "none (against the exact sum)", "isotropic": "classic isotropic", "gaussian_isotropic": "Gaussian"}
NAMES |= {"gaussian_anisotropic": "Gaussian, anisotropic"}
ERRORS = ("peak", "noise", "gradient")


def compared(seed: int) -> dict[str, Any]:
    from forward.test_closed_random import compare, configuration

    made = configuration(seed)
    chosen, peak, noise, gradient, estimate = compare(seed)
    return {
        "seed": seed, "spread": made["spread"], "blocks": made["blocks"].tolist(), "bandwidth": made["bandwidth"],
        "eta_deg": jax.numpy.broadcast_to(made["eta_deg"], 3).tolist(), "oversample": made["oversample"],
        "chosen": bool(chosen), "peak": float(peak), "noise": float(noise), "gradient": float(gradient),
        "estimate": float(estimate),
    }  # fmt: skip


def page(rows: list[dict[str, Any]]) -> str:
    """Largest errors by spread, and the configurations that were sent to the exact sum."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["spread"]].append(row)
    groups["all"] = rows
    text = [
        f"# Closed forms for {len(rows)} random configurations",
        "",
        f"`python benchmarks/random_configurations.py`, {datetime.now(UTC):%d %B %Y}: the comparison of "
        "`tests/forward/test_closed_random.py` with its seeds. Blocks of 5 to 300 cells, spread up to 0.5 degree, "
        "spectra up to 3 % wide, 1 to 3 subpixels along a side, brightest pixel 1,000 photons on a background of 10. "
        "Without spread the judge is the exact sum, with one the closed form with 40 nodes, every subpixel and channel "
        "and all reflections, which `tests/forward/test_closed_blur.py` holds against integrals over all rotations. "
        "Derivatives are along a random direction, against difference quotients of the judge.",
        "",
        "Largest errors where the built-in estimate chose the closed form (limits 1e-3, 5e-2, 1e-3):",
        "",
        "| spread | configurations | sent to the exact sum | of the peak | of the noise | derivative |",
        "|---|---|---|---|---|---|",
    ]
    for spread, group in groups.items():
        kept = [row for row in group if row["chosen"]]
        worst = " | ".join(f"{max((row[name] for row in kept), default=0.0):.1e}" for name in ERRORS)
        text.append(f"| {NAMES.get(spread, spread)} | {len(group)} | {len(group) - len(kept)} | {worst} |")
    text += [
        "", "Sent to the exact sum. Boxes were laid for blocks of 13 to 15 cells; far larger blocks may leave all of "
        "them dark, and what is scaled up to 1,000 photons is then a tail far from any reflection.", "",
        "| seed | spread | cells | spread, degree | bandwidth | error of the peak | estimate |", "|---" * 7 + "|",
    ]  # fmt: skip
    for row in rows:
        if not row["chosen"]:
            cells, eta = (", ".join(f"{v:.3g}" for v in row[name]) for name in ("blocks", "eta_deg"))
            text.append(
                f"| {row['seed']} | {NAMES[row['spread']]} | {cells} | {eta} | {row['bandwidth']:.2%} "
                f"| {row['peak']:.1e} | {row['estimate']:.1e} |"
            )
    return "\n".join(text) + "\n"


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,100", help="first and one behind the last")
    parser.add_argument("--rows", type=Path, default=Path("random_configurations.jsonl"), metavar="FILE")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/random_configurations.md")
    arguments = parser.parse_args()
    first, end = (int(word) for word in arguments.seeds.split(","))
    lines = arguments.rows.read_text().splitlines() if arguments.rows.is_file() else []
    rows = [json.loads(text) for text in lines]
    known = {row["seed"] for row in rows}
    for seed in range(first, end):
        if seed not in known:
            rows.append(compared(seed))
            with open(arguments.rows, "a", encoding="utf-8") as out:
                out.write(json.dumps(rows[-1]) + "\n")
            print(json.dumps(rows[-1]), flush=True)
    text = page(sorted(rows, key=lambda row: row["seed"]))
    print(text)
    if arguments.write:
        (HERE / "results" / "random_configurations.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

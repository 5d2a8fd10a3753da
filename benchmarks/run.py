"""The table of speed and memory: sums, fits, posteriors, processes, single precision, share of the machine's peaks.

    python benchmarks/run.py [--quick] [--write] [--rows FILE] [--groups TEXT] [--name NAME]

Needs nothing but the checkout and takes a few minutes, most of them compilation; each row runs in a process of its own
(`bench_row.py`). The device is JAX's default: on a machine with a GPU the same rows run there. Times are medians and
least of many calls of a program that has run before; rates are those of the least. A row says how much is summed: terms
of the exact sum (pixels x channels x mosaic samples x subpixels) or windows of the closed form (rows of pixels x
subpixels x nodes of the spread). With ``--write`` the table goes to ``benchmarks/results/speed.md`` and ``speed.json``,
from which ``plots.py`` draws, or to NAME.md and NAME.json. ``--quick`` takes one row of each kind, ``--groups`` those
of which the name matches TEXT, a regular expression. Finished rows are lines of FILE, and rows that stand there are not
measured again. A GPU gets larger sizes, which a few boxes do not fill.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROW = HERE / "bench_row.py"
THREADS = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SPREAD: dict[str, Any] = {"spread": "isotropic", "eta_deg": 0.1, "n_mosaic": 20}
FITS = 24
"""Fits in a measurement of scaling, for one process (weak) or for all (strong)."""

Row = dict[str, Any]


def sums(gpu: bool = False) -> list[tuple[str, str, Row]]:
    """Group, name and specification of the rows of photons, values and gradients."""
    rows: list[tuple[str, str, Row]] = []
    for form in ("closed", "exact"):
        sizes: dict[str, tuple[str, str, tuple[int, ...], Row]] = {
            "boxes": ("n_boxes", "boxes", (100, 1600, 6400) if gpu else (100, 25, 400), {}),
            "pixels": ("side", "pixels along a side of a box", (6, 24), {}),
            "channels": ("n_channels", "channels", (100, 1000), {}),
            "subpixels": ("oversample", "subpixels along a side", (2, 3), {}),
            "mosaic": ("n_mosaic", "mosaic samples", (20,) if form == "closed" else (4, 20), SPREAD),
            "shots": ("shots", "shots in a program", (16, 128) if gpu else (4, 16), {}),
        }
        for group, (key, words, values, more) in sizes.items():
            rows += [(f"{form}: {group}", f"{n} {words}", {"form": form, **more, key: n, "size": n}) for n in values]
    large = {**SPREAD, "n_channels": 100, "oversample": 2}
    rows += [("closed: all of it", "100 channels, 20 mosaic samples, 2 x 2 subpixels", large)]
    rows += [("float32", f"{form}, 100 boxes", {"form": form, "precision": "float32"}) for form in ("closed", "exact")]
    counted = {"count": True, "forward_too": False}
    rows += [
        ("peaks", "closed, 100 boxes", counted),
        ("peaks", "closed, 1600 boxes", {**counted, "n_boxes": 1600}),
        ("peaks", "exact, 100 boxes", {**counted, "form": "exact"}),
    ]
    return [(group, name, {"what": "sum", **spec}) for group, name, spec in rows]


def others(gpu: bool = False) -> list[tuple[str, str, Row]]:
    """Fits and posteriors."""
    together = (64, 512) if gpu else (8,)
    return [
        ("fits", "one after the other", {"what": "fits"}),
        *[("fits", f"{n} in a program", {"what": "fits", "batch": n}) for n in together],
        ("fits", "one after the other, float32", {"what": "fits", "precision": "float32"}),
        ("posterior", "4 chains of 500 draws", {"what": "draws"}),
    ]


def measure(spec: Row, programs: Path) -> Row:
    """The row of a specification; a row that fails says so and does not end the others."""
    words = json.dumps({**spec, "programs": str(programs)})
    done = subprocess.run([sys.executable, str(ROW), words], capture_output=True, text=True, env=_environment())
    if done.returncode:
        return {"failed": " ".join(done.stderr.strip().splitlines()[-1:])[:200]}
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def scaling(n: int, fits: int, programs: Path) -> Row:
    """n processes of one thread each that fit at the same time, each ``fits`` shots."""
    environment = _environment() | dict.fromkeys(THREADS, "1")
    spec = json.dumps({"what": "share", "fits": fits, "programs": str(programs)})
    workers = [
        subprocess.Popen([sys.executable, str(ROW), spec], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                         stderr=subprocess.DEVNULL, env=environment)
        for _ in range(n)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    rows = [json.loads(worker.communicate()[0].splitlines()[-1]) for worker in workers]
    row: Row = {"fits_per_s": n * fits / max(r["seconds_of_fits"] for r in rows), "work": f"{n} x {fits} fits"}
    return row | {name: max(r[name] for r in rows) for name in ("peak_GB", "programs", "load")}


def _environment() -> dict[str, str]:
    # Processes on one GPU share its memory.
    return {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def machine() -> dict[str, str]:
    """Device, versions and load."""
    code = "import jax; d = jax.devices()[0]; print(f'{d.device_kind} ({d.platform}) x {len(jax.devices())}')"
    device = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    names = ("bayesbragg", "jax", "jaxlib", "numpy", "scipy", "numpyro")
    return {
        "date": datetime.now(UTC).strftime("%d %B %Y"), "device": device, "cores": str(len(os.sched_getaffinity(0))),
        "architecture": platform.machine(), "python": platform.python_version(),
        "versions": ", ".join(f"{name} {version(name)}" for name in names),
        "load_before": f"{os.getloadavg()[0]:.1f}",
    }  # fmt: skip


def all_rows(programs: Path, quick: bool, file: Path, groups: str, gpu: bool) -> list[Row]:
    """Measure all rows that the file does not hold, and add them to it."""
    rows: list[Row] = [json.loads(text) for text in file.read_text().splitlines()] if file.is_file() else []
    known = {(row["group"], row["name"]) for row in rows}

    def keep(group: str, name: str, row: Row) -> None:
        rows.append({"group": group, "name": name, **row})
        with open(file, "a", encoding="utf-8") as out:
            out.write(json.dumps(rows[-1]) + "\n")
        print(line(rows[-1]), flush=True)

    def take(specifications: list[tuple[str, str, Row]]) -> None:
        seen: set[str] = set()
        for group, name, spec in specifications:
            if not (quick and group in seen) and (group, name) not in known and re.search(groups, group):
                size = {"size": spec.pop("size")} if "size" in spec else {}
                keep(group, name, {**size, **measure(spec, programs)})
            seen.add(group)

    # The default's rows first, the exact sum's, which take longest, last.
    take([row for row in sums(gpu) if not row[0].startswith("exact")] + others(gpu))
    cores = len(os.sched_getaffinity(0))
    sizes = [1] if quick else [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= cores]
    for kind, share in (("strong", lambda n: -(-FITS // n)), ("weak", lambda n: FITS // 2)):
        group = f"{kind} scaling"
        for n in sizes:
            name = f"{n} process{'es' * (n > 1)} of one thread"
            if (group, name) not in known and re.search(groups, group):
                row = scaling(n, share(n), programs)
                first = next((r for r in rows if r["group"] == group), row)
                row |= {"size": n, "efficiency": row["fits_per_s"] / first["fits_per_s"] / n}
                keep(group, name, row)
    take([row for row in sums(gpu) if row[0].startswith("exact")])
    return rows


HEAD = "| what | case | work | photons, ms | value and gradient, ms | rate | error | peak GB | programs | load |"


def line(row: Row) -> str:
    """A row of the table."""
    if "failed" in row:
        return f"| {row['group']} | {row['name']} | failed: {row['failed']} |" + " |" * 7
    photons, gradient = (
        f"{row[f'{name}_ms']:.2f} ({row[f'{name}_least_ms']:.2f})" if f"{name}_ms" in row else ""
        for name in ("forward", "gradient")
    )
    peak = f"{row['peak_GB']:.2f}"
    if row.get("device_peak_GB"):
        peak += f" + {row['device_peak_GB']:.2f} on the device"
    return (
        f"| {row['group']} | {row['name']} | {row['work']} | {photons} | {gradient} | {rate(row)} | {error(row)} "
        f"| {peak} | {row['programs']} | {row['load']:.1f} |"
    )


def rate(row: Row) -> str:
    """What is done in a second, in words."""
    if "effective_per_s" in row:
        return f"{row['draws_per_s']:.0f} draws/s, {row['effective_per_s']:.0f} effective/s"
    if "fits_per_s" in row:
        text = f"{row['fits_per_s']:.1f} fits/s"
        return text + (f", efficiency {row['efficiency']:.2f}" if "efficiency" in row else "")
    pixels = row["pixels"] / row["gradient_least_ms"] / 1e3
    return f"{pixels:.2f} Mpixel/s"


def error(row: Row) -> str:
    if "error_in_sd" in row:
        return f"{row['error_in_sd']:.1e} sd"
    return f"{row['error_of_peak']:.1e} of the peak" if "error_of_peak" in row else ""


def roofline(rows: list[Row]) -> list[str]:
    """Operations and bytes of a value and gradient, as shares of what the machine reaches."""
    counted = [row for row in rows if "peak_flops" in row]
    if not counted:
        return []
    lines = [
        "| case | operations | exponentials and roots | bytes | of peak operations | of peak exponentials "
        "| of peak bandwidth |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in counted:
        touched = "" if r["bytes"] is None else f"{r['bytes']:.2e}"
        share = "" if r["bytes"] is None else f"{r['share_bandwidth']:.0%}"
        lines.append(
            f"| {r['name']} | {r['operations']:.2e} | {r['exponentials']:.2e} | {touched} | {r['share_flops']:.1%} "
            f"| {r['share_exponentials']:.1%} | {share} |"
        )
    best = {name: max(r[name] for r in counted) for name in ("peak_flops", "peak_exponentials", "peak_bandwidth")}
    return [
        "## Share of the machine's peaks", "",
        f"Measured peaks, float64: {best['peak_flops'] / 1e9:.1f} Gflop/s (product of 1024 x 1024 matrices), "
        f"{best['peak_exponentials'] / 1e9:.2f} G exponentials/s, {best['peak_bandwidth'] / 1e9:.1f} GB/s "
        "(x + a y, 100 MB). Operations are counted in the traced program, bytes by the compiler, before caches; a "
        "program with loops has no count of bytes. One value and gradient:", "", *lines, "",
    ]  # fmt: skip


def report(about: dict[str, str], rows: list[Row]) -> str:
    """The table as Markdown."""
    text = [
        "# Speed and memory: `make bench`", "",
        f"{about['date']}, {about['device']}, {about['cores']} cores, {about['architecture']}, Python "
        f"{about['python']}, {about['versions']}; load before {about['load_before']}.", "",
        "100 boxes of 12 x 12 pixels, 30 channels, one mosaic block, one subpixel, 8 parameters, float64, where the "
        "case does not say otherwise. Milliseconds: median (least) of a program that has run before. Rates are those "
        "of the least; errors those of the estimate against a finer sum, or of float32 against float64. Peak GB is "
        "the resident memory of the row's process, some 0.4 of it Python, JAX and the compiler; programs are all that "
        "the process compiled.", "",
        HEAD, "|---" * 10 + "|", *(line(row) for row in rows), "", *roofline(rows),
    ]  # fmt: skip
    return "\n".join(text).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one row of each kind")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/NAME.md and NAME.json")
    parser.add_argument("--name", default="speed", help="of the files written")
    parser.add_argument("--groups", default="", help="rows whose group matches this regular expression")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="finished rows; a temporary file by default")
    parser.add_argument("--programs", type=Path, help="folder of compiled programs; a temporary one by default")
    arguments = parser.parse_args()
    about = machine()
    print(HEAD)
    with tempfile.TemporaryDirectory() as folder:
        programs, file = arguments.programs or Path(folder), arguments.rows or Path(folder) / "rows.jsonl"
        gpu = "(cpu)" not in about["device"]
        rows = all_rows(programs, arguments.quick, file, arguments.groups, gpu)
    text = report(about, rows)
    print("\n" + "\n".join(roofline(rows)))
    if arguments.write:
        results = HERE / "results"
        (results / f"{arguments.name}.md").write_text(text, encoding="utf-8")
        (results / f"{arguments.name}.json").write_text(
            json.dumps({"machine": about, "rows": rows}, indent=1) + "\n", "utf-8"
        )


if __name__ == "__main__":
    main()

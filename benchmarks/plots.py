"""Pictures of docs/images from the tables in benchmarks/results: speed.svg, bench.svg and pulls.svg.

python benchmarks/plots.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from bayesbragg.diagnostics.figure_style import INK, RUN_COLOURS, quiet, save

ROOT = Path(__file__).resolve().parents[1]
RESULTS, IMAGES = ROOT / "benchmarks" / "results", ROOT / "docs" / "images"
LIKELIHOODS = ("poisson_gaussian", "gaussian")


def tables(name: str) -> list[list[dict[str, str]]]:
    """The Markdown tables of a file of results, as rows by the names in their heads."""
    found: list[list[dict[str, str]]] = []
    head: list[str] = []
    for line in (RESULTS / name).read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            head = []
        elif not head:
            head = cells
            found.append([])
        elif not set(line) <= set("|-: "):
            found[-1].append(dict(zip(head, cells, strict=True)))
    return found


def speed() -> Path:
    """Seconds of a fit, classic against ours, one dot for each shot."""
    rows = next(table for table in tables("second_order.md") if "classic, s" in table[0])
    ours, classic = (np.array([float(row[name]) for row in rows]) for name in ("all, s", "classic, s"))
    figure = Figure(figsize=(6.4, 3.6), layout="constrained", facecolor="white")
    axes = figure.subplots()
    low, high = 0.1, 400.0
    for ratio in (10, 100, 1000):
        axes.plot([low, high], [low * ratio, high * ratio], color="#c5ccd0", linewidth=0.8, zorder=1)
        text = f"{ratio} times faster"
        x = {10: 2.0, 100: 1.5, 1000: 0.22}[ratio]
        axes.annotate(text, (x, x * ratio * 1.15), fontsize=8, color="#6b767d", rotation=23, ha="center")
    for run, colour in zip(("procPoly", "procBad"), RUN_COLOURS, strict=False):
        of_run = np.array([row["shot"].startswith(run) for row in rows])
        label = {"procPoly": "true geometry", "procBad": "faulty geometry"}[run]
        axes.scatter(ours[of_run], classic[of_run], s=26, color=colour, label=label, zorder=3, linewidths=0)
    axes.set(xscale="log", yscale="log", xlim=(low, 3.0), ylim=(10.0, high))
    axes.set_xticks([0.1, 0.3, 1.0, 3.0], ["0.1", "0.3", "1", "3"])
    axes.set_yticks([10.0, 100.0], ["10", "100"])
    axes.minorticks_off()
    axes.set_xlabel("bayesbragg, to convergence (s)")
    axes.set_ylabel("classic, 60 or 120 iterations (s)")
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    quiet(axes)
    return save(figure, IMAGES / "speed.svg")


SIZES = {"pixels": "pixels", "channels": "channels", "subpixels": "subpixels in a pixel", "shots": "shots in a program"}


def bench() -> Path:
    """Milliseconds of a value and gradient against each size, closed form and exact sum; fits over processes."""
    rows = json.loads((RESULTS / "speed.json").read_text(encoding="utf-8"))["rows"]
    figure = Figure(figsize=(8.4, 5.2), layout="constrained", facecolor="white")
    grid = figure.subplots(2, 3).ravel()
    for k, form in enumerate(("closed", "exact")):
        look = {"color": RUN_COLOURS[k], "marker": "os"[k], "markersize": 4, "linewidth": 1.2}
        look["label"] = {"closed": "closed form", "exact": "exact sum"}[form]
        base = next(row for row in rows if row["group"] == f"{form}: boxes" and row["name"] == "100 boxes")
        for axes, (name, label) in zip(grid, SIZES.items(), strict=False):
            group = f"{form}: {'boxes' if name == 'pixels' else name}"
            points = [(size_of(name, r), r["gradient_ms"]) for r in rows if r["group"] == group and "gradient_ms" in r]
            first = {"pixels": None, "channels": 30, "subpixels": 1, "shots": 1}[name]
            points += [] if first is None else [(first, base["gradient_ms"])]
            axes.plot(*np.array(sorted(points)).T, **look)
            axes.set(xscale="log", yscale="log", xlabel=label)
        mosaic = [r for r in rows if r["group"] == f"{form}: mosaic" and "gradient_ms" in r]
        points = sorted([(1, base["gradient_ms"]), *((r["size"], r["gradient_ms"]) for r in mosaic)])
        grid[4].plot(*np.array(points).T, **look)
    grid[4].set(xscale="log", yscale="log", xlabel="mosaic samples (closed: the same spread)")
    for k, kind in enumerate(("strong", "weak")):
        found = [(r["size"], r["fits_per_s"]) for r in rows if r["group"] == f"{kind} scaling" and "fits_per_s" in r]
        grid[5].plot(*np.array(found).T, color=RUN_COLOURS[k + 2], marker="o", markersize=4, label=kind)
    grid[5].set(xlabel="processes of one thread", ylabel="fits per second", ylim=(0.0, None))
    grid[5].set_xticks([n for n, _ in found])
    grid[5].legend(frameon=False, fontsize=8)
    for axes in grid[:5:3]:
        axes.set_ylabel("value and gradient (ms)")
    grid[0].legend(frameon=False, fontsize=8)
    for axes in grid:
        quiet(axes)
    for axis in (a for axes in grid[:5] for a in (axes.xaxis, axes.yaxis)):
        axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    return save(figure, IMAGES / "bench.svg")


def size_of(name: str, row: dict[str, Any]) -> float:
    """What a row is drawn against."""
    return float(row["pixels"] if name == "pixels" else row["size"] ** 2 if name == "subpixels" else row["size"])


def pulls() -> Path:
    """Means and standard deviations of pulls, for the true density and the classic one, at two levels of light."""
    parts = [table for table in tables("bias.md") if "pull: sd" in table[0]]
    figure = Figure(figsize=(8.2, 5.0), layout="constrained", facecolor="white")
    grid: Any = figure.subplots(2, len(parts), sharey="row", squeeze=False)
    titles = ("1 photon of background, G = 600", "0.1 photon of background, G = 150")
    for column, (table, title) in enumerate(zip(parts, titles, strict=True)):
        names = list(dict.fromkeys(row["parameter"] for row in table))
        for k, likelihood in enumerate(LIKELIHOODS):
            rows = [row for row in table if row["likelihood"] == likelihood]
            x = np.arange(len(names)) + 0.22 * (k - 0.5)
            sd = np.array([float(row["pull: sd"]) for row in rows])
            mean = np.array([float(row["pull: mean / its standard error"]) for row in rows]) * sd / 10.0
            look = {"color": RUN_COLOURS[k], "fmt": "o", "markersize": 4, "linewidth": 1.2, "label": likelihood}
            grid[0, column].errorbar(x, mean, sd / 10.0, **look)
            grid[1, column].errorbar(x, sd, sd / np.sqrt(200.0), **look)
        grid[0, column].set_title(title, fontsize=10, color=INK)
        grid[0, column].axhline(0.0, color="#9aa5ad", linewidth=0.8, zorder=1)
        grid[1, column].axhspan(0.79, 1.21, color="#eef1f0", zorder=0)
        grid[1, column].axhline(1.0, color="#9aa5ad", linewidth=0.8, zorder=1)
        for axes in grid[:, column]:
            axes.set_xticks(range(len(names)), [name.removeprefix("ucell_") for name in names])
            quiet(axes)
    grid[0, 0].set_ylabel("mean of (fit − truth) / error bar")
    grid[1, 0].set_ylabel("standard deviation of the same")
    grid[0, 1].legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
    return save(figure, IMAGES / "pulls.svg")


if __name__ == "__main__":
    matplotlib.rcParams["svg.hashsalt"] = "bayesbragg"
    made = [speed(), pulls(), *([bench()] if (RESULTS / "speed.json").is_file() else [])]
    for picture in made:
        print(picture)

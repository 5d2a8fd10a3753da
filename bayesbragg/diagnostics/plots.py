"""Pictures of a refinement: offsets on the detector and against resolution, boxes of pixels, histograms.

Every function returns a matplotlib `Figure` of its own (no pyplot, no global state, no display); `save` writes it.
Axes and colour bars carry units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from bayesbragg.diagnostics.box_plot import boxes_figure
from bayesbragg.diagnostics.detector_plot import detector_figure
from bayesbragg.diagnostics.figure_style import INK, RUN_COLOURS, RUN_MARKERS, quiet, save
from bayesbragg.diagnostics.offsets import OffsetsByResolution

__all__ = ["boxes_figure", "detector_figure", "histograms_figure", "resolution_figure", "save"]

FloatArray = npt.NDArray[np.float64]


def resolution_figure(runs: Mapping[str, OffsetsByResolution]) -> Figure:
    """Median offsets against resolution for several runs: overall, radial, tangential, in pixels.

    Args:
        runs: name shown in the legend to the binned offsets of the run.
    """
    figure = Figure(figsize=(12.0, 4.4), layout="constrained", facecolor="white")
    axes = figure.subplots(1, 3, sharey=True)
    for panel, (name, title) in zip(
        axes,
        (("overall_px", "overall"), ("radial_px", "radial component"), ("tangential_px", "tangential component")),
        strict=True,
    ):
        for i, (run, bins) in enumerate(runs.items()):
            panel.plot(
                1.0 / bins.d_A**2,
                getattr(bins, name),
                color=RUN_COLOURS[i % len(RUN_COLOURS)],
                marker=RUN_MARKERS[i % len(RUN_MARKERS)],
                markersize=6,
                markeredgecolor="white",
                linewidth=1.8,
                label=run,
            )
        panel.set_title(title, color=INK, fontsize=12)
        panel.set_ylim(bottom=0)
        _resolution_axis(panel, list(runs.values()))
        panel.grid(axis="y", color="#e3e6e8", linewidth=0.8)
        panel.set_axisbelow(True)
        quiet(panel)
    axes[0].set_ylabel("median prediction offset (pixels)")
    axes[0].legend(frameon=False, fontsize=10, loc="upper left")
    return figure


def histograms_figure(
    columns: Mapping[str, npt.ArrayLike],
    units: Mapping[str, str] | None = None,
    *,
    title: str = "",
    n_columns: int = 4,
) -> Figure:
    """Histograms of parameters over shots, with median and a robust standard deviation in each title.

    Args:
        columns: name of a parameter to its values, ``(n_shots,)``; values that are not finite are left out.
        units: name of a parameter to its unit.
        title: of the whole picture.
        n_columns: histograms in a row.
    """
    units = units or {}
    n_rows = max(1, -(-len(columns) // n_columns))
    width = min(n_columns, max(len(columns), 1))
    figure = Figure(figsize=(3.1 * width, 2.6 * n_rows + 0.3), layout="constrained", facecolor="white")
    grid = figure.subplots(n_rows, width, squeeze=False)
    for axes in grid.flat[len(columns) :]:
        axes.set_visible(False)
    for axes, (name, column) in zip(grid.flat, columns.items(), strict=False):
        values = np.asarray(column, dtype=np.float64)
        values = values[np.isfinite(values)]
        label = f"{name} ({units[name]})" if units.get(name) else name
        axes.set_xlabel(label, fontsize=10, color=INK)
        axes.tick_params(labelsize=8)
        axes.locator_params(axis="x", nbins=4)
        axes.ticklabel_format(axis="x", useOffset=False, scilimits=(-3, 5))
        quiet(axes)
        if len(values) == 0:
            axes.set_title("no finite values", fontsize=9, color=INK)
            continue
        median = float(np.median(values))
        spread = 1.4826 * float(np.median(np.abs(values - median)))
        axes.hist(values, bins=_n_bins(values), color=RUN_COLOURS[0], edgecolor="white", linewidth=0.6)
        axes.axvline(median, color=RUN_COLOURS[1], linewidth=1.4)
        axes.set_title(f"median {median:.6g}, robust sd {spread:.2g}", fontsize=9, color=INK)
        axes.yaxis.get_major_locator().set_params(integer=True)
    for row in grid:
        row[0].set_ylabel("shots", fontsize=10, color=INK)
    if title:
        figure.suptitle(title, color=INK, fontsize=12)
    return figure


def _resolution_axis(axes: Any, runs: Sequence[OffsetsByResolution]) -> None:
    """An axis linear in 1/d² (equal numbers of reflections are about equally far apart), labelled with d."""
    spacing = np.concatenate([run.d_A for run in runs]) if runs else np.array([10.0, 2.0])
    low, high = 1.0 / spacing.max() ** 2, 1.0 / spacing.min() ** 2
    nice = np.array([20, 10, 7, 5, 4, 3.5, 3, 2.7, 2.5, 2.3, 2.1, 2, 1.9, 1.8, 1.7, 1.6, 1.5, 1.4, 1.3, 1.2, 1.1, 1.0])
    ticks: list[float] = []
    for d in nice:
        place = 1.0 / d**2
        if low * 0.7 <= place <= high * 1.05 and (not ticks or place - 1.0 / ticks[-1] ** 2 > 0.075 * (high - low)):
            ticks.append(float(d))
    axes.set_xticks([1.0 / d**2 for d in ticks], [f"{d:g}" for d in ticks])
    axes.set_xlabel("resolution d (Å)")


def _n_bins(values: FloatArray) -> int:
    return int(np.clip(np.sqrt(len(values)) * 2, 5, 40))

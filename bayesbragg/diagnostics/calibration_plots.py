"""Pictures of a calibration: rank histograms, and distribution functions of ranks in their common band."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from scipy.stats import binom

from bayesbragg.diagnostics.calibration import Band, ecdf_band
from bayesbragg.diagnostics.figure_style import INK, RUN_COLOURS, quiet

__all__ = ["ecdf_plot", "rank_histograms"]

FloatArray = npt.NDArray[np.float64]

BINS = 16
GREY = "#d9dde0"
MANY, NAMED = 12, 6
"""Of more than so many parameters, so many get names in the picture of distribution functions."""


def rank_histograms(names: Sequence[str], ranks: FloatArray) -> Figure:
    """A histogram of the ranks of each parameter, with the range that 99 % of uniform ones have in a bin.

    Args:
        ranks: on (0, 1), ``(n_simulations, n)``.
    """
    columns = min(5, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(2.1 * columns + 0.6, 1.7 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).reshape(-1)
    low, high = binom.ppf([0.005, 0.995], len(ranks), 1.0 / BINS)
    for panel, name, column in zip(panels, names, ranks.T, strict=False):
        panel.axhspan(low, high, color=GREY, lw=0)
        panel.hist(column, bins=BINS, range=(0.0, 1.0), histtype="step", color=RUN_COLOURS[0])
        panel.set_title(name, fontsize=8, color=INK)
        panel.set_xticks([0.0, 0.5, 1.0])
        panel.set_ylim(bottom=0)
        quiet(panel)
    for panel in panels[len(names) :]:
        panel.axis("off")
    figure.supxlabel("rank of the truth (share of the posterior below it)", fontsize=8)
    figure.supylabel(f"simulations of {len(ranks)}", fontsize=8)
    return figure


def ecdf_plot(names: Sequence[str], ranks: FloatArray, band: Band | None = None) -> Figure:
    """Empirical distribution functions of the ranks minus the diagonal, all parameters in one band.

    Args:
        ranks: on (0, 1), ``(n_simulations, n)``.
        band: for their number; of 99 % by default.
    """
    band = band or ecdf_band(len(ranks), len(names))
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    panel = figure.subplots()
    panel.fill_between(
        band.at,
        band.low - band.at,
        band.high - band.at,
        color=GREY,
        lw=0,
        label=f"{band.probability:.0%} band, all together",
    )
    fine = np.linspace(0.0, 1.0, 400)
    off = [np.searchsorted(np.sort(column), fine, side="right") / len(column) - fine for column in ranks.T]
    order = np.argsort([-np.max(np.abs(curve)) for curve in off])
    # Of many parameters those that come nearest to the band get a name; the others show how all scatter.
    shown = set(order[:NAMED].tolist()) if len(names) > MANY else set(range(len(names)))
    number = 0
    for k, (name, curve) in enumerate(zip(names, off, strict=True)):
        if k not in shown:
            panel.plot(fine, curve, lw=0.6, color="#9aa5ab", zorder=1)
            continue
        style = ("-", "--", ":")[number // len(RUN_COLOURS) % 3]
        panel.plot(fine, curve, style, lw=1.0, color=RUN_COLOURS[number % len(RUN_COLOURS)], label=name)
        number += 1
    panel.set_xlabel("rank of the truth (share of the posterior below it)")
    panel.set_ylabel("distribution function - rank")
    panel.set_xlim(0.0, 1.0)
    title = f"{NAMED} of {len(names)} with the largest deviations" if len(names) > MANY else None
    panel.legend(fontsize=7, frameon=False, ncols=4, loc="lower center", title=title, title_fontsize=7)
    low, high = panel.get_ylim()
    panel.set_ylim(low - 0.35 * (high - low), high)
    quiet(panel)
    return figure

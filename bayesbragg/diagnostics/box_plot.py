"""Boxes of pixels side by side: observed, modelled, and what is left."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure

from bayesbragg.diagnostics.figure_style import INK, PANEL_EDGE, round_down
from bayesbragg.model import Shot

__all__ = ["boxes_figure"]


def boxes_figure(
    shot: Shot,
    model: npt.ArrayLike,
    *,
    n_boxes: int = 6,
    title: str = "",
) -> Figure:
    """The brightest boxes of a shot: observed, modelled, and what is left in units of its standard deviation.

    Pixels that take no part in the fit are grey. The standard deviation is that of the Gaussian likelihood: the square
    root of the expected photons plus the readout variance.

    Args:
        shot: pixels in boxes.
        model: Bragg photons that the model expects, without background, ``(n_boxes, n_pixels)``.
        n_boxes: how many boxes, one column each.
        title: of the whole picture.
    """
    bragg = np.asarray(model, dtype=np.float64)
    expected = bragg + shot.background
    shown = shot.valid
    usable = shot.trusted & shown
    strength = np.where(usable, shot.counts - shot.background, 0.0).sum(axis=1)
    chosen = np.argsort(-strength, kind="stable")[:n_boxes]
    sd = np.sqrt(np.maximum(expected + shot.readout_sd**2 + (shot.gain_sd * expected) ** 2, 1e-12))
    residual = (shot.counts - expected) / sd
    figure = Figure(figsize=(1.0 + 1.9 * max(len(chosen), 2), 6.5), layout="constrained", facecolor="white")
    axes = figure.subplots(3, max(len(chosen), 1), squeeze=False)
    photons = colormaps["viridis"].with_extremes(bad="#d0d0d0")
    left = colormaps["RdBu_r"].with_extremes(bad="#c2c2c2")
    last: dict[int, Any] = {}
    for column, box in enumerate(chosen):
        f1, f2, s1, s2 = shot.bounds[box]
        crop = (slice(0, s2 - s1), slice(0, f2 - f1))
        good = usable[box].reshape(shot.shape)[crop]
        top = float(np.max(np.where(good, shot.counts[box].reshape(shot.shape)[crop], 0.0), initial=1.0))
        scale = PowerNorm(0.5, 0.0, top, clip=True)
        rows = ((shot.counts, photons, scale), (expected, photons, scale), (residual, left, Normalize(-5.0, 5.0)))
        for row, (values, colours, norm) in enumerate(rows):
            picture = np.ma.masked_where(~good, values[box].reshape(shot.shape)[crop])
            last[row] = axes[row, column].imshow(
                picture,
                cmap=colours,
                norm=norm,
                origin="upper",
                interpolation="nearest",
                extent=(f1, f2, s2, s1),
            )
            axes[row, column].tick_params(labelsize=7, length=2, colors=INK)
            axes[row, column].locator_params(nbins=3, integer=True)
            for spine in axes[row, column].spines.values():
                spine.set_color(PANEL_EDGE)
        h, k, l = shot.miller_index[box]
        axes[0, column].set_title(f"({h} {k} {l})\npanel {shot.panel[box]}", fontsize=9, color=INK)
        bar = figure.colorbar(last[1], ax=axes[:2, column], location="bottom", shrink=0.9, pad=0.02, aspect=18)
        bar.ax.tick_params(labelsize=7, length=2, colors=INK)
        bar.set_ticks([0.0, round_down(0.2 * top), round_down(top)], minor=False)
        bar.ax.minorticks_off()
        bar.outline.set_visible(False)
        if column == len(chosen) // 2:
            bar.set_label("photons (square-root colours)", fontsize=9, color=INK)
    for row, label in enumerate(("observed", "modelled", "residual")):
        axes[row, 0].set_ylabel(f"{label}\nslow (pixel)", fontsize=9, color=INK)
    for column in range(len(chosen)):
        axes[2, column].set_xlabel("fast (pixel)", fontsize=8, color=INK)
    if last:
        bar = figure.colorbar(last[2], ax=axes[2, :], shrink=0.9, pad=0.01, aspect=14, extend="both")
        bar.set_label("(observed − modelled) / sd", fontsize=9, color=INK)
        bar.ax.tick_params(labelsize=7, length=2, colors=INK)
        bar.outline.set_visible(False)
    if title:
        figure.suptitle(title, color=INK, fontsize=12)
    return figure

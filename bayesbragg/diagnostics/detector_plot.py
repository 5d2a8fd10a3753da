"""The detector picture: panels, their numbers, and where observed spots lie off the calculated ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.collections import PolyCollection
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from bayesbragg.diagnostics.figure_style import INK, PANEL_EDGE, PANEL_FACE, quiet, round_down
from bayesbragg.diagnostics.offsets import Offsets, summary
from bayesbragg.model import Detector

__all__ = ["detector_figure", "label_places", "panel_outlines"]

FloatArray = npt.NDArray[np.float64]


def detector_figure(
    detector: Detector,
    offsets: Offsets,
    title: str = "",
    *,
    colour_max_um: float | None = None,
    panel_arrows: bool = True,
) -> Figure:
    """The detector seen along the beam: panel outlines and numbers, each reflection coloured by its offset.

    An arrow on a panel is the median offset of its reflections (observed minus calculated), drawn many times its
    length: where neighbouring panels disagree, the geometry is at fault.

    Args:
        detector: the panels to draw.
        offsets: reflections on them.
        title: put over the summary of offsets.
        colour_max_um: offset of the last colour, micrometre; by default the 95th percentile.
        panel_arrows: draw the arrows, where a panel has at least 5 reflections.
    """
    figure = Figure(figsize=(9.0, 8.4), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    outlines = panel_outlines(detector)
    axes.add_collection(
        PolyCollection(list(outlines), facecolors=PANEL_FACE, edgecolors=PANEL_EDGE, linewidths=0.8, zorder=1)
    )
    centres = outlines.mean(axis=1)
    side = float(np.sqrt(np.median(_areas(outlines))))
    span = float(np.ptp(outlines.reshape(-1, 2), axis=0).max())
    points = float(np.clip(0.17 * side / span * 9.0 * 72, 5.0, 10.0))
    halo = [withStroke(linewidth=2.2, foreground="white")]
    for number, (x, y) in enumerate(label_places(outlines)):
        axes.text(x, y, str(number), ha="left", va="top", color=INK, fontsize=points, zorder=6, path_effects=halo)
    pixel_um = 1e3 * float(np.median(detector.pixel_size_mm[:, 0]))
    if len(offsets):
        top = colour_max_um or max(float(np.percentile(offsets.overall_um, 95)), 1e-6)
        order = np.argsort(offsets.overall_um)
        dots = axes.scatter(
            offsets.lab_mm[order, 0],
            offsets.lab_mm[order, 1],
            c=offsets.overall_um[order],
            s=float(np.clip(24000 / len(offsets), 4.0, 26.0)),
            cmap=_offset_colours(),
            vmin=0.0,
            vmax=top,
            linewidths=0,
            zorder=3,
        )
        bar = figure.colorbar(dots, ax=axes, shrink=0.82, pad=0.015, extend="max", aspect=32)
        bar.set_label("offset, observed − calculated (µm)", color=INK)
        bar.outline.set_visible(False)
        pixels = bar.ax.secondary_yaxis(
            "left", functions=(lambda um: np.asarray(um) / pixel_um, lambda px: np.asarray(px) * pixel_um)
        )
        pixels.set_ylabel(f"(pixels of {pixel_um:.4g} µm)", color=INK, fontsize=9)
        pixels.tick_params(labelsize=8, color=INK)
        if panel_arrows:
            _panel_arrows(axes, offsets, centres, side)
    axes.plot(0, 0, marker="+", color=INK, markersize=11, markeredgewidth=1.2, zorder=4)
    _scale_bar(axes, outlines)
    axes.set_aspect("equal")
    axes.autoscale_view()
    axes.margins(0.03)
    axes.set_xlabel("laboratory x (mm)")
    axes.set_ylabel("laboratory y (mm)")
    numbers = summary(offsets)
    numbers_line = "    ".join(
        (
            f"{numbers.n_reflections} reflections",
            f"RMSD {numbers.rmsd_um:.1f} µm",
            f"radial {numbers.radial_um:.1f} µm",
            f"transverse {numbers.transverse_um:.1f} µm",
            f"median {numbers.median_um:.1f} µm",
        )
    )
    axes.set_title(f"{title}\n{numbers_line}" if title else numbers_line, fontsize=11, color=INK)
    quiet(axes)
    return figure


def panel_outlines(detector: Detector) -> FloatArray:
    """Corners of every panel in laboratory x and y, ``(n_panels, 4, 2)``, millimetre."""
    panels = np.arange(detector.n_panels)
    n_fast, n_slow = detector.image_size.T
    zero = np.zeros(detector.n_panels)
    corners = [(zero, zero), (n_fast, zero), (n_fast, n_slow), (zero, n_slow)]
    return np.stack([detector.lab_mm(panels, f, s)[:, :2] for f, s in corners], axis=1)


def label_places(outlines: FloatArray) -> FloatArray:
    """A point just inside the upper left corner of each panel, whatever its orientation, ``(n_panels, 2)``."""
    left, top = outlines[..., 0].min(axis=1), outlines[..., 1].max(axis=1)
    inset = 0.05 * np.sqrt(_areas(outlines))
    return np.stack([left + inset, top - inset], axis=1)


def _areas(outlines: FloatArray) -> FloatArray:
    """Areas of polygons ``(n, corners, 2)`` by the shoelace formula."""
    x, y = outlines[..., 0], outlines[..., 1]
    return np.asarray(0.5 * np.abs(np.sum(x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1), axis=1)))


def _offset_colours() -> Colormap:
    """From pale yellow to dark purple, without the ends that vanish on paper."""
    return ListedColormap(colormaps["inferno_r"](np.linspace(0.13, 0.93, 256)), name="offset")


def _panel_arrows(axes: Any, offsets: Offsets, centres: FloatArray, side: float) -> None:
    """Median offset of each panel, drawn so that the 90th percentile is about half a panel long."""
    counts = np.bincount(offsets.panel, minlength=len(centres))
    panels = np.flatnonzero(counts >= 5)
    if len(panels) == 0:
        return
    medians = np.array([np.median(offsets.offset_um[offsets.panel == panel, :2], axis=0) for panel in panels])
    typical = float(np.percentile(np.linalg.norm(medians, axis=1), 90))
    if typical <= 0:
        return
    magnification = round_down(0.5 * side / (1e-3 * typical))
    arrows = axes.quiver(
        centres[panels, 0],
        centres[panels, 1],
        medians[:, 0],
        medians[:, 1],
        angles="xy",
        scale_units="xy",
        scale=1e3 / magnification,
        width=0.0028,
        color="#1f6f8b",
        zorder=5,
    )
    key = round_down(typical)
    axes.quiverkey(
        arrows, 0.87, 0.03, key, f"panel median, {key:g} µm", labelpos="W", coordinates="axes", color="#1f6f8b"
    )


def _scale_bar(axes: Any, outlines: FloatArray) -> None:
    """A bar of a round length below the detector's lower left."""
    low, high = outlines.reshape(-1, 2).min(0), outlines.reshape(-1, 2).max(0)
    span = high - low
    length = round_down(0.2 * float(span.max()))
    y = low[1] - 0.02 * span[1]
    axes.plot([low[0], low[0] + length], [y, y], color=INK, linewidth=3, solid_capstyle="butt", zorder=4)
    axes.text(low[0] + length / 2, y - 0.012 * span[1], f"{length:g} mm", ha="center", va="top", fontsize=10, color=INK)

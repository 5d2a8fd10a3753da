"""An image as the detector saw it, panels in their places, with observed, predicted and rejected spots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from bayesbragg.diagnostics.figure_style import INK, PANEL_EDGE, quiet
from bayesbragg.model import Detector

__all__ = ["SPOT_STYLES", "Spots", "image_figure"]

FloatArray = npt.NDArray[np.float64]
Spots = tuple[npt.NDArray[np.int64], FloatArray]
"""Panels ``(n,)`` and fast and slow positions in pixels, ``(n, 2)``."""

SPOT_STYLES: Mapping[str, tuple[str, str, float]] = {
    "observed": ("o", "#1f6f8b", 46.0),
    "predicted": ("s", "#d1495b", 16.0),
    "rejected": ("x", "#e08a1e", 34.0),
}
CANVAS = 1500


def image_figure(
    panels: Sequence[npt.NDArray[Any]],
    detector: Detector,
    spots: Mapping[str, Spots],
    *,
    mask: Sequence[npt.NDArray[np.bool_]] | None = None,
    panel: int | None = None,
    title: str = "",
) -> Figure:
    """The image with spots marked; counts in square-root colours up to the 99.5th percentile of the brighter pixels.

    Args:
        panels: raw values, ``(slow, fast)`` each, detector units.
        spots: spots by the names of `SPOT_STYLES`.
        mask: True for pixels that may be trusted; others are left white.
        panel: only this panel, in its own pixels; else all of them seen along the beam.
        title: of the picture.
    """
    figure = Figure(figsize=(9.6, 9.0), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    values = [np.asarray(p, dtype=float) for p in panels]
    if mask is not None:
        values = [np.where(m, v, np.nan) for v, m in zip(values, mask, strict=True)]
    if panel is None:
        picture, extent = _canvas(values, detector)
        axes.set_xlabel("laboratory x (mm)")
        axes.set_ylabel("laboratory y (mm)")
    else:
        picture = values[panel]
        extent = (0.0, float(picture.shape[1]), float(picture.shape[0]), 0.0)
        axes.set_xlabel("fast (pixel)")
        axes.set_ylabel("slow (pixel)")
    there = picture[np.isfinite(picture)]
    low, high = np.percentile(there, (2.0, 99.8)) if len(there) else (0.0, 1.0)
    colours = colormaps["Greys"].with_extremes(bad="white")
    shown = axes.imshow(
        picture,
        cmap=colours,
        norm=PowerNorm(0.5, float(min(low, high - 1e-9)), float(high), clip=True),
        extent=extent,
        interpolation="nearest",
        origin="upper",
    )
    for name, (marker, colour, size) in SPOT_STYLES.items():
        if name not in spots or not len(spots[name][0]):
            continue
        number, position = spots[name]
        if panel is None:
            xy = detector.lab_mm(number, position[:, 0], position[:, 1])[:, :2]
        else:
            xy = position[number == panel]
        faces: dict[str, Any] = {"c": colour} if marker == "x" else {"edgecolors": colour, "facecolors": "none"}
        scale = 1.0 if panel is None else 10.0
        label = f"{len(xy)} {name}"
        axes.scatter(xy[:, 0], xy[:, 1], s=scale * size, marker=marker, linewidths=0.9, label=label, **faces)
    bar = figure.colorbar(shown, ax=axes, shrink=0.8, pad=0.015, extend="max", aspect=32)
    bar.set_label("detector units (square-root colours)", color=INK)
    bar.outline.set_edgecolor(PANEL_EDGE)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=3, frameon=False, labelcolor=INK)
    axes.set_aspect("equal")
    axes.set_xlim(extent[0], extent[1])
    axes.set_ylim(extent[2], extent[3])
    if title:
        figure.suptitle(title, fontsize=11, color=INK)
    quiet(axes)
    return figure


def _canvas(values: Sequence[FloatArray], detector: Detector) -> tuple[FloatArray, tuple[float, float, float, float]]:
    """All panels on one grid in laboratory x and y, the brightest pixel of each cell, so that no spot is lost."""
    places = []
    for i, value in enumerate(values):
        s, f = np.meshgrid(np.arange(value.shape[0]) + 0.5, np.arange(value.shape[1]) + 0.5, indexing="ij")
        places.append(detector.lab_mm(np.full(f.shape, i), f, s)[..., :2].reshape(-1, 2))
    xy = np.concatenate(places)
    flat = np.concatenate([v.ravel() for v in values])
    low, high = xy.min(axis=0), xy.max(axis=0)
    step = max(float((high - low).max()) / CANVAS, float(np.median(detector.pixel_size_mm)))
    low, high = low - step, high + step
    shape = np.ceil((high - low) / step).astype(int)
    cell = np.floor((xy - low) / step).astype(int)
    canvas = np.full(shape[0] * shape[1], -np.inf)
    keep = np.isfinite(flat)
    np.maximum.at(canvas, (cell[keep, 1] * shape[0] + cell[keep, 0]), flat[keep])
    picture = np.where(np.isfinite(canvas), canvas, np.nan).reshape(shape[1], shape[0])[::-1]
    end = low + step * shape
    return picture, (float(low[0]), float(end[0]), float(low[1]), float(end[1]))

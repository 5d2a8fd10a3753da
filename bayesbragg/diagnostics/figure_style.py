"""What all pictures share: colours, quiet axes, and writing a figure so that it is whole or not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bayesbragg.model.atomic import atomic_path

__all__ = ["INK", "PANEL_EDGE", "PANEL_FACE", "RUN_COLOURS", "RUN_MARKERS", "quiet", "round_down", "save"]

INK = "#22303c"
PANEL_FACE = "#f3f4f2"
PANEL_EDGE = "#9aa5ad"
RUN_COLOURS = ("#1f6f8b", "#d1495b", "#3a9d5d", "#8f5db7", "#e08a1e", "#5c6770")
RUN_MARKERS = ("o", "s", "^", "D", "v", "P")


def save(figure: Figure, path: str | Path, dpi: int = 150) -> Path:
    """Write a figure (PNG, PDF or SVG by the name's ending) under a temporary name, then rename it.

    Returns:
        The path written.
    """
    path = Path(path)
    path = path if path.suffix else path.with_suffix(".png")
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure)
        figure.savefig(temporary, dpi=dpi)
    return path


def quiet(axes: Any) -> None:
    """Fewer lines, one ink."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(PANEL_EDGE)
    axes.tick_params(colors=INK, width=0.8)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)


def round_down(value: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above a positive value."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step for step in (5.0, 2.0, 1.0) if step * power <= value * (1 + 1e-12)) * power)

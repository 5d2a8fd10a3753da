"""Pictures of the posterior of a joint geometry, and its panels as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from bayesbragg.diagnostics.figure_style import INK, PANEL_EDGE, RUN_COLOURS, quiet
from bayesbragg.forward.group_motion import MOTION_UNITS, MOTIONS
from bayesbragg.model.panel_groups import PanelGrouping
from bayesbragg.model.posterior import Posterior
from bayesbragg.priors.panels import SharedPrior

__all__ = ["panel_rows", "panels_forest", "panels_text"]

FloatArray = npt.NDArray[np.float64]
GREY = "#d9dcdf"
SHOWN = {"radian": (180.0 / np.pi, "degree"), "metre": (1e6, "um")}


def panel_rows(
    posterior: Posterior, prior: SharedPrior, grouping: PanelGrouping, n_reflections: npt.NDArray[np.int64]
) -> list[dict[str, Any]]:
    """A row for each group: reflections, and of every motion that varies mean, sd, central 95 % interval and prior sd.

    Rotations in radian, shifts in metre.
    """
    before = np.sqrt(np.maximum(np.diag(prior.covariance()), 0.0))
    place = {name: i for i, name in enumerate(posterior.names)}
    low, high = posterior.interval().T
    rows = []
    for g, label in enumerate(grouping.labels):
        row: dict[str, Any] = {"group": int(label), "n_reflections": int(n_reflections[g])}
        for k, motion in enumerate(MOTIONS):
            i = place.get(f"group{label}_{motion}")
            if i is not None:
                row |= {motion: posterior.mean[i], f"{motion}_sd": posterior.sd[i], f"{motion}_low": low[i]}
                row |= {f"{motion}_high": high[i], f"{motion}_prior_sd": before[6 * g + k]}
        rows.append(row)
    return rows


def panels_text(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of `panel_rows` as text: mean and sd, in degree and micrometre."""
    motions = [motion for motion in MOTIONS if rows and motion in rows[0]]
    units = dict(zip(MOTIONS, MOTION_UNITS, strict=True))
    head = "".join(f"{f'{m} ({SHOWN[units[m]][1]})':>22}" for m in motions)
    lines = [f"{'group':>6} {'reflections':>11}{head}"]
    for row in rows:
        cells = []
        for motion in motions:
            factor, unit = SHOWN[units[motion]]
            digits = 4 if unit == "degree" else 2
            cells.append(f"{factor * row[motion]:11.{digits}f} +- {factor * row[f'{motion}_sd']:7.{digits}f}")
        lines.append(f"{row['group']:6d} {row['n_reflections']:11d}" + "".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines)


def panels_forest(posterior: Posterior, rows: Sequence[dict[str, Any]], grouping: PanelGrouping) -> Figure:
    """Every motion of every group: 50 % and 95 % intervals of the posterior over the 95 % interval of the prior (grey).

    Args:
        rows: from `panel_rows`.
    """
    motions = [motion for motion in MOTIONS if rows and motion in rows[0]]
    figure = Figure(figsize=(2.3 * len(motions) + 1.0, max(2.6, 1.2 + 0.2 * len(rows))), layout="constrained")
    panels = figure.subplots(1, len(motions), squeeze=False, sharey=True)[0]
    units = dict(zip(MOTIONS, MOTION_UNITS, strict=True))
    y = np.arange(len(rows))
    for axes, motion in zip(panels, motions, strict=True):
        factor, unit = SHOWN[units[motion]]
        draws = np.stack([posterior.values(f"group{label}_{motion}").reshape(-1) for label in grouping.labels])
        low, first, middle, third, high = factor * np.quantile(draws, [0.025, 0.25, 0.5, 0.75, 0.975], axis=1)
        # The prior is about the groups' common motion, of which the data say most: shown about the posterior's mean.
        prior = factor * 1.96 * np.array([row[f"{motion}_prior_sd"] for row in rows])
        centre = float(np.mean(middle))
        axes.barh(y, 2 * prior, left=centre - prior, height=0.8, color=GREY, lw=0)
        axes.hlines(y, low, high, color=RUN_COLOURS[0], lw=1.0)
        axes.hlines(y, first, third, color=RUN_COLOURS[0], lw=3.0)
        axes.plot(middle, y, "o", ms=2.5, color=INK)
        axes.axvline(0.0, color=PANEL_EDGE, lw=0.8)
        margin = 0.08 * float(high.max() - low.min())
        axes.set_xlim(float(low.min()) - margin, float(high.max()) + margin)
        axes.set_xlabel(f"{motion} ({unit})", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.locator_params(axis="x", nbins=4)
        quiet(axes)
    labels = [f"{row['group']} ({row['n_reflections']})" for row in rows]
    panels[0].set_yticks(y, labels, fontsize=7)
    panels[0].set_ylabel("panel group (its reflections)", fontsize=8)
    panels[0].invert_yaxis()
    figure.suptitle("50 % and 95 % intervals; grey: width of the prior", fontsize=8)
    return figure

"""Pictures of a joint geometry fit: how groups moved, how well each is known, and how the search went."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from bayesbragg.diagnostics.figure_style import INK, PANEL_EDGE, PANEL_FACE, RUN_COLOURS, quiet, save
from bayesbragg.inference.joint_types import JointFit
from bayesbragg.model import Detector
from bayesbragg.model.panel_groups import PanelGrouping
from bayesbragg.priors.panels import SharedPrior

__all__ = ["error_bars_plot", "progress_plot", "shifts_plot"]

FloatArray = npt.NDArray[np.float64]


def _outlines(detector: Detector) -> list[FloatArray]:
    corners = []
    for p in range(detector.n_panels):
        nf, ns = detector.image_size[p]
        f, s = np.array([0, nf, nf, 0, 0]), np.array([0, 0, ns, ns, 0])
        corners.append(detector.lab_mm(np.full(5, p), f, s))
    return corners


def shifts_plot(
    path: str | Path,
    before: Detector,
    after: Detector,
    grouping: PanelGrouping,
    reflections: npt.NDArray[np.int64],
) -> Path:
    """Arrows from where each group was to where it is, in the plane across the beam, and the shift along the beam.

    Args:
        before, after: the detector; reflections: of each group, ``(n_groups,)``.
    """
    size = before.image_size
    middle = [d.lab_mm(np.arange(d.n_panels), size[:, 0] / 2, size[:, 1] / 2) for d in (before, after)]
    centre = [np.stack([m[grouping.group == g].mean(axis=0) for g in range(grouping.n_groups)]) for m in middle]
    shift = 1e3 * (centre[1] - centre[0])
    longest = float(np.linalg.norm(shift[:, :2], axis=1).max()) or 1.0
    extent = float(np.ptp(middle[0][:, :2], axis=0).max()) or 1.0
    figure = Figure(figsize=(7.2, 6.4), layout="constrained")
    axes = figure.subplots()
    colour_range = max(float(np.abs(shift[:, 2]).max()), 1e-3)
    for outline in _outlines(before):
        axes.fill(outline[:, 0], outline[:, 1], facecolor=PANEL_FACE, edgecolor=PANEL_EDGE, linewidth=0.6)
    scale = 0.12 * extent / longest
    arrows = axes.quiver(
        centre[0][:, 0], centre[0][:, 1], scale * shift[:, 0], scale * shift[:, 1], shift[:, 2],
        angles="xy", scale_units="xy", scale=1, cmap="coolwarm", clim=(-colour_range, colour_range), width=0.006,
        edgecolor=INK, linewidth=0.4,
    )  # fmt: skip
    few = reflections < 10
    axes.plot(*centre[0][few, :2].T, "x", color=RUN_COLOURS[1], markersize=5, label="fewer than 10 reflections")
    if few.any():
        axes.legend(frameon=False, loc="upper right")
    figure.colorbar(arrows, ax=axes, label="shift along z (micrometre)")
    axes.set_title(f"Panel groups: the longest arrow is {longest:.0f} micrometres")
    axes.set_xlabel("x (mm)")
    axes.set_ylabel("y (mm)")
    axes.set_aspect("equal")
    quiet(axes)
    return save(figure, path)


def error_bars_plot(
    path: str | Path, fit: JointFit, prior: SharedPrior, grouping: PanelGrouping, reflections: npt.NDArray[np.int64]
) -> Path:
    """The six motions of every group with posterior (bars) and prior (bands) standard deviations."""
    n = grouping.n_groups
    values = fit.shared[: 6 * n].reshape(n, 6)
    posterior = fit.standard_errors[: 6 * n].reshape(n, 6)
    before = np.sqrt(np.maximum(np.diag(fit.prior_covariance), 0))[: 6 * n].reshape(n, 6)
    titles = ("about the orthogonal axis", "about fast", "about slow", "along x", "along y", "along z")
    figure = Figure(figsize=(10, 6), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True)
    for i, (axes, title) in enumerate(zip(panels.flat, titles, strict=True)):
        factor, unit = (np.degrees(1.0), "degree") if i < 3 else (1e6, "micrometre")
        x = np.arange(n)
        axes.fill_between(
            x, -factor * before[:, i], factor * before[:, i], step="mid", color=PANEL_FACE, label="prior (1 sd)"
        )
        axes.errorbar(
            x, factor * values[:, i], factor * posterior[:, i], fmt="o", markersize=3, color=RUN_COLOURS[0],
            elinewidth=1, label="posterior",
        )  # fmt: skip
        reach = 1.2 * float(np.max(np.abs(factor * values[:, i]) + factor * posterior[:, i])) or 1.0
        axes.set_ylim(-reach, reach)
        axes.set_title(f"{title} ({unit})", fontsize=9)
        quiet(axes)
    panels.flat[0].legend(frameon=False, fontsize=8)
    for axes in panels[1]:
        axes.set_xlabel("panel group")
    figure.suptitle(f"Panel groups with their error bars; {int(reflections.sum())} reflections")
    return save(figure, path)


def progress_plot(path: str | Path, fit: JointFit) -> Path:
    """Target above its end, sigma-Z and median offset at each step."""
    steps = [step for step in fit.trace if step.accepted]
    number = [step.number for step in steps]
    figure = Figure(figsize=(9, 3), layout="constrained")
    target, sigma, offset = figure.subplots(1, 3)
    target.semilogy(number, [max(step.target - fit.target, 1e-3) for step in steps], "o-", color=RUN_COLOURS[0])
    target.set_title("target above its end", fontsize=9)
    sigma.plot(number, [step.sigma_z for step in steps], "o-", color=RUN_COLOURS[1])
    sigma.set_title("sigma-Z", fontsize=9)
    offset.plot(number, [step.median_offset_px for step in steps], "o-", color=RUN_COLOURS[2])
    offset.set_title("median prediction offset (pixel)", fontsize=9)
    for axes in (target, sigma, offset):
        axes.set_xlabel("step")
        quiet(axes)
    return save(figure, path)

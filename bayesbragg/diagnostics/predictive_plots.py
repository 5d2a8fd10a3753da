"""What a posterior predicts of every reflection, against what was counted: PIT residuals, by panel and resolution.

The probability integral transform (PIT) of a box is the share of predicted photon sums below the counted one, made
continuous at random within the step of one draw: uniform if the model is right. Its normal quantile is a residual that
is standard normal for few photons as for many (randomised-quantile residual; Dunn & Smyth, J. Comput. Graph. Stat. 5
(1996) 236).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from scipy.special import ndtri
from scipy.stats import binom

from bayesbragg.diagnostics.arviz_container import groups_of
from bayesbragg.diagnostics.figure_style import INK, PANEL_EDGE, RUN_COLOURS, quiet
from bayesbragg.model.errors import InputError

__all__ = ["forest_plot", "pit", "predictive_plot", "residual_plot"]

FloatArray = npt.NDArray[np.float64]

BINS = 10
GREY = "#d9dde0"
SHELLS = 8


def pit(data: Any, seed: int = 0) -> FloatArray:
    """PIT of the photons of every reflection, on (0, 1), ``(n_reflections,)``.

    Args:
        data: from `bayesbragg.diagnostics.inference_data`, made with a density.
        seed: of the randomisation.

    Raises:
        InputError: there are no predictions in it.
    """
    predicted, observed, _ = _boxes(data)
    below = np.sum(predicted < observed, axis=0)
    ties = np.sum(predicted == observed, axis=0)
    u = np.random.default_rng(seed).uniform(size=len(observed))
    return np.asarray((below + u * (ties + 1.0)) / (len(predicted) + 1.0))


def predictive_plot(data: Any, seed: int = 0) -> Figure:
    """Counted against predicted photons of every reflection; histogram of the PIT; residuals against brightness."""
    predicted, observed, _ = _boxes(data)
    u = pit(data, seed)
    middle = np.median(predicted, axis=0)
    low, high = np.quantile(predicted, [0.025, 0.975], axis=0)
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, centre, right = figure.subplots(1, 3, width_ratios=(1.2, 1, 1.2))
    floor = max(1.0, 0.5 * float(min(observed.min(), middle.min())))
    left.errorbar(
        np.maximum(middle, floor), np.maximum(observed, floor), fmt=".", ms=4, lw=0.6, color=RUN_COLOURS[0],
        xerr=np.maximum([middle - low, high - middle], 0.0),
    )  # fmt: skip
    top = 1.2 * float(max(observed.max(), middle.max()))
    left.plot([floor, top], [floor, top], color=PANEL_EDGE, lw=0.8)
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_xlabel("predicted photons in the box (95 % of draws)")
    left.set_ylabel("counted photons in the box")
    span = binom.ppf([0.005, 0.995], len(u), 1.0 / BINS)
    centre.axhspan(*span, color=GREY, lw=0, label="99 % of right models, each bin")
    centre.hist(u, bins=BINS, range=(0.0, 1.0), histtype="step", color=RUN_COLOURS[0])
    centre.set_ylim(bottom=0)
    centre.set_xlabel("PIT: predictions below what was counted")
    centre.set_ylabel("reflections")
    centre.legend(fontsize=7, frameon=False, loc="lower center")
    z = ndtri(u)
    right.axhspan(-1.96, 1.96, color=GREY, lw=0)
    right.plot(np.maximum(middle, floor), z, ".", ms=4, color=RUN_COLOURS[0])
    right.set_xscale("log")
    right.set_xlabel("predicted photons in the box")
    right.set_ylabel("PIT residual (standard normal)")
    right.set_title(f"mean {z.mean():.2f}, sd {z.std():.2f}, {np.mean(np.abs(z) < 1.96):.0%} within 1.96", fontsize=8)
    for axis in (left.xaxis, left.yaxis, right.xaxis):
        # The usual labels of a logarithmic axis overlap where it spans little more than a decade, and these where it
        # spans more than two.
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high < 200.0 * low else (1.0,)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    for panel in (left, centre, right):
        quiet(panel)
    return figure


def residual_plot(data: Any, seed: int = 0) -> Figure:
    """PIT residuals on each panel's pixels, their mean by panel, and by resolution.

    Raises:
        InputError: the data do not say where reflections are.
    """
    _, _, constants = _boxes(data)
    if "panel" not in constants:
        raise InputError("the posterior does not say where its reflections are: make it with the shot's boxes")
    z = ndtri(pit(data, seed))
    panel, bounds = np.asarray(constants["panel"]), np.asarray(constants["bounds"], dtype=np.float64)
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    left, centre, right = figure.subplots(1, 3, width_ratios=(1.1, 1.2, 1))
    points = left.scatter(
        bounds[:, :2].mean(axis=1), bounds[:, 2:].mean(axis=1), c=z, s=14, cmap="RdBu_r", vmin=-3, vmax=3, lw=0.2,
        edgecolors=PANEL_EDGE,
    )  # fmt: skip
    left.set_xlabel("fast (pixel of its panel)")
    left.set_ylabel("slow (pixel of its panel)")
    left.invert_yaxis()
    figure.colorbar(points, ax=left, label="PIT residual")
    _means(centre, *_grouped(panel, z), "panel")
    d = np.asarray(constants["resolution"])
    order = np.argsort(-d)
    shells = np.array_split(order, min(SHELLS, max(1, len(order) // 4)))
    means = [(f"{d[rows].max():.1f}-{d[rows].min():.1f}", z[rows]) for rows in shells if len(rows)]
    _means(right, [name for name, _ in means], [values for _, values in means], "resolution (angstrom)")
    right.tick_params(axis="x", rotation=60, labelsize=7)
    for axes in (left, centre, right):
        quiet(axes)
    return figure


def _grouped(group: npt.NDArray[Any], values: FloatArray) -> tuple[list[str], list[FloatArray]]:
    numbers = np.unique(group)
    return [str(n) for n in numbers], [values[group == n] for n in numbers]


def _means(axes: Any, names: list[str], groups: list[FloatArray], what: str) -> None:
    """Mean residual of each group with its standard error under the model."""
    x = np.arange(len(names))
    axes.axhline(0.0, color=PANEL_EDGE, lw=0.8)
    error = [1.0 / np.sqrt(len(values)) for values in groups]
    axes.errorbar(x, [values.mean() for values in groups], yerr=error, fmt="o", ms=3, lw=0.8, color=RUN_COLOURS[0])
    step = max(1, len(names) // 16)
    axes.set_xticks(x[::step], names[::step], fontsize=7)
    axes.set_xlabel(what)
    axes.set_ylabel("mean PIT residual, standard error")


def forest_plot(posteriors: Mapping[str, Any], name: str, truth: float | None = None) -> Figure:
    """One parameter in several posteriors (shots, runs, methods): 50 % and 95 % intervals.

    Args:
        posteriors: data of each, by what stands beside its line.
        name: the parameter, or the end of the names of one number of every panel group, such as ``ShiftX``; each of
            them has a line of its own.
        truth: a line to compare with.
    """
    lines: list[tuple[str, FloatArray, str]] = []
    for label, data in posteriors.items():
        posterior = groups_of(data)["posterior"]
        known = [str(n) for n in posterior.data_vars]
        chosen = [n for n in known if n == name or (n.startswith("group") and n.endswith(f"_{name}"))]
        if not chosen:
            raise InputError(f"parameter {name!r} is not in the posterior of {label}; choose among {', '.join(known)}")
        for n in chosen:
            text = " ".join(part for part in (label, n.removesuffix(f"_{name}") if n != name else "") if part)
            lines.append((text, np.asarray(posterior[n]).reshape(-1), str(posterior[n].attrs.get("units", "1"))))
    figure = Figure(figsize=(6.0, 1.2 + 0.24 * len(lines)), layout="constrained")
    axes = figure.subplots()
    for y, (_, draws, _) in enumerate(lines):
        low, first, middle, third, high = np.quantile(draws, [0.025, 0.25, 0.5, 0.75, 0.975])
        axes.plot([low, high], [y, y], color=RUN_COLOURS[0], lw=1.0)
        axes.plot([first, third], [y, y], color=RUN_COLOURS[0], lw=3.0, solid_capstyle="butt")
        axes.plot([middle], [y], "o", ms=3, color=INK)
    if truth is not None:
        axes.axvline(truth, color=RUN_COLOURS[1], lw=0.8, label="truth")
        axes.legend(fontsize=7, frameon=False)
    axes.set_yticks(range(len(lines)), [text for text, _, _ in lines], fontsize=7)
    axes.invert_yaxis()
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.locator_params(axis="x", nbins=5)
    unit = lines[0][2]
    axes.set_xlabel(f"{name}: 50 % and 95 % intervals" if unit == "1" else f"{name} ({unit}): 50 % and 95 % intervals")
    quiet(axes)
    return figure


def _boxes(data: Any) -> tuple[FloatArray, FloatArray, Any]:
    groups = groups_of(data)
    if "posterior_predictive" not in groups or "observed_data" not in groups:
        raise InputError("the posterior has no predictions: make it with the density of its shot")
    predicted = np.asarray(groups["posterior_predictive"]["photons"], dtype=np.float64)
    observed = np.asarray(groups["observed_data"]["photons"], dtype=np.float64)
    return predicted.reshape(-1, predicted.shape[-1]), observed, groups["constant_data"]

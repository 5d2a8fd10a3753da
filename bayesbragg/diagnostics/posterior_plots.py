"""Pictures of a posterior, with units: traces, pairs, and prior against posterior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from bayesbragg.diagnostics.arviz_container import groups_of
from bayesbragg.diagnostics.figure_style import INK, RUN_COLOURS, quiet
from bayesbragg.model.errors import InputError

__all__ = ["pair_plot", "prior_plot", "trace_plot"]

FloatArray = npt.NDArray[np.float64]

MOST_IN_A_PAIR_PLOT = 10


def trace_plot(data: Any, names: Sequence[str] | None = None) -> Figure:
    """Histogram of each parameter on the left, its chains draw by draw on the right.

    Args:
        data: from `bayesbragg.diagnostics.inference_data`.
        names: parameters; all by default.
    """
    draws, units = _draws(data, names)
    figure = Figure(figsize=(9, 1.5 * len(draws) + 0.4), layout="constrained")
    axes = figure.subplots(len(draws), 2, squeeze=False, width_ratios=(1, 2))
    for (left, right), (name, x) in zip(axes, draws.items(), strict=True):
        axis = _Axis.of(name, units[name], x)
        bins = np.histogram_bin_edges(axis.shown(x), bins=40)
        for k, chain in enumerate(x):
            colour = RUN_COLOURS[k % len(RUN_COLOURS)]
            left.hist(axis.shown(chain), bins=bins, histtype="step", color=colour)
            right.plot(axis.shown(chain), lw=0.5, color=colour)
        left.set_xlabel(axis.label)
        left.set_yticks([])
        left.locator_params(axis="x", nbins=4)
        # The name stands on the left, and there is no room for more here.
        right.set_ylabel(axis.bracket, fontsize=8)
        quiet(left)
        quiet(right)
    axes[-1][1].set_xlabel("draw (each colour is a chain)")
    return figure


def pair_plot(data: Any, names: Sequence[str] | None = None) -> Figure:
    """Each parameter against each other, with the correlation of every pair; the first ten where no names are given."""
    draws, units = _draws(data, names)
    if names is None:
        draws = dict(list(draws.items())[:MOST_IN_A_PAIR_PLOT])
    n = len(draws)
    figure = Figure(figsize=(1.6 * n + 1, 1.6 * n + 1), layout="constrained")
    axes = figure.subplots(n, n, squeeze=False)
    flat = {name: x.reshape(-1) for name, x in draws.items()}
    for i, (name_y, y) in enumerate(flat.items()):
        up = _Axis.of(name_y, units[name_y], y)
        for j, (name_x, x) in enumerate(flat.items()):
            panel = axes[i][j]
            if j > i:
                panel.axis("off")
                continue
            along = _Axis.of(name_x, units[name_x], x)
            if i == j:
                panel.hist(along.shown(x), bins=30, color=RUN_COLOURS[0], alpha=0.6)
                panel.set_yticks([])
            else:
                step = max(1, len(x) // 1500)
                points = along.shown(x[::step]), up.shown(y[::step])
                panel.plot(*points, ".", ms=1.5, alpha=0.4, color=RUN_COLOURS[0])
                r = np.corrcoef(x, y)[0, 1]
                panel.set_title(f"r = {r:.2f}", fontsize=7, color=INK, pad=2)
            panel.tick_params(labelsize=6)
            panel.locator_params(nbins=3)
            if i == n - 1:
                panel.set_xlabel(along.label, fontsize=7)
            else:
                panel.set_xticklabels([])
            if j == 0 and i:
                panel.set_ylabel(up.label, fontsize=7)
            elif i != j:
                panel.set_yticklabels([])
            quiet(panel)
    return figure


def prior_plot(data: Any, names: Sequence[str] | None = None) -> Figure:
    """Prior (grey) and posterior of each parameter, with the ratio of their widths: what the data have taught.

    Raises:
        InputError: there are no draws of the prior.
    """
    groups = groups_of(data)
    if "prior" not in groups:
        raise InputError("the posterior has no group 'prior': make it with a density whose priors are proper")
    draws, units = _draws(data, names)
    draws = {name: x for name, x in draws.items() if name in groups["prior"]}
    columns = min(3, max(len(draws), 1))
    rows = -(-max(len(draws), 1) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.1 * rows + 0.3), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for panel, (name, x) in zip(panels, draws.items(), strict=False):
        prior = np.asarray(groups["prior"][name]).reshape(-1)
        edges = np.histogram_bin_edges(prior, bins=60)
        flat = x.reshape(-1)
        panel.hist(prior, bins=edges, weights=np.full(len(prior), 1 / len(prior)), color="#b0b7bc", label="prior")
        # Beside a wide prior a posterior is a line: its height means nothing then, its place does.
        if flat.std() > 2 * (edges[1] - edges[0]):
            weights = np.full(len(flat), 1 / len(flat))
            panel.hist(flat, bins=edges, weights=weights, color=RUN_COLOURS[0], alpha=0.6, label="posterior")
        else:
            panel.axvline(flat.mean(), color=RUN_COLOURS[0], lw=1.5, label="posterior")
        panel.set_yticks([])
        unit = units[name]
        panel.set_xlabel(name if unit == "1" else f"{name} ({unit})", fontsize=8)
        panel.set_title(f"sd: {_short(x.std())} of prior's {_short(prior.std())}", fontsize=7, color=INK)
        panel.tick_params(labelsize=7)
        panel.locator_params(axis="x", nbins=4)
        quiet(panel)
    for panel in panels[len(draws) :]:
        panel.axis("off")
    if draws:
        panels[0].legend(fontsize=7, frameon=False)
    return figure


def _short(value: float) -> str:
    return f"{float(value):.2g}"


def _draws(data: Any, names: Sequence[str] | None) -> tuple[dict[str, FloatArray], dict[str, str]]:
    posterior = groups_of(data)["posterior"]
    known = [str(name) for name in posterior.data_vars]
    for name in names or ():
        if name not in known:
            raise InputError(f"parameter {name!r} is not in this posterior; choose among {', '.join(known)}")
    chosen = list(names) if names is not None else known
    draws = {name: np.asarray(posterior[name], dtype=np.float64) for name in chosen}
    return draws, {name: str(posterior[name].attrs.get("units", "1")) for name in chosen}


@dataclass(frozen=True)
class _Axis:
    """A parameter's axis: offset and power of ten that are taken out so that its ticks can be read, and its words."""

    offset: float
    power: int
    name: str
    unit: str

    @classmethod
    def of(cls, name: str, unit: str, x: FloatArray) -> _Axis:
        middle, spread = float(np.median(x)), float(np.std(x))
        offset = 0.0
        if spread > 0 and abs(middle) > 30 * spread:
            digits = int(np.floor(np.log10(spread)))
            offset = float(np.round(middle, -digits))
        largest = float(np.max(np.abs(x - offset), initial=0.0))
        power = int(np.floor(np.log10(largest))) if largest > 0 else 0
        return cls(offset, power if power < -3 or power > 4 else 0, name, "" if unit == "1" else unit)

    def shown(self, x: FloatArray) -> FloatArray:
        return np.asarray((x - self.offset) / 10.0**self.power)

    @property
    def bracket(self) -> str:
        """The unit with the power of ten, in brackets; empty where there is neither."""
        words = " ".join(word for word in (f"1e{self.power}" if self.power else "", self.unit) if word)
        return f"({words})" if words else ""

    @property
    def label(self) -> str:
        shift = f" {'-' if self.offset > 0 else '+'} {abs(self.offset):.10g}" if self.offset else ""
        return f"{self.name}{shift}\n{self.bracket}".rstrip()

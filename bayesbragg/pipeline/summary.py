"""A run's population of crystals, from its table of shots, and the priors that it suggests for the next run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesbragg.inference.population import Population, fit_population
from bayesbragg.model.errors import InputError
from bayesbragg.model.fit import FitStatus

__all__ = ["Line", "Summary", "phil_of", "summarize"]

FloatArray = npt.NDArray[np.float64]

EDGES, ANGLES = ("a", "b", "c"), ("al", "be", "ga")
SYMMETRIC = 1e-6
"""Relative difference of cell edges below which they are one number in every shot."""
# Name in the table, PHIL name, component, unit, factor from the table's unit to that of the beta.
_VECTORS = (("ncells", "Nabc", "cells"), ("ncells_def", "Ndef", "cells"), ("eta_abc", "eta_abc", "degree"))
_NUMBERS = (("spot_scales", "G", "", 1.0), ("B", "B", "A^2", 1.0), ("detz_shift_mm", "detz_shift", "mm", 1e-3))


@dataclass(frozen=True)
class Line:
    """One parameter of the population.

    Attributes:
        name: in the table of shots; ``ncells[0]`` is a component.
        phil: name of its center and beta; component: in a list of three, or None.
        unit: of the population; beta_factor: from it to the unit whose square a beta has.
        population: mean and spread.
        median_error: of single shots; not a number where the table has no error bars.
    """

    name: str
    phil: str
    component: int | None
    unit: str
    beta_factor: float
    population: Population
    median_error: float


@dataclass(frozen=True)
class Summary:
    """A run in figures: rows of the table, those that converged, and the population of each parameter that varies."""

    n_rows: int
    n_used: int
    lines: tuple[Line, ...]
    has_errors: bool

    def text(self) -> str:
        """A table to read."""
        head = f"{self.n_rows} rows, {self.n_used} of them converged"
        if not self.has_errors:
            head += "; no error bars in the table: spreads hold the errors of the fits (refine with inference=laplace)"
        rows = [("parameter", "mean", "error", "spread", "68 % of spread", "error of a shot", "unit")]
        for line in self.lines:
            p = line.population
            error = "-" if not np.isfinite(line.median_error) else f"{line.median_error:.2g}"
            interval = f"{p.spread_low:.2g} to {p.spread_high:.2g}"
            rows.append(
                (line.name, f"{p.mean:.7g}", f"{p.mean_error:.2g}", f"{p.spread:.3g}", interval, error, line.unit)
            )
        width = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join([head, *("  ".join(c.ljust(w) for c, w in zip(r, width, strict=True)).rstrip() for r in rows)])


def _column(rows: Sequence[Mapping[str, Any]], name: str, component: int | None) -> FloatArray:
    """Numbers of a column, not a number where a row has none."""

    def one(value: Any) -> float:
        if value is None:
            return np.nan
        if component is None:
            return float(value)
        return float(value[component]) if len(value) > component else np.nan

    return np.array([one(row.get(name)) for row in rows])


def _line(rows: Sequence[Mapping[str, Any]], name: str, phil: str, component: int | None, unit: str,
          factor: float) -> Line | None:  # fmt: skip
    """The population of a column, or None where it does not vary or too few shots have it."""
    values, errors = _column(rows, name, component), _column(rows, f"{name}_sd", component)
    finite = np.isfinite(values)
    if finite.sum() < 4 or np.ptp(values[finite]) <= 1e-12 * np.abs(values[finite]).max():
        return None
    known = np.isfinite(errors) & (errors > 0)
    used = np.where(known, errors, np.nan) if known.sum() >= 4 else np.zeros(len(values))
    shown = name if component is None else f"{name}[{component}]"
    middle = float(np.median(errors[known])) if known.any() else np.nan
    return Line(shown, phil, component, unit, factor, fit_population(values, used), middle)


def summarize(rows: Sequence[Mapping[str, Any]], where: str = "table") -> Summary:
    """The population of a table of shots.

    Args:
        rows: of the table, one per lattice.
        where: the table, for messages.

    Raises:
        InputError: fewer than 4 shots that converged.
    """
    used = [row for row in rows if row.get("status", FitStatus.CONVERGED.value) == FitStatus.CONVERGED.value]
    if len(used) < 4:
        raise InputError(f"{where}: {len(used)} shots converged of {len(rows)}; a population needs at least 4")
    lines: list[Line | None] = []
    edges = np.array([_column(used, name, None) for name in EDGES])
    for i, name in enumerate(EDGES):
        # Edges that symmetry ties together are one parameter, that of the first of them.
        if any(np.all(np.abs(edges[i] - edges[j]) <= SYMMETRIC * edges[j]) for j in range(i)):
            continue
        lines.append(_line(used, name, f"ucell_{name}", None, "A", 1.0))
    for name, phil in zip(ANGLES, ("ucell_alpha", "ucell_beta", "ucell_gamma"), strict=True):
        lines.append(_line(used, name, phil, None, "degree", float(np.radians(1.0))))
    for name, phil, unit in _VECTORS:
        lines += [_line(used, name, phil, component, unit, 1.0) for component in range(3)]
    lines += [_line(used, name, phil, None, unit, factor) for name, phil, unit, factor in _NUMBERS]
    found = tuple(line for line in lines if line is not None)
    return Summary(len(rows), len(used), found, any(np.isfinite(line.median_error) for line in found))


def phil_of(summary: Summary) -> str:
    """The population as PHIL that ``bayesbragg refine`` reads: centers, betas (variances) and ``use_restraints``.

    Lists of three are written where all three components vary. The scale factor G is left out: it is a property of the
    shot's flux and the crystal's size, and a normal prior suits it badly.
    """
    groups: dict[str, dict[int | None, Line]] = {}
    for line in summary.lines:
        if line.phil != "G":
            groups.setdefault(line.phil, {})[line.component] = line
    centers, betas = [], []
    for phil, parts in groups.items():
        if None not in parts and len(parts) < 3:
            continue
        order = [parts[None]] if None in parts else [parts[i] for i in range(3)]
        means = ", ".join(f"{line.population.mean:.8g}" for line in order)
        variances = ", ".join(f"{line.population.variance * line.beta_factor**2:.4g}" for line in order)
        means, variances = (f"[{means}]", f"[{variances}]") if len(order) == 3 else (means, variances)
        unit = order[0].unit
        centers.append(f"  {phil} = {means}  # {unit}, {order[0].population.n_shots} shots")
        betas.append(f"  {phil} = {variances}")
    return "\n".join(["use_restraints = True", "centers {", *centers, "}", "betas {", *betas, "}", ""])

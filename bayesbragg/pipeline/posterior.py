"""From a refined shot's row of the table to its posterior, and from the posterior to columns of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bayesbragg.model.errors import InputError
from bayesbragg.model.fit import Fit, FitStatus
from bayesbragg.model.posterior import Posterior
from bayesbragg.pipeline.load import load_factors
from bayesbragg.pipeline.refine import Prepared, around, fit_prepared, prepare
from bayesbragg.pipeline.results import parameters_from_row
from bayesbragg.pipeline.run import laue_rotations
from bayesbragg.pipeline.settings import RefineSettings
from bayesbragg.pipeline.still import Still
from bayesbragg.priors import CellConstraint

__all__ = ["fit_again", "sd_columns"]

_DEGREE = 180.0 / np.pi
# name in a layout: (column, factor from the layout's unit to the table's)
_SINGLE = {
    "B": ("B_sd", 1.0),
    "detz_shift": ("detz_shift_mm_sd", 1e3),
    "lambda_offset": ("lam0_sd", 1.0),
    "lambda_scale": ("lam1_sd", 1.0),
}
_TRIPLE = {
    "ncells_sd": ("Na", "Nb", "Nc"),
    "ncells_def_sd": ("Nd", "Ne", "Nf"),
    "eta_abc_sd": ("eta_a", "eta_b", "eta_c"),
    "diffuse_gamma_sd": ("diffuse_gamma_a", "diffuse_gamma_b", "diffuse_gamma_c"),
    "diffuse_sigma_sd": ("diffuse_sigma_a", "diffuse_sigma_b", "diffuse_sigma_c"),
}
_SHARED = {"ncells_sd": "N", "ncells_def_sd": "Ndef", "eta_abc_sd": "eta"}
_SHARED |= {"diffuse_gamma_sd": "diffuse_gamma", "diffuse_sigma_sd": "diffuse_sigma"}


def fit_again(
    still: Still, settings: RefineSettings, rows: Sequence[dict[str, Any]], where: str
) -> tuple[Prepared, Fit]:
    """A shot as its refinement left it: the same boxes, model and priors, and the best fit found again from its row.

    Args:
        settings: of the run that refined it.
        rows: of the shot in that run's table, one for each lattice.
        where: file and shot, for messages.

    Raises:
        InputError: input that cannot be used, or a fit that failed.
    """
    crystal = still.crystals[0] if still.crystals else None
    if crystal is None:
        raise InputError(f"{where}: no crystal model; index and refine the shot first")
    wavelength = still.experiments[0].beam.wavelength_A
    factors = load_factors(settings.factors, crystal.hall_symbol.strip() or "P 1", wavelength)
    rotations = laue_rotations(crystal.space_group_number) if settings.model.diffuse else None
    found = parameters_from_row(rows, where, still.crystals[: settings.max_lattices], settings.start)
    prepared = prepare(still, factors, settings, laue_rotations=rotations)
    values = np.asarray(prepared.layout.values_of(found))
    prepared = around(prepared, values, factors, settings, rotations)
    options = replace(settings.fit, start_scale=False, start_blocks=False)
    prepared, fit = fit_prepared(prepared, factors, settings, options, rotations)
    if fit.status is FitStatus.FAILED:
        raise InputError(f"{where}: its fit failed ({fit.reason}); refine it again, or leave it out")
    return prepared, fit


def sd_columns(posterior: Posterior, constraint: CellConstraint, lattice: int = 0) -> dict[str, Any]:
    """Standard deviations as columns of the table of shots; those of fixed parameters are 0.

    Columns: ``a_sd`` ... ``ga_sd`` (angstrom, degree), ``rotX_sd`` ... (radian), ``spot_scales_sd``, ``ncells_sd``,
    ``ncells_def_sd`` (cells), ``eta_abc_sd`` (degree), ``diffuse_gamma_sd``, ``diffuse_sigma_sd`` (angstrom),
    ``B_sd`` (angstrom^2), ``detz_shift_mm_sd``, ``lam0_sd`` (angstrom), ``lam1_sd``; and the verdict.
    """
    sds = dict(zip(posterior.names, posterior.sd.tolist(), strict=True))

    def sd(name: str) -> float:
        return float(sds.get(f"{name}_xtal{lattice}", sds.get(name, 0.0)))

    columns: dict[str, Any] = {f"{name}_sd": sd(name) for name in ("rotX", "rotY", "rotZ")}
    columns |= _cell_columns(sds, constraint)
    columns["spot_scales_sd"] = sd("G")
    columns |= {column: sd(name) * factor for name, (column, factor) in _SINGLE.items()}
    for column, names in _TRIPLE.items():
        shared = sd(_SHARED[column])
        columns[column] = tuple(shared or sd(name) for name in names)
    columns["inference"] = posterior.method
    columns["verdict_passed"] = posterior.verdict.passed
    columns["verdict"] = str(posterior.verdict)
    return columns


def _cell_columns(sds: Mapping[str, float], constraint: CellConstraint) -> dict[str, float]:
    """A cell parameter that equals a free one has its standard deviation."""
    free = np.array([sds.get(name, 0.0) for name in constraint.names])
    ones = np.arange(1.0, len(free) + 1)
    # Which free number each of the six is: the cell of distinct small numbers tells.
    spread = np.asarray(constraint.expand(ones * 1e-9))
    result = {}
    for i, name in enumerate(("a", "b", "c", "al", "be", "ga")):
        which = round(spread[i] * 1e9) - 1
        value = float(free[which]) if 0 <= which < len(free) and spread[i] < 1e-6 else 0.0
        result[f"{name}_sd"] = value * (_DEGREE if i >= 3 else 1.0)
    return result

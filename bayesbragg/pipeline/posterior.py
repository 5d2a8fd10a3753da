"""From a refined shot's row of the table to the fit that its posterior starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bayesbragg.model.errors import InputError
from bayesbragg.model.fit import Fit, FitStatus
from bayesbragg.pipeline.load import structure_factors
from bayesbragg.pipeline.refine import Prepared, around, fit_prepared, prepare
from bayesbragg.pipeline.results import parameters_from_row
from bayesbragg.pipeline.settings import RefineSettings
from bayesbragg.pipeline.still import Still

__all__ = ["fit_again"]


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
    if not still.crystals:
        raise InputError(f"{where}: no crystal model; index and refine the shot first")
    found = parameters_from_row(rows, where, still.crystals[: settings.max_lattices], settings.start)
    prepared = prepare(still, structure_factors(still, settings), settings)
    values = np.asarray(prepared.layout.values_of(found))
    prepared = around(prepared, values)
    options = replace(settings.fit, start_scale=False, start_blocks=False)
    prepared, fit = fit_prepared(prepared, options)
    if fit.status is FitStatus.FAILED:
        raise InputError(f"{where}: its fit failed ({fit.reason}); refine it again, or leave it out")
    return prepared, fit

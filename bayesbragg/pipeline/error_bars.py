"""Error bars of refined shots: columns of the table of shots, from the best fit alone or from its posterior."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesbragg.model.errors import InputError
from bayesbragg.model.posterior import Posterior
from bayesbragg.pipeline.refine import Refined
from bayesbragg.pipeline.settings import PosteriorSettings, RefineSettings
from bayesbragg.priors import CellConstraint

if TYPE_CHECKING:
    from bayesbragg.inference.nuts import NutsOptions
    from bayesbragg.inference.unbounded import Target

__all__ = ["NOT_CHECKED", "error_columns", "nuts_options", "posterior_columns", "sample", "sd_columns", "usual_draws"]

log = logging.getLogger(__name__)

NOT_CHECKED = "not checked"
"""Verdict on a Gaussian of which no draws were taken."""
USUAL_DRAWS = {"laplace": 2000, "nuts": 500}

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
    "eta_def_sd": ("eta_d", "eta_e", "eta_f"),
    "diffuse_gamma_sd": ("diffuse_gamma_a", "diffuse_gamma_b", "diffuse_gamma_c"),
    "diffuse_sigma_sd": ("diffuse_sigma_a", "diffuse_sigma_b", "diffuse_sigma_c"),
}
_SHARED = {"ncells_sd": "N", "ncells_def_sd": "Ndef", "eta_abc_sd": "eta", "eta_def_sd": "eta_def"}
_SHARED |= {"diffuse_gamma_sd": "diffuse_gamma", "diffuse_sigma_sd": "diffuse_sigma"}


def error_columns(refined: Refined, settings: RefineSettings, folder: Path) -> list[dict[str, Any]]:
    """Columns with error bars for every lattice of a shot; a posterior that is sampled is written into the folder.

    A posterior that cannot be explored is a verdict, not an exception: the best fit stands without it.
    """
    how, constraint = settings.posterior, refined.prepared.layout.constraint
    lattices = range(len(refined.crystals))
    names = refined.fit.names
    unknown = dict.fromkeys(names, float("nan"))
    if how.inference == "map":
        return [_columns(unknown, constraint, i, "map", "") for i in lattices]
    if how.inference == "laplace" and not how.draws:
        sds = dict(zip(names, refined.fit.standard_errors.tolist(), strict=True))
        near = f" ({', '.join(refined.fit.at_bound)} at a bound)" if refined.fit.at_bound else ""
        return [_columns(sds, constraint, i, "laplace", NOT_CHECKED + near) for i in lattices]
    from bayesbragg.inference.laplace import target_of_fit

    tag = refined.prepared.still.tag
    try:
        target = target_of_fit(refined.prepared.density, refined.fit)
        posterior = sample(target, how, settings.seed)
    except (InputError, np.linalg.LinAlgError) as error:
        log.warning("%s: no posterior: %s", tag, error)
        return [_columns(unknown, constraint, i, how.inference, f"FAILED: {error}") for i in lattices]
    log.info("%s: %s", tag, posterior.summary())
    _write(posterior, refined, settings, folder / f"{tag}_posterior.nc")
    return [posterior_columns(posterior, constraint, i) for i in lattices]


def sample(
    target: Target, how: PosteriorSettings, seed: int, report: Callable[[int, int], None] | None = None
) -> Posterior:
    """Corrected Laplace or NUTS, as the settings say.

    Args:
        report: told of the progress of NUTS.
    """
    # NumPyro and scipy.stats take a second to import; runs without sampling do not need them.
    from bayesbragg.inference.laplace import LaplaceOptions, laplace
    from bayesbragg.inference.nuts import nuts

    if not how.samples:
        return laplace(target, LaplaceOptions(n_draws=usual_draws(how), exact_hessian=how.exact_hessian), seed=seed)
    return nuts(target, nuts_options(how), seed=seed, report=report)


def usual_draws(how: PosteriorSettings) -> int:
    """The draws that are asked for, or what is usual."""
    return how.draws or USUAL_DRAWS["nuts" if how.samples else "laplace"]


def nuts_options(how: PosteriorSettings) -> NutsOptions:
    """How Markov chains are run."""
    from bayesbragg.inference.nuts import NutsOptions

    return NutsOptions(
        n_chains=how.chains,
        n_draws=usual_draws(how),
        n_warmup=how.warmup,
        target_accept=how.target_accept or None,
        path="hmc" if how.inference == "hmc" else "nuts",
    )


def posterior_columns(posterior: Posterior, constraint: CellConstraint, lattice: int = 0) -> dict[str, Any]:
    """The standard deviations and the verdict of a posterior as columns of the table of shots."""
    sds = dict(zip(posterior.names, posterior.sd.tolist(), strict=True))
    columns = _columns(sds, constraint, lattice, posterior.method, str(posterior.verdict))
    return columns | {"verdict_passed": posterior.verdict.passed}


def _columns(
    sds: Mapping[str, float], constraint: CellConstraint, lattice: int, method: str, verdict: str
) -> dict[str, Any]:
    return sd_columns(sds, constraint, lattice) | {"inference": method, "verdict": verdict}


def _write(posterior: Posterior, refined: Refined, settings: RefineSettings, path: Path) -> None:
    # ArviZ takes a second to import; runs without sampling do not need it.
    from bayesbragg.diagnostics.arviz_container import write_netcdf
    from bayesbragg.diagnostics.inference_data import inference_data

    data = inference_data(
        posterior, refined.prepared.density, refined.prepared.shot, provenance={"settings": asdict(settings)}
    )
    write_netcdf(data, path)


def sd_columns(sds: Mapping[str, float], constraint: CellConstraint, lattice: int = 0) -> dict[str, Any]:
    """Standard deviations by name as columns of the table of shots; those of fixed parameters are 0.

    Columns: ``a_sd`` ... ``ga_sd`` (angstrom, degree), ``rotX_sd`` ... (radian), ``spot_scales_sd``, ``ncells_sd``,
    ``ncells_def_sd`` (cells), ``eta_abc_sd``, ``eta_def_sd`` (degree), ``diffuse_gamma_sd``, ``diffuse_sigma_sd``
    (angstrom), ``B_sd`` (angstrom^2), ``detz_shift_mm_sd``, ``lam0_sd`` (angstrom), ``lam1_sd``.
    """

    def sd(name: str) -> float:
        return float(sds.get(f"{name}_xtal{lattice}", sds.get(name, 0.0)))

    columns: dict[str, Any] = {f"{name}_sd": sd(name) for name in ("rotX", "rotY", "rotZ")}
    columns |= _cell_columns(sds, constraint)
    columns["spot_scales_sd"] = sd("G")
    columns |= {column: sd(name) * factor for name, (column, factor) in _SINGLE.items()}
    for column, names in _TRIPLE.items():
        shared = sd(_SHARED[column])
        columns[column] = tuple(shared or sd(name) for name in names)
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

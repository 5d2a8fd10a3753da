"""Posteriors as ArviZ knows them: named groups with coordinates and units, written to NetCDF and read back.

Groups: ``posterior``, ``sample_stats``, ``log_likelihood`` (one number per reflection, not per pixel), ``prior``,
``posterior_predictive`` and ``observed_data`` (photons in each reflection's box), ``constant_data`` (what identifies
the boxes, and the best fit). The provenance stands in the attributes. Every variable has its unit as ``units``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import xarray

from bayesbragg.diagnostics.arviz_container import container
from bayesbragg.forward.rotations import cell_matrix
from bayesbragg.inference.box_likelihood import box_log_likelihood, fitted
from bayesbragg.inference.density import LogDensity, Problem, Recipe
from bayesbragg.model import Shot
from bayesbragg.model.posterior import Posterior
from bayesbragg.priors.flatten import Layout

__all__ = ["Boxes", "attributes_of", "box_terms", "dataset", "inference_data", "prior_draws"]

Array = Any
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Boxes:
    """Per-draw terms of the reflections.

    Attributes:
        log_likelihood: ``(n_draws, n_boxes)``.
        photons: expected photons of the trusted pixels, Bragg and background, ``(n_draws, n_boxes)``.
        readout_variance: of their sum, photon^2, ``(n_boxes,)``.
        gain_variance: of their sum by the calibration error of pixels, photon^2, ``(n_draws, n_boxes)``.
        observed: photons that were counted there, ``(n_boxes,)``.
    """

    log_likelihood: FloatArray
    photons: FloatArray
    readout_variance: FloatArray
    gain_variance: FloatArray
    observed: FloatArray


def box_terms(density: LogDensity, values: npt.ArrayLike) -> Boxes:
    """Log likelihood and expected photons of every box at many points.

    Args:
        density: of the shot.
        values: physical values, ``(n_draws, n)``.
    """
    pixels = density.problem.pixels
    trusted = np.asarray(pixels.trusted)
    terms, photons, gain = _box_terms(jnp.asarray(values, dtype=jnp.float64), density.problem, density.recipe)
    variance = np.broadcast_to(np.asarray(pixels.variance), trusted.shape)
    return Boxes(
        np.asarray(terms),
        np.asarray(photons),
        np.sum(np.where(trusted, variance, 0.0), axis=1),
        np.asarray(gain),
        np.sum(np.where(trusted, np.asarray(pixels.counts), 0.0), axis=1),
    )


@partial(jax.jit, static_argnames="recipe")
def _box_terms(values: Array, problem: Problem, recipe: Recipe) -> tuple[Array, Array, Array]:
    pixels = problem.pixels

    def one(row: Array) -> tuple[Array, Array, Array]:
        parameters = problem.layout.place(row, problem.base)
        bragg = recipe.forward(parameters, problem.scene, recipe.options).astype(jnp.float64)
        shown = fitted(bragg, pixels, recipe.likelihood, recipe.window)
        mu = jnp.where(pixels.trusted, shown.bragg + shown.background, 0.0)
        gain = jnp.sum((pixels.gain_sd * mu) ** 2, axis=1)
        return box_log_likelihood(bragg, pixels, recipe.likelihood, recipe.window), jnp.sum(mu, axis=1), gain

    result: tuple[Array, Array, Array] = jax.lax.map(one, values)
    return result


def prior_draws(layout: Layout, n: int, seed: int = 0) -> dict[str, FloatArray]:
    """Draws of the priors, ``(n,)`` each; parameters whose prior is improper (flat without bounds) are left out.

    The restraint of the block volume is not part of them.
    """
    from scipy.special import ndtr, ndtri

    generator = np.random.default_rng(seed)
    found = {}
    for i, name in enumerate(layout.names):
        part = layout.parameter(i)
        u = generator.uniform(size=n)
        if part.center is not None and part.beta is not None:
            sd = math.sqrt(part.beta)
            low, high = ndtr((part.low - part.center) / sd), ndtr((part.high - part.center) / sd)
            if high > low:
                found[name] = part.center + sd * ndtri(low + u * (high - low))
        elif math.isfinite(part.low) and math.isfinite(part.high):
            found[name] = part.low + u * (part.high - part.low)
    return found


def inference_data(
    posterior: Posterior,
    density: LogDensity | None = None,
    shot: Shot | None = None,
    *,
    provenance: Mapping[str, Any] | None = None,
    prior: int = 1000,
) -> Any:
    """A posterior for ArviZ.

    Args:
        posterior: the draws.
        density: of the shot; adds prior, log likelihood by reflection and predicted photons of every box (a forward
            model for every draw).
        shot: the boxes before padding; names the reflections.
        provenance: what made the result; written as JSON.
        prior: draws from the prior.

    Returns:
        ``arviz.InferenceData``, or an ``xarray.DataTree`` with arviz 1.0 and later.
    """
    n_chains, n_draws, _ = posterior.draws.shape
    units = dict(zip(posterior.names, posterior.units, strict=True))
    chains = {"chain": np.arange(n_chains), "draw": np.arange(n_draws)}
    groups = {
        "posterior": dataset(
            {name: posterior.values(name) for name in posterior.names}, ("chain", "draw"), chains, units
        )
    }
    stats = {"lp": posterior.log_density, **posterior.sample_stats}
    groups["sample_stats"] = dataset(stats, ("chain", "draw"), chains, {})
    names = {"parameter": np.array(posterior.names), "parameter_bis": np.array(posterior.names)}
    constants = xarray.Dataset(
        {
            "best_fit": ("parameter", posterior.mode),
            "posterior_sd": ("parameter", posterior.sd),
            "posterior_covariance": (("parameter", "parameter_bis"), posterior.covariance),
            "unit": ("parameter", np.array(posterior.units)),
        },
        coords=names,
    )
    if density is not None:
        constants = _add_boxes(groups, constants, posterior, density, shot)
        drawn = {name: v[None] for name, v in prior_draws(density.layout, prior, posterior.seed).items()}
        if drawn and prior:
            coordinates = {"chain": np.arange(1), "draw": np.arange(prior)}
            groups["prior"] = dataset(drawn, ("chain", "draw"), coordinates, units)
    groups["constant_data"] = constants
    attributes = attributes_of(posterior, provenance)
    for group in groups.values():
        group.attrs.update(attributes)
    return container(groups)


def attributes_of(posterior: Posterior, provenance: Mapping[str, Any] | None) -> dict[str, Any]:
    """How a posterior was found and what its verdict is, for the attributes of every group."""
    return {
        "method": posterior.method,
        "verdict": str(posterior.verdict),
        "verdict_passed": int(posterior.verdict.passed),
        "checks": json.dumps([str(check) for check in posterior.verdict.checks]),
        "seed": posterior.seed,
        "evaluations": posterior.evaluations,
        "sampling_time": posterior.seconds,
        "settings": json.dumps(dict(posterior.settings)),
        "provenance": json.dumps(dict(provenance or {}), default=str),
        "inference_library": "bayesbragg",
    }


def _add_boxes(
    groups: dict[str, xarray.Dataset],
    constants: xarray.Dataset,
    posterior: Posterior,
    density: LogDensity,
    shot: Shot | None,
) -> xarray.Dataset:
    n_chains, n_draws, n = posterior.draws.shape
    terms = box_terms(density, posterior.draws.reshape(-1, n))
    rows = np.flatnonzero(np.asarray(density.problem.pixels.trusted).any(axis=1))
    if shot is not None:
        rows = rows[rows < shot.n_boxes]
    names: dict[str, Any] = {
        "chain": np.arange(n_chains),
        "draw": np.arange(n_draws),
        "reflection": rows,
    }
    dims = ("chain", "draw", "reflection")
    each = terms.log_likelihood[:, rows].reshape(n_chains, n_draws, -1)
    groups["log_likelihood"] = dataset({"pixels": each}, dims, names, {})
    generator = np.random.default_rng([posterior.seed, 1])
    mean = terms.photons[:, rows].reshape(n_chains, n_draws, -1)
    variance = terms.readout_variance[rows] + terms.gain_variance[:, rows].reshape(mean.shape)
    noise = np.sqrt(variance) * generator.standard_normal(mean.shape)
    predicted = generator.poisson(np.maximum(mean, 0.0)) + noise
    groups["posterior_predictive"] = dataset({"photons": predicted}, dims, names, {"photons": "photon"})
    observed = {"photons": terms.observed[rows]}
    groups["observed_data"] = dataset(observed, dims[2:], {"reflection": rows}, {"photons": "photon"})
    extra: dict[str, Any] = {
        "n_trusted": ("reflection", np.asarray(density.problem.pixels.trusted)[rows].sum(axis=1)),
    }
    if shot is not None:
        extra["miller_index"] = (("reflection", "hkl"), shot.miller_index[rows])
        extra["reflection_row"] = ("reflection", shot.reflection_row[rows])
        extra["lattice"] = ("reflection", shot.lattice[rows])
        extra["panel"] = ("reflection", shot.panel[rows])
        extra["bounds"] = (("reflection", "edge"), shot.bounds[rows])
        cell = np.asarray(density.problem.layout.place(jnp.asarray(posterior.mode), density.problem.base).crystal.cell)
        # Rows of the inverse are a*, b*, c*.
        reciprocal = np.linalg.inv(np.asarray(cell_matrix(jnp.asarray(cell))))
        with np.errstate(divide="ignore"):
            d = 1.0 / np.linalg.norm(shot.miller_index[rows] @ reciprocal, axis=1)
        extra["resolution"] = ("reflection", d, {"units": "angstrom"})
    coordinates = {"reflection": rows} | (
        {"hkl": np.array(["h", "k", "l"]), "edge": np.array(["fast_1", "fast_2", "slow_1", "slow_2"])}
        if shot is not None
        else {}
    )
    return constants.merge(xarray.Dataset(extra, coords=coordinates))


def dataset(
    arrays: Mapping[str, npt.NDArray[Any]], dims: tuple[str, ...], coords: Mapping[str, Any], units: Mapping[str, str]
) -> xarray.Dataset:
    """Arrays of the same dimensions as variables with their units."""
    variables = {
        name: xarray.DataArray(
            array, dims=dims, coords=dict(coords), attrs={"units": units[name]} if name in units else {}
        )
        for name, array in arrays.items()
    }
    return xarray.Dataset(variables)

"""The posterior of a joint geometry as ArviZ knows it: panel groups, axes and shots are coordinates.

Groups: ``posterior`` and ``prior`` with ``rotation`` (``panel_group``, ``axis``; radian), ``shift`` (``panel_group``,
``direction``; metre), every number that shots have of their own (``shot``), and what all share; ``sample_stats``;
``constant_data`` (best fit, panels of every group, covariance of the panels, and what identifies the boxes);
``log_likelihood``, ``posterior_predictive`` and ``observed_data`` by ``reflection``, of all shots one after the other,
for some of the draws (whose numbers stand in the coordinate ``draw``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import xarray

from bayesbragg.diagnostics.arviz_container import container
from bayesbragg.diagnostics.inference_data import attributes_of, dataset, prior_draws
from bayesbragg.forward.group_motion import MOTIONS
from bayesbragg.forward.rotations import cell_matrix
from bayesbragg.inference.box_likelihood import box_log_likelihood, fitted
from bayesbragg.inference.density import Recipe
from bayesbragg.inference.joint_density import JointTarget
from bayesbragg.inference.pixel_term import Moving, PixelTerm, bragg_at
from bayesbragg.model import Shot
from bayesbragg.model.panel_groups import PanelGrouping
from bayesbragg.model.posterior import Posterior
from bayesbragg.priors.flatten import Layout
from bayesbragg.priors.panels import SharedPrior

__all__ = ["flat_data", "joint_data", "shared_prior_draws", "whole_shared"]

Array = Any
FloatArray = npt.NDArray[np.float64]
AXES = ("orthogonal", "fast", "slow")
DIRECTIONS = ("x", "y", "z")


def whole_shared(target: JointTarget, draws: FloatArray) -> FloatArray:
    """All shared numbers ``(m, n_shared)`` of draws ``(m, n)``, those that are fixed included."""
    free, base = np.asarray(target.data.shared.place), np.asarray(target.data.shared.base)
    result = np.tile(base, (len(draws), 1))
    result[:, free] = draws[:, draws.shape[1] - len(free) :]
    return result


def shared_prior_draws(prior: SharedPrior, n: int, seed: int = 0) -> FloatArray | None:
    """Draws ``(n, n_shared)`` of the shared prior, bounds not kept; None if it is not proper."""
    free = np.flatnonzero(prior.free)
    precision = prior.precision[np.ix_(free, free)]
    scale = np.sqrt(np.diag(precision))
    result = np.zeros((n, prior.n))
    if not len(free):
        return result
    if not np.all(scale > 0):
        return None
    try:
        root = np.linalg.cholesky(precision / np.outer(scale, scale))
    except np.linalg.LinAlgError:
        return None
    z = np.random.default_rng([seed, 2]).standard_normal((len(free), n))
    result[:, free] = prior.mean[free] + (np.linalg.solve(root.T, z) / scale[:, None]).T
    return result


def joint_data(
    posterior: Posterior,
    target: JointTarget,
    grouping: PanelGrouping,
    terms: Sequence[PixelTerm],
    shots: Sequence[Shot] | None = None,
    *,
    layouts: Sequence[Layout] | None = None,
    provenance: Mapping[str, Any] | None = None,
    prior: int = 1000,
    predicted: int = 200,
) -> Any:
    """A joint posterior for ArviZ.

    Args:
        posterior: of ``target``.
        grouping: the panel groups.
        terms: the shots, as the target was made of them.
        shots: their boxes before padding; adds log likelihood and predicted photons of every box.
        layouts: the shots' numbers with their priors as they were given; those of the terms have bounds that a search
            needs, and which are no belief.
        provenance: what made the result.
        prior: draws from the prior.
        predicted: draws of which boxes are predicted.
    """
    assert target.prior is not None
    n_chains, n_draws, n = posterior.draws.shape
    chains = {"chain": np.arange(n_chains), "draw": np.arange(n_draws)}
    flat = posterior.draws.reshape(-1, n)
    own = {tag: dict(zip(names, flat[:, at].T, strict=True)) for (tag, at), names in _shots(target)}
    lead = (n_chains, n_draws)
    groups = {"posterior": _variables(whole_shared(target, flat), own, target, grouping, lead, chains)}
    stats = {"lp": posterior.log_density, **posterior.sample_stats}
    groups["sample_stats"] = dataset(stats, ("chain", "draw"), chains, {})
    drawn = shared_prior_draws(target.prior, prior, posterior.seed) if prior else None
    layouts = [term.layout for term in terms] if layouts is None else layouts
    if drawn is not None:
        before = {
            tag: prior_draws(layout, prior, posterior.seed + i)
            for i, ((tag, _), layout) in enumerate(zip(target.shots, layouts, strict=True))
        }
        one = {"chain": np.arange(1), "draw": np.arange(prior)}
        groups["prior"] = _variables(drawn, before, target, grouping, (1, prior), one)
    groups["constant_data"] = _constants(posterior, target, grouping)
    if shots is not None:
        _add_boxes(groups, posterior, target, terms, shots, predicted)
    attributes = attributes_of(posterior, provenance)
    for group in groups.values():
        group.attrs.update(attributes)
    return container(groups)


def flat_data(posterior: Posterior, target: JointTarget, names: Sequence[str], prior: int = 1000) -> Any:
    """Posterior and prior of some parameters, each a variable of its own, for pictures of single parameters."""
    assert target.prior is not None
    units = dict(zip(posterior.names, posterior.units, strict=True))
    n_chains, n_draws, _ = posterior.draws.shape
    chains = {"chain": np.arange(n_chains), "draw": np.arange(n_draws)}
    groups = {"posterior": dataset({n: posterior.values(n) for n in names}, ("chain", "draw"), chains, units)}
    drawn = shared_prior_draws(target.prior, prior, posterior.seed)
    if drawn is not None:
        known = {name: drawn[None, :, i] for i, name in enumerate(target.prior.names) if name in names}
        one = {"chain": np.arange(1), "draw": np.arange(prior)}
        groups["prior"] = dataset(known, ("chain", "draw"), one, units)
    return container(groups)


def _shots(target: JointTarget) -> Any:
    return zip(target.shots, target.own_names, strict=True)


def _variables(
    shared: FloatArray,
    own: Mapping[str, Mapping[str, FloatArray]],
    target: JointTarget,
    grouping: PanelGrouping,
    lead: tuple[int, int],
    chains: Mapping[str, Any],
) -> xarray.Dataset:
    """Shared numbers ``(m, n_shared)`` and each shot's own, ``(m,)`` each, as variables with their coordinates."""
    assert target.prior is not None
    prior, m = target.prior, 6 * grouping.n_groups
    motion = shared[:, :m].reshape(*lead, grouping.n_groups, 6)
    free = prior.free[:6] if m else np.zeros(6, dtype=bool)
    found: dict[str, Any] = {}
    coordinates: dict[str, Any] = {**chains, "panel_group": np.asarray(grouping.labels)}
    for name, unit, first, axis, labels in (
        ("rotation", "radian", 0, "axis", AXES),
        ("shift", "metre", 3, "direction", DIRECTIONS),
    ):
        chosen = np.flatnonzero(free[first : first + 3])
        if len(chosen):
            coordinates[axis] = np.array(labels)[chosen]
            dims = ("chain", "draw", "panel_group", axis)
            found[name] = (dims, motion[..., first + chosen], {"units": unit})
    for i in np.flatnonzero(prior.free[m:]):
        values = shared[:, m + i].reshape(lead)
        found[f"shared_{prior.names[m + i]}"] = (("chain", "draw"), values, {"units": prior.units[m + i]})
    coordinates["shot"] = np.array([tag for tag, _ in target.shots])
    units = dict(zip(target.names, target.units, strict=True))
    for name in dict.fromkeys(name for names in target.own_names for name in names):
        columns = [own[tag].get(name, np.full(len(shared), np.nan)) for tag, _ in target.shots]
        if not np.all(np.isnan(columns)):
            tag = next(tag for (tag, _), names in _shots(target) if name in names)
            table = np.stack(columns, axis=-1).reshape(*lead, -1)
            found[name] = (("chain", "draw", "shot"), table, {"units": units[f"{tag}_{name}"]})
    return xarray.Dataset(found, coords=coordinates)


def _constants(posterior: Posterior, target: JointTarget, grouping: PanelGrouping) -> xarray.Dataset:
    n_shared = len(np.asarray(target.data.shared.place))
    panels = posterior.names[len(posterior.names) - n_shared :]
    covariance = posterior.covariance[-n_shared:, -n_shared:] if n_shared else np.zeros((0, 0))
    return xarray.Dataset(
        {
            "best_fit": ("parameter", posterior.mode),
            "posterior_sd": ("parameter", posterior.sd),
            "unit": ("parameter", np.array(posterior.units)),
            "shared_covariance": (("shared", "shared_bis"), covariance),
            "reference_mm": (("panel_group", "direction"), grouping.reference_mm, {"units": "millimetre"}),
            "group_of_panel": ("panel_number", grouping.labels[grouping.group]),
        },
        coords={
            "parameter": np.array(posterior.names),
            "shared": np.array(panels),
            "shared_bis": np.array(panels),
            "panel_group": np.asarray(grouping.labels),
            "direction": np.array(DIRECTIONS),
        },
    )


@partial(jax.jit, static_argnames="recipe")
def _box_terms(own: Array, groups: Array, extras: Array, moving: Moving, recipe: Recipe) -> tuple[Array, ...]:
    """Log likelihood, expected photons and their variance by readout and gain, of each box, at many points."""
    pixels = moving.problem.pixels

    def one(point: Any) -> tuple[Array, ...]:
        values, motion, extra = point
        bragg = bragg_at(values, motion[moving.group], extra, moving, recipe)
        shown = fitted(bragg, pixels, recipe.likelihood, recipe.window)
        mu = jnp.where(pixels.trusted, shown.bragg + shown.background, 0.0)
        noise = jnp.sum(jnp.where(pixels.trusted, pixels.variance, 0.0) + (pixels.gain_sd * mu) ** 2, axis=1)
        terms = box_log_likelihood(bragg, pixels, recipe.likelihood, recipe.window)
        return terms, jnp.sum(mu, axis=1), noise

    result: tuple[Array, ...] = jax.lax.map(one, (own, groups, extras))
    return result


def _add_boxes(
    groups: dict[str, xarray.Dataset],
    posterior: Posterior,
    target: JointTarget,
    terms: Sequence[PixelTerm],
    shots: Sequence[Shot],
    predicted: int,
) -> None:
    n_chains, n_draws, n = posterior.draws.shape
    step = max(1, (n_chains * n_draws) // max(predicted, n_chains))
    kept = np.arange(0, n_draws, step)
    draws = posterior.draws[:, kept].reshape(-1, n)
    shared = whole_shared(target, draws)
    m = len(MOTIONS) * terms[0].n_groups
    generator = np.random.default_rng([posterior.seed, 1])
    found: dict[str, list[Any]] = {}
    for i, ((_, at), term, shot) in enumerate(zip(target.shots, terms, shots, strict=True)):
        physical = term.with_physical_layout()
        motions = jnp.asarray(shared[:, :m].reshape(len(draws), -1, 6))
        out = _box_terms(jnp.asarray(draws[:, at]), motions, jnp.asarray(shared[:, m:]), physical, term.recipe)
        log_likelihood, mean, variance = (np.asarray(a) for a in out)
        trusted = np.asarray(term.moving.problem.pixels.trusted)
        rows = np.flatnonzero(trusted[: shot.n_boxes].any(axis=1))
        noise = np.sqrt(variance[:, rows]) * generator.standard_normal((len(draws), len(rows)))
        photons = generator.poisson(np.maximum(mean[:, rows], 0.0)) + noise
        counts = np.sum(np.where(trusted, np.asarray(term.moving.problem.pixels.counts), 0.0), axis=1)[rows]
        cell = np.asarray(term.layout.place(jnp.asarray(posterior.mode[at]), term.moving.problem.base).crystal.cell)
        with np.errstate(divide="ignore"):
            d = 1.0 / np.linalg.norm(shot.miller_index[rows] @ np.linalg.inv(np.asarray(cell_matrix(cell))), axis=1)
        for name, part in (
            ("log", log_likelihood[:, rows]), ("photons", photons), ("counts", counts), ("panel", shot.panel[rows]),
            ("miller_index", shot.miller_index[rows]), ("reflection_row", shot.reflection_row[rows]),
            ("bounds", shot.bounds[rows]), ("resolution", d), ("shot_number", np.full(len(rows), i)),
            ("n_trusted", trusted[rows].sum(axis=1)), ("lattice", shot.lattice[rows]),
        ):  # fmt: skip
            found.setdefault(name, []).append(part)
    lead = (n_chains, len(kept), -1)
    names: dict[str, Any] = {"chain": np.arange(n_chains), "draw": kept}
    log_likelihood = np.concatenate(found.pop("log"), axis=1).reshape(lead)
    photons = np.concatenate(found.pop("photons"), axis=1).reshape(lead)
    joined = {name: np.concatenate(parts) for name, parts in found.items()}
    names["reflection"] = np.arange(photons.shape[2])
    dims = ("chain", "draw", "reflection")
    groups["log_likelihood"] = dataset({"pixels": log_likelihood}, dims, names, {})
    groups["posterior_predictive"] = dataset({"photons": photons}, dims, names, {"photons": "photon"})
    reflection = {"reflection": names["reflection"]}
    observed = {"photons": joined.pop("counts")}
    groups["observed_data"] = dataset(observed, ("reflection",), reflection, {"photons": "photon"})
    second = {"miller_index": "hkl", "bounds": "edge"}
    extra = {
        name: (("reflection", second[name]) if name in second else "reflection", values)
        for name, values in joined.items()
    }
    more = xarray.Dataset(extra, coords={**reflection, "hkl": ["h", "k", "l"],
                                         "edge": ["fast_1", "fast_2", "slow_1", "slow_2"]})  # fmt: skip
    more["resolution"].attrs["units"] = "angstrom"
    groups["constant_data"] = groups["constant_data"].merge(more)

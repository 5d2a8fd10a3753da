"""The one log density as a NumPyro model, for those who build models in Python.

`shot_model` has one site per parameter, whose prior is that of the fit; any of them can be replaced by another NumPyro
distribution, or by a number, which fixes it. A model of your own, with hyper-priors for instance, samples what it likes
and adds the pixels with `observe_pixels`. NumPyro's own tools (MCMC, SVI, Predictive) take such a model as it stands;
`model_target` makes it a target of `bayesbragg.inference.laplace` and `bayesbragg.inference.nuts`, which whiten it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import numpyro
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from numpyro.distributions import constraints
from numpyro.infer import init_to_value
from numpyro.infer.util import initialize_model

from bayesbragg.inference.density import LogDensity
from bayesbragg.inference.unbounded import Target, log_likelihood_of_values
from bayesbragg.model.errors import InputError
from bayesbragg.priors.flatten import Layout

__all__ = ["default_priors", "model_target", "observe_pixels", "shot_model"]

Array = Any
FloatArray = npt.NDArray[np.float64]
Model = Callable[..., Any]
PIXELS = "pixels"


def default_priors(layout: Layout) -> dict[str, Any]:
    """The prior of every number of a layout as a NumPyro distribution, by name, in its physical unit.

    A restraint is a normal distribution truncated to the bounds; without one, the prior is flat between the bounds, and
    improper where one is missing.
    """
    found: dict[str, Any] = {}
    for i, name in enumerate(layout.names):
        part = layout.parameter(i)
        low = part.low if math.isfinite(part.low) else None
        high = part.high if math.isfinite(part.high) else None
        if part.center is not None and part.beta is not None:
            found[name] = dist.TruncatedNormal(part.center, math.sqrt(part.beta), low=low, high=high)
            if low is None and high is None:
                found[name] = dist.Normal(part.center, math.sqrt(part.beta))
        elif low is not None and high is not None:
            found[name] = dist.Uniform(low, high)
        else:
            support = constraints.real
            if low is not None:
                support = constraints.greater_than(low)
            elif high is not None:
                support = constraints.less_than(high)
            found[name] = dist.ImproperUniform(support, (), ())
    return found


def shot_model(density: LogDensity, priors: Mapping[str, Any] | None = None) -> Model:
    """A NumPyro model of one shot.

    Args:
        density: of the shot.
        priors: distributions that replace those of the fit, or numbers that fix a parameter, by name; physical units.

    Returns:
        a model without arguments: a site per parameter, and the pixels' log likelihood as the factor ``pixels``.

    Raises:
        InputError: a name that the layout does not have, or something that is neither distribution nor number.
    """
    chosen = default_priors(density.layout)
    for name, prior in (priors or {}).items():
        if name not in chosen:
            raise InputError(f"prior of {name!r}: no such parameter varies; choose among {', '.join(chosen)}")
        if not isinstance(prior, (dist.Distribution, int, float)):
            raise InputError(f"prior of {name}: expected a NumPyro distribution or a number, got {prior!r}")
        _check_inside(name, prior, *density.layout.bounds()[density.layout.names.index(name)])
        chosen[name] = prior

    def model() -> None:
        values = {
            name: numpyro.sample(name, prior) if isinstance(prior, dist.Distribution) else jnp.asarray(float(prior))
            for name, prior in chosen.items()
        }
        observe_pixels(density, values)

    return model


def _check_inside(name: str, prior: Any, low: float, high: float) -> None:
    """A prior may reach beyond the fit's bounds, which it replaces, but it must have something between them.

    Raises:
        InputError: it lies outside them altogether.
    """
    ends = (prior, prior)
    if isinstance(prior, dist.Distribution):
        support = prior.support
        ends = (getattr(support, "lower_bound", -math.inf), getattr(support, "upper_bound", math.inf))
    if np.max(np.asarray(ends[1])) < low or np.min(np.asarray(ends[0])) > high:
        raise InputError(f"prior of {name}: {prior} lies outside the bounds {low:g} to {high:g} of the fit")


def observe_pixels(
    density: LogDensity, values: Mapping[str, Array], name: str = PIXELS, *, gain_sd: Array | None = None
) -> None:
    """Add the pixels of a shot to the model that calls this, as a factor.

    The restraint of the block volume, which belongs to no single parameter, is added with them.

    Args:
        density: of the shot.
        values: physical value of every number of its layout, by name.
        name: of the factor; give each shot its own.
        gain_sd: relative calibration error of pixels, sampled by the model, in place of the density's own.

    Raises:
        InputError: a parameter is missing.
    """
    layout = density.problem.layout
    missing = [site for site in layout.names if site not in values]
    if missing:
        raise InputError(f"{name}: no value for {', '.join(missing)}; sample it, or give a number")
    vector = jnp.stack([jnp.asarray(values[site], dtype=jnp.float64) for site in layout.names])
    problem = density.problem
    if gain_sd is not None:
        problem = replace(problem, pixels=replace(problem.pixels, gain_sd=jnp.asarray(gain_sd)))
    numpyro.factor(name, log_likelihood_of_values(vector, problem, density.recipe))
    if layout.volume.shape[0]:
        own = layout.log_prior(vector, layout.place(vector, density.problem.base))
        rows = np.array([i for i, site in enumerate(layout.sites) if site.restrained], dtype=int)
        center, beta = jnp.asarray(layout.center)[rows], jnp.asarray(layout.beta)[rows]
        single = -0.5 * jnp.sum(jnp.log(2 * jnp.pi * beta) + (center - vector[rows]) ** 2 / beta)
        numpyro.factor(f"{name}_volume", own - single)


def model_target(
    model: Model,
    *arguments: Any,
    start: Mapping[str, Any] | None = None,
    units: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Target:
    """Any NumPyro model as a target of Laplace and NUTS.

    Its curvature is the exact second derivative. The model's data are constants of the compiled programs: for many
    shots of one kind, `bayesbragg.inference.unbounded.shot_target` is the faster way.

    Args:
        model: the model; arguments: of the model.
        start: values of sites near the mode, such as the best fit's ``dict(zip(fit.names, fit.values))``; names that
            are no sites are passed over, sites that are not named start somewhere in their support.
        units: of the sites.
        seed: of the start of sites that are not named.
    """
    strategy = init_to_value(values={k: jnp.asarray(v, dtype=jnp.float64) for k, v in (start or {}).items()})
    info = initialize_model(
        jax.random.PRNGKey(seed), model, init_strategy=strategy, model_args=arguments, validate_grad=False
    )
    if not info.param_info.z:
        raise InputError("the model has no latent sites: nothing varies")
    first, restore = ravel_pytree(info.param_info.z)
    potential_of = info.potential_fn
    # The order in which the model samples them; that of the coordinates is alphabetical.
    order = [name for name in info.model_trace if name in info.param_info.z]

    def potential(y: Array, data: Any) -> Array:
        del data
        return potential_of(restore(y))

    @jax.jit
    def constrained(y: Array) -> dict[str, Array]:
        sites = jax.vmap(lambda row: info.postprocess_fn(restore(row)))(y)
        return {name: sites[name] for name in order}

    found = jax.eval_shape(constrained, first[None])
    shapes = {name: tuple(found[name].shape[1:]) for name in order}
    names: list[str] = []
    for name, shape in shapes.items():
        names += [name] if not shape else [f"{name}[{','.join(map(str, i))}]" for i in np.ndindex(*shape)]
    unit = {name: (units or {}).get(name.split("[")[0], "1") for name in names}

    def to_values(y: FloatArray) -> FloatArray:
        sites = constrained(jnp.asarray(y))
        return np.concatenate([np.asarray(sites[name]).reshape(len(y), -1) for name in shapes], axis=1)

    return Target(tuple(names), tuple(unit.values()), potential, (), np.asarray(first), to_values, fitted=False)

"""Log likelihood of the boxes of a shot, given the Bragg photons: the one place where the parts of it meet.

Pixels are independent given the model; what a box's pixels share and nobody knows (the error of its background plane,
the intensity of its reflection) is integrated out box by box. Searches and error bars need the expected information
about the parameters: J^T W J less what the unknowns of the box would explain as well,
J^T W D (D^T W D + P)^-1 D^T W J, with D the derivatives in those unknowns and P the precision of their priors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayesbragg.inference.inferred_background import directions, gain_of_unknowns, posterior_of_unknowns
from bayesbragg.inference.likelihood import LikelihoodName, information, log_likelihood, noise_variance
from bayesbragg.inference.pixels import Pixels
from bayesbragg.inference.robust import mixture
from bayesbragg.inference.wilson import bend_of_prior, intensity_terms, log_integral
from bayesbragg.model.errors import InputError

__all__ = [
    "Fitted",
    "box_fisher",
    "box_log_likelihood",
    "check_model",
    "fitted",
    "normalised_residuals",
    "total_fisher",
]

Array = Any


class Fitted(NamedTuple):
    """What the pixels of a box say of its unknowns.

    Attributes:
        bragg: photons with the fitted intensity, ``(n_boxes, n_pixels)``.
        background: with the fitted plane, same shape.
        intensity: posterior mean of the relative intensity, ``(n_boxes,)``; 1 where it is known.
        intensity_sd: its posterior standard deviation at these parameters, ``(n_boxes,)``; 0 where it is known.
    """

    bragg: Array
    background: Array
    intensity: Array
    intensity_sd: Array


def check_model(pixels: Pixels, name: LikelihoodName) -> None:
    """Raises InputError for parts that do not go together."""
    if pixels.intensity_sd is not None:
        if name != "gaussian":
            raise InputError(
                f"sigma_intensity > 0 needs likelihood=gaussian, not {name}: errors are integrated out of it"
            )
        if pixels.outliers is not None:
            raise InputError("sigma_intensity > 0 and outlier_fraction > 0 do not go together; choose one of them")
        if pixels.intensities is not None:
            raise InputError("sigma_intensity is the error of known intensities; set it to 0 with intensities=wilson")
    if pixels.planes is not None and name != "gaussian":
        raise InputError(f"background=inferred needs likelihood=gaussian, not {name}: planes are integrated out of it")
    if pixels.planes is not None and pixels.outliers is not None:
        raise InputError("background=inferred and outlier_fraction > 0 do not go together; choose one of them")


def _safe(bragg: Array, pixels: Pixels) -> tuple[Array, Array, Array]:
    """Counts, expectation and readout variance with harmless numbers where a pixel does not count."""
    keep = pixels.trusted
    mu = jnp.where(keep, bragg + pixels.background, 1.0)
    return jnp.where(keep, pixels.counts, 1.0), mu, jnp.where(keep, pixels.variance, 1.0)


def _core(pixels: Pixels, name: LikelihoodName) -> LikelihoodName:
    """The likelihood of pixels that are no outliers.

    The Gaussian has no skewness: beside an outlier component, the long upper tail of counting statistics would pass for
    outliers (0.5 standard deviations in the scale of a shot without any). Its like with the right skewness stands in.
    """
    return "shifted_poisson" if pixels.outliers is not None and name == "gaussian" else name


def _plain(bragg: Array, pixels: Pixels, name: LikelihoodName, window: int) -> Array:
    """Log likelihood of boxes whose intensities are known, ``(n_boxes,)``."""
    counts, mu, variance = _safe(bragg, pixels)
    noise = noise_variance(mu, variance, pixels.gain_sd)
    each = log_likelihood(_core(pixels, name), window)(counts, mu, noise)
    if pixels.outliers is not None:
        each = mixture(each, counts, jnp.where(pixels.trusted, pixels.background, 1.0), pixels.outliers)
    result = jnp.sum(jnp.where(pixels.trusted, each, 0.0), axis=-1)
    D = directions(bragg, pixels)
    if D is not None:
        result = result + gain_of_unknowns(counts - mu, jnp.where(pixels.trusted, 1.0 / (mu + noise), 0.0), D)
    return result


def _weight(bragg: Array, pixels: Pixels, name: LikelihoodName) -> Array:
    """Information of each pixel about its expectation, 0 where it does not count."""
    _, mu, variance = _safe(bragg, pixels)
    each = information(_core(pixels, name), mu, variance, pixels.gain_sd)
    if pixels.outliers is not None:
        each = each * (1.0 - pixels.outliers.fraction)
    return jnp.where(pixels.trusted, each, 0.0)


def _times(photons: Array, intensity: Array) -> Array:
    return intensity[..., None] * photons


def _intensity_functions(pixels: Pixels, name: LikelihoodName, window: int) -> tuple[Any, Any]:
    """Log likelihood of boxes at photons times intensities, and the expected information about the intensities."""

    def value(photons: Array, a: Array) -> Array:
        return _plain(_times(photons, a), pixels, name, window)

    def about_intensity(photons: Array, a: Array) -> Array:
        weight = _weight(_times(photons, a), pixels, name)
        whole = jnp.sum(weight * photons**2, axis=-1)
        if pixels.planes is None:
            return whole
        W = weight[:, None, :] * jnp.einsum("bij,ip->bjp", pixels.planes.factor, pixels.planes.design)
        cross = jnp.sum(W * photons[:, None, :], axis=-1)
        M = jnp.eye(3) + jnp.einsum("bip,jp,bjk->bik", W, pixels.planes.design, pixels.planes.factor)
        return whole - jnp.sum(cross * jnp.linalg.solve(M, cross[..., None])[..., 0], axis=-1)

    return value, about_intensity


def box_log_likelihood(bragg: Array, pixels: Pixels, name: LikelihoodName, window: int = 0) -> Array:
    """Log likelihood of each box, ``(n_boxes,)``; differentiable in the photons.

    Args:
        bragg: Bragg photons, those of the mean intensity where intensities are unknown, ``(n_boxes, n_pixels)``.
        window: terms on each side for ``poisson_gaussian``.
    """
    if pixels.intensities is None:
        return _plain(bragg, pixels, name, window)
    return log_integral(*_intensity_functions(pixels, name, window), bragg, pixels.intensities.centric)


def _moments(bragg: Array, pixels: Pixels, name: LikelihoodName, window: int) -> tuple[Array, Array]:
    """Posterior mean and mean square of the relative intensities, ``(n_boxes,)``."""
    if pixels.intensities is None:
        ones = jnp.ones(bragg.shape[0])
        return ones, ones
    functions = _intensity_functions(pixels, name, window)
    a, terms = intensity_terms(*functions, bragg, pixels.intensities.centric)
    share = jax.nn.softmax(terms, axis=0)
    return jnp.sum(share * a, axis=0), jnp.sum(share * a**2, axis=0)


def fitted(bragg: Array, pixels: Pixels, name: LikelihoodName, window: int = 0) -> Fitted:
    """Posterior means of a box's unknowns at given photons; arguments as for `box_log_likelihood`."""
    mean, square = _moments(bragg, pixels, name, window)
    sd = jnp.sqrt(jnp.maximum(square - mean**2, 0.0))
    shown, background = _times(bragg, mean), pixels.background
    D = directions(shown, pixels)
    if D is not None:
        counts, mu, variance = _safe(shown, pixels)
        V = mu + noise_variance(mu, variance, pixels.gain_sd)
        z, z_sd = posterior_of_unknowns(counts - mu, jnp.where(pixels.trusted, 1.0 / V, 0.0), D)
        if pixels.planes is not None:
            background = background + jnp.einsum("bi,bip->bp", z[:, :3], D[:, :3])
        if pixels.intensity_sd is not None:
            relative = jnp.broadcast_to(pixels.intensity_sd, (bragg.shape[0], 1))[:, 0]
            mean, sd = 1.0 + relative * z[:, -1], relative * z_sd[:, -1]
            shown = _times(bragg, mean)
    return Fitted(shown, background, mean, sd)


def normalised_residuals(shown: Fitted, pixels: Pixels) -> Array:
    """Counts minus expectation in expected standard deviations, 0 where a pixel does not count, shape of the counts."""
    mu = jnp.where(pixels.trusted, shown.bragg + shown.background, 1.0)
    V = jnp.where(pixels.trusted, mu + noise_variance(mu, pixels.variance, pixels.gain_sd), 1.0)
    return jnp.where(pixels.trusted, (pixels.counts - mu) / jnp.sqrt(V), 0.0)


def box_fisher(jacobian: Array, bragg: Array, pixels: Pixels, name: LikelihoodName, window: int = 0) -> Array:
    """Expected information of each box, ``(n_boxes, k, k)``.

    Args:
        jacobian: derivatives of the Bragg photons, ``(n_boxes, k, n_pixels)``.
        bragg, pixels, name, window: as for `box_log_likelihood`.
    """
    mean, square = _moments(bragg, pixels, name, window)
    weight = _weight(_times(bragg, mean), pixels, name)
    if pixels.intensities is not None:
        jacobian = jacobian * jnp.sqrt(square)[:, None, None]
    W = jacobian * weight[:, None, :]
    gram = jnp.einsum("bip,bjp->bij", W, jacobian)
    known = directions(bragg, pixels)
    unknown = [] if known is None else [known]
    if pixels.intensities is not None:
        # In the logarithm of the intensity, in which it moves all photons of the box alike.
        width = mean / jnp.sqrt(bend_of_prior(mean, pixels.intensities.centric))
        unknown.append((bragg * width[:, None])[:, None, :])
    if not unknown:
        return gram
    D = jnp.concatenate(unknown, axis=1)  # in units in which every prior has unit variance
    cross = jnp.einsum("bip,bjp->bij", W, D)
    own = jnp.einsum("bip,bp,bjp->bij", D, weight, D) + jnp.eye(D.shape[1])
    return gram - jnp.einsum("bim,bmj->bij", cross, jnp.linalg.solve(own, jnp.swapaxes(cross, 1, 2)))


def total_fisher(jacobian: Array, bragg: Array, pixels: Pixels, name: LikelihoodName, window: int = 0) -> Array:
    """Expected information of all boxes, ``(k, k)``, from derivatives ``(k, n_boxes, n_pixels)``."""
    if pixels.planes is None and pixels.intensities is None and pixels.intensity_sd is None:
        J = jacobian.reshape(jacobian.shape[0], -1)
        return (J * _weight(bragg, pixels, name).reshape(-1)) @ J.T
    return jnp.sum(box_fisher(jnp.swapaxes(jacobian, 0, 1), bragg, pixels, name, window), axis=0)

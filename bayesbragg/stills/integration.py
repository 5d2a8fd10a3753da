"""Intensities of predicted reflections: summation, profile fitting, and the posterior of the box's own model.

Each pixel holds mu = background plane + sum over reflections of J s, with s the shape of a spot (photons per squared
electron, from the forward model) scaled to sum 1, and J the photons of the spot. Three estimates of J:

- **summation**: counts less background over the foreground, the pixels that hold the spot; its variance is that of the
  counts, of the readout noise, and of the background plane summed over these pixels;
- **profile**: the J that solves the likelihood equation sum (counts - mu) s / V = 0, V = mu + readout variance, with
  the plane as it is (V from the model, not from the counts, so that weak spots are not biased);
- **posterior**: J together with the plane, whose fit to the pixels around the spot is its prior, and with the spots
  that reach into the box, each free; mean and variance of J with the others integrated out (normal approximation).

The pixels of a spot take no part in its plane's own fit, so nothing is used twice. Units: photons.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bayesbragg.model import Shot
from bayesbragg.stills.neighbours import Neighbours

__all__ = ["Integrated", "foreground_pixels", "integrate"]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

ROUNDS = 12
"""Steps of Fisher scoring; the equations are nearly linear."""
HELD = 0.995
"""Share of a spot's photons that its foreground holds at least, before a margin of one pixel is added."""


@dataclass(frozen=True, eq=False)
class Integrated:
    """Intensities of ``n`` boxes, photons and photons squared.

    Attributes:
        sum_value, sum_variance: summation; not a number where the foreground has untrusted pixels.
        background_sum, background_variance: background under the foreground and the variance of that estimate.
        profile_value, profile_variance: profile fit.
        correlation: of counts less background with the shape, over the fitted pixels.
        posterior_value, posterior_variance: posterior mean and variance.
        n_foreground, n_trusted: pixels of the foreground, and trusted ones among them.
        contested: share of the shape that lies on pixels where another predicted spot is brighter.
        centroid, centroid_variance: of the counts above the background in the foreground, fast and slow, pixels and
            pixels squared, ``(n, 2)``; not a number where there are none.
    """

    sum_value: FloatArray
    sum_variance: FloatArray
    background_sum: FloatArray
    background_variance: FloatArray
    profile_value: FloatArray
    profile_variance: FloatArray
    correlation: FloatArray
    posterior_value: FloatArray
    posterior_variance: FloatArray
    n_foreground: npt.NDArray[np.int64]
    n_trusted: npt.NDArray[np.int64]
    contested: FloatArray
    centroid: FloatArray
    centroid_variance: FloatArray


def foreground_pixels(shape: FloatArray, side: int, valid: BoolArray) -> BoolArray:
    """Pixels that hold a spot, ``(n, side * side)``: the brightest ones up to `HELD` of it, and their neighbours.

    Args:
        shape: photons of each spot alone, ``(n, side * side)``.
        valid: pixels inside their box, same shape.
    """
    order = np.argsort(-shape, axis=1, kind="stable")
    sorted_shape = np.take_along_axis(shape, order, axis=1)
    total = np.maximum(sorted_shape.sum(axis=1, keepdims=True), 1e-300)
    before = (np.cumsum(sorted_shape, axis=1) - sorted_shape) / total
    held = np.empty(shape.shape, dtype=bool)
    np.put_along_axis(held, order, (before < HELD) & (sorted_shape > 0.0), axis=1)
    cube = np.pad(held.reshape(-1, side, side), ((0, 0), (1, 1), (1, 1)))
    grown = np.zeros((len(shape), side, side), dtype=bool)
    for s in range(3):
        for f in range(3):
            grown |= cube[:, s : s + side, f : f + side]
    return np.asarray(grown.reshape(shape.shape) & valid)


def integrate(
    shot: Shot, shape: FloatArray, plane_covariance: FloatArray, origin: FloatArray, neighbours: Neighbours
) -> Integrated:
    """Integrate every box of a shot.

    Args:
        shot: boxes with counts, background plane and trust.
        shape: photons of each spot alone in its box, ``(n, n_pixels)``; any scale.
        plane_covariance: of slope along fast, along slow, and constant, ``(n, 3, 3)``.
        origin: fast and slow pixel from which the plane's coordinates count, ``(n, 2)``.
        neighbours: other spots in each box.
    """
    valid = shot.valid
    total = shape.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        s = np.where(total > 0, shape / total, 0.0)
    variance = np.broadcast_to(shot.readout_sd**2, s.shape)
    region = foreground_pixels(shape, shot.shape[1], valid)
    own = region & ~neighbours.brighter
    design = np.stack([shot.fast - origin[:, :1], shot.slow - origin[:, 1:], np.ones(s.shape)], axis=-1)
    excess = np.where(shot.trusted, shot.counts - shot.background, 0.0)

    whole = ~np.any(own & ~shot.trusted, axis=1) & own.any(axis=1)
    lever = np.einsum("np,npi->ni", own, design)
    plane_variance = np.einsum("ni,nij,nj->n", lever, plane_covariance, lever)
    sum_value = np.sum(own * excess, axis=1)
    sum_variance = np.sum(own * (np.maximum(shot.counts, 0.0) + variance), axis=1) + plane_variance
    # Pixels without a photon still have the background's variance: counts alone would call empty spots certain.
    floor = np.sum(own * (np.maximum(shot.background, 0.0) + variance), axis=1) + plane_variance
    sum_variance = np.maximum(sum_variance, floor)

    centroid, centroid_variance = _centroids(shot, np.where(own, np.maximum(excess, 0.0), 0.0))
    use = region & shot.trusted
    profile, profile_information = _profile(excess, shot.background, variance, s, use)
    seen = np.sum(use * s, axis=1) > 0.5
    free_variance = np.einsum("np,np->n", use * s, s)
    weight = np.where(use, s - s.mean(axis=1, keepdims=True), 0.0)
    spread = np.sqrt(np.sum(weight**2, axis=1) * np.sum(np.where(use, excess, 0.0) ** 2, axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.sum(weight * excess, axis=1) / spread
        profile_variance = 1.0 / profile_information
        pull = np.einsum("np,npi->ni", use * s, design) / free_variance[:, None]
    profile_variance = profile_variance + np.einsum("ni,nij,nj->n", pull, plane_covariance, pull)
    posterior, posterior_variance = _posterior(shot, excess, variance, s, use, design, plane_covariance, neighbours)
    nan = np.nan
    return Integrated(
        sum_value=np.where(whole, sum_value, nan),
        sum_variance=np.where(whole, sum_variance, nan),
        background_sum=np.sum(own * shot.background, axis=1),
        background_variance=plane_variance,
        profile_value=np.where(seen, profile, nan),
        profile_variance=np.where(seen, profile_variance, nan),
        correlation=correlation,
        posterior_value=np.where(seen, posterior, nan),
        posterior_variance=np.where(seen, posterior_variance, nan),
        n_foreground=own.sum(axis=1),
        n_trusted=np.sum(own & shot.trusted, axis=1),
        contested=np.sum(neighbours.brighter * s, axis=1),
        centroid=centroid,
        centroid_variance=centroid_variance,
    )


def _centroids(shot: Shot, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Centroids of weights, and their variances as DIALS states them: that of the mean, and 1/12 for the pixel."""
    total = weight.sum(axis=1)[:, None]
    grid = np.stack([shot.fast, shot.slow], axis=-1) + 0.5
    with np.errstate(invalid="ignore", divide="ignore"):
        centroid = np.einsum("np,npk->nk", weight, grid) / total
        spread = np.einsum("np,npk->nk", weight, (grid - centroid[:, None]) ** 2) / total
        return centroid, spread / total + 1.0 / 12.0


def _profile(
    excess: FloatArray, background: FloatArray, variance: FloatArray, s: FloatArray, use: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Solution of the likelihood equation for J on a given background, and its Fisher information."""
    J = np.zeros(len(s))
    information = np.zeros(len(s))
    floor = np.maximum(background, 0.0) + variance
    for _ in range(ROUNDS):
        weight = use * s / np.maximum(floor + np.maximum(J, 0.0)[:, None] * s, 1e-6)
        information = np.sum(weight * s, axis=1)
        J = np.sum(weight * excess, axis=1) / np.maximum(information, 1e-300)
    return J, information


def _posterior(
    shot: Shot,
    excess: FloatArray,
    variance: FloatArray,
    s: FloatArray,
    use: BoolArray,
    design: FloatArray,
    plane_covariance: FloatArray,
    neighbours: Neighbours,
) -> tuple[FloatArray, FloatArray]:
    """Mean and variance of J with plane and neighbours free: Fisher scoring on (J, neighbours, plane) of each box."""
    n, k = len(s), neighbours.shapes.shape[1]
    columns = np.concatenate([s[:, :, None], neighbours.shapes.transpose(0, 2, 1), design], axis=2)
    prior = np.zeros((n, k + 4, k + 4))
    prior[:, k + 1 :, k + 1 :] = _inverse(plane_covariance)
    # An empty slot, or a neighbour that no pixel shows, must not make the equations singular.
    slots = np.arange(1, k + 1)
    shown = np.einsum("np,nkp->nk", use, neighbours.shapes**2) > 0
    prior[:, slots, slots] = np.where(shown, 1e-12, 1.0)
    prior[:, 0, 0] += 1e-12
    theta = np.zeros((n, k + 4))
    floor = 0.1 * np.maximum(shot.background, 0.0) + variance
    for _ in range(ROUNDS):
        bright = np.einsum("npi,ni->np", columns[:, :, : k + 1], np.maximum(theta[:, : k + 1], 0.0))
        mu = shot.background + np.einsum("npi,ni->np", columns[:, :, k + 1 :], theta[:, k + 1 :]) + bright + variance
        weight = use / np.maximum(mu, np.maximum(floor, 1e-6))
        normal = np.einsum("np,npi,npj->nij", weight, columns, columns, optimize=True) + prior
        right = np.einsum("np,npi->ni", weight * excess, columns)
        theta = _solve(normal, right)
    unit = np.zeros((n, k + 4))
    unit[:, 0] = 1.0
    return theta[:, 0], _solve(normal, unit)[:, 0]


def _inverse(matrices: FloatArray) -> FloatArray:
    """Inverses of covariances ``(n, 3, 3)``; zero (no prior) where there is none."""
    good = np.all(np.isfinite(matrices), axis=(1, 2))
    safe = np.where(good[:, None, None], matrices, np.eye(3))
    return np.asarray(np.where(good[:, None, None], np.linalg.pinv(safe, rcond=1e-13, hermitian=True), 0.0))


def _solve(normal: FloatArray, right: FloatArray) -> FloatArray:
    """Solve batches of equations scaled to a unit diagonal."""
    scale = 1.0 / np.sqrt(np.maximum(np.einsum("nii->ni", normal), 1e-300))
    scaled = normal * scale[:, :, None] * scale[:, None, :] + 1e-12 * np.eye(normal.shape[1])
    return np.asarray(np.linalg.solve(scaled, (right * scale)[:, :, None])[:, :, 0] * scale)

"""Does a background plane hold? Chi-square of its pixels and of their block means, and planes that dip below zero.

A misfit drops a box only when it is both significant and large: on bright backgrounds small departures are always
significant and do no harm. Values are photons.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bayesbragg.stills.boxes import BoxReason, BoxSettings
from bayesbragg.stills.spot_mask import box_sum, darker

__all__ = ["floor_of_planes", "judge_planes", "misfit_of_planes"]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

FLAT_CHI_SQUARE = 16.0
"""Slopes with less chi-square than this give way to the mean where the plane dips below zero."""
MOST_HIDDEN = 0.25
"""Part of the expected background above which what hides it is looked at more closely."""
MOST_SPREAD = 1.3
"""Spread of a plateau's light beyond its noise, over its mean: up to 1.1 in simulated shadows, 1.6 in spots' tails."""
MISFIT_Z = 5.0
"""Significance of a misfit that may drop a box, normal standard deviations."""


def floor_of_planes(counts: FloatArray, used: BoolArray) -> FloatArray:
    """Least background that a variance is computed from, photons, ``(n,)``: a tenth of the mean, or of one photon.

    Weights must stay finite where a plane dips towards zero.
    """
    total = np.sum(np.where(used, counts, 0.0), axis=1)
    return np.asarray(0.1 * np.maximum(total, 1.0) / np.maximum(used.sum(axis=1), 1))


def _chi_square_z(value: FloatArray, mean: FloatArray, variance: FloatArray) -> FloatArray:
    """Significance of a sum of squares of given mean and variance: Wilson-Hilferty on the gamma that matches both."""
    shape = np.maximum(mean**2 / np.maximum(variance, 1e-300), 1e-3)
    return np.asarray((np.cbrt(value / np.maximum(mean, 1e-300)) - 1 + 1 / (9 * shape)) * 3 * np.sqrt(shape))


def misfit_of_planes(
    residual: FloatArray, expected: FloatArray, used: BoolArray, blocks: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Reduced chi-square of pixels with its significance; misfit of block means (photons) with its significance.

    The square of a standardized Poisson deviate of mean m has mean 1 and variance 2 + 1/m.
    """
    number = np.maximum(used.sum(axis=1), 4)
    model = np.where(used, expected, 0.0)
    light = np.where(used, residual, 0.0)
    chi = np.sum(light**2 / expected, axis=1)
    chi_z = _chi_square_z(chi, number - 3.0, np.sum(used * (2.0 + 1.0 / expected), axis=1))
    n_block = used @ blocks
    good = n_block >= 4
    safe = np.maximum(n_block, 1)
    photons = model @ blocks
    mean = np.where(good, (light @ blocks) / safe, 0.0)
    noise = np.where(good, photons / safe**2, 0.0)
    square, noise_square = np.sum(mean**2, axis=1), np.sum(noise, axis=1)
    variance = np.sum((2 + 1 / np.maximum(photons, 1e-9)) * noise**2, axis=1)
    misfit = np.sqrt(np.maximum(square - noise_square, 0.0) / np.maximum(good.sum(axis=1), 1))
    return chi / (number - 3), chi_z, misfit, _chi_square_z(square, noise_square, variance)


def _dark_patch(
    shifted: FloatArray, expected: FloatArray, used: BoolArray, shape: tuple[int, int], z: FloatArray
) -> BoolArray:
    """Boxes with a 7 x 7 patch darker than the plane, ``(n,)``: spots make bright patches, only shadows dark ones."""
    total, model = (
        box_sum(np.where(used, image, 0.0).astype(np.float32).reshape(-1, *shape), 3).reshape(len(used), -1)
        for image in (shifted, expected)
    )
    return np.asarray(np.any(darker(total, model, z[:, None]), axis=1))


def _hidden_plateau(
    residual: FloatArray, expected: FloatArray, level: FloatArray, used: BoolArray, clear: BoolArray
) -> BoolArray:
    """Boxes that lost much of their background to light that is no spot, ``(n,)``.

    A spot is peaked, and so are its tails: the mean of what they hide is far above the median, and their light
    spreads by more than its mean. The lit side of a shadow's edge is flat.

    Args:
        residual: counts minus plane, ``(n, n_pixels)``.
        expected: variance of a pixel without that light, ``(n, n_pixels)``.
        level: of the background, ``(n,)``.
        used: pixels of the fit, ``(n, n_pixels)``.
        clear: pixels that no known spot should reach, ``(n, n_pixels)``.
    """
    hidden = clear & ~used
    result = hidden.sum(axis=1) > MOST_HIDDEN * clear.sum(axis=1)
    for box in np.flatnonzero(result):
        light = residual[box, hidden[box]]
        least = max(0.05 * level[box], 5 * np.std(light) / np.sqrt(light.size))
        mean = np.mean(light)
        spread = np.sqrt(max(np.var(light) - mean - np.mean(expected[box, hidden[box]]), 0.0))
        result[box] = least < mean < 1.8 * np.median(light) and spread < MOST_SPREAD * mean
    return np.asarray(result)


def judge_planes(
    counts: FloatArray,
    used: BoolArray,
    variance: FloatArray,
    design: FloatArray,
    blocks: FloatArray,
    tilt: FloatArray,
    information: FloatArray,
    corners: FloatArray,
    clear: BoolArray,
    shape: tuple[int, int],
    settings: BoxSettings,
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.object_], FloatArray, FloatArray]:
    """Flatten planes that dip below zero only by noise, then say which planes hold.

    A steep plane through few photons can dip below zero in a corner of its box by chance. Dropping such boxes would
    prefer those with many photons, so where the slopes are not significant the mean takes the plane's place.

    Returns:
        Coefficients, covariance, reasons, reduced chi-square, relative misfit.
    """
    number = np.maximum(used.sum(axis=1), 1)
    level = np.sum(np.where(used, counts, 0.0), axis=1) / number
    noise = np.sum(np.where(used, variance, 0.0), axis=1) / number
    level_sd = np.sqrt((np.maximum(level, 1.0 / number) + noise) / number)
    ridge = 1e-12 * np.trace(information, axis1=1, axis2=2) + 1e-12
    covariance = np.linalg.inv(information + ridge[:, None, None] * np.eye(3))
    slope = tilt[:, :2, None]
    steepness = (np.swapaxes(slope, 1, 2) @ np.linalg.inv(covariance[:, :2, :2]) @ slope)[:, 0, 0]
    lowest = np.min(corners @ tilt[:, :, None], axis=(1, 2))
    flatten = (lowest < 0) & (steepness < FLAT_CHI_SQUARE)
    flat = np.where((level < 0) & (level > -4 * level_sd), 0.0, level)
    tilt = np.where(flatten[:, None], flat[:, None] * np.array([0.0, 0.0, 1.0]), tilt)
    negative = np.where(flatten, flat < 0, lowest < 0)
    plane = tilt @ design.T
    expected = np.maximum(plane, floor_of_planes(counts, used)[:, None]) + variance
    chi, chi_z, misfit, misfit_z = misfit_of_planes(counts - plane, expected, used, blocks)
    scale = np.maximum(level, 0.05)
    limit = settings.max_background_misfit
    contradicted = (misfit_z > MISFIT_Z) & (misfit > limit * scale)
    contradicted |= _hidden_plateau(counts - plane, expected, scale, used, clear)
    contradicted |= _dark_patch(counts + variance, expected, used, shape, MISFIT_Z * np.sqrt(np.clip(chi, 1.0, 4.0)))
    contradicted |= (chi_z > MISFIT_Z) & (chi > 1.5 + limit**2 * scale)
    reason = np.full(len(tilt), BoxReason.SELECTED, dtype=object)
    reason[contradicted] = BoxReason.CONTRADICTED
    reason[negative & settings.skip_roi_with_negative_bg] = BoxReason.NEGATIVE
    reason[used.sum(axis=1) < settings.min_background_pixels] = BoxReason.FEW_PIXELS
    return tilt, covariance * np.maximum(chi, 1.0)[:, None, None], reason, chi, misfit / scale

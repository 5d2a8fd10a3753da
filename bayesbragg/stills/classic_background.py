"""The classic background planes, defects included, for parity with the classic diffBragg.

Bright pixels are taken out by their modified z-score (median absolute deviation), and what remains gets a plane by
least squares or its median. Where the background is about one photon per pixel or less most pixels hold none, so that
every pixel with a photon is an outlier and the plane comes out near zero: use these planes to compare with the classic
program, and `bayesbragg.stills.background` for everything else. The weights of the weighted fit are the square root
of the inverse variance, which is another classic defect. All values are photons.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bayesbragg.stills.boxes import BoxReason, BoxSettings, PanelLayout

__all__ = ["ClassicPlanes", "background_pixels", "classic_planes", "is_outlier"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def is_outlier(values: FloatArray, threshold: float) -> BoolArray:
    """Which values have a modified z-score, 0.6745 |v - median| / MAD, above the threshold; none where the MAD is 0."""
    if values.size == 0:
        return np.zeros(0, dtype=bool)
    deviation = np.abs(values - np.median(values))
    mad = np.median(deviation)
    if mad == 0:
        return np.zeros(values.shape, dtype=bool)
    return np.asarray(0.6745 * deviation / mad > threshold)


def background_pixels(values: FloatArray, threshold: float = 3.5, only_high: bool = True) -> BoolArray:
    """Pixels left after two passes of the outlier rule; the second sees only those that survived the first.

    Args:
        values: photons, any shape.
        threshold: modified z-score above which a pixel is an outlier.
        only_high: keep outliers below the median of the other pixels.

    Returns:
        True for background, of the shape of ``values``.
    """
    flat = values.ravel()
    kept = np.arange(flat.size)
    for _ in range(2):
        outlier = is_outlier(flat[kept], threshold)
        if only_high and np.any(outlier):
            inlier = flat[kept][~outlier]
            outlier &= flat[kept] > (np.median(inlier) if inlier.size else np.nan)
        kept = kept[~outlier]
    result = np.zeros(flat.size, dtype=bool)
    result[kept] = True
    return result.reshape(values.shape)


@dataclass(frozen=True, eq=False)
class ClassicPlanes:
    """Planes of a set of boxes.

    Attributes:
        tilt: slope along fast and slow (photon per pixel) and constant (photon), x and y counting from the first pixel
            of the padded box, ``(n, 3)``.
        covariance: of those, ``(n, 3, 3)``; not a number for a constant background or a failed fit.
        reason: ``SELECTED`` or why the plane cannot be used, ``(n,)``.
        used: background pixels of each padded box, a list of arrays ``(n_slow, n_fast)``.
    """

    tilt: FloatArray
    covariance: FloatArray
    reason: npt.NDArray[np.object_]
    used: list[BoolArray]


def _plane(values: FloatArray, used: BoolArray, variance: FloatArray | None) -> tuple[FloatArray, FloatArray] | None:
    """Least squares of a plane on the chosen pixels; None where it is singular."""
    slow, fast = np.nonzero(used)
    photons = values[used]
    design = np.stack([fast, slow, np.ones_like(fast)], axis=1).astype(float)
    if variance is None:
        weight = np.ones(len(photons))
    else:
        with np.errstate(divide="ignore"):
            weight = np.sqrt(np.maximum(1.0 / (variance[used] + photons), 0.0))
    weighted = design * weight[:, None]
    try:
        inverse = np.linalg.inv(weighted.T @ design)
    except np.linalg.LinAlgError:
        return None
    tilt = inverse @ (weighted.T @ photons)
    residual = photons - design @ tilt
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.sum(weight * residual**2) / np.float64(len(photons) - 3)
        return tilt, inverse * scale


def classic_planes(
    photons: npt.NDArray[np.generic],
    layout: PanelLayout,
    panel: IntArray,
    padded: IntArray,
    settings: BoxSettings,
    readout_sd: float | npt.NDArray[np.generic] = 0.0,
    background_mask: npt.NDArray[np.generic] | None = None,
    gain: float = 1.0,
) -> ClassicPlanes:
    """Fit the classic background of every box.

    Args:
        photons: flat pixel values of all panels, ``(n_pixels,)``; divided by ``gain`` where they are used.
        layout: where panels lie in the flat arrays.
        panel: panel of each box, ``(n,)``.
        padded: f1, f2, s1, s2 of each padded box, ``(n, 4)``.
        settings: the classic options.
        readout_sd: readout noise, photons, a number or flat ``(n_pixels,)``.
        background_mask: True for background, flat ``(n_pixels,)``, instead of the outlier rule.
        gain: units of ``photons`` per photon.

    Returns:
        Planes in photons; the caller knows the rules that do not depend on the plane.
    """
    n = len(panel)
    tilt, covariance = np.zeros((n, 3)), np.full((n, 3, 3), np.nan)
    reason = np.full(n, BoxReason.SELECTED, dtype=object)
    used_pixels = []
    for i in range(n):
        index, _ = layout.box_pixels(
            panel[i : i + 1],
            padded[i : i + 1],
            (max(int(padded[i, 3] - padded[i, 2]), 0), max(int(padded[i, 1] - padded[i, 0]), 0)),
        )
        values = photons[index[0]].astype(float) / gain
        if background_mask is not None:
            used = background_mask[index[0]].astype(bool)
        else:
            used = background_pixels(values, settings.background_threshold, settings.only_filter_zingers_above_mean)
        used_pixels.append(used)
        if not settings.fit_tilt:
            level = float(np.median(values[used])) if np.any(used) else np.nan
            if level < 0 and settings.force_negative_background_to_zero:
                level = 0.0
            tilt[i, 2] = level
            if level < 0 and settings.skip_roi_with_negative_bg:
                reason[i] = BoxReason.NEGATIVE
            elif np.isnan(level):
                reason[i] = BoxReason.NOT_A_NUMBER
            continue
        variance = None
        if settings.fit_tilt_using_weights:
            sd = np.asarray(readout_sd, dtype=float)
            variance = np.broadcast_to(sd**2 if sd.ndim == 0 else sd[index[0]] ** 2, values.shape)
        fit = _plane(values, used, variance)
        if fit is None:
            reason[i] = BoxReason.NO_FIT
            continue
        tilt[i], covariance[i] = fit
        # A plane is lowest in one of the corners of its box.
        last = np.array(values.shape) - 1
        corners = np.add.outer(tilt[i, 1] * np.array([0, last[0]]), tilt[i, 0] * np.array([0, last[1]]))
        lowest = float(np.min(corners)) + tilt[i, 2]
        if np.isnan(lowest):
            reason[i] = BoxReason.NOT_A_NUMBER
        elif settings.skip_roi_with_negative_bg and lowest < 0:
            reason[i] = BoxReason.NEGATIVE
    return ClassicPlanes(tilt, covariance, reason, used_pixels)

"""Spot finding by the dispersion of counts in a small window, as in XDS and DIALS.

With Poisson counts times a gain, variance over mean is the gain; where it is larger by some standard deviations, there
is more than background. A pixel is strong if its window (its neighbours and itself) is dispersed in that way, if it
stands above the window's mean, and if it is above a global threshold:

    variance / mean > gain (1 + sigma_background sqrt(2 / (m - 1))),
    value > mean + sigma_strong sqrt(gain mean),       value > global_threshold,

with m trusted pixels in the window. The extended threshold takes the region where windows are dispersed, shrinks it,
and compares its pixels with the background around it. Source: Kabsch (2010) Acta Cryst. D66, 133; Winter et al. (2018)
Acta Cryst. D74, 85. Values are detector units, positions pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bayesbragg.model import Beam, Detector, Reflections
from bayesbragg.model.errors import InputError
from bayesbragg.stills.spots import SpotList, spot_list, spots_to_reflections

__all__ = ["SpotfinderSettings", "find_spots", "strong_pixels"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

LARGEST = float(1 << 24)
"""Larger values are left out of the windows, as DIALS does."""
CACHED_PIXELS = 150_000
"""Pixels that are worked on together: with the sums about them they stay in a processor's cache."""


@dataclass(frozen=True)
class SpotfinderSettings:
    """What counts as a spot; names and defaults are those of the ``spotfinder`` scope of DIALS.

    Attributes:
        algorithm: ``dispersion``, or ``dispersion_extended`` in two passes, which finds whole spots.
        gain: detector units per photon; None takes the detector's.
        kernel_size: half widths of the window along slow and fast, pixels.
        sigma_background, sigma_strong: standard deviations of the dispersion and of the pixel.
        global_threshold: detector units.
        min_local: least number of trusted pixels in a window; 0 or less asks for all.
        min_spot_size, max_spot_size: strong pixels in a spot, both included.
        max_separation: largest distance of centroid and brightest pixel, pixels.
        max_strong_pixel_fraction: an image with more strong pixels is refused.
        d_min, d_max: resolution limits, angstrom, or None.
        ice_rings: ranges of d (smaller, larger) in angstrom that are left out.
    """

    algorithm: Literal["dispersion", "dispersion_extended"] = "dispersion"
    gain: float | None = None
    kernel_size: tuple[int, int] = (3, 3)
    sigma_background: float = 6.0
    sigma_strong: float = 3.0
    global_threshold: float = 0.0
    min_local: int = 2
    min_spot_size: int = 3
    max_spot_size: int = 1000
    max_separation: float = 2.0
    max_strong_pixel_fraction: float = 0.25
    d_min: float | None = None
    d_max: float | None = None
    ice_rings: tuple[tuple[float, float], ...] = ()


def _window_sum(x: FloatArray, half: tuple[int, int]) -> FloatArray:
    """Sum over the window about each pixel of the last two axes, as far as it lies on the panel."""
    for axis, k in ((-2, half[0]), (-1, half[1])):
        total = x.copy()
        n = x.shape[axis]
        for shift in range(1, min(k, n - 1) + 1):
            upper = [slice(None)] * x.ndim
            lower = list(upper)
            upper[axis], lower[axis] = slice(shift, None), slice(None, n - shift)
            total[tuple(lower)] += x[tuple(upper)]
            total[tuple(upper)] += x[tuple(lower)]
        x = total
    return x


def strong_pixels(
    values: npt.ArrayLike, trusted: BoolArray | None, gain: npt.ArrayLike, settings: SpotfinderSettings
) -> BoolArray:
    """Which pixels are strong.

    Args:
        values: raw values of panels of one shape, ``(n_panels, n_slow, n_fast)``.
        trusted: pixels that may be used, same shape; None for all.
        gain: detector units per photon, broadcast against `values`.
        settings: window and thresholds.
    """
    raw = np.asarray(values, dtype=np.float64)
    use = np.ones(raw.shape, dtype=bool) if trusted is None else trusted
    at_once = max(1, CACHED_PIXELS // max(raw[0].size, 1)) if len(raw) else 1
    if len(raw) > at_once:
        g = np.broadcast_to(np.asarray(gain, dtype=np.float64), raw.shape)
        parts = [slice(i, i + at_once) for i in range(0, len(raw), at_once)]
        return np.concatenate([strong_pixels(raw[part], use[part], g[part], settings) for part in parts])
    if settings.algorithm == "dispersion_extended":
        return _extended(raw, use, gain, settings)
    candidate = use & (raw > settings.global_threshold)
    if not candidate.any():
        return candidate
    m, x, y = _sums(raw, use & (raw < LARGEST), settings.kernel_size)
    g = np.broadcast_to(np.asarray(gain, dtype=np.float64), raw.shape)
    candidate &= _dispersed(m, x, y, g, settings)
    # The few that are left are compared one by one.
    at = np.unravel_index(np.flatnonzero(candidate), raw.shape)
    m, x, value = np.broadcast_to(m, raw.shape)[at], x[at], raw[at]
    candidate[at] = m * value - x > settings.sigma_strong * np.sqrt(g[at] * x * m)
    return candidate


def _sums(raw: FloatArray, inside: BoolArray, half: tuple[int, int]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Number of pixels, sum of values and of squares in each window; the number has one panel if all are the same."""
    if inside.all():
        # The number of pixels depends on the place alone.
        clean, m = raw, _window_sum(np.ones((1, *raw.shape[1:])), half)
    else:
        clean, m = np.where(inside, raw, 0.0), _window_sum(inside.astype(np.float64), half)
    return m, _window_sum(clean, half), _window_sum(clean * clean, half)


def _dispersed(m: FloatArray, x: FloatArray, y: FloatArray, g: FloatArray, settings: SpotfinderSettings) -> BoolArray:
    """Whether windows vary more than counts do; multiplied out, so that nothing is divided."""
    full = (2 * settings.kernel_size[0] + 1) * (2 * settings.kernel_size[1] + 1)
    least = full if settings.min_local <= 0 else max(settings.min_local, 2)
    free = np.maximum(m - 1.0, 0.0)
    more = m * y - x * x > g * x * (free + settings.sigma_background * np.sqrt(2.0 * free))
    return np.asarray(more & (m >= least) & (x >= 0.0))


def _extended(raw: FloatArray, use: BoolArray, gain: npt.ArrayLike, settings: SpotfinderSettings) -> BoolArray:
    """The threshold in two passes: a dispersed region first, then pixels above the background around that region.

    A window is dispersed as soon as its rim touches a spot, so the region is shrunk by that width; what is left over is
    background, whose mean is taken over a larger window.
    """
    g = np.broadcast_to(np.asarray(gain, dtype=np.float64), raw.shape)
    if not np.any(use & (raw > settings.global_threshold)):
        return np.zeros(raw.shape, dtype=bool)
    inside = raw < LARGEST
    m, x, y = _sums(raw, use & inside, settings.kernel_size)
    side = 2 * min(settings.kernel_size) - 1
    region = ~use | _dispersed(m, x, y, g, settings)
    region = ndimage.binary_erosion(region, np.ones((1, side, side), dtype=bool), border_value=1) & use
    n_slow, n_fast = (k + 2 for k in settings.kernel_size)
    m, x, _ = _sums(raw, use & ~region & inside, (n_slow, n_fast))
    m = np.broadcast_to(m, raw.shape)
    mean = np.where(m >= 2.0, x / np.maximum(m, 1.0), 0.0)
    above = raw >= mean + settings.sigma_strong * np.sqrt(g * np.maximum(mean, 0.0))
    return np.asarray(region & (x >= 0.0) & (raw > settings.global_threshold) & above)


def find_spots(
    panels: Sequence[npt.NDArray[np.generic]],
    detector: Detector,
    beam: Beam,
    settings: SpotfinderSettings | None = None,
    *,
    mask: Sequence[BoolArray] | None = None,
    gain: npt.ArrayLike | None = None,
    shoeboxes: bool = True,
) -> Reflections:
    """The strong spots of one image as a DIALS table, sorted by panel.

    Args:
        panels: raw values, ``(n_slow, n_fast)`` each, detector units.
        detector: its trusted range and gain count; panels must fit it.
        beam: for the resolution limits.
        settings: what counts as a spot.
        mask: True for pixels that may be used, by panel; the trusted range is applied besides.
        gain: detector units per photon of each panel, ``(n_panels,)``; replaces that of settings and detector.
        shoeboxes: whether to keep the spots' pixels.

    Returns:
        columns ``panel``, ``bbox``, ``xyzobs.px.*``, ``intensity.sum.*``, ``flags``, ``id``, ``shoebox``; no rows if
        nothing is found.

    Raises:
        InputError: panels that do not fit the detector, or more strong pixels than
            ``max_strong_pixel_fraction``.
    """
    settings = SpotfinderSettings() if settings is None else settings
    shapes = [tuple(p.shape) for p in panels]
    expected = [(int(slow), int(fast)) for fast, slow in detector.image_size]
    if shapes != expected:
        raise InputError(
            f"{len(shapes)} panels of shapes {sorted(set(shapes))}; the detector has {len(expected)} of "
            f"{sorted(set(expected))} (slow, fast); give the geometry of this image"
        )
    per_panel = detector.gain if settings.gain is None else np.full(len(panels), settings.gain)
    per_panel = np.broadcast_to(per_panel if gain is None else np.asarray(gain, dtype=np.float64), (len(panels),))
    found: list[tuple[FloatArray, BoolArray, IntArray]] = []
    for shape in dict.fromkeys(shapes):
        numbers = np.array([i for i, s in enumerate(shapes) if s == shape])
        values = np.stack([np.asarray(panels[i], dtype=np.float64) for i in numbers])
        low, high = (x[:, None, None] for x in detector.trusted_range[numbers].T)
        trusted = (values >= low) & (values <= high)
        if mask is not None:
            trusted &= np.stack([np.asarray(mask[i], dtype=bool) for i in numbers])
        found.append((values, strong_pixels(values, trusted, per_panel[numbers, None, None], settings), numbers))
    n_strong, n_pixels = (sum(int(f(strong)) for _, strong, _ in found) for f in (np.sum, np.size))
    if n_strong > settings.max_strong_pixel_fraction * n_pixels:
        raise InputError(
            f"{n_strong} of {n_pixels} pixels are strong; expected at most a fraction of "
            f"{settings.max_strong_pixel_fraction}; check gain and global_threshold, or leave the image out"
        )
    lists = [spot_list(*parts) for parts in found]
    tables = [spots_to_reflections(s, _kept(s, detector, beam, settings), shoeboxes=shoeboxes) for s in lists]
    if len(tables) == 1:
        return tables[0]
    joined = Reflections({k: np.concatenate([t[k] for t in tables]) for k in tables[0].columns})
    return joined.select(np.argsort(joined["panel"], kind="stable"))


def _kept(spots: SpotList, detector: Detector, beam: Beam, settings: SpotfinderSettings) -> BoolArray:
    """Which spots pass the filters on size, shape and resolution."""
    keep = (spots.size >= settings.min_spot_size) & (spots.size <= settings.max_spot_size)
    keep &= np.all(np.isfinite(spots.centroid), axis=1)
    keep &= np.linalg.norm(spots.peak - spots.centroid, axis=1) <= settings.max_separation
    if settings.d_min is None and settings.d_max is None and not settings.ice_rings:
        return keep
    ray = detector.lab_mm(spots.panel, spots.centroid[:, 0], spots.centroid[:, 1])
    unit = ray / np.linalg.norm(ray, axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        d = beam.wavelength_A / np.linalg.norm(unit - beam.direction, axis=1)
    if settings.d_min is not None:
        keep &= d >= settings.d_min
    if settings.d_max is not None:
        keep &= d <= settings.d_max
    for small, large in settings.ice_rings:
        keep &= (d < small) | (d > large)
    return keep

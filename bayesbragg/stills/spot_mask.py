"""Which pixels hold spots: kept clear by geometry first, by significance second, so that the rest is unbiased.

Cutting off bright pixels lowers the mean of what is left, the more so the fewer photons there are. So the pixels around
every known spot are left out whatever they hold. How far a spot reaches is measured in rings about its centre, and
spots or zingers that nobody announced are found by sums over 1, 3 x 3 and 5 x 5 pixels. Both use tail probabilities so
small that the pixels they take away from pure background shift its mean by less than 1e-4 of a pixel's noise.

Tails are those of the Poisson distribution: with readout variance s2, counts + s2 is compared with a Poisson variable
of mean (and variance) background + s2, and its tail through the Wilson-Hilferty approximation to the gamma
distribution, P(N >= k | m) = P(Gamma(k) <= m), k (1 - 1/(9 k) - z/(3 sqrt k))^3 > m. Units: photons, pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bayesbragg.stills.boxes import PanelLayout

__all__ = ["box_sum", "brighter", "clear_radius", "darker", "expected_reach", "footprints", "paint_discs"]

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def brighter(total: FloatArray, expected: FloatArray, z: float | FloatArray) -> BoolArray:
    """Where a Poisson count is improbably high: tail probability below that of ``z`` normal standard deviations."""
    k = np.maximum(total, 1e-3)
    cube_root = 1.0 - 1.0 / (9.0 * k) - (z / 3.0) / np.sqrt(k)
    # Where the bracket is negative so is the product, and no background is darker than that.
    return np.asarray(k * cube_root * cube_root * cube_root > expected)


def darker(total: FloatArray, expected: FloatArray, z: float | FloatArray) -> BoolArray:
    """Where a Poisson count is improbably low: tail probability below that of ``z`` normal standard deviations."""
    k = np.maximum(total, 0.0) + 1.0
    cube_root = 1.0 - 1.0 / (9.0 * k) + (z / 3.0) / np.sqrt(k)
    return np.asarray(k * cube_root * cube_root * cube_root < expected)


def box_sum(image: FloatArray, half: int) -> FloatArray:
    """Sums over squares of side ``2 half + 1`` about each pixel, zero outside, over the last two axes."""
    n_slow, n_fast = image.shape[-2:]
    padded = np.pad(image, [(0, 0)] * (image.ndim - 2) + [(half, half)] * 2)
    rows = padded[..., :n_fast].copy()
    for shift in range(1, 2 * half + 1):
        rows += padded[..., shift : shift + n_fast]
    total = rows[..., :n_slow, :].copy()
    for shift in range(1, 2 * half + 1):
        total += rows[..., shift : shift + n_slow, :]
    return total


def grow(mask: BoolArray, half: int) -> BoolArray:
    """The mask and every pixel at most ``half`` from it along both of the last two axes."""
    for axis in (-1, -2):
        wider = mask.copy()
        source, target = np.moveaxis(mask, axis, 0), np.moveaxis(wider, axis, 0)
        for shift in range(1, half + 1):
            target[shift:] |= source[:-shift]
            target[:-shift] |= source[shift:]
        mask = wider
    return mask


def paint_discs(layout: PanelLayout, panel: IntArray, centre: FloatArray, radius: FloatArray) -> BoolArray:
    """Pixels whose centre lies in any of the discs.

    Args:
        layout: where panels lie in the flat array.
        panel: panel of each disc, ``(n,)``.
        centre: fast and slow position, pixels from the outer corner, ``(n, 2)``.
        radius: pixels, ``(n,)``.

    Returns:
        Flat array over all pixels of all panels, ``(n_pixels,)``.
    """
    covered = np.zeros(int(layout.offset[-1]), dtype=bool)
    if len(panel) == 0:
        return covered
    reach = int(np.ceil(radius.max())) + 1
    steps = np.arange(-reach, reach + 1)
    first = np.floor(centre).astype(np.int64)
    fast, slow = first[:, :1] + steps, first[:, 1:] + steps
    near_f, near_s = (fast + 0.5 - centre[:, :1]) ** 2, (slow + 0.5 - centre[:, 1:]) ** 2
    inside = near_s[:, :, None] + near_f[:, None, :] < radius[:, None, None] ** 2
    inside &= ((slow >= 0) & (slow < layout.size[panel, 1:]))[:, :, None]
    inside &= ((fast >= 0) & (fast < layout.size[panel, :1]))[:, None, :]
    index = layout.offset[panel][:, None, None] + slow[:, :, None] * layout.size[panel, :1, None] + fast[:, None, :]
    covered[index[inside]] = True
    return covered


def clear_radius(
    shifted: FloatArray,
    expected: FloatArray,
    free: BoolArray,
    ring: IntArray,
    smallest: FloatArray,
    largest: FloatArray,
    z: FloatArray,
    margin: float = 2.0,
) -> FloatArray:
    """How far each box's own spot reaches: out to the first ring that holds no more than background.

    Args:
        shifted: counts plus readout variance, ``(n, n_pixels)``.
        expected: background plus readout variance, ``(n, n_pixels)``.
        free: pixels that no other spot covers, ``(n, n_pixels)``.
        ring: distance from the box's spot, rounded down, pixels, ``(n, n_pixels)``.
        smallest, largest: bounds of the radius, pixels, ``(n,)``.
        z: significance of a ring, ``(n,)``.
        margin: added beyond the last significant ring, pixels.

    Returns:
        Radius of each spot, ``(n,)``.
    """
    n = len(shifted)
    n_rings = int(np.ceil(largest.max())) + 1
    key = (np.minimum(ring, n_rings - 1) + n_rings * np.arange(n)[:, None]).ravel()

    def ring_sums(image: FloatArray) -> FloatArray:
        weights = np.where(free, image, 0.0).ravel()
        return np.asarray(np.bincount(key, weights, n * n_rings), dtype=np.float64).reshape(n, n_rings)

    total, model = ring_sums(shifted), ring_sums(expected)
    lit = brighter(total, model, z[:, None]) & (model > 0)
    lit |= np.arange(n_rings) < np.floor(smallest)[:, None]
    reach = np.cumprod(lit, axis=1).sum(axis=1)
    radius = np.where(reach > np.floor(smallest), reach + margin, smallest)
    return np.asarray(np.minimum(radius, largest))


def expected_reach(
    excess: FloatArray, noise_variance: FloatArray, core: BoolArray, offset: FloatArray, tolerance: FloatArray
) -> FloatArray:
    """Radius beyond which a spot of the width seen in its core holds less than ``tolerance`` photons.

    A Gaussian spot of I photons and standard deviation w leaves I exp(-r^2/2 w^2) beyond r. I and w (along its longer
    axis) come from the core alone, so that the answer owes nothing to the noise of the background's own pixels.

    Args:
        excess: counts minus background, ``(n, n_pixels)``.
        noise_variance: variance of counts under background alone, ``(n, n_pixels)``.
        core: pixels within the smallest radius that no other spot covers, ``(n, n_pixels)``.
        offset: fast and slow distance from the spot's position, pixels, ``(2, n, n_pixels)``.
        tolerance: photons, ``(n,)``.

    Returns:
        Radius in pixels, ``(n,)``; 0 for spots too weak to be measured.
    """
    light = np.where(core, excess, 0.0)
    flux = light.sum(axis=1)
    sd = np.sqrt(np.sum(np.where(core, noise_variance, 0.0), axis=1))
    seen = flux > 5.0 * sd + 5.0
    safe = np.where(seen, flux, 1.0)
    ff, ss, fs = (np.sum(light * offset[i] * offset[j], axis=1) / safe for i, j in ((0, 0), (1, 1), (0, 1)))
    longer = 0.5 * (ff + ss) + np.sqrt(0.25 * (ff - ss) ** 2 + fs**2)
    reach = np.sqrt(2.0 * np.maximum(longer, 0.5) * np.log(np.maximum(flux / tolerance, 1.0)))
    return np.asarray(np.where(seen, reach, 0.0))


def footprints(shifted: FloatArray, expected: FloatArray, free: BoolArray, z: FloatArray) -> BoolArray:
    """Pixels of spots and zingers that no list announced, and pixels too dark to be alive.

    A pixel starts a footprint when it, or the 3 x 3 or 5 x 5 square about it, is brighter than background at ``z``; the
    footprint grows twice into touching squares brighter at 3 standard deviations, then by a rim of two pixels.

    Args:
        shifted: counts plus readout variance, ``(n, n_slow, n_fast)``.
        expected: background plus readout variance, same shape.
        free: pixels to look at, same shape.
        z: significance, ``(n,)``.

    Returns:
        Pixels to leave out, same shape.
    """
    # Single precision is twice as fast, and a tail probability needs no more.
    level, shifted, expected = (a.astype(np.float32) for a in (z[:, None, None], shifted, expected))
    data, model = (np.where(free, image, np.float32(0.0)) for image in (shifted, expected))
    data3, model3 = box_sum(data, 1), box_sum(model, 1)
    seed = free & brighter(data, model, level)
    seed |= brighter(data3, model3, level) & (model3 > 0)
    wide = box_sum(data, 2)
    model5 = box_sum(model, 2)
    seed |= brighter(wide, model5, level) & (model5 > 0)
    dark = free & darker(data, model, level)
    boxes = np.flatnonzero(seed.any(axis=(1, 2)))
    if len(boxes):
        found = seed[boxes]
        touching = brighter(data3[boxes], model3[boxes], 3.0) & (model3[boxes] > 0)
        for _ in range(2):
            found |= touching & grow(found, 2)
        dark[boxes] |= grow(found, 2)
    return dark

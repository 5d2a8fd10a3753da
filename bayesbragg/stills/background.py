"""A background plane per box by Poisson likelihood with readout noise, right from few to many photons per pixel.

Model: a pixel holds N + e photons, N Poisson with mean mu = a x + b y + c, e normal with variance s2. Counts + s2 has
mean and variance mu + s2 and is treated as Poisson. Its likelihood equations,
sum over pixels of (counts - mu)/(mu + s2) (x, y, 1) = 0, hold on average at the true plane whatever the shape of the
noise, and give back the photons of the fitted pixels exactly. They are solved by iteratively reweighted least squares,
all boxes at once.

Spots are kept out by geometry and by significance (`bayesbragg.stills.spot_mask`), never by cutting the tail of the
background's own distribution. A plane that the remaining pixels contradict is reported as such
(`bayesbragg.stills.plane_checks`). Units: photons and pixels; x and y count from the first pixel of the padded box.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesbragg.stills.boxes import BoxSettings, PanelLayout, padded_bounds
from bayesbragg.stills.plane_checks import floor_of_planes, judge_planes
from bayesbragg.stills.spot_mask import clear_radius, expected_reach, footprints, paint_discs

__all__ = ["Planes", "poisson_planes", "solve_planes"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

N_BLOCKS = 4
"""Blocks along each side of a padded box, for the starting plane and for the test of planarity."""
PASSES = 6
"""Most passes of mask and fit; masks usually stand after two or three."""
SPOT_Z = 5.0
"""Significance of a spot or zinger that no list announces, normal standard deviations."""
RING_Z = 3.7
"""Significance of a ring about a known spot, normal standard deviations."""
LEAK = 0.01
"""Light of a known spot that may leak into its background, in standard deviations of the background's total."""


@dataclass(frozen=True, eq=False)
class Planes:
    """Planes of a set of boxes and how well they hold.

    Attributes:
        tilt: slope along fast and slow (photon per pixel) and constant (photon), x and y counting from the first pixel
            of the padded box, ``(n, 3)``.
        covariance: of those, from the Fisher information, times the reduced chi-square where that is above 1,
            ``(n, 3, 3)``.
        reason: ``SELECTED`` or why the plane cannot be used, ``(n,)``.
        used: background pixels, ``(n, n_slow, n_fast)``.
        spot_radius: radius kept clear around each box's spot, pixels, ``(n,)``.
        reduced_chi_square: of the used pixels, ``(n,)``.
        misfit: root mean square departure of block means from the plane beyond their noise, relative to the plane's
            level, ``(n,)``.
    """

    tilt: FloatArray
    covariance: FloatArray
    reason: npt.NDArray[np.object_]
    used: BoolArray
    spot_radius: FloatArray
    reduced_chi_square: FloatArray
    misfit: FloatArray


def _centred_design(shape: tuple[int, int]) -> FloatArray:
    """Columns x, y, 1 with x and y in half sides from the middle, ``(n_pixels, 3)``: well conditioned."""
    s, f = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    x = (f.ravel() - (shape[1] - 1) / 2) / max(shape[1] / 2, 1)
    y = (s.ravel() - (shape[0] - 1) / 2) / max(shape[0] / 2, 1)
    return np.stack([x, y, np.ones(x.size)], axis=1)


def _to_pixels(shape: tuple[int, int]) -> FloatArray:
    """Matrix from centred coefficients to slopes per pixel and the value at the first pixel."""
    hf, hs = max(shape[1] / 2, 1), max(shape[0] / 2, 1)
    return np.array(
        [[1 / hf, 0, 0], [0, 1 / hs, 0], [-(shape[1] - 1) / 2 / hf, -(shape[0] - 1) / 2 / hs, 1.0]],
    )


def _solve(normal: FloatArray, right: FloatArray) -> FloatArray:
    """Solve batches of 3 x 3 equations; a trace of ridge makes a hopeless box yield numbers, not an error."""
    ridge = 1e-12 * np.trace(normal, axis1=1, axis2=2) + 1e-300
    return np.asarray(np.linalg.solve(normal + ridge[:, None, None] * np.eye(3), right[..., None])[..., 0])


def solve_planes(
    counts: FloatArray,
    used: BoolArray,
    variance: FloatArray,
    design: FloatArray,
    start: FloatArray,
    iterations: int = 25,
) -> tuple[FloatArray, FloatArray]:
    """Likelihood planes on given pixels.

    Args:
        counts: photons, ``(n, n_pixels)``.
        used: pixels to fit, ``(n, n_pixels)``.
        variance: readout variance, photon squared, broadcast to ``(n, n_pixels)``.
        design: rows x, y, 1, ``(n_pixels, 3)``.
        start: coefficients to start from, ``(n, 3)``.
        iterations: most steps; it stops once the coefficients stand still to 1e-9.

    Returns:
        Coefficients ``(n, 3)`` and the Fisher information ``(n, 3, 3)``.
    """
    products = np.stack(
        [design[:, i] * design[:, j] for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))], axis=1
    )
    floor = floor_of_planes(counts, used)
    mask, data = used.astype(float), np.where(used, counts, 0.0)
    tilt = start
    for _ in range(iterations):
        weight = tilt @ design.T
        np.maximum(weight, floor[:, None], out=weight)
        weight += variance
        np.divide(mask, weight, out=weight)
        normal = (weight @ products)[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
        weight *= data
        new = _solve(normal, weight @ design)
        change = np.max(np.abs(new - tilt) / (np.abs(new[:, 2:]) + floor[:, None]))
        tilt = new
        if change < 1e-9:
            break
    return tilt, normal


def _block_matrix(shape: tuple[int, int]) -> FloatArray:
    """Indicator of the block of each pixel, ``(n_pixels, n_blocks)``."""
    s, f = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    block = (s * N_BLOCKS // shape[0]) * N_BLOCKS + f * N_BLOCKS // shape[1]
    return np.asarray(block.reshape(-1, 1) == np.arange(N_BLOCKS**2), dtype=float)


def _starting_planes(
    counts: FloatArray, free: BoolArray, variance: FloatArray, design: FloatArray, blocks: FloatArray
) -> FloatArray:
    """A rough plane through block means, where blocks that hold unknown spots count little."""
    mask = free.astype(float)
    number = mask @ blocks
    safe = np.maximum(number, 1.0)
    mean = ((mask * counts) @ blocks) / safe
    centre = np.stack([(mask @ (blocks * design[:, i : i + 1])) / safe for i in range(3)], axis=2)
    extra = (np.where(free, variance, 0.0) @ blocks) / safe
    good = number >= 4
    level = np.nanmedian(np.where(good | ~good.any(axis=1, keepdims=True), mean, np.nan), axis=1)
    tilt = np.stack([np.zeros_like(level), np.zeros_like(level), level], axis=1)
    for _ in range(8):
        noise = (np.maximum(level, 0.0)[:, None] + extra) / safe + 1e-6
        z = (mean - np.einsum("nbk,nk->nb", centre, tilt)) / np.sqrt(noise)
        weight = good / noise / (1.0 + (z / 2.5) ** 2) ** 2
        normal = np.einsum("nb,nbi,nbj->nij", weight, centre, centre)
        # Planes that fall by more than half over a box are unlikely; this holds the slopes where few blocks are left.
        slope = 1.0 / (0.5 * np.abs(level) + np.sqrt(noise.mean(axis=1))) ** 2
        normal[:, 0, 0] += slope
        normal[:, 1, 1] += slope
        tilt = _solve(normal, np.einsum("nb,nbi,nb->ni", weight, centre, mean))
    return tilt


def poisson_planes(
    photons: npt.NDArray[np.generic],
    trusted: BoolArray,
    layout: PanelLayout,
    panel: IntArray,
    bounds: IntArray,
    centre: FloatArray,
    smallest_radius: FloatArray,
    settings: BoxSettings,
    readout_sd: float | npt.NDArray[np.generic] = 0.0,
    gain: float = 1.0,
    *,
    around: bool = False,
) -> Planes:
    """Fit the background of every box.

    Args:
        photons: flat pixel values of all panels, ``(n_pixels,)``; divided by ``gain`` where they are used.
        trusted: flat, pixels that may be used, ``(n_pixels,)``.
        layout: where panels lie in the flat arrays.
        panel: panel of each box, ``(n,)``, then of further known spots without box, ``(n_spots,)`` in all.
        bounds: f1, f2, s1, s2 of each box without padding, ``(n, 4)``.
        centre: fast and slow position of each spot, pixels from the outer corner, ``(n_spots, 2)``, boxes first.
        smallest_radius: least radius kept clear around each spot, pixels, ``(n_spots,)``.
        settings: padding, least number of pixels, largest misfit.
        readout_sd: readout noise, photons, a number or flat ``(n_pixels,)``.
        gain: units of ``photons`` per photon.
        around: leave out the pixels of the box itself.

    Returns:
        The planes, in photons.
    """
    n = len(bounds)
    padded = padded_bounds(bounds, layout.size[panel[:n]], settings.pad)
    shape = (int(np.max(padded[:, 3] - padded[:, 2], initial=1)), int(np.max(padded[:, 1] - padded[:, 0], initial=1)))
    index, inside = layout.box_pixels(panel[:n], padded, shape)
    index, inside = index.reshape(n, -1), inside.reshape(n, -1)
    counts = photons[index].astype(float) / gain
    usable = inside & trusted[index] & np.isfinite(counts)
    if around:
        s, f = np.indices(shape).reshape(2, 1, -1)
        first = bounds - padded[:, [0, 0, 2, 2]]
        usable &= ~((f >= first[:, :1]) & (f < first[:, 1:2]) & (s >= first[:, 2:3]) & (s < first[:, 3:]))
    counts = np.where(usable, counts, 0.0)
    sd = np.asarray(readout_sd, dtype=float)
    variance = np.broadcast_to(sd**2 if sd.ndim == 0 else sd[index] ** 2, counts.shape)
    design, blocks = _centred_design(shape), _block_matrix(shape)
    grid = np.indices(shape).reshape(2, -1)
    offset = grid[::-1, None, :] + 0.5 + (padded[:, [0, 2]] - centre[:n]).T[:, :, None]
    distance = np.hypot(offset[0], offset[1])
    ring = distance.astype(np.int64)
    half_side = 0.5 * np.minimum(padded[:, 1] - padded[:, 0], padded[:, 3] - padded[:, 2])
    largest = np.maximum(smallest_radius[:n], 0.8 * half_side)
    shifted = counts + variance
    radius, spread = smallest_radius.copy(), np.ones(n)
    used, free_before = np.zeros_like(usable), np.zeros_like(usable)
    changed, floor = np.ones(n, dtype=bool), np.zeros(n)
    clear = usable & ~paint_discs(layout, panel, centre, radius)[index]
    tilt = _starting_planes(counts, clear, variance, design, blocks)
    for _ in range(PASSES):
        covered = paint_discs(layout, panel, centre, radius)[index]
        free = usable & ~covered
        todo: Any = np.flatnonzero(changed | np.any(free != free_before, axis=1))
        if len(todo) == 0:
            break
        if len(todo) == n:
            todo = slice(n)  # views instead of copies
        free_before = free
        model = np.maximum(tilt[todo] @ design.T, floor[todo, None]) + variance[todo]
        cube = (-1, *shape)
        found = footprints(
            shifted[todo].reshape(cube), model.reshape(cube), free[todo].reshape(cube), SPOT_Z * np.sqrt(spread[todo])
        )
        now = free[todo] & ~found.reshape(model.shape)
        changed[:] = False
        changed[todo] = np.any(now != used[todo], axis=1)
        used[todo] = now
        tilt[todo], _ = solve_planes(counts[todo], now, variance[todo], design, tilt[todo], 4)
        plane = tilt[todo] @ design.T
        floor[todo] = floor_of_planes(counts[todo], now)
        model = np.maximum(plane, floor[todo, None]) + variance[todo]
        residual = counts[todo] - plane
        chi = np.sum(now * residual**2 / model, axis=1) / np.maximum(now.sum(axis=1) - 3, 1)
        spread[todo] = np.clip(chi, 1.0, 4.0)
        own = usable[todo] & ~(covered[todo] & (distance[todo] >= radius[todo, None]))
        least, most = smallest_radius[todo], largest[todo]
        reach = clear_radius(shifted[todo], model, own, ring[todo], least, most, RING_Z * np.sqrt(spread[todo]))
        leak = LEAK * np.sqrt(np.sum(now * model, axis=1)) + 0.1
        tail = expected_reach(residual, model, own & (distance[todo] < least[:, None]), offset[:, todo], leak)
        radius[todo] = np.minimum(np.maximum(reach, tail), most)
    tilt, information = solve_planes(counts, used, variance, design, tilt)
    to_pixels = _to_pixels(shape)
    box = (bounds - padded[:, [0, 0, 2, 2]] - np.array([0, 1, 0, 1])).astype(float)
    corners = np.stack([np.stack([f, s, np.ones(n)], axis=1) for f in box.T[:2] for s in box.T[2:]], axis=1)
    tilt, covariance, reason, chi, misfit = judge_planes(
        counts, used, variance, design, blocks, tilt, information, corners @ to_pixels, clear, shape, settings
    )
    return Planes(
        tilt=tilt @ to_pixels.T,
        covariance=to_pixels @ covariance @ to_pixels.T,
        reason=reason,
        used=used.reshape(n, *shape),
        spot_radius=radius[:n],
        reduced_chi_square=chi,
        misfit=misfit,
    )

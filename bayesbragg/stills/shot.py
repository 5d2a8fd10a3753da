"""From a raw image and its reflections to a `Shot`: boxes, background planes, trust, and reasons for what is left out.

Raw values (detector units, ADU) over the gain (ADU per photon) are photons; so is the readout noise. Boxes stand in the
order of their reflections. Background planes are ours (``poisson``, the default) or the classic program's
(``classic``), whose trust in pixels is then the classic one too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bayesbragg.model import Beam, Detector, Reflections, Shot
from bayesbragg.model.errors import InputError
from bayesbragg.stills.background import Planes, poisson_planes
from bayesbragg.stills.box_report import BoxReport, Reasons
from bayesbragg.stills.boxes import (
    BoxReason,
    BoxSettings,
    PanelLayout,
    centroid_boxes,
    momentum_boxes,
    padded_bounds,
    separate_boxes,
)
from bayesbragg.stills.classic_background import classic_planes, is_outlier
from bayesbragg.stills.selection import (
    duplicates,
    inverse_spacing,
    lattice_numbers,
    outside_ranges,
    spot_positions,
)

__all__ = ["BoxReport", "make_shot"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
PanelArrays = npt.NDArray[np.generic] | Sequence[npt.NDArray[np.generic]]


def _flat(panels: PanelArrays, detector: Detector, what: str) -> npt.NDArray[np.generic]:
    """Panels as one flat array, after a look at their shapes."""
    if len(panels) != detector.n_panels:
        raise InputError(f"{what}: {len(panels)} panels, but the detector has {detector.n_panels}")
    for number, (panel, (fast, slow)) in enumerate(zip(panels, detector.image_size.tolist(), strict=True)):
        if np.shape(panel) != (slow, fast):
            shape = f"panel {number} has {np.shape(panel)} (slow, fast) pixels"
            raise InputError(f"{what}: {shape}, but the detector model says {(slow, fast)}; use the image's own model")
    return PanelLayout.flatten(panels)


def _in_range(
    pixels: npt.NDArray[np.generic], detector: Detector, layout: PanelLayout, settings: BoxSettings
) -> BoolArray:
    """Pixels inside the trusted range of their panel, flat."""
    result = np.empty(len(pixels), dtype=bool)
    for number, limits in enumerate(detector.trusted_range):
        low, high = limits if settings.trusted_range is None else settings.trusted_range
        part = slice(int(layout.offset[number]), int(layout.offset[number + 1]))
        with np.errstate(invalid="ignore"):
            result[part] = np.greater_equal(pixels[part], low) & np.less_equal(pixels[part], high)
    return result


def _cut(
    rows: IntArray,
    position: FloatArray,
    panel: IntArray,
    reflections: Reflections,
    detector: Detector,
    beam: Beam | None,
    layout: PanelLayout,
    settings: BoxSettings,
) -> tuple[IntArray, BoolArray, FloatArray]:
    """Boxes of the chosen rows (zeros elsewhere), whether an edge cuts them, and their side before any shrinking."""
    n = len(position)
    bounds, cut = np.zeros((n, 4), np.int64), np.zeros(n, dtype=bool)
    side = np.full(n, float(settings.shoebox_size))
    if settings.deltaQ is None:
        boxes, cut[rows] = centroid_boxes(position[rows], layout.size[panel[rows]], settings.shoebox_size)
    else:
        if beam is None:
            raise InputError(f"roi.deltaQ={settings.deltaQ}: box sizes need the beam's wavelength; hand over the beam")
        q = inverse_spacing(reflections, position, detector, beam)
        boxes, cut[rows] = momentum_boxes(
            position[rows], q[rows], panel[rows], detector, beam.wavelength_A, settings.deltaQ
        )
        side[rows] = np.maximum(boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2])
    bounds[rows] = boxes if settings.allow_overlapping_spots else separate_boxes(boxes, panel[rows], layout)
    return bounds, cut, side


def make_shot(
    image: PanelArrays,
    detector: Detector,
    reflections: Reflections,
    settings: BoxSettings | None = None,
    *,
    gain: float = 1.0,
    sigma_readout_adu: float = 3.0,
    mask: PanelArrays | None = None,
    dark_rms_adu: PanelArrays | None = None,
    background: str = "poisson",
    background_mask: PanelArrays | None = None,
    beam: Beam | None = None,
    other_spots: tuple[IntArray, FloatArray] | None = None,
) -> tuple[Shot, BoxReport]:
    """Cut the boxes of a still and estimate their background.

    Args:
        image: raw pixel values of each panel, ``(n_slow, n_fast)``; pixels that are not a number are not trusted.
        detector: panel sizes, trusted ranges, and positions where ``roi.deltaQ`` asks for them.
        reflections: spots with ``panel``, ``miller_index`` and a centroid; unindexed ones (0, 0, 0) get no box but are
            kept out of the background of others.
        settings: rules of boxes and background.
        gain: detector units per photon.
        sigma_readout_adu: standard deviation of the readout noise, detector units.
        mask: True for good pixels, panels as in ``image``.
        dark_rms_adu: standard deviation of the readout noise of each pixel, detector units, instead of one number.
        background: ``poisson`` or ``classic``; or ``inferred``, which is ``poisson`` without the pixels of the box
            itself: a prior for planes that are inferred from those. With ``classic``, pixels that lie below zero by
            more than the readout variance are not trusted either.
        background_mask: True for pixels that hold background only, panels as in ``image``.
        beam: needed by ``roi.deltaQ``, and by resolution ranges where reflections have no ``rlp``.
        other_spots: panel ``(m,)`` and fast, slow position ``(m, 2)`` of further known or predicted spots, which are
            kept out of the background (`poisson` only).

    Returns:
        The boxes of the selected reflections, with ``tilt`` counted from the first pixel of each padded box, and a
        report on every reflection.

    Raises:
        InputError: missing columns, arrays that do not fit the detector, or no usable box.
    """
    settings = settings or BoxSettings()
    if background not in ("poisson", "classic", "inferred"):
        raise InputError(f"background={background}: expected poisson, classic or inferred")
    if not gain > 0:
        raise InputError(f"gain={gain}: expected detector units per photon, above 0")
    if len(reflections) == 0:
        raise InputError("the shot has no reflections, so no box can be cut; find and index spots first")
    position = spot_positions(reflections, settings)
    n = len(position)
    panel = np.asarray(reflections["panel"], dtype=np.int64)
    strange = (panel < 0) | (panel >= detector.n_panels)
    if np.any(strange):
        raise InputError(
            f"reflections name panel {panel[strange][0]}, but the detector has panels 0 to {detector.n_panels - 1}; "
            "give the reflections of this detector"
        )
    layout = PanelLayout.of_sizes(detector.image_size)
    pixels = _flat(image, detector, "image")
    good = np.ones(len(pixels), dtype=bool) if mask is None else _flat(mask, detector, "mask").astype(bool)
    hint = None if background_mask is None else _flat(background_mask, detector, "background mask").astype(bool)
    readout: float | FloatArray = float(sigma_readout_adu / gain)
    if dark_rms_adu is not None:
        readout = _flat(dark_rms_adu, detector, "dark RMS").astype(np.float64) / gain

    rules = Reasons(n)
    rules.reject(~np.any(np.asarray(reflections["miller_index"]) != 0, axis=1), BoxReason.NOT_INDEXED)
    if settings.strong_only and "is_strong" in reflections:
        rules.reject(~np.asarray(reflections["is_strong"], dtype=bool), BoxReason.NOT_STRONG)
    size = layout.size[panel]
    rules.reject(~np.all((position > -1) & (position < size + 1), axis=1), BoxReason.BAD_POSITION)
    rows = np.flatnonzero(rules.open)
    bounds, cut, side = _cut(rows, position, panel, reflections, detector, beam, layout, settings)
    padded = np.where(rules.open[:, None], padded_bounds(bounds, size, settings.pad), 0)
    width = bounds[:, [3, 1]] - bounds[:, [2, 0]]
    least = settings.shoebox_size if settings.deltaQ is None else 1
    shape = (max(least, int(width[:, 0].max())), max(least, int(width[:, 1].max())))
    index, inside = layout.box_pixels(panel, bounds, shape)
    index, inside = index.reshape(n, -1), inside.reshape(n, -1)
    if settings.reject_edge_reflections:
        rules.reject(cut, BoxReason.EDGE)
    masked = np.sum(inside & ~good[index], axis=1)
    if settings.reject_roi_with_hotpix:
        rules.reject(masked > 0, BoxReason.HOT_PIXEL)
    rules.reject(masked > settings.min_trusted_pix_per_roi, BoxReason.TOO_MANY_HOT)
    rules.reject(width.min(axis=1) < 2, BoxReason.TOO_SMALL)

    in_range = _in_range(pixels, detector, layout, settings) if settings.mask_outside_trusted_range else None
    tilt, covariance, quality = np.zeros((n, 3)), np.full((n, 3, 3), np.nan), np.full((3, n), np.nan)
    verdict = np.full(n, BoxReason.SELECTED, dtype=object)
    if background == "classic":
        classic = classic_planes(pixels, layout, panel[rows], padded[rows], settings, readout, hint, gain)
        tilt[rows], covariance[rows], verdict[rows] = classic.tilt, classic.covariance, classic.reason
    else:
        usable = good if in_range is None else good & in_range
        usable = usable if hint is None else usable & hint
        rows = rows[width[rows].min(axis=1) > 0]
        if len(rows):
            planes = _our_planes(
                pixels, usable, layout, rows, panel, position, bounds, side, other_spots, settings, readout, gain,
                around=background == "inferred",
            )  # fmt: skip
            tilt[rows], covariance[rows], verdict[rows] = planes.tilt, planes.covariance, planes.reason
            quality[:, rows] = planes.spot_radius, planes.reduced_chi_square, planes.misfit
    for why in BoxReason:
        rules.reject(verdict == why, why)
    if settings.remove_duplicates:
        rules.reject(duplicates(reflections), BoxReason.DUPLICATE)
    if settings.panels is not None:
        rules.reject(outside_ranges(panel, settings.panels, "roi.panels"), BoxReason.PANEL)
    if settings.res_ranges is not None:
        with np.errstate(divide="ignore"):
            d = 1.0 / inverse_spacing(reflections, position, detector, beam)
        rules.reject(outside_ranges(d, settings.res_ranges, "refiner.res_ranges", half_open=True), BoxReason.RESOLUTION)

    counts = pixels[index].astype(np.float64) / gain
    trusted = inside & good[index] & np.isfinite(counts)
    if in_range is not None:
        outside = inside & ~in_range[index]
        if settings.mask_all_if_any_outside_trusted_range:
            outside |= outside.any(axis=1, keepdims=True)
        trusted &= ~outside
    counts = np.where(inside & np.isfinite(counts), counts, 0.0)
    sd = readout if isinstance(readout, float) else np.where(inside, readout[index], 0.0)
    step = np.indices(shape).reshape(2, 1, -1)
    fast = step[1] + (bounds[:, :1] - padded[:, :1])
    slow = step[0] + (bounds[:, 2:3] - padded[:, 2:3])
    plane = np.where(inside, tilt[:, :1] * fast + tilt[:, 1:2] * slow + tilt[:, 2:], 0.0)
    if background == "classic":
        trusted &= counts + sd**2 >= 0
    if background != "classic" or settings.skip_roi_with_negative_bg:
        trusted &= plane >= 0
    if settings.filter_bright_peaks is not None and np.any(rules.open):
        peak = np.max(np.where(trusted, counts, -np.inf), axis=1)
        bright = np.zeros(n, dtype=bool)
        seen = rules.open & np.isfinite(peak)
        bright[seen] = is_outlier(peak[seen], settings.filter_bright_peaks)
        rules.reject(bright, BoxReason.BRIGHT)
    rules.reject(~trusted.any(axis=1), BoxReason.NO_TRUSTED)
    if settings.fraction is not None:
        chosen = np.flatnonzero(rules.open)
        keep = max(1, round(len(chosen) * settings.fraction))
        lost = np.random.default_rng(settings.fraction_seed).permutation(chosen)[keep:]
        rules.reject(np.isin(np.arange(n), lost), BoxReason.FRACTION)

    report = BoxReport(rules.reason, bounds, padded, tilt, covariance, quality[0], quality[1], quality[2])
    keep_rows = np.flatnonzero(rules.open)
    if len(keep_rows) == 0:
        raise InputError(f"the shot has no usable box ({report.summary()}); see the roi settings")
    shot = Shot(
        panel=panel[keep_rows],
        bounds=bounds[keep_rows],
        shape=shape,
        counts=counts[keep_rows],
        background=plane[keep_rows],
        trusted=trusted[keep_rows],
        readout_sd=np.asarray(sd if isinstance(sd, float) else sd[keep_rows]),
        miller_index=np.asarray(reflections["miller_index"], dtype=np.int64)[keep_rows],
        reflection_row=keep_rows,
        lattice=lattice_numbers(reflections)[keep_rows],
        tilt=tilt[keep_rows],
    )
    return shot, report


def _our_planes(
    pixels: npt.NDArray[np.generic],
    usable: BoolArray,
    layout: PanelLayout,
    rows: IntArray,
    panel: IntArray,
    position: FloatArray,
    bounds: IntArray,
    side: FloatArray,
    other_spots: tuple[IntArray, FloatArray] | None,
    settings: BoxSettings,
    readout: float | FloatArray,
    gain: float,
    *,
    around: bool,
) -> Planes:
    """Likelihood planes of the boxes in ``rows``, clear of their own, of unboxed and of further spots."""
    rest = np.setdiff1d(np.flatnonzero(np.all(np.isfinite(position), axis=1)), rows)
    order = np.concatenate([rows, rest])
    all_panel, all_position = panel[order], position[order]
    all_side = np.concatenate([side[rows], np.full(len(rest), np.median(side[rows]))])
    if other_spots is not None:
        all_panel = np.concatenate([all_panel, np.asarray(other_spots[0], dtype=np.int64)])
        all_position = np.concatenate([all_position, np.asarray(other_spots[1], dtype=np.float64)])
        all_side = np.concatenate([all_side, np.full(len(all_panel) - len(all_side), np.median(all_side))])
    return poisson_planes(
        pixels,
        usable,
        layout,
        all_panel,
        bounds[rows],
        all_position,
        settings.clear_radius(all_side),
        settings,
        readout,
        gain,
        around=around,
    )

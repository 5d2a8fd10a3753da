"""Boxes: which pixels around a reflection take part, and why a reflection's box is left out.

A box is a rectangle ``f1, f2, s1, s2`` (half open) on one panel, centred on the spot. The rules of size, edge and
overlap are those of the classic diffBragg, so that the same reflections give the same boxes. Positions and sizes are
in pixels; centroids count from the outer corner of the first pixel, whose centre is at 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from bayesbragg.model import Detector
from bayesbragg.model.errors import InputError

__all__ = [
    "BoxReason",
    "BoxSettings",
    "PanelLayout",
    "centroid_boxes",
    "momentum_boxes",
    "padded_bounds",
    "parse_ranges",
    "separate_boxes",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class BoxReason(Enum):
    """What became of a reflection: the first rule that left its box out, or ``SELECTED``."""

    SELECTED = "selected"
    NOT_INDEXED = "not indexed"
    NOT_STRONG = "not marked as strong"
    BAD_POSITION = "centroid is not a number or off its panel"
    EDGE = "cut by the panel's edge"
    HOT_PIXEL = "masked pixel in the box"
    TOO_MANY_HOT = "too many masked pixels in the box"
    TOO_SMALL = "less than two pixels wide"
    NO_FIT = "no background plane could be fitted"
    NOT_A_NUMBER = "background is not a number"
    NEGATIVE = "background below zero"
    FEW_PIXELS = "too few background pixels"
    CONTRADICTED = "background pixels contradict a plane"
    NO_TRUSTED = "no trusted pixel in the box"
    BRIGHT = "peak is an outlier among the shot's peaks"
    DUPLICATE = "Miller index occurs more than once"
    RESOLUTION = "outside the resolution ranges"
    PANEL = "panel not chosen"
    FRACTION = "left out by random thinning"


@dataclass(frozen=True)
class BoxSettings:
    """How boxes are cut and their background estimated. Names are those of the classic ``roi`` scope where it has one.

    Attributes:
        shoebox_size: side of a box, pixels.
        deltaQ: side of a box in momentum transfer, 1/angstrom (with the factor 2 pi); replaces ``shoebox_size`` and
            makes boxes at higher angles larger.
        centroid: column of the spot positions, ``obs`` (xyzobs.px.value), ``cal`` (xyzcal.px) or ``bbox`` (its middle).
        pad_shoebox_for_background_estimation: pixels added on each side for the background fit alone; None is 0.
        fit_tilt: a plane (True) or a constant, classic background only; ours is always a plane.
        fit_tilt_using_weights: classic weights, classic background only.
        background_threshold: classic outlier threshold, in modified z-scores, classic background only.
        only_filter_zingers_above_mean: remove bright outliers only, classic background only.
        force_negative_background_to_zero: classic constant background only.
        skip_roi_with_negative_bg: leave out boxes whose background falls below zero.
        reject_edge_reflections: leave out boxes cut by a panel edge.
        reject_roi_with_hotpix: leave out boxes with any masked pixel.
        min_trusted_pix_per_roi: the largest number of masked pixels in a box, whatever ``reject_roi_with_hotpix`` says
            (the name is the classic one).
        allow_overlapping_spots: let boxes overlap; otherwise a box shrinks until it is free of earlier ones.
        mask_outside_trusted_range: mistrust pixels outside the trusted range (classic default: False).
        mask_all_if_any_outside_trusted_range: then mistrust the whole box (classic default: True).
        trusted_range: smallest and largest trusted raw value, detector units, instead of the panel's own.
        panels: panels to use, such as ``"0-8,10"`` (inclusive); None uses all.
        strong_only: keep only reflections whose ``is_strong`` column is true, where there is one.
        fraction: keep this fraction of the selected boxes, chosen with ``fraction_seed``; None keeps all.
        fraction_seed: seed of that choice.
        filter_bright_peaks: leave out boxes whose brightest pixel has a modified z-score above this among the shot's
            boxes; None never does.
        res_ranges: resolution ranges to keep, angstrom, such as ``"1.75-999"`` or ``"2-3,4-5"``; None keeps all.
        remove_duplicates: leave out every reflection whose Miller index occurs more than once in its lattice.
        spot_radius: smallest radius around every spot that the background fit keeps clear of, pixels; None is half a
            box, or less where the padding is thin.
        min_background_pixels: fewest background pixels for a plane.
        max_background_misfit: largest departure of the background from its plane, relative to the plane's level, that
            is accepted once it is significant.
    """

    shoebox_size: int = 12
    deltaQ: float | None = None
    centroid: str = "obs"
    pad_shoebox_for_background_estimation: int | None = 10
    fit_tilt: bool = True
    fit_tilt_using_weights: bool = False
    background_threshold: float = 3.5
    only_filter_zingers_above_mean: bool = True
    force_negative_background_to_zero: bool = False
    skip_roi_with_negative_bg: bool = True
    reject_edge_reflections: bool = False
    reject_roi_with_hotpix: bool = True
    min_trusted_pix_per_roi: int = 4
    allow_overlapping_spots: bool = False
    mask_outside_trusted_range: bool = True
    mask_all_if_any_outside_trusted_range: bool = False
    trusted_range: tuple[float, float] | None = None
    panels: str | None = None
    strong_only: bool = False
    fraction: float | None = None
    fraction_seed: int = 42
    filter_bright_peaks: float | None = None
    res_ranges: str | None = None
    remove_duplicates: bool = True
    spot_radius: float | None = None
    min_background_pixels: int = 30
    max_background_misfit: float = 0.05

    def __post_init__(self) -> None:
        if self.shoebox_size < 2:
            raise InputError(f"roi.shoebox_size={self.shoebox_size}: expected at least 2 pixels; 10 to 20 is usual")
        if self.deltaQ is not None and not self.deltaQ > 0:
            raise InputError(f"roi.deltaQ={self.deltaQ}: expected a positive width in 1/angstrom, or None")
        if self.centroid not in ("obs", "cal", "bbox"):
            raise InputError(f"roi.centroid={self.centroid}: expected obs, cal or bbox")
        if self.pad < 0:
            raise InputError(f"roi.pad_shoebox_for_background_estimation={self.pad}: expected 0 or more pixels")
        if self.trusted_range is not None and not self.trusted_range[0] < self.trusted_range[1]:
            raise InputError(f"roi.trusted_range={self.trusted_range}: the first number must be below the second")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise InputError(f"roi.fraction={self.fraction}: expected a number above 0 and up to 1, or None")
        for name in ("panels", "res_ranges"):
            if getattr(self, name) is not None:
                parse_ranges(getattr(self, name), name)

    @property
    def pad(self) -> int:
        """Padding on each side, pixels."""
        return self.pad_shoebox_for_background_estimation or 0

    def clear_radius(self, side: npt.ArrayLike) -> FloatArray:
        """Smallest radius around a spot that the background of a box of this side keeps clear of, pixels."""
        half = 0.5 * np.asarray(side, dtype=float)
        if self.spot_radius is not None:
            return np.full(half.shape, self.spot_radius)
        return np.asarray(np.minimum(half, 0.6 * (half + self.pad)))


def parse_ranges(text: str, name: str = "ranges") -> list[tuple[float, float]]:
    """Pairs of numbers from text such as ``"0-8,10"``; a single number stands for both ends.

    Raises:
        InputError: a part is not a number or a range of two.
    """
    result = []
    for part in text.replace(" ", "").split(","):
        try:
            numbers = [float(number) for number in part.split("-")]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 2) or numbers[0] > numbers[-1]:
            raise InputError(f"{name}={text}: {part!r} is not a range; expected a list such as 0-8,10")
        result.append((numbers[0], numbers[-1]))
    return result


@dataclass(frozen=True, eq=False)
class PanelLayout:
    """Where the pixels of panels of any size lie in one flat array: panel by panel, slow outer, fast inner.

    Attributes:
        size: fast and slow pixels of each panel, ``(n_panels, 2)``.
        offset: flat index of each panel's first pixel, ``(n_panels + 1,)``; the last one is the number of pixels.
    """

    size: IntArray
    offset: IntArray

    @classmethod
    def of_sizes(cls, size: npt.ArrayLike) -> PanelLayout:
        """From fast and slow pixels of each panel, ``(n_panels, 2)``."""
        size = np.array(size, dtype=np.int64)
        return cls(size, np.concatenate([[0], np.cumsum(size[:, 0] * size[:, 1])]))

    @staticmethod
    def flatten(panels: npt.NDArray[np.generic] | Sequence[npt.NDArray[np.generic]]) -> npt.NDArray[np.generic]:
        """Pixels of all panels, ``(n_pixels,)``; no copy for a contiguous ``(n_panels, n_slow, n_fast)`` array."""
        if isinstance(panels, np.ndarray):
            return panels.reshape(-1)
        return np.concatenate([np.ravel(panel) for panel in panels])

    def box_pixels(self, panel: IntArray, bounds: IntArray, shape: tuple[int, int]) -> tuple[IntArray, BoolArray]:
        """Flat pixel indices of boxes padded on the high side to ``shape`` (n_slow, n_fast).

        Returns:
            Indices and whether the pixel is in its box, both ``(n_boxes, n_slow, n_fast)``; indices of pixels outside
            their box are 0.
        """
        slow = bounds[:, 2, None, None] + np.arange(shape[0])[:, None]
        fast = bounds[:, 0, None, None] + np.arange(shape[1])
        inside = (slow < bounds[:, 3, None, None]) & (fast < bounds[:, 1, None, None])
        index = self.offset[panel][:, None, None] + slow * self.size[panel, 0][:, None, None] + fast
        return np.where(inside, index, 0), inside


def centroid_boxes(centroid: FloatArray, size: IntArray, side: int) -> tuple[IntArray, BoolArray]:
    """Boxes of a fixed side around centroids.

    Args:
        centroid: fast and slow position, pixels from the outer corner, ``(n, 2)``.
        size: fast and slow pixels of each reflection's panel, ``(n, 2)``.
        side: side of the box, pixels.

    Returns:
        f1, f2, s1, s2 ``(n, 4)``, and whether the panel's edge cuts the box ``(n,)``. The last row and column of a
        panel are never in a box, as in the classic program.
    """
    centre = centroid - 0.5
    low = np.maximum(centre - side / 2.0, 0.0).astype(np.int64)
    high = np.trunc(np.minimum(centre + side / 2.0, size - 1)).astype(np.int64)
    bounds = np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)
    return bounds, np.asarray(np.any(high - low < side - 1, axis=1))


def momentum_boxes(
    centroid: FloatArray, q: FloatArray, panel: IntArray, detector: Detector, wavelength_A: float, deltaQ: float
) -> tuple[IntArray, BoolArray]:
    """Boxes whose diagonal spans a width in momentum transfer.

    With Q = 2 pi / d, the radius on a flat detector at distance L is L tan(2 arcsin(Q wavelength / 4 pi)); the side is
    the difference of the radii at Q +- deltaQ/2 over sqrt(2).

    Args:
        centroid: fast and slow position, pixels from the outer corner, ``(n, 2)``.
        q: 1/d of each reflection, 1/angstrom, ``(n,)``.
        panel: panel numbers, ``(n,)``.
        detector: gives distance, pixel size and panel size.
        wavelength_A: wavelength, angstrom.
        deltaQ: width, 1/angstrom.

    Returns:
        As `centroid_boxes`; the box may reach the panel's last pixel.
    """
    distance = np.abs(np.sum(detector.origin_mm * detector.normal, axis=1))[panel] / detector.pixel_size_mm[panel, 0]
    edges = 2 * np.pi * q[:, None] + 0.5 * deltaQ * np.array([-1.0, 1.0])
    with np.errstate(invalid="ignore"):
        radius = distance[:, None] * np.tan(2 * np.arcsin(edges * wavelength_A / (4 * np.pi)))
        half = np.round((radius[:, 1] - radius[:, 0]) / np.sqrt(2.0) / 2.0)
    half = np.where(np.isfinite(half), half, 0.0)[:, None]
    size = detector.image_size[panel]
    cut = np.any((centroid - half < 0) | (centroid + half >= size), axis=1)
    low = np.maximum(np.trunc(centroid - half).astype(np.int64), 0)
    high = np.minimum(np.trunc(centroid + half).astype(np.int64), size)
    return np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1), np.asarray(cut)


def separate_boxes(bounds: IntArray, panel: IntArray, layout: PanelLayout) -> IntArray:
    """Shrink each box until it shares no pixel with an earlier one, alternately from its low and its high corner.

    Args:
        bounds: f1, f2, s1, s2, ``(n, 4)``, in the order of precedence.
        panel: panel numbers, ``(n,)``.
        layout: sizes of the panels.

    Returns:
        The boxes that remain, ``(n, 4)``; some may be empty.
    """
    taken: dict[int, BoolArray] = {}
    result = np.array(bounds, dtype=np.int64)
    for i, (p, row) in enumerate(zip(panel.tolist(), bounds.tolist(), strict=True)):
        occupied = taken.get(p)
        if occupied is None:
            occupied = taken[p] = np.zeros((layout.size[p, 1], layout.size[p, 0]), dtype=bool)
        f1, f2, s1, s2 = row
        while occupied[s1:s2, f1:f2].any():
            if (f1 + f2) % 2:
                f1, s1 = f1 + 1, s1 + 1
            else:
                f2, s2 = f2 - 1, s2 - 1
        occupied[s1:s2, f1:f2] = True
        result[i] = f1, f2, s1, s2
    return result


def padded_bounds(bounds: IntArray, size: IntArray, pad: int) -> IntArray:
    """Boxes with a margin, cut at the panel's edge: ``(n, 4)`` from boxes ``(n, 4)`` and panel sizes ``(n, 2)``."""
    low = np.maximum(bounds[:, [0, 2]] - pad, 0)
    high = np.minimum(bounds[:, [1, 3]] + pad, size)
    return np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)

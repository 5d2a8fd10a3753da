"""The detector of a report as SVG: panels, each reflection coloured by its offset, each panel's median as an arrow.

The view is along the beam, laboratory x to the right and y up. Reflections of one range of offsets are one path of
dots, so that ten thousand of them stay a small file; where there are more, a random part is drawn and said so.
"""

from __future__ import annotations

from html import escape

import numpy as np
import numpy.typing as npt

from bayesbragg.diagnostics.detector_plot import label_places, panel_outlines
from bayesbragg.diagnostics.figure_style import round_down
from bayesbragg.diagnostics.offsets import Offsets
from bayesbragg.diagnostics.report_numbers import number
from bayesbragg.model import Detector

__all__ = ["colour_key", "colour_limits", "detector_map", "panel_medians"]

FloatArray = npt.NDArray[np.float64]

SIZE = 640.0
N_COLOURS = 6
MOST_DOTS = 12000
LEAST_FOR_ARROW = 5


def colour_limits(offsets: Offsets) -> FloatArray:
    """Lower limits of the ranges of offsets that share a colour, micrometre, ``(N_COLOURS,)``."""
    if not len(offsets):
        return np.arange(N_COLOURS, dtype=np.float64)
    top = max(float(np.percentile(offsets.overall_um, 95)), 1e-6)
    step = top / (N_COLOURS - 1)
    power = 10.0 ** np.floor(np.log10(step))
    rounded = next(s * power for s in (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0) if s * power >= step * 0.999)
    return np.asarray(rounded * np.arange(N_COLOURS))


def colour_key(limits: FloatArray) -> str:
    """A list that says which colour is which range."""
    items = []
    for i, low in enumerate(limits):
        text = f"{number(low)}–{number(limits[i + 1])}" if i + 1 < len(limits) else f"over {number(low)}"
        items.append(f'<li><i class="block" style="background:var(--q{i})"></i>{escape(text)} µm</li>')
    return f'<ul class="key">{"".join(items)}</ul>'


def panel_medians(offsets: Offsets, n_panels: int) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Reflections of each panel, and their median offset in laboratory x and y, ``(n_panels, 2)`` micrometre; not a
    number where there are too few."""
    counts = np.bincount(offsets.panel, minlength=n_panels)
    medians = np.full((n_panels, 2), np.nan)
    for panel in np.flatnonzero(counts >= LEAST_FOR_ARROW):
        medians[panel] = np.median(offsets.offset_um[offsets.panel == panel, :2], axis=0)
    return counts, medians


def detector_map(detector: Detector, offsets: Offsets, limits: FloatArray, label: str) -> tuple[str, str]:
    """The drawing, and a sentence about its arrows.

    Args:
        limits: of `colour_limits`; the same for drawings that are to be compared.
        label: what the picture shows, for screen readers.
    """
    outlines = panel_outlines(detector)
    low, high = outlines.reshape(-1, 2).min(0), outlines.reshape(-1, 2).max(0)
    scale = (SIZE - 16) / float((high - low).max())
    size = (high - low) * scale + 16

    def place(points: npt.ArrayLike) -> FloatArray:
        xy = np.asarray(points, dtype=np.float64)
        return np.stack([(xy[..., 0] - low[0]) * scale + 8, (high[1] - xy[..., 1]) * scale + 8], axis=-1)

    counts, medians = panel_medians(offsets, detector.n_panels)
    body = []
    for panel, corners in enumerate(place(outlines)):
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in corners) + "Z"
        tip = f"panel {panel}: {counts[panel]} reflections"
        if np.isfinite(medians[panel, 0]):
            tip += f", median x {number(medians[panel, 0], 3)} µm, y {number(medians[panel, 1], 3)} µm"
        body.append(f'<path class="panel" d="{path}"><title>{escape(tip)}</title></path>')
    rows = np.arange(len(offsets))
    if len(rows) > MOST_DOTS:
        rows = np.sort(np.random.default_rng(0).choice(len(rows), MOST_DOTS, replace=False))
    colour = np.clip(np.searchsorted(limits, offsets.overall_um[rows], side="right") - 1, 0, N_COLOURS - 1)
    at = place(offsets.lab_mm[rows, :2])
    width = float(np.clip(150 / np.sqrt(max(len(rows), 1)), 2.2, 6.0))
    for c in range(N_COLOURS):
        dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in at[colour == c])
        if dots:
            body.append(f'<path class="dots q{c}" stroke-width="{width:.1f}" d="{dots}"/>')
    if detector.n_panels > 1:
        high_px = float(np.clip(0.2 * scale * _side(outlines), 8.5, 16.0))
        for panel, (x, y) in enumerate(place(label_places(outlines))):
            body.append(
                f'<text x="{x:.1f}" y="{y + 0.9 * high_px:.1f}" style="font-size:{high_px:.1f}px">{panel}</text>'
            )
    arrows, sentence = _arrows(place(outlines.mean(axis=1)), medians, scale, outlines)
    body += arrows
    (x, y) = place(np.zeros(2))
    body.append(f'<path class="arrow" d="M{x - 6:.1f} {y:.1f}h12M{x:.1f} {y - 6:.1f}v12"/>')
    svg = (
        f'<svg class="chart" viewBox="0 0 {size[0]:.0f} {size[1]:.0f}" role="img" aria-label="{escape(label)}">'
        f"{''.join(body)}</svg>"
    )
    if len(offsets) > MOST_DOTS:
        sentence += f" {MOST_DOTS} of {len(offsets)} reflections are drawn."
    return svg, sentence


def _side(outlines: FloatArray) -> float:
    """Side of a square as large as the panels usually are, millimetre."""
    return float(np.sqrt(np.median(np.prod(np.ptp(outlines, axis=1), axis=1))))


def _arrows(centres: FloatArray, medians: FloatArray, scale: float, outlines: FloatArray) -> tuple[list[str], str]:
    known = np.flatnonzero(np.isfinite(medians[:, 0]))
    length = np.linalg.norm(medians[known], axis=1)
    typical = float(np.percentile(length, 90)) if len(known) else 0.0
    if typical <= 0:
        return [], "The cross is the beam."
    magnification = round_down(0.45 * _side(outlines) / (1e-3 * typical))
    body = []
    for panel in known:
        step = medians[panel] * 1e-3 * magnification * scale * np.array([1.0, -1.0])
        far = float(np.hypot(*step))
        if far < 1.0:
            continue
        x, y = centres[panel]
        along = step / far
        across = np.array([-along[1], along[0]])
        head = min(6.0, 0.45 * far)
        tip = np.array([x, y]) + step
        one, other = tip - head * along + 0.5 * head * across, tip - head * along - 0.5 * head * across
        body.append(
            f'<path class="arrow" d="M{x:.1f} {y:.1f}L{tip[0]:.1f} {tip[1]:.1f}M{one[0]:.1f} {one[1]:.1f}'
            f'L{tip[0]:.1f} {tip[1]:.1f}L{other[0]:.1f} {other[1]:.1f}"/>'
        )
    return body, (
        f"Arrows are the median offset of a panel's reflections, drawn {number(magnification)} times its length; "
        "the cross is the beam."
    )

"""Charts of a report as SVG text whose colours come from the page, so that they follow its light or dark theme.

Every chart is drawn in its own coordinates (width 340 for a small one) and scales with the page. Classes such as
``bar``, ``s0`` and ``median`` are those of ``report_assets/style.css``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

from bayesbragg.diagnostics.report_numbers import number, tick_texts, ticks

__all__ = ["curves", "histogram", "whiskers"]

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 8, 8, 12, 28
FEW = 8
"""Values that are drawn one by one; more of them are counted in bars."""
LETTER = 8.0
"""Width of a digit of an axis, with some air; the style's text is 12.5 high."""


def _svg(body: Sequence[str], label: str, width: float = WIDTH, height: float = HEIGHT) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">'
        + "".join(body)
        + "</svg>"
    )


def _x_axis(low: float, high: float, width: float, height: float, left: float, title: str, log: bool) -> list[str]:
    base = height - BOTTOM - (12 if title else 0)
    body = [f'<path class="axis" d="M{left:g} {base:g}H{width - RIGHT:g}"/>']
    if log and high - low < 1.3:
        values = ticks(10.0**low, 10.0**high, 4)
        values = values[values > 0]
        marks, texts = np.log10(values), tick_texts(values)
    elif log:
        marks = ticks(low, high, 4)
        marks = marks[np.isclose(marks, np.round(marks))]
        texts = [number(10.0**v, 2) for v in marks]
    else:
        marks = ticks(low, high, 4)
        texts = tick_texts(marks)
    free = 0.0
    for value, text in zip(marks, texts, strict=True):
        x = left + (value - low) / (high - low) * (width - left - RIGHT)
        body.append(f'<path class="axis" d="M{x:.1f} {base:g}v4"/>')
        # Names stay inside the picture, and one that would run into the name before it is left out.
        half = 0.5 * LETTER * len(text)
        middle = min(max(x, half), width - half)
        if middle - half >= free:
            free = middle + half + LETTER
            body.append(f'<text x="{middle:.1f}" y="{base + 18:g}" text-anchor="middle">{escape(text)}</text>')
    if title:
        body.append(
            f'<text x="{(left + width - RIGHT) / 2:.1f}" y="{height - 3:g}" text-anchor="middle">{escape(title)}</text>'
        )
    return body


def histogram(
    values: npt.ArrayLike,
    label: str,
    *,
    start: float | None = None,
    prior: tuple[float, float] | None = None,
    log: bool = False,
) -> str:
    """How many shots have which value, with the median, the value before the fit, and a suggested prior.

    The central 98 % and a margin are drawn; values outside are counted in the first and last bar. Of `FEW` values and
    less each is a dot.

    Args:
        values: of the shots, ``(n,)``; those that are not finite are left out.
        label: what the picture shows, for screen readers.
        start: marked by a dashed line.
        prior: centre and standard deviation of a normal curve to lay over the bars.
        log: bars of equal width in the logarithm.
    """
    x = np.asarray(values, dtype=np.float64)
    x = x[np.isfinite(x) & ((x > 0) | (not log))]
    if not len(x):
        return ""
    x = np.log10(x) if log else x
    low, high = np.quantile(x, [0.01, 0.99])
    marks = [start] if start is not None and math.isfinite(start) else []
    marks += [prior[0] - 2 * prior[1], prior[0] + 2 * prior[1]] if prior and not log else []
    span = float(high - low)
    for mark in marks:
        # A mark far away must not flatten the bars.
        if low - 1.5 * span <= mark <= high + 1.5 * span:
            low, high = min(low, mark), max(high, mark)
    margin = 0.08 * (high - low) or max(1e-3 * abs(high), 1e-6)
    low, high = float(low - margin), float(high + margin)
    n_bins = int(np.clip(2 * len(x) ** (1 / 3) * 1.3, 6, 36))
    counts, edges = np.histogram(np.clip(x, low, high), bins=n_bins, range=(low, high))
    few = len(x) <= FEW
    height = HEIGHT / 2 if few else HEIGHT
    levels = [int(level) for level in ticks(0.0, float(counts.max()), 3) if level == round(level) and level > 0]
    left_end = LEFT if few else LEFT + 4 + LETTER * max(len(str(level)) for level in levels)
    base, room = height - BOTTOM, height - BOTTOM - TOP - 8
    inner = WIDTH - left_end - RIGHT

    def at(value: float) -> float:
        return left_end + (value - low) / (high - low) * inner

    body = []
    for level in [] if few else levels:
        y = base - room * level / counts.max()
        body.append(f'<path class="rule" d="M{left_end:g} {y:.1f}H{WIDTH - RIGHT:g}"/>')
        body.append(f'<text x="{left_end - 4:g}" y="{y + 4:.1f}" text-anchor="end">{level}</text>')
    for value in np.sort(x) if few else ():
        tip = number(10.0**value if log else float(value), 6)
        body.append(f'<circle class="f0" cx="{at(value):.1f}" cy="{base - 12:g}" r="4.5"><title>{tip}</title></circle>')
    for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True):
        if count and not few:
            tall = room * count / counts.max()
            ends = (10**left, 10**right) if log else (left, right)
            tip = f"{number(ends[0], 5)} to {number(ends[1], 5)}: {count}"
            body.append(
                f'<rect class="bar" x="{at(left) + 0.5:.1f}" y="{base - tall:.1f}" '
                f'width="{max(at(right) - at(left) - 1, 0.6):.1f}" height="{tall:.1f}"><title>{tip}</title></rect>'
            )
    body += _x_axis(low, high, WIDTH, height, left_end, "", log)
    if prior and prior[1] > 0 and not log:
        grid = np.linspace(low, high, 121)
        curve = len(x) * (edges[1] - edges[0]) * np.exp(-0.5 * ((grid - prior[0]) / prior[1]) ** 2)
        curve = curve / (prior[1] * math.sqrt(2 * math.pi))
        curve *= min(1.0, 1.08 * counts.max() / max(curve.max(), 1e-300))
        points = " ".join(f"{at(g):.1f},{base - room * c / counts.max():.1f}" for g, c in zip(grid, curve, strict=True))
        body.append(f'<polyline class="prior" points="{points}"/>')
    if start is not None and low <= (s := math.log10(start) if log and start > 0 else start) <= high:
        body.append(f'<path class="start" d="M{at(s):.1f} {TOP}V{base}"/>')
    middle = float(np.median(x))
    body.append(f'<path class="median" d="M{at(middle):.1f} {TOP - 4}V{base}"/>')
    return _svg(body, label, height=height)


def curves(
    x: Sequence[float],
    series: Sequence[tuple[str, Sequence[float]]],
    label: str,
    *,
    x_texts: Sequence[str] | None = None,
    x_title: str = "",
    y_title: str = "",
    faint: Sequence[int] = (),
    from_zero: bool = True,
    colours: Sequence[int] | None = None,
    width: float = 520,
    height: float = 300,
) -> str:
    """Lines through points.

    Args:
        x: places, ``(n,)``.
        series: name and values ``(n,)`` of each line; gaps where a value is not finite.
        label: what the picture shows, for screen readers.
        x_texts: text of each place, in place of a scale.
        faint: numbers of lines that are dashed.
        from_zero: the scale of y starts at 0.
        colours: number of each line's colour.
    """
    places = np.asarray(x, dtype=np.float64)
    lines = [np.asarray(values, dtype=np.float64) for _, values in series]
    finite = np.concatenate([line[np.isfinite(line)] for line in lines]) if lines else np.zeros(0)
    if not len(finite) or not len(places):
        return ""
    low, high = (0.0 if from_zero else float(finite.min())), float(finite.max())
    margin = 0.06 * (high - low) or max(abs(high) * 0.1, 1e-9)
    low, high = (0.0 if from_zero else low - margin), high + margin
    left, base, top = 52.0, height - BOTTOM - (12 if x_title else 0), TOP + 10.0
    x0, x1 = float(places.min()), float(places.max())
    if x1 == x0:
        x0, x1 = x0 - 0.5, x1 + 0.5
    pad = 0.03 * (x1 - x0)
    x0, x1 = x0 - pad, x1 + pad

    def across(value: float) -> float:
        return left + (value - x0) / (x1 - x0) * (width - left - RIGHT)

    def up(value: float) -> float:
        return base - (value - low) / (high - low) * (base - top)

    body = []
    marks = ticks(low, high, 4)
    for value, text in zip(marks, tick_texts(marks), strict=True):
        body.append(f'<path class="rule" d="M{left:g} {up(value):.1f}H{width - RIGHT:g}"/>')
        body.append(f'<text x="{left - 6:g}" y="{up(value) + 3.8:.1f}" text-anchor="end">{escape(text)}</text>')
    if y_title:
        body.append(f'<text x="0" y="{TOP:g}">{escape(y_title)}</text>')
    if x_texts is None:
        body += _x_axis(x0, x1, width, height, left, x_title, False)
    else:
        body.append(f'<path class="axis" d="M{left:g} {base:g}H{width - RIGHT:g}"/>')
        room = LETTER * (1 + max(map(len, x_texts)))
        every = max(1, math.ceil(len(x_texts) * room / (width - left - RIGHT)))
        # The last one is always named.
        for place, text in list(zip(places, x_texts, strict=True))[(len(x_texts) - 1) % every :: every]:
            body.append(f'<text x="{across(place):.1f}" y="{base + 18:g}" text-anchor="middle">{escape(text)}</text>')
        if x_title:
            middle = (left + width - RIGHT) / 2
            body.append(f'<text x="{middle:.1f}" y="{height - 3:g}" text-anchor="middle">{escape(x_title)}</text>')
    for i, ((name, _), line) in enumerate(zip(series, lines, strict=True)):
        colour = colours[i] if colours is not None else i % 4
        points = [(across(p), up(v)) for p, v in zip(places, line, strict=True) if math.isfinite(v)]
        path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
        dash = " faint" if i in faint else ""
        body.append(f'<path class="curve s{colour}{dash}" d="{path}"><title>{escape(name)}</title></path>')
        if i not in faint and len(points) <= 60:
            for (a, b), v in zip(points, line[np.isfinite(line)], strict=True):
                body.append(
                    f'<circle class="f{colour}" cx="{a:.1f}" cy="{b:.1f}" r="3">'
                    f"<title>{escape(name)}: {number(float(v))}</title></circle>"
                )
    return _svg(body, label, width, height)


def whiskers(
    values: npt.ArrayLike,
    sds: npt.ArrayLike,
    names: Sequence[str],
    label: str,
    *,
    band: tuple[float, float] | None = None,
    band_sds: npt.ArrayLike | None = None,
    line: float | None = None,
) -> str:
    """Values with one standard deviation to each side, in order.

    Args:
        values, sds: ``(n,)``.
        names: of the values, shown where the pointer rests.
        label: what the picture shows, for screen readers.
        band: a range to shade, such as one standard deviation of a prior.
        band_sds: half the width of such a range about 0 for each value, ``(n,)``.
        line: a value to draw across.
    """
    y, sd = np.asarray(values, dtype=np.float64), np.asarray(sds, dtype=np.float64)
    good = np.isfinite(y) & np.isfinite(sd)
    if not good.any():
        return ""
    low, high = float((y - sd)[good].min()), float((y + sd)[good].max())
    if line is not None:
        low, high = min(low, line), max(high, line)
    margin = 0.08 * (high - low) or max(1e-3 * abs(high), 1e-9)
    low, high = low - margin, high + margin
    left, base, top = 58.0, HEIGHT - 10.0, TOP
    step = (WIDTH - left - RIGHT) / len(y)

    def up(value: float) -> float:
        return float(base - (np.clip(value, low, high) - low) / (high - low) * (base - top))

    body = []
    if band is not None:
        body.append(
            f'<rect class="band" x="{left:g}" y="{up(band[1]):.1f}" width="{WIDTH - left - RIGHT:g}" '
            f'height="{max(up(band[0]) - up(band[1]), 0.5):.1f}"/>'
        )
    marks = ticks(low, high, 4)
    for value, text in zip(marks, tick_texts(marks), strict=True):
        body.append(f'<path class="rule" d="M{left:g} {up(value):.1f}H{WIDTH - RIGHT:g}"/>')
        body.append(f'<text x="{left - 6:g}" y="{up(value) + 3.8:.1f}" text-anchor="end">{escape(text)}</text>')
    if band_sds is not None:
        for i, width in enumerate(np.asarray(band_sds, dtype=np.float64)):
            body.append(
                f'<rect class="band" x="{left + i * step:.1f}" y="{up(width):.1f}" width="{step:.1f}" '
                f'height="{max(up(-width) - up(width), 0.5):.1f}"/>'
            )
    if line is not None:
        body.append(f'<path class="start" d="M{left:g} {up(line):.1f}H{WIDTH - RIGHT:g}"/>')
    for i in np.flatnonzero(good).tolist():
        x = left + (i + 0.5) * step
        tip = f"{names[i]}: {number(float(y[i]), 6)} ± {number(float(sd[i]), 2)}"
        body.append(
            f'<g><title>{escape(tip)}</title><path class="whisker s0" d="M{x:.1f} {up(y[i] - sd[i]):.1f}'
            f'V{up(y[i] + sd[i]):.1f}"/><circle class="f0" cx="{x:.1f}" cy="{up(y[i]):.1f}" '
            f'r="{min(3.0, max(1.2, 0.35 * step)):.1f}"/></g>'
        )
    return _svg(body, label)

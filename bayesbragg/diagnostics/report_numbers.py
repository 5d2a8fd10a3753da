"""Numbers of a report for its readers: rounded to what is known of them, with true minus signs; ticks of axes."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from bayesbragg.model.digits import decimals_known

__all__ = ["number", "tick_texts", "ticks", "with_error"]

FloatArray = npt.NDArray[np.float64]

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, digits: int = 4) -> str:
    """A number for readers: so many significant digits, a true minus sign, powers of ten as superscripts."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}g}"
    if "e" in text and abs(value) < 1e6 and abs(value) >= 1:
        text = f"{float(text):.0f}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        raised = str(int(exponent)).translate(_RAISED)
        text = f"{mantissa}×10{raised}"
    return text.replace("-", "−")


def with_error(value: float, sd: float) -> str:
    """A value and its error, both to the second digit of the error; with a common power of ten where both are small."""
    if not (math.isfinite(value) and math.isfinite(sd) and sd > 0):
        return number(value, 6)
    largest = max(abs(value), sd)
    if largest < 1e-3:
        power = math.floor(math.log10(largest))
        raised = str(power).translate(_RAISED)
        return f"({with_error(value / 10.0**power, sd / 10.0**power)})×10{raised}"
    decimals = decimals_known(sd)
    if decimals > 9 or abs(value) >= 1e7:
        return f"{number(value, 5)} ± {number(sd, 2)}"
    if sd >= 100:
        step = 10.0 ** (math.floor(math.log10(sd)) - 1)
        value, sd = step * round(value / step), step * round(sd / step)
    return f"{value:.{decimals}f} ± {sd:.{decimals}f}".replace("-", "−")


def ticks(low: float, high: float, n: int = 4) -> FloatArray:
    """About n round numbers between two others: steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return np.array([low])
    raw = span / n
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1.0, 2.0, 5.0, 10.0) if s * power >= raw * (1 - 1e-9))
    steps = np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    found = np.asarray(steps * step, dtype=np.float64)
    return found if len(found) > 2 or n > 8 else ticks(low, high, 2 * n)


def tick_texts(values: FloatArray) -> list[str]:
    """The same decimals on every tick of an axis, as many as tell neighbours apart."""
    if len(values) < 2:
        return [number(float(v), 6) for v in values]
    step = float(values[1] - values[0])
    if max(abs(values[0]), abs(values[-1])) >= 1e6 or step < 1e-5:
        return [number(float(v) if abs(v) > 1e-9 * step else 0.0, 3) for v in values]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{v:.{decimals}f}".replace("-", "−") for v in values]

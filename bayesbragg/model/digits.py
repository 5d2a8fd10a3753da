"""Numbers as text, to as many digits as their standard deviation leaves them."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["decimals_known", "to_digits_of"]


def decimals_known(sd: float) -> int:
    """Decimals down to the second digit of a standard deviation (positive and finite); 0 for one of 10 and more."""
    return max(0, 1 - math.floor(math.log10(sd)))


def to_digits_of(sd: float, values: Sequence[float]) -> list[str]:
    """Values as text, to the second digit of their standard deviation.

    Where that tells nothing (zero, infinite, not a number), or would take more than nine decimals, they have seven
    significant digits.
    """
    decimals = decimals_known(sd) if math.isfinite(sd) and sd > 0 else 10
    return [f"{value:.7g}" if decimals > 9 or abs(value) >= 1e9 else f"{value:.{decimals}f}" for value in values]

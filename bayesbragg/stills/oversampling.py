"""How many subpixels a pixel needs: the classic rule (docs/oversampling.md)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["automatic_oversample"]


def automatic_oversample(
    n_abc: npt.ArrayLike,
    cell_lengths_A: npt.ArrayLike,
    wavelength_A: float,
    distance_mm: float,
    pixel_size_mm: float,
) -> int:
    """Subpixels along each side of a pixel, three across a spot's width.

    A block of length L = max(N a) gives spots of width 1/L in reciprocal space; a pixel is p / (lambda D) wide there.
    The rule is n = ceil(3 L p / (lambda D)), at least 1.

    Args:
        n_abc: cells per block along a, b, c, ``(3,)``; below 1 they count as 1.
        cell_lengths_A: a, b, c, ``(3,)``, angstrom.
        wavelength_A: mean wavelength, angstrom.
        distance_mm: detector distance, millimetre.
        pixel_size_mm: side of a pixel, millimetre.
    """
    blocks = np.maximum(np.asarray(n_abc, dtype=float), 1.0)
    longest_A = float(np.max(blocks * np.asarray(cell_lengths_A, dtype=float)))
    pixel_as_length_A = wavelength_A * abs(distance_mm) / pixel_size_mm
    return max(1, math.ceil(3.0 * longest_A / pixel_as_length_A))

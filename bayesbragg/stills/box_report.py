"""What became of each reflection: its box, its background plane, and why it takes part or not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bayesbragg.stills.boxes import BoxReason

__all__ = ["BoxReport", "Reasons"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class BoxReport:
    """What became of each reflection of the table, ``n`` rows.

    Attributes:
        reason: `BoxReason` of each reflection, ``(n,)``.
        bounds: f1, f2, s1, s2 of its box, pixels, ``(n, 4)``; zeros where no box was cut.
        padded: the same with the margin for the background, ``(n, 4)``.
        tilt: slopes along fast and slow (photon per pixel) and constant (photon), counted from the first pixel of the
            padded box, ``(n, 3)``.
        tilt_covariance: of those, ``(n, 3, 3)``.
        spot_radius: radius kept clear for the background fit, pixels, ``(n,)``.
        reduced_chi_square: of the background pixels, ``(n,)``.
        misfit: departure of the background from its plane relative to its level, ``(n,)``.

    The last three are not a number for classic planes and where there is no box.
    """

    reason: npt.NDArray[np.object_]
    bounds: IntArray
    padded: IntArray
    tilt: FloatArray
    tilt_covariance: FloatArray
    spot_radius: FloatArray
    reduced_chi_square: FloatArray
    misfit: FloatArray

    def summary(self) -> str:
        """Numbers of reflections by reason, the most frequent first, in one line."""
        return ", ".join(f"{number} {reason.value}" for reason, number in Counter(self.reason.tolist()).most_common())


class Reasons:
    """The first rule that leaves out each reflection."""

    def __init__(self, n: int) -> None:
        self.reason = np.full(n, BoxReason.SELECTED, dtype=object)

    @property
    def open(self) -> BoolArray:
        return np.asarray(self.reason == BoxReason.SELECTED)

    def reject(self, rows: BoolArray, why: BoxReason) -> None:
        self.reason[rows & self.open] = why

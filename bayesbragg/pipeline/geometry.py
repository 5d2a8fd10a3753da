"""The detector of a joint fit: one for all shots, and where its groups have moved."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bayesbragg.forward.rotations import successive_rotations
from bayesbragg.model import Detector
from bayesbragg.model.errors import InputError
from bayesbragg.model.panel_groups import PanelGrouping

__all__ = ["check_detector", "moved_detector"]

FloatArray = npt.NDArray[np.float64]


def check_detector(first: Detector, other: Detector, first_tag: str, other_tag: str) -> None:
    """Raise `InputError` unless two detectors have the same panels in the same places (to 0.1 micrometre)."""
    tolerances = {"origin_mm": 1e-4, "fast": 1e-6, "slow": 1e-6, "pixel_size_mm": 1e-9, "image_size": 0.0}
    same = first.n_panels == other.n_panels and all(
        np.allclose(getattr(first, name), getattr(other, name), atol=tolerance, rtol=0)
        for name, tolerance in tolerances.items()
    )
    if not same:
        raise InputError(
            f"{other_tag}: its detector differs from that of {first_tag}; one geometry is fitted to all shots: give "
            "shots of one geometry, or name one with reference_geometry"
        )


def moved_detector(detector: Detector, grouping: PanelGrouping, shared: npt.ArrayLike) -> Detector:
    """The detector after the motions of its groups.

    Args:
        shared: six motions of every group (radian, metre), then the extras of which the first is a shift along z.
    """
    shared = np.asarray(shared, dtype=np.float64)
    motion = shared[: 6 * grouping.n_groups].reshape(-1, 6)[grouping.group]
    turn = np.asarray(successive_rotations(grouping.axes, motion[:, :3]))
    reference = grouping.reference_mm[grouping.group]
    shift = 1e3 * motion[:, 3:]
    if len(shared) > 6 * grouping.n_groups:
        shift = shift + np.array([0.0, 0.0, 1e3 * shared[6 * grouping.n_groups]])

    def turned(vectors: FloatArray) -> FloatArray:
        return np.asarray(np.einsum("pij,pj->pi", turn, vectors))

    origin = reference + turned(detector.origin_mm - reference) + shift
    return detector.with_panels(origin, turned(detector.fast), turned(detector.slow))

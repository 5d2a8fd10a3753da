"""The detector: flat panels in the laboratory frame (PHYSICS: panel geometry).

Laboratory frame: right handed, sample at the origin, millimetres. A panel is given by the outer corner of its
first pixel and two unit vectors; pixel coordinates count from that corner, so the centre of the first pixel is
at (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Detector"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def _frozen(array: npt.ArrayLike, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    result = np.array(array, dtype=dtype)
    if result.shape != shape:
        raise ValueError(f"expected an array of shape {shape}, got {result.shape}")
    result.setflags(write=False)
    return result


@dataclass(frozen=True, eq=False)
class Detector:
    """Panels of one detector, as arrays over panels.

    Attributes:
        origin_mm: outer corner of pixel (0, 0) of each panel, laboratory frame, ``(n_panels, 3)``, millimetre.
        fast: unit vector along the fast axis, ``(n_panels, 3)``.
        slow: unit vector along the slow axis, ``(n_panels, 3)``.
        pixel_size_mm: fast and slow pixel size, ``(n_panels, 2)``, millimetre.
        image_size: number of pixels along fast and slow, ``(n_panels, 2)``.
        trusted_range: smallest and largest trusted raw pixel value, ``(n_panels, 2)``, detector units.
        thickness_mm: sensor thickness, ``(n_panels,)``, millimetre; 0 for a thin detector.
        attenuation_per_mm: linear attenuation coefficient mu of the sensor, ``(n_panels,)``, 1/millimetre.
        gain: detector units per photon as the file states it, ``(n_panels,)``.
        names: one name per panel.
        document: the JSON object of the file that the detector came from (with its hierarchy), or None.
    """

    origin_mm: FloatArray
    fast: FloatArray
    slow: FloatArray
    pixel_size_mm: FloatArray
    image_size: IntArray
    trusted_range: FloatArray
    thickness_mm: FloatArray
    attenuation_per_mm: FloatArray
    gain: FloatArray
    names: tuple[str, ...]
    document: Mapping[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        n = len(np.atleast_2d(self.origin_mm))
        for name, dtype, shape in (
            ("origin_mm", np.float64, (n, 3)),
            ("fast", np.float64, (n, 3)),
            ("slow", np.float64, (n, 3)),
            ("pixel_size_mm", np.float64, (n, 2)),
            ("image_size", np.int64, (n, 2)),
            ("trusted_range", np.float64, (n, 2)),
            ("thickness_mm", np.float64, (n,)),
            ("attenuation_per_mm", np.float64, (n,)),
            ("gain", np.float64, (n,)),
        ):
            try:
                object.__setattr__(self, name, _frozen(getattr(self, name), dtype, shape))
            except ValueError as error:
                raise ValueError(f"detector {name}: {error}") from None
        if len(self.names) != n:
            raise ValueError(f"detector names: expected {n} names, got {len(self.names)}")

    @property
    def n_panels(self) -> int:
        return len(self.origin_mm)

    @property
    def normal_sign(self) -> float:
        """+1 or -1: the sign that makes the normal of the first panel point away from the sample."""
        return 1.0 if np.dot(self.origin_mm[0], np.cross(self.fast[0], self.slow[0])) > 0 else -1.0

    @cached_property
    def normal(self) -> FloatArray:
        """Unit normals, ``(n_panels, 3)``, all with the sign of the first panel's. Not to be written to."""
        normal = self.normal_sign * np.cross(self.fast, self.slow)
        return _frozen(normal / np.linalg.norm(normal, axis=-1, keepdims=True), np.float64, normal.shape)

    @cached_property
    def pixel_frame(self) -> FloatArray:
        """Rows fast and slow over the pixel size (1/millimetre), and normal, ``(n_panels, 3, 3)``; read only.

        A ray v of panel p has the components c = pixel_frame[p] @ v and meets the panel at the pixel coordinates
        ``o[2] / c[2] * c[:2] - o[:2]``, with o = pixel_origin[p].
        """
        sides = (self.fast / self.pixel_size_mm[:, :1], self.slow / self.pixel_size_mm[:, 1:], self.normal)
        return _frozen(np.stack(sides, axis=1), np.float64, (self.n_panels, 3, 3))

    @cached_property
    def pixel_origin(self) -> FloatArray:
        """Components of the panels' origins in `pixel_frame`, ``(n_panels, 3)``; read only."""
        return _frozen(np.einsum("pij,pj->pi", self.pixel_frame, self.origin_mm), np.float64, (self.n_panels, 3))

    def lab_mm(self, panel: npt.ArrayLike, fast_px: npt.ArrayLike, slow_px: npt.ArrayLike) -> FloatArray:
        """Laboratory positions of pixel coordinates (pixels from the outer corner), ``(..., 3)``, millimetre."""
        panel = np.asarray(panel)
        f = np.asarray(fast_px, dtype=float)[..., None] * self.pixel_size_mm[panel][..., :1]
        s = np.asarray(slow_px, dtype=float)[..., None] * self.pixel_size_mm[panel][..., 1:]
        return np.asarray(self.origin_mm[panel] + f * self.fast[panel] + s * self.slow[panel])

    def intersect(self, panel: npt.ArrayLike, direction: npt.ArrayLike) -> FloatArray:
        """Pixel coordinates where rays from the sample meet the plane of their panel.

        Args:
            panel: panel numbers, ``(...)``.
            direction: ray directions (any length), ``(..., 3)``.

        Returns:
            fast and slow pixel coordinates ``(..., 2)``; not a number where the ray does not reach the plane.
        """
        panel = np.asarray(panel)
        along = np.einsum("...ij,...j->...i", self.pixel_frame[panel], np.asarray(direction, dtype=float))
        origin = self.pixel_origin[panel]
        with np.errstate(divide="ignore", invalid="ignore"):
            t = origin[..., 2] / along[..., 2]
        t = np.where(t > 0, t, np.nan)
        return np.asarray(t[..., None] * along[..., :2] - origin[..., :2])

    def with_panels(self, origin_mm: FloatArray, fast: FloatArray, slow: FloatArray) -> Detector:
        """The same detector with its panels elsewhere; the file's hierarchy is kept for writers to update."""
        return replace(self, origin_mm=origin_mm, fast=fast, slow=slow)

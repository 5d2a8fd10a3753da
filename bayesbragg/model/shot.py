"""The pixels of one shot: boxes around reflections, their photons, background and trust."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

__all__ = ["Shot", "bucket_size"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def bucket_size(n: int) -> int:
    """The number of boxes that n boxes are padded to, so that shots share a few compiled programs.

    8, 16, 32, 64, 128, then 192, 256, 384, 512 and so on, two sizes to a factor of two: above 128 at most a third is
    padding, and a run over stills of one kind compiles its programs two or three times.
    """
    size = 8
    while size < n:
        size *= 2
    between = size * 3 // 4
    return between if size > 128 and n <= between else size


@dataclass(frozen=True, eq=False)
class Shot:
    """Pixels of one still in boxes, padded to one box shape.

    A box is a rectangle of pixels on one panel around one reflection. Boxes that were shrunk or cut are padded on the
    high side of each axis, so that the pixel at row ``s`` and column ``f`` of box ``b`` is
    ``array.reshape(n_boxes, n_slow, n_fast)[b, s, f]`` and lies at ``(f1 + f, s1 + s)`` on the panel.

    Attributes:
        panel: panel of each box, ``(n_boxes,)``.
        bounds: f1, f2, s1, s2 of each box in pixels, half open, ``(n_boxes, 4)``.
        shape: n_slow, n_fast of the padded box; ``n_pixels = n_slow * n_fast``.
        counts: photons (raw value over gain), ``(n_boxes, n_pixels)``; 0 where padded.
        background: photons expected without Bragg scattering, ``(n_boxes, n_pixels)``.
        trusted: pixels that take part in a fit, ``(n_boxes, n_pixels)``; False where padded.
        readout_sd: standard deviation of the readout noise, photons, scalar or ``(n_boxes, n_pixels)``.
        miller_index: index of the box's reflection in the conventional setting, ``(n_boxes, 3)``.
        reflection_row: row of the box's reflection in the table that the boxes were cut for, ``(n_boxes,)``.
        lattice: which lattice of the shot the reflection belongs to, ``(n_boxes,)``.
        tilt: background plane of each box: slope along fast, slope along slow (photon per pixel), constant (photon),
            in the coordinates that the maker of the boxes states, ``(n_boxes, 3)``.
        gain_sd: relative standard deviation of a pixel's gain about the one that counts were made with.
    """

    panel: IntArray
    bounds: IntArray
    shape: tuple[int, int]
    counts: FloatArray
    background: FloatArray
    trusted: BoolArray
    readout_sd: FloatArray
    miller_index: IntArray
    reflection_row: IntArray
    lattice: IntArray
    tilt: FloatArray
    gain_sd: float = 0.0

    def __post_init__(self) -> None:
        n, p = len(self.panel), self.shape[0] * self.shape[1]
        for name, shape in (
            ("bounds", (n, 4)),
            ("counts", (n, p)),
            ("background", (n, p)),
            ("trusted", (n, p)),
            ("miller_index", (n, 3)),
            ("reflection_row", (n,)),
            ("lattice", (n,)),
            ("tilt", (n, 3)),
        ):
            if np.shape(getattr(self, name)) != shape:
                raise ValueError(f"shot {name}: expected shape {shape}, got {np.shape(getattr(self, name))}")
        sd = np.asarray(self.readout_sd, dtype=float)
        if sd.shape not in ((), (n, p)):
            raise ValueError(f"shot readout_sd: expected a number or shape {(n, p)}, got {sd.shape}")
        object.__setattr__(self, "readout_sd", sd)
        if not 0 <= self.gain_sd < 1:
            raise ValueError(f"shot gain_sd: expected a fraction from 0 to below 1, got {self.gain_sd}")

    @property
    def n_boxes(self) -> int:
        return len(self.panel)

    @property
    def n_pixels(self) -> int:
        """Pixels per padded box."""
        return self.shape[0] * self.shape[1]

    @property
    def fast(self) -> IntArray:
        """Fast pixel index on the panel, ``(n_boxes, n_pixels)`` (also for padding, beyond the box)."""
        offset = np.tile(np.arange(self.shape[1]), self.shape[0])
        return np.asarray(self.bounds[:, :1] + offset)

    @property
    def slow(self) -> IntArray:
        """Slow pixel index on the panel, ``(n_boxes, n_pixels)`` (also for padding, beyond the box)."""
        offset = np.repeat(np.arange(self.shape[0]), self.shape[1])
        return np.asarray(self.bounds[:, 2:3] + offset)

    @property
    def valid(self) -> BoolArray:
        """Pixels inside their box, not padding, ``(n_boxes, n_pixels)``."""
        return np.asarray((self.fast < self.bounds[:, 1:2]) & (self.slow < self.bounds[:, 3:4]))

    def select(self, boxes: npt.ArrayLike) -> Shot:
        """The boxes of a mask or index array."""
        boxes = np.asarray(boxes)
        sd = self.readout_sd if self.readout_sd.ndim == 0 else self.readout_sd[boxes]
        names = (
            "panel",
            "bounds",
            "counts",
            "background",
            "trusted",
            "miller_index",
            "reflection_row",
            "lattice",
        )
        return replace(
            self, readout_sd=sd, tilt=self.tilt[boxes], **{name: getattr(self, name)[boxes] for name in names}
        )

    def padded(self, n_boxes: int | None = None) -> Shot:
        """Copies of the first box, none of them trusted, added up to `n_boxes` (by default the next bucket)."""
        n_boxes = bucket_size(self.n_boxes) if n_boxes is None else n_boxes
        if n_boxes < self.n_boxes:
            raise ValueError(f"cannot pad {self.n_boxes} boxes to {n_boxes}")
        rows = np.concatenate([np.arange(self.n_boxes), np.zeros(n_boxes - self.n_boxes, dtype=int)])
        result = self.select(rows)
        trusted = result.trusted.copy()
        trusted[self.n_boxes :] = False
        return replace(result, trusted=trusted)

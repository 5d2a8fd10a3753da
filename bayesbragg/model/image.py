"""The pixels of one image as they were recorded, before any correction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bayesbragg.model.beam import Spectrum

__all__ = ["Image"]


@dataclass(frozen=True, eq=False)
class Image:
    """Raw pixels of every panel of a detector, and what the image file knows besides.

    Attributes:
        raw: one array per panel, ``(slow, fast)``, detector units; 0 where the file holds no number.
        mask: one array per panel, ``(slow, fast)``, True where the pixel may be trusted; None if all may. The
            trusted range of the detector is not applied.
        spectrum: the shot's spectrum, if the file has one.
        gain: detector units per photon, ``(n_panels,)``, if the file states it.
        readout_sd: standard deviation of the readout noise per pixel, ``(slow, fast)`` per panel, detector units.
    """

    raw: tuple[npt.NDArray[np.float64], ...]
    mask: tuple[npt.NDArray[np.bool_], ...] | None = None
    spectrum: Spectrum | None = None
    gain: npt.NDArray[np.float64] | None = None
    readout_sd: tuple[npt.NDArray[np.float64], ...] | None = None

    def __post_init__(self) -> None:
        shapes = [np.shape(x) for x in self.raw]
        for name in ("mask", "readout_sd"):
            other = getattr(self, name)
            if other is not None and [np.shape(x) for x in other] != shapes:
                raise ValueError(f"image: the shapes of raw and {name} differ")

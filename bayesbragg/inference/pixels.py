"""What was measured, and what is believed of it besides the forward model: one pytree, an argument of every density.

The optional parts (`Outliers`, `PlanePrior`, `IntensityPrior`) widen the model of the pixels. Each is None or a pytree
of arrays, so that its presence is structure, part of the compilation key, and its numbers are data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from bayesbragg.model import Shot

__all__ = ["Guide", "IntensityPrior", "Outliers", "Pixels", "PlanePrior"]

Array = Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Outliers:
    """Pixels that show something else; see `bayesbragg.inference.robust`.

    Attributes:
        fraction: of the pixels, scalar.
        scale: half width at half maximum of their distribution about the background, photons, ``(n_boxes, n_pixels)``
            or scalar.
    """

    fraction: Array
    scale: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class PlanePrior:
    """Background planes that are not known exactly; see `bayesbragg.inference.inferred_background`.

    The mean is `Pixels.background`.

    Attributes:
        design: x, y, 1 of each pixel, ``(3, n_pixels)``.
        factor: L with covariance L L^T of a plane's slopes and constant in these columns, ``(n_boxes, 3, 3)``, photons.
    """

    design: Array
    factor: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class IntensityPrior:
    """One unknown intensity per box, relative to its expectation; see `bayesbragg.inference.wilson`.

    Attributes:
        centric: whether the reflection of the box is centric, ``(n_boxes,)``.
    """

    centric: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Guide:
    """Which reflection each box is of: the likelihood does not need it, the start of a search does.

    Attributes:
        miller_index: in the conventional setting, ``(n_boxes, 3)``.
        lattice: ``(n_boxes,)``.
    """

    miller_index: Array
    lattice: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Pixels:
    """What was measured.

    Attributes:
        counts: photons, ``(n_boxes, n_pixels)``.
        background: expected photons without Bragg scattering, same shape.
        trusted: pixels that count, same shape.
        variance: readout variance, photon^2, same shape or scalar.
        gain_sd: relative calibration error of a pixel (standard deviation), same shape or scalar.
        outliers, planes, intensities: richer models; None for exact pixels, known background, known intensities.
        intensity_sd: relative error of the reference intensities (standard deviation), scalar or ``(n_boxes, 1)``; None
            for exact ones.
        guide: the boxes' reflections, where they are known.
    """

    counts: Array
    background: Array
    trusted: Array
    variance: Array
    gain_sd: Array = 0.0
    outliers: Outliers | None = None
    planes: PlanePrior | None = None
    intensities: IntensityPrior | None = None
    intensity_sd: Array | None = None
    guide: Guide | None = None

    @classmethod
    def from_shot(cls, shot: Shot) -> Pixels:
        """The pixels of a shot; one that is not finite is not trusted."""
        finite = np.isfinite(shot.counts) & np.isfinite(shot.background) & np.isfinite(shot.readout_sd)
        keep = shot.trusted & finite
        variance = np.where(keep, shot.readout_sd**2, 1.0)
        counts, background = np.where(keep, shot.counts, 0.0), np.where(keep, shot.background, 0.0)
        guide = Guide(shot.miller_index, shot.lattice)
        return cls(counts, background, keep, variance, np.asarray(shot.gain_sd, dtype=np.float64), guide=guide)

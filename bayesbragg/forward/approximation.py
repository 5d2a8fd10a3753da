"""How wrong a closed form is, pixel by pixel, in units of the pixel's own noise.

Without mosaic spread the exact sum itself is the judge. With it, the same form with twice the nodes and with every
channel by itself is: that measures merged channels, nodes and missing reflections, but not the linear step of the
rotations, which is of the order of the angle that a block spans.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesbragg.forward.candidates import Margin, prepare_closed
from bayesbragg.forward.closed import ClosedScene, closed_photons
from bayesbragg.forward.exact import expected_photons
from bayesbragg.forward.options import Options
from bayesbragg.forward.parameters import Parameters

__all__ = ["LARGEST_ERROR", "ApproximationError", "approximation_error"]

LARGEST_ERROR = 1.0 / 20.0
"""Largest error of an approximation in standard deviations of a pixel's noise."""


@dataclass(frozen=True)
class ApproximationError:
    """Largest differences over the pixels of a shot.

    Attributes:
        of_noise: in standard deviations of the pixel's noise.
        of_peak: relative to the brightest pixel of the shot.
    """

    of_noise: float
    of_peak: float

    @property
    def small(self) -> bool:
        """Whether the closed form may stand for the exact sum."""
        return self.of_noise <= LARGEST_ERROR


def approximation_error(
    parameters: Parameters,
    closed: ClosedScene,
    options: Options,
    variance: npt.ArrayLike,
    trusted: npt.ArrayLike = True,
) -> ApproximationError:
    """Estimated error of `closed_photons` at these parameters.

    Args:
        variance: variance of each pixel without Bragg photons (background and readout), photon^2,
            ``(n_boxes, n_pixels)`` or scalar.
        trusted: pixels that count, same shape.
    """
    ours = np.asarray(closed_photons(parameters, closed, options), dtype=float)
    reference: Any
    if options.spread == "none":
        reference = expected_photons(parameters, closed.scene, options)
    else:
        finer = replace(options, mosaic_nodes=2 * options.mosaic_nodes)
        wide = Margin(depth=14.0)
        reference = closed_photons(
            parameters, prepare_closed(parameters, closed.scene, finer, wide, merge=False), finer
        )
    reference = np.asarray(reference, dtype=float)
    difference = np.where(trusted, np.abs(ours - reference), 0.0)
    noise = np.sqrt(np.asarray(variance) + np.maximum(reference, 0.0))
    peak = max(float(np.max(np.where(trusted, reference, 0.0))), 1e-300)
    return ApproximationError(float(np.max(difference / noise)), float(difference.max()) / peak)

"""How wrong a closed form is, pixel by pixel, in units of the pixel's own noise and of the brightest pixel.

Without mosaic spread the exact sum itself is the judge. With it, the same form with everything finer is: all subpixels,
twice the nodes of the spread, channels summed one by one, and reflections listed far deeper. What that cannot see is
added as a share of every pixel's light: what rotations do beyond the second order in their angle, and what the blur of
the beam and of the pixel does where the wavelength is not that of the box.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bayesbragg.forward.beam_spread import blur_covariance
from bayesbragg.forward.candidates import Margin, prepare_closed
from bayesbragg.forward.closed import ClosedScene, closed_photons, lacking_variance
from bayesbragg.forward.exact import expected_photons
from bayesbragg.forward.options import Options
from bayesbragg.forward.parameters import Parameters
from bayesbragg.forward.quick_jit import quick_jit
from bayesbragg.forward.scene import Scene
from bayesbragg.forward.spread import shape_reflexes

__all__ = ["LARGEST_ERROR", "LARGEST_OF_PEAK", "ApproximationError", "approximation_error"]

Array = Any

LARGEST_ERROR = 1.0 / 20.0
"""Largest error of an approximation in standard deviations of a pixel's noise."""

LARGEST_OF_PEAK = 1e-3
"""Largest error relative to the brightest pixel."""

MANY_CHANNELS = 128
"""So many are summed one by one by the judge; more are merged, as in the form itself, but not tabulated."""


@dataclass(frozen=True)
class ApproximationError:
    """Largest differences over the pixels of a shot.

    Attributes:
        of_noise: in standard deviations of the pixel's noise.
        of_peak: relative to the brightest pixel of the shot.
        unseen: the part of `of_peak` that was estimated by its order of magnitude.
    """

    of_noise: float
    of_peak: float
    unseen: float = 0.0

    @property
    def small(self) -> bool:
        """Whether the closed form may stand for the exact sum."""
        return self.of_noise <= LARGEST_ERROR and self.of_peak <= LARGEST_OF_PEAK


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
    double, scene = replace(options, precision="float64"), _in_double(closed.scene)
    rotations, blur = (float(a) for a in _unseen(parameters, closed, options))
    if options.spread == "none" and closed.beam is None:
        reference: Any = expected_photons(parameters, scene, double)
        # The exact sum is the judge of all there is.
        unseen = 0.0
    else:
        finer = double
        if options.spread == "isotropic" and closed.rule is not None:
            finer = replace(double, mosaic_nodes=2 * len(closed.rule))
        judge = prepare_closed(
            parameters,
            scene,
            finer,
            Margin(depth=14.0),
            merge=len(closed.scene.channels.strength) > MANY_CHANNELS,
            beam=closed.beam,
            coarse_subpixels=False,
            tabulate=False,
        )
        reference, unseen = closed_photons(parameters, judge, finer), rotations + blur
    reference = np.asarray(reference, dtype=float)
    difference = np.where(trusted, np.abs(ours - reference) + unseen * np.abs(reference), 0.0)
    noise = np.sqrt(np.asarray(variance) + np.maximum(reference, 0.0))
    peak = max(float(np.max(np.where(trusted, reference, 0.0))), 1e-300)
    # Where nothing is expected and nothing is measured there is no noise either, and nothing to compare.
    of_noise = float(np.max(difference / np.maximum(noise, 1e-150)))
    return ApproximationError(of_noise, float(difference.max()) / peak, unseen)


def _in_double(scene: Scene) -> Scene:
    """The scene for float64, whatever it was made for."""
    boxes = scene.boxes
    fast, slow = (np.asarray(a, dtype=np.float64) for a in (boxes.fast_px, boxes.slow_px))
    return replace(scene, boxes=replace(boxes, fast_px=fast, slow_px=slow))


@quick_jit("options")
def _unseen(parameters: Parameters, closed: ClosedScene, options: Options) -> tuple[Array, Array]:
    """Shares of a spot's light that no finer closed form can judge.

    A rotation by an angle w moves q by w |q|, and inwards by w^2 |q| / 2, both of which are kept. Of the second the
    mean is kept, given the displacement across; its scatter, w b with b the width of the block across, adds w^2 b^2 to
    the variance v along q0. The tangent plane's own error and rotations that do not commute are of the order of w^2.
    The blur of a pixel is that of the spectrum's mean wavelength.
    """
    scene, reflexes = closed.scene, closed.reflexes
    live = reflexes.live > 0
    still = replace(parameters, mosaic=parameters.mosaic.without_spread())
    plain = replace(options, spread="none")
    shapes = shape_reflexes(still, scene, plain, reflexes)
    K = shapes.stiffness[0]
    across = (K[:, 0] + K[:, 2]) / (K[:, 0] * K[:, 2] - K[:, 1] ** 2)
    rotations = jnp.zeros(())
    if options.spread != "none":
        angle = jnp.radians(parameters.mosaic.largest_spread_deg())
        rotations = angle**2 * (1.0 + 0.5 * jnp.max(jnp.where(live, across / shapes.variance[0], 0.0)))
    lacking = lacking_variance(closed.subpixels or options.oversample, options.oversample)
    if closed.beam is None and lacking == 0:
        return rotations, jnp.zeros(())
    blur = partial(blur_covariance, still, scene, reflexes, spread=closed.beam, lacking=lacking)
    ratio = shape_reflexes(still, scene, plain, reflexes, blur=blur).weight[0] / shapes.weight[0]
    k = 1.0 / scene.channels.wavelengths_A
    light = scene.channels.strength / jnp.maximum(jnp.sum(scene.channels.strength), 1e-300)
    middle = jnp.sum(light * k)
    band = jnp.sqrt(jnp.sum(light * (k - middle) ** 2)) / middle
    return rotations, 2.0 * band * jnp.max(jnp.where(live, 1.0 - ratio**2, 0.0))

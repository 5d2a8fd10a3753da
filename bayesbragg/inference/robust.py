"""A likelihood that zingers cannot bend: each pixel shows the model, or, rarely, something else.

p(counts) = (1 - f) p_model(counts | mu) + f Cauchy(counts; background, scale)

The Cauchy distribution has tails so heavy that a pixel of any brightness costs a few units of log likelihood at most,
once it is farther from the model than the two terms allow; its centre and width do not depend on the parameters, so
that such a pixel pulls at nothing. A Bragg spot that the model misses loses its pull in the same way: starts must be
near enough. The scale is a multiple of the noise of the background.

The model's own density must have the tails of counting statistics: beside a Gaussian, two photons too many where one is
expected look like an outlier. `bayesbragg.inference.box_likelihood` therefore takes ``shifted_poisson`` where the
likelihood is called ``gaussian``.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bayesbragg.inference.pixels import Outliers
from bayesbragg.model.errors import InputError

__all__ = ["SCALE", "mixture", "outliers"]

Array = Any

SCALE = 20.0
"""Half width of the outliers' distribution in standard deviations of the background."""


def outliers(fraction: float, background: npt.ArrayLike, variance: npt.ArrayLike, scale: float = SCALE) -> Outliers:
    """Outliers on a background.

    Args:
        fraction: of the pixels that are outliers.
        background: photons, ``(n_boxes, n_pixels)``.
        variance: readout variance, photon^2, broadcastable to that.
        scale: half width of their distribution in standard deviations of the background (at least 1 photon^2).

    Raises:
        InputError: a fraction outside 0 to 1/2.
    """
    if not 0 < fraction <= 0.5:
        raise InputError(f"outlier_fraction={fraction:g}: expected a fraction above 0 and up to 0.5, such as 0.01")
    floor = np.maximum(np.asarray(background, dtype=np.float64), 0.0) + np.asarray(variance)
    return Outliers(np.asarray(float(fraction)), scale * np.sqrt(np.maximum(floor, 1.0)))


def mixture(log_model: Array, counts: Array, background: Array, outliers: Outliers) -> Array:
    """Log density of each pixel, given that of the model.

    Args:
        log_model: log likelihood of each pixel by the model, ``(..., n_boxes, n_pixels)``.
        counts, background: photons, ``(n_boxes, n_pixels)``.
        outliers: their fraction and scale.
    """
    ratio = (counts - background) / outliers.scale
    log_cauchy = -jnp.log(jnp.pi * outliers.scale) - jnp.log1p(ratio**2)
    return jnp.logaddexp(jnp.log1p(-outliers.fraction) + log_model, jnp.log(outliers.fraction) + log_cauchy)

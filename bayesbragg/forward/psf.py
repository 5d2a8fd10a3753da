"""Point-spread function of a fibre-coupled detector (Moffat-like, Holton 2012), applied box by box.

g = 0.65238 fwhm / pixel; the kernel integrates A(x, y) = atan(x y / (g sqrt(g^2 + x^2 + y^2))) / (2 pi) over pixels.
Each box is convolved on its own; outside of it stands the mean of its four corner pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

__all__ = ["PointSpread", "blur", "fibre_kernel"]

Array = Any


def fibre_kernel(fwhm_um: float, pixel_um: float, radius: int) -> npt.NDArray[np.float64]:
    """Kernel of (2 radius + 1)^2 pixels, normalised to 1; fwhm and pixel size in micrometres."""
    g = 0.65238 * fwhm_um / pixel_um
    edge = np.arange(-radius, radius + 2) - 0.5
    x, y = np.meshgrid(edge, edge, indexing="ij")
    A = np.arctan(x * y / (g * np.sqrt(g * g + x * x + y * y))) / (2 * np.pi)
    kernel = np.diff(np.diff(A, axis=0), axis=1)
    return np.asarray(kernel / kernel.sum())


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PointSpread:
    """A kernel and the boxes that it is applied to.

    Attributes:
        kernel: ``(2R + 1, 2R + 1)``.
        valid: 1 for pixels inside their box, 0 for padding, ``(n_boxes, n_slow, n_fast)``.
        background: photons without Bragg scattering, which are blurred too, ``(n_boxes, n_pixels)``.
    """

    kernel: Array
    valid: Array
    background: Array


def blur(spread: PointSpread, photons: Array) -> Array:
    """Convolve photons ``(n_boxes, n_pixels)`` (Bragg plus background) box by box, same shape."""
    n_boxes, n_slow, n_fast = spread.valid.shape
    image = photons.reshape(n_boxes, n_slow, n_fast)
    rows = jnp.sum(spread.valid[:, :, 0], axis=1).astype(int)
    columns = jnp.sum(spread.valid[:, 0, :], axis=1).astype(int)
    box = jnp.arange(n_boxes)
    last_row, last_column = jnp.maximum(rows - 1, 0), jnp.maximum(columns - 1, 0)
    corner = 0.25 * (
        image[:, 0, 0] + image[box, last_row, 0] + image[box, 0, last_column] + image[box, last_row, last_column]
    )
    excess = (image - corner[:, None, None]) * spread.valid.astype(image.dtype)
    kernel = spread.kernel[::-1, ::-1].astype(image.dtype)  # XLA correlates; a convolution flips
    blurred = jax.lax.conv_general_dilated(excess[:, None], kernel[None, None], (1, 1), "SAME")[:, 0]
    return (blurred + corner[:, None, None]).reshape(photons.shape)

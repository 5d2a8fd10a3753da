"""The point-spread function box by box against scipy's convolution of every box alone."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import convolve2d

from bayesbragg.forward.psf import PointSpread, blur


@pytest.mark.parametrize(("n_slow", "n_fast"), [(10, 12), (7, 12), (10, 5), (6, 9), (1, 4)])
def test_padding_takes_no_part(n_slow: int, n_fast: int) -> None:
    """A box smaller than its frame: the light beyond its edge is the mean of its own four corners."""
    rng = np.random.default_rng(n_slow + 100 * n_fast)
    kernel = rng.uniform(size=(5, 5))
    kernel /= kernel.sum()
    frame = rng.uniform(1.0, 9.0, size=(2, 10, 12))
    valid = np.ones((2, 10, 12))
    valid[1] = 0.0
    valid[1, :n_slow, :n_fast] = 1.0
    blurred = np.asarray(blur(PointSpread(kernel, valid, np.zeros((2, 120))), frame.reshape(2, -1))).reshape(2, 10, 12)
    for box, (rows, columns) in enumerate(((10, 12), (n_slow, n_fast))):
        image = frame[box, :rows, :columns]
        corner = np.mean([image[0, 0], image[-1, 0], image[0, -1], image[-1, -1]])
        expected = convolve2d(image - corner, kernel, mode="same") + corner
        np.testing.assert_allclose(blurred[box, :rows, :columns], expected, rtol=1e-12)


def test_single_precision_stays_single() -> None:
    rng = np.random.default_rng(4)
    kernel, frame = rng.uniform(size=(3, 3)), rng.uniform(1.0, 9.0, size=(2, 30))
    spread = PointSpread(kernel, np.ones((2, 5, 6)), np.zeros((2, 30)))
    blurred = blur(spread, jnp.asarray(frame, jnp.float32))
    assert blurred.dtype == jnp.float32
    np.testing.assert_allclose(blurred, blur(spread, frame), rtol=1e-5)


def test_a_flat_box_stays_flat() -> None:
    kernel = np.full((3, 3), 1.0 / 9.0)
    photons = np.full((1, 30), 4.0)
    np.testing.assert_allclose(blur(PointSpread(kernel, np.ones((1, 5, 6)), photons), photons), photons, rtol=1e-14)

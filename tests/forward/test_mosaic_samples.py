"""Blocks, spreads and their sampled rotations against PHYSICS 1.3 and 1.9 and scipy's distributions and rotations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial.transform import Rotation
from scipy.special import erfinv
from scipy.stats import chi

from bayesbragg.forward.mosaic import MosaicSamples, angular_covariance, block_matrix, mosaic_rotations, sample_axes
from bayesbragg.forward.options import Spread
from bayesbragg.forward.parameters import MosaicParameters
from bayesbragg.model.crystal import cell_matrix

FloatArray = npt.NDArray[np.float64]

ETA = np.array([0.3, 0.5, 0.8])
DEF = np.array([0.2, -0.15, 0.1])
P = np.array([0.0, 0.2, 0.75, 0.999])
AXES = np.random.default_rng(4).standard_normal((4, 3))
AXES /= np.linalg.norm(AXES, axis=1, keepdims=True)
TURN = Rotation.from_rotvec([0.3, -0.5, 0.7]).as_matrix()
CELL_AXES = (TURN @ cell_matrix([31.0, 37.0, 43.0, 83.0, 96.0, 107.0])).T
CELL_AXES /= np.linalg.norm(CELL_AXES, axis=1, keepdims=True)
SAMPLES = MosaicSamples(AXES, P, CELL_AXES)
GAUSSIAN: tuple[Spread, ...] = ("gaussian_isotropic", "gaussian_anisotropic", "gaussian_general")


ROTATIONS = jax.jit(mosaic_rotations, static_argnums=2)


def mosaic(eta: FloatArray = ETA) -> MosaicParameters:
    return MosaicParameters(np.full((1, 3), 10.0), np.zeros((1, 3)), eta, DEF)


def pairs(vectors: FloatArray) -> FloatArray:
    """Rotations by + and - each rotation vector, in turn."""
    both = np.stack([vectors, -vectors], axis=1).reshape(-1, 3)
    return np.asarray(Rotation.from_rotvec(both).as_matrix())


def covariance(spread: Spread) -> FloatArray:
    eta, (d, e, f) = np.radians(ETA), np.radians(DEF)
    if spread == "gaussian_isotropic":
        return np.diag([eta[0] ** 2] * 3)
    if spread == "gaussian_anisotropic":
        return np.asarray(sum(eta[i] ** 2 * np.outer(CELL_AXES[i], CELL_AXES[i]) for i in range(3)))
    # Axes of the cell matrix: along a, across a in the plane of a and b, along c*.
    root = TURN @ np.array([[eta[0], 0, 0], [d, eta[1], 0], [f, e, eta[2]]])
    return np.asarray(root @ root.T)


@pytest.mark.parametrize("spread", GAUSSIAN)
def test_covariance(spread: Spread) -> None:
    found = angular_covariance(SAMPLES, mosaic(), spread)
    np.testing.assert_allclose(found, covariance(spread), rtol=1e-11, atol=1e-17)


@pytest.mark.parametrize("spread", GAUSSIAN)
def test_gaussian_rotations(spread: Spread) -> None:
    root = np.linalg.cholesky(covariance(spread))
    vectors = (AXES * chi.ppf(P, 3)[:, None]) @ root.T
    found = ROTATIONS(SAMPLES, mosaic(), spread)
    np.testing.assert_allclose(found, pairs(vectors), atol=1e-9)


def test_classic_rotations() -> None:
    theta = np.radians(ETA[0]) * np.sqrt(2.0) * erfinv(P)
    np.testing.assert_allclose(ROTATIONS(SAMPLES, mosaic(), "isotropic"), pairs(AXES * theta[:, None]), atol=1e-13)
    S = CELL_AXES.T
    T = S @ np.diag(ETA**-2.0) @ np.linalg.inv(S)
    width = np.array([abs(v @ T @ v) ** -0.5 for v in AXES])
    theta = np.radians(width) * np.sqrt(2.0) * erfinv(P)
    found = ROTATIONS(SAMPLES, mosaic(), "anisotropic")
    np.testing.assert_allclose(found, pairs(AXES * theta[:, None]), atol=1e-13)


def test_no_spread_is_one_block() -> None:
    np.testing.assert_array_equal(ROTATIONS(SAMPLES, mosaic(), "none"), np.eye(3)[None])
    still = ROTATIONS(SAMPLES, mosaic(np.zeros(3)), "anisotropic")
    np.testing.assert_allclose(still, np.tile(np.eye(3), (8, 1, 1)), atol=1e-9)


def test_a_rotation_by_nothing_has_no_axis_but_a_derivative() -> None:
    samples = MosaicSamples(np.zeros((1, 3)), np.array([0.5]), CELL_AXES)

    def rotations(eta: FloatArray) -> Any:
        return mosaic_rotations(samples, mosaic(eta), "gaussian_anisotropic")

    found, slope = jax.jit(lambda eta: jax.jvp(rotations, (eta,), (np.ones(3),)))(ETA)
    np.testing.assert_array_equal(found, [np.eye(3)] * 2)
    np.testing.assert_array_equal(slope, np.zeros((2, 3, 3)))


def test_a_small_width_counts() -> None:
    """Less than a thousandth of a degree about one axis is still a width."""
    small = np.array([1e-5, 2e-5, 3e-5])
    S = CELL_AXES.T
    T = S @ np.diag(small**-2.0) @ np.linalg.inv(S)
    width = np.array([abs(v @ T @ v) ** -0.5 for v in AXES])
    theta = np.radians(width) * np.sqrt(2.0) * erfinv(P)
    found = ROTATIONS(SAMPLES, mosaic(small), "anisotropic")
    np.testing.assert_allclose(found, pairs(AXES * theta[:, None]), atol=1e-12)


def test_block_matrix() -> None:
    found = block_matrix(np.array([[1.0, 2.0, 3.0], [7.0, 8.0, 9.0]]), np.array([[4.0, 5.0, 6.0], [10.0, 11.0, 12.0]]))
    np.testing.assert_array_equal(found[0], [[1, 4, 6], [4, 2, 5], [6, 5, 3]])
    np.testing.assert_array_equal(found[1], [[7, 10, 12], [10, 8, 11], [12, 11, 9]])


def test_sampled_axes() -> None:
    axes, cdf = sample_axes(20)
    np.testing.assert_allclose(np.linalg.norm(axes, axis=1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(np.sort(cdf), np.arange(10) / 10, rtol=1e-14)
    assert not np.array_equal(cdf, np.sort(cdf))
    generator = np.random.default_rng(0)
    raw = generator.standard_normal((10, 3))
    np.testing.assert_allclose(axes, raw / np.linalg.norm(raw, axis=1, keepdims=True), rtol=1e-14)
    assert not np.allclose(sample_axes(20, 1)[0], axes)
    axes, cdf = sample_axes(2)
    assert (axes.shape, list(cdf)) == ((1, 3), [0.0])
    for n in (0, 1, 3, -2):
        with pytest.raises(ValueError, match=f"even and at least 2, got {n}"):
            sample_axes(n)


@pytest.mark.parametrize("spread", GAUSSIAN)
@pytest.mark.parametrize("eta", [np.zeros(3), np.array([0.4, 0.0, 0.2])])
def test_an_axis_without_spread(spread: Spread, eta: FloatArray) -> None:
    """Widths may be zero, the classic least value: rotations are about the other axes then."""
    given = MosaicParameters(np.full((1, 3), 10.0), np.zeros((1, 3)), eta, np.zeros(3))
    found = np.asarray(ROTATIONS(SAMPLES, given, spread))
    vectors = Rotation.from_matrix(found).as_rotvec()
    assert np.all(np.isfinite(found))
    assert np.ptp(np.linalg.norm(vectors, axis=1)) < (1e-7 if not eta.any() else 0.1)
    slope = jax.jacfwd(lambda e: mosaic_rotations(SAMPLES, replace(given, eta_deg=e), spread))(eta)
    assert np.all(np.isfinite(slope))

"""Mosaic rotations that go together, against sums over rotations that are written out here."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from forward.closed_cases import small_scene
from scipy.spatial.transform import Rotation

from bayesbragg.forward import expected_photons
from bayesbragg.forward.candidates import prepare_closed
from bayesbragg.forward.closed import closed_photons
from bayesbragg.forward.mosaic import MosaicSamples, angular_covariance, mosaic_rotations, sample_axes
from bayesbragg.forward.parameters import MosaicParameters

FloatArray = npt.NDArray[np.float64]

ETA, DEF = np.array([0.04, 0.015, 0.025]), np.array([-0.03, 0.02, 0.025])
ROOT = np.radians(np.array([[0.04, 0.0, 0.0], [-0.03, 0.015, 0.0], [0.025, 0.02, 0.025]]))
"""Along a, across it in the plane of a and b, along c*; radian."""


@pytest.mark.slow
def test_photons_are_the_average_over_rotations() -> None:
    parameters, scene, options = small_scene(n_boxes=4, eta_deg=0.05, spread="gaussian_general")
    mosaic = replace(parameters.mosaic, eta_deg=ETA, eta_def_deg=DEF)
    parameters = replace(parameters, mosaic=mosaic)
    # The cell is orthogonal: the axes are those of a, b and c themselves.
    axes = np.asarray(scene.mosaic.cell_directions)
    x, w = np.polynomial.hermite_e.hermegauss(6)
    exact, plain = 0.0, replace(options, spread="none")
    for i, j, k in product(range(6), repeat=3):
        weight = w[i] * w[j] * w[k] / w.sum() ** 3
        if weight < 1e-6:
            continue
        turn = Rotation.from_rotvec(axes.T @ ROOT @ np.array([x[i], x[j], x[k]])).as_matrix()
        there = replace(scene, lattices=replace(scene.lattices, U=turn @ scene.lattices.U))
        exact = exact + weight * np.asarray(expected_photons(parameters, there, plain))
    ours = np.asarray(closed_photons(parameters, prepare_closed(parameters, scene, options), options))
    peak = np.asarray(exact).max()
    assert np.abs(ours - exact).max() / peak < 1e-3
    # The test would see a spread without what goes together.
    alone = replace(parameters, mosaic=replace(mosaic, eta_def_deg=np.zeros(3)))
    other = np.asarray(closed_photons(alone, prepare_closed(alone, scene, options), options))
    assert np.abs(other - exact).max() / peak > 0.02


def test_samples_have_the_covariance() -> None:
    """Also in a cell that is not orthogonal."""
    a, b, c = np.array([[1.0, 0.0, 0.0], [-0.5, np.sqrt(0.75), 0.0], [0.2, 0.1, np.sqrt(0.95)]])
    frame = Rotation.random(random_state=3).as_matrix()
    samples = MosaicSamples(*sample_axes(40_000, seed=1), np.stack([a, b, c]) @ frame.T)
    blocks = np.ones((1, 3))
    mosaic = MosaicParameters(blocks, 0.0 * blocks, ETA, DEF)
    axes = np.stack([a, np.cross([0.0, 0.0, 1.0], a), [0.0, 0.0, 1.0]]) @ frame.T
    expected = axes.T @ ROOT @ ROOT.T @ axes
    np.testing.assert_allclose(angular_covariance(samples, mosaic, "gaussian_general"), expected, rtol=0, atol=1e-15)
    vectors = Rotation.from_matrix(np.asarray(mosaic_rotations(samples, mosaic, "gaussian_general"))).as_rotvec()
    found = vectors.T @ vectors / len(vectors)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    # Pairs of + and -: 20,000 independent vectors; four standard errors of a variance.
    assert np.abs((found - expected) / scale).max() < 4.0 * np.sqrt(2.0 / 20_000)

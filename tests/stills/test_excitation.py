"""Learned excitation on simulated spots: domains, wavelengths and points drawn until they meet the sphere exactly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from bayesbragg.model import Beam, Crystal, Detector
from bayesbragg.stills.excitation import excited_centroids, observations
from bayesbragg.stills.orientation_refinement import OrientationFit, predicted_centroids, with_excitation
from bayesbragg.stills.virtual import four_panels, virtual_experiment

FloatArray = npt.NDArray[np.float64]

ROOT = 1e-3 * np.array([[0.8, 0.0, 0.0], [-1.2, 0.5, 0.0], [2.0, 0.4, 0.6]])
"""Of the rotations' covariance in the lab: they go together, the beam's axis with the others."""
BAND, WIDTH, NOISE = 1.0e-3, 5e-5, 0.1
NEAR = 2e-6


def _spots(
    crystal: Crystal, beam: Beam, detector: Detector, seed: int, n: int
) -> tuple[FloatArray, npt.NDArray[np.int64], FloatArray]:
    """Indices, panels and positions of n spots, by the exact geometry."""
    generator = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in (36, 36, 18)), indexing="ij"), -1).reshape(-1, 3)
    k = beam.direction / beam.wavelength_A
    q = grid @ crystal.A_reciprocal.T
    near = np.abs(np.linalg.norm(k + q, axis=1) - 1.0 / beam.wavelength_A) < 2.5e-3
    grid = grid[near & (np.linalg.norm(q, axis=1) > 0.03)]
    kept: dict[tuple[int, ...], tuple[int, FloatArray]] = {}
    while len(kept) < n:
        hkl = grid[generator.integers(len(grid), size=300_000)]
        turn = Rotation.from_rotvec(generator.standard_normal((len(hkl), 3)) @ ROOT.T)
        wave = 1.0 + BAND * generator.standard_normal(len(hkl))
        point = turn.apply(hkl @ crystal.A_reciprocal.T) + WIDTH * generator.standard_normal((len(hkl), 3))
        s = k * wave[:, None] + point
        met = np.abs(np.linalg.norm(s, axis=1) - wave / beam.wavelength_A) < NEAR
        for index, ray in zip(hkl[met], s[met], strict=True):
            for panel in range(4):
                xy = detector.intersect(np.array([panel]), ray[None])[0]
                if np.all((xy > 0) & (xy < detector.image_size[panel])) and len(kept) < n:
                    kept.setdefault(tuple(index), (panel, xy + NOISE * generator.standard_normal(2)))
    panel = np.array([p for p, _ in kept.values()])
    return np.array(list(kept), dtype=float), panel, np.array([xy for _, xy in kept.values()])


def test_rotations_that_go_together_are_learned() -> None:
    world = virtual_experiment(2, n_channels=1)
    crystal, beam, detector = world.crystal, world.beam, four_panels(side=700, distance_mm=90.0)
    off = crystal.with_cell_and_orientation(
        crystal.cell * np.array([1.001, 1.001, 0.999, 1, 1, 1]),
        Rotation.from_rotvec([5e-4, -5e-4, 5e-4]).as_matrix() @ crystal.U,
    )
    hkl, panel, seen = _spots(crystal, beam, detector, 1, 300)
    train, test = np.arange(300) < 150, np.arange(300) >= 150
    fit = with_excitation(OrientationFit(off, 1.0, 1e-3), beam, detector, hkl[train], panel[train], seen[train])
    found = fit.excitation
    assert found is not None
    true = ROOT @ ROOT.T
    # 150 spots: a variance is known to 12 % at best, and each spot tells little of some of its axes.
    assert np.abs(found.rotation - true).max() < 0.4 * true.max()
    assert np.sign(found.rotation[2, 1]) == np.sign(true[2, 1])
    assert 0.4 * BAND < found.wavelength < 1.6 * BAND
    turn = np.degrees((Rotation.from_matrix(fit.crystal.U @ crystal.U.T)).magnitude())
    assert turn < 0.03
    # Spots that were not fitted fall where they are expected, and nearer than without.
    place, _, _, _ = excited_centroids(fit.crystal, beam, detector, hkl[test], panel[test], found)
    plain, _, _ = predicted_centroids(crystal, beam, detector, hkl[test], panel[test])
    ours, theirs = (np.sqrt(np.mean(np.sum((p - seen[test]) ** 2, axis=1))) for p in (place, plain))
    assert ours < 0.8 * theirs


def test_derivatives_are_those_of_the_geometry() -> None:
    """Differences of the exact position and distance."""
    world = virtual_experiment(3, n_channels=1)
    crystal, beam, detector = world.crystal, world.beam, world.detector
    hkl, panel = np.array([[5.0, -7.0, 2.0], [-9.0, 3.0, 4.0]]), np.array([0, 3])
    _, _, derivative = observations(crystal, beam, detector, hkl, panel)
    k = beam.direction / beam.wavelength_A

    def observed(u: FloatArray) -> FloatArray:
        s = k * (1.0 + u[3]) + Rotation.from_rotvec(u[:3]).apply(hkl @ crystal.A_reciprocal.T) + u[4:]
        distance = np.linalg.norm(s, axis=1) - (1.0 + u[3]) / beam.wavelength_A
        return np.column_stack([distance, detector.intersect(panel, s)])

    for i in range(7):
        step = np.eye(7)[i] * 1e-6
        np.testing.assert_allclose(derivative[:, :, i], (observed(step) - observed(-step)) / 2e-6, rtol=1e-6, atol=1e-6)

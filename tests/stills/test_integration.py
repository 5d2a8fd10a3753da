"""Three intensities of simulated spots: on average right, with the variance that they state, neighbours included."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from bayesbragg.model import Shot
from bayesbragg.stills.integration import Integrated, foreground_pixels, integrate
from bayesbragg.stills.neighbours import find_neighbours
from bayesbragg.stills.spot_shapes import SpotShapes

SIDE = 14
LEVEL = 4.0
READOUT = 0.3
PLANE = np.diag([1e-4, 1e-4, 5e-3])
FloatArray = npt.NDArray[np.float64]


def gaussian(n: int, centre: tuple[float, float], width: float = 1.3) -> FloatArray:
    slow, fast = np.divmod(np.arange(SIDE * SIDE), SIDE)
    shape = np.exp(-((fast + 0.5 - centre[0]) ** 2 + (slow + 0.5 - centre[1]) ** 2) / (2 * width**2))
    return np.tile(shape, (n, 1))


def spots(n: int, centres: list[tuple[float, float]]) -> SpotShapes:
    """The spots of `centres`, each in the box at the panel's corner, n times on as many panels."""
    photons = np.concatenate([gaussian(n, centre) for centre in centres])
    count = len(photons)
    panel = np.tile(np.arange(n), len(centres))
    bounds = np.tile([0, SIDE, 0, SIDE], (count, 1))
    place = np.repeat(np.array(centres), n, axis=0)
    return SpotShapes(panel, bounds, SIDE, photons, photons.sum(axis=1), place)


def simulated(shapes: SpotShapes, truth: list[float], seed: int) -> tuple[Integrated, int]:
    """Noisy boxes of the spots, planes with errors of their stated covariance; one panel holds one of each spot."""
    generator = np.random.default_rng(seed)
    n = len(shapes.panel) // len(truth)
    unit = (shapes.photons / shapes.total[:, None]).reshape(len(truth), n, -1)
    mu = LEVEL + np.einsum("k,knp->np", truth, unit)
    counts = generator.poisson(mu) + READOUT * generator.standard_normal(mu.shape)
    slow, fast = np.divmod(np.arange(SIDE * SIDE), SIDE)
    error = generator.multivariate_normal(np.zeros(3), PLANE, n) @ np.stack([fast, slow, np.ones(SIDE * SIDE)])
    rows = np.tile(np.arange(n), len(truth))
    count = len(rows)
    shot = Shot(
        shapes.panel, shapes.bounds, (SIDE, SIDE), counts[rows], (LEVEL + error)[rows],
        np.ones((count, SIDE * SIDE), dtype=bool), np.asarray(READOUT), np.zeros((count, 3), np.int64),
        np.arange(count), np.zeros(count, np.int64), np.zeros((count, 3)),
    )  # fmt: skip
    covariance = np.tile(PLANE, (count, 1, 1))
    return integrate(shot, shapes.photons, covariance, np.zeros((count, 2)), find_neighbours(shapes)), n


@pytest.mark.parametrize("photons", [0.0, 20.0, 2000.0])
@pytest.mark.parametrize("kind", ["sum", "profile", "posterior"])
def test_alone(kind: str, photons: float) -> None:
    """Mean within 4 standard errors, and the spread of the results as stated."""
    found, n = simulated(spots(1500, [(6.8, 7.3)]), [photons], 1)
    value, variance = getattr(found, f"{kind}_value"), getattr(found, f"{kind}_variance")
    lost = 0.005 * photons if kind == "sum" else 0.0  # of the spot, outside the foreground
    assert abs(value.mean() - photons) < 4 * value.std() / np.sqrt(n) + lost
    z = (value - photons) / np.sqrt(variance)
    assert abs(z.std() - 1.0) < 4 / np.sqrt(2 * n) + 0.03


def test_profile_beats_summation_for_weak_spots() -> None:
    found, _ = simulated(spots(1500, [(6.8, 7.3)]), [20.0], 2)
    assert found.profile_value.std() < 0.75 * found.sum_value.std()
    # The plane's freedom costs little where its prior is good.
    assert found.posterior_value.std() < 1.05 * found.profile_value.std()


def test_neighbours_are_told_apart() -> None:
    """A weak spot beside a bright one: the posterior stays right and its error grows; the profile is drawn away."""
    shapes = spots(1000, [(4.6, 7.0), (8.6, 7.0)])
    found, n = simulated(shapes, [40.0, 800.0], 3)
    weak = slice(0, n)
    value, sd = found.posterior_value[weak], np.sqrt(found.posterior_variance[weak])
    assert abs(value.mean() - 40.0) < 4 * value.std() / np.sqrt(n)
    assert abs(((value - 40.0) / sd).std() - 1.0) < 0.12
    assert found.profile_value[weak].mean() > 45.0
    alone, _ = simulated(spots(200, [(4.6, 7.0)]), [40.0], 3)
    assert sd.mean() > 1.02 * np.sqrt(alone.posterior_variance).mean()


def test_untrusted_pixels() -> None:
    """Summation needs every pixel of the foreground, the fits go on with those that are left."""
    shapes = spots(300, [(6.8, 7.3)])
    generator = np.random.default_rng(5)
    unit = shapes.photons / shapes.total[:, None]
    counts = generator.poisson(LEVEL + 500.0 * unit).astype(float)
    trusted = np.ones(counts.shape, dtype=bool)
    trusted[:, 7 * SIDE + 6] = False
    counts[:, 7 * SIDE + 6] = 1e6
    n = len(counts)
    shot = Shot(
        shapes.panel, shapes.bounds, (SIDE, SIDE), counts, np.full(counts.shape, LEVEL), trusted, np.asarray(READOUT),
        np.zeros((n, 3), np.int64), np.arange(n), np.zeros(n, np.int64), np.zeros((n, 3)),
    )  # fmt: skip
    covariance = np.tile(PLANE, (n, 1, 1))
    found = integrate(shot, shapes.photons, covariance, np.zeros((n, 2)), find_neighbours(shapes))
    assert np.all(np.isnan(found.sum_value))
    assert np.all(found.n_trusted == found.n_foreground - 1)
    assert abs(found.posterior_value.mean() - 500.0) < 4 * found.posterior_value.std() / np.sqrt(n)
    none = replace(shot, trusted=np.zeros_like(trusted))
    lost = integrate(none, shapes.photons, covariance, np.zeros((n, 2)), find_neighbours(shapes))
    assert np.all(np.isnan(lost.posterior_value))


def test_foreground_holds_the_spot() -> None:
    shape = gaussian(1, (6.8, 7.3))
    region = foreground_pixels(shape, SIDE, np.ones(shape.shape, dtype=bool))
    assert shape[region].sum() > 0.995 * shape.sum()
    assert region.sum() < 0.6 * region.size
    # No spot, no foreground.
    assert not foreground_pixels(np.zeros_like(shape), SIDE, np.ones(shape.shape, dtype=bool)).any()

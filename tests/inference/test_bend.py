"""The bend of a long valley, against one whose floor is known."""

from __future__ import annotations

import numpy as np
import pytest

from bayesbragg.inference.arrow import ArrowFactor
from bayesbragg.inference.bend import find_bend

# One shot with one number; two shared numbers that only together move far.
LONG = np.array([[100.0, 1.0], [100.0, -1.0]]) / np.sqrt(2.0)
FACTOR = ArrowFactor((np.ones((1, 1, 1)),), (np.zeros((1, 1, 2)),), LONG)


def valley(u: np.ndarray, floor: np.ndarray) -> float:
    """U of whitened coordinates (own, long, thin), with a floor at ``floor`` times the square of the long one."""
    return float(0.5 * np.sum((u - floor * u[1] ** 2) ** 2))


def slope_of(floor: np.ndarray) -> object:
    def slope(u: np.ndarray) -> np.ndarray:
        h = 1e-5
        return np.array([(valley(u + h * e, floor) - valley(u - h * e, floor)) / (2 * h) for e in np.eye(3)])

    return slope


def test_the_floor_is_found_and_the_valley_straightened() -> None:
    floor = np.array([0.3, 0.0, -0.2])
    bend = find_bend(slope_of(floor), FACTOR)  # type: ignore[arg-type]
    assert bend is not None
    assert bend.along.shape == (1, 3)
    np.testing.assert_allclose(np.abs(bend.along), [[0.0, 1.0, 0.0]], atol=1e-12)
    np.testing.assert_allclose(bend.away[0, 0], floor, atol=1e-6)
    for u in np.random.default_rng(0).standard_normal((5, 3)):
        assert valley(np.asarray(bend(u)), floor) == pytest.approx(0.5 * np.sum(u**2), rel=1e-5)
    rows = np.random.default_rng(1).standard_normal((4, 3))
    np.testing.assert_allclose(bend(rows), [bend(u) for u in rows])


def test_the_map_has_determinant_one() -> None:
    import jax

    bend = find_bend(slope_of(np.array([0.4, 0.0, 0.1])), FACTOR)  # type: ignore[arg-type]
    assert bend is not None
    for u in np.random.default_rng(2).standard_normal((3, 3)):
        assert float(np.linalg.det(jax.jacobian(bend)(u))) == pytest.approx(1.0, rel=1e-12)


def test_nothing_is_bent_that_is_straight_or_short() -> None:
    assert find_bend(slope_of(np.zeros(3)), FACTOR) is None  # type: ignore[arg-type]
    short = ArrowFactor(FACTOR.own, FACTOR.carry, np.eye(2))
    assert find_bend(slope_of(np.array([0.3, 0.0, -0.2])), short) is None  # type: ignore[arg-type]

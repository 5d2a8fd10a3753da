"""Moved panels, directions, solid angle, capture and polarization against PHYSICS 1.1 and 1.5 to 1.7, box by box."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial.transform import Rotation

from bayesbragg.forward.geometry import (
    BoxGeometry,
    MovedBoxes,
    captured_fraction,
    directions,
    full_direction,
    move_boxes,
    polarization,
    solid_angle,
)
from bayesbragg.forward.parameters import PanelParameters, Parameters
from bayesbragg.forward.rotations import cell_matrix

FloatArray = npt.NDArray[np.float64]
N_BOXES, N_PIXELS = 4, 5
PANELS = PanelParameters(
    np.array([[0.02, -0.03, 0.05], [-0.04, 0.06, 0.01]]), np.array([[1e-4, 2e-4, -3e-4], [3e-4, -1e-4, 2e-4]]),
    np.asarray(5e-4),
)  # fmt: skip


MOVE, LOOK, FULL, OMEGA = map(jax.jit, (move_boxes, directions, full_direction, solid_angle))
CAPTURED, POLARIZED = jax.jit(captured_fraction), jax.jit(polarization)


def boxes_of(sign: float = 1.0, dtype: npt.DTypeLike = np.float64) -> BoxGeometry:
    frames = Rotation.from_rotvec(0.3 * np.random.default_rng(1).standard_normal((N_BOXES, 3))).as_matrix()
    frames = frames @ np.diag([1.0, sign, 1.0])
    fast, slow = frames[:, :, 0], frames[:, :, 1]
    origin = np.array([[0.02, -0.03, 0.11], [-0.05, 0.01, 0.12], [0.01, 0.04, 0.10], [0.03, 0.02, 0.09]])
    return BoxGeometry(
        origin_m=origin,
        fast=fast,
        slow=slow,
        normal=sign * np.cross(fast, slow),
        normal_sign=np.asarray(sign),
        pixel_m=np.array([[1e-4, 1.2e-4], [0.9e-4, 1.1e-4], [1.3e-4, 0.8e-4], [0.7e-4, 1.4e-4]]),
        group=np.array([1, 0, 1, 0]),
        reference_m=origin + np.array([0.01, -0.02, 0.03]),
        centre_px=np.array([[50.0, 20.5], [10.5, 80.0], [33.0, 44.0], [71.0, 9.5]]),
        fast_px=np.random.default_rng(2).uniform(-4, 4, (N_BOXES, N_PIXELS)).astype(dtype),
        slow_px=np.random.default_rng(3).uniform(-4, 4, (N_BOXES, N_PIXELS)).astype(dtype),
    )


def panel(boxes: BoxGeometry, b: int) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Origin, fast, slow and normal of a box's panel after its motion (PHYSICS 1.1)."""
    n0, f0, s0 = (np.asarray(v)[b] for v in (boxes.normal, boxes.fast, boxes.slow))
    angles = np.asarray(PANELS.rotation_rad)[boxes.group[b]]
    turns = [Rotation.from_rotvec(a * axis).as_matrix() for a, axis in zip(angles, (n0, f0, s0), strict=True)]
    R = turns[0] @ turns[1] @ turns[2]
    c = boxes.reference_m[b]
    shift = np.asarray(PANELS.translation_m)[boxes.group[b]] + [0.0, 0.0, float(PANELS.detz_m)]
    F, S = R @ f0, R @ s0
    N = float(boxes.normal_sign) * np.cross(F, S)
    return c + R @ (boxes.origin_m[b] - c) + shift, F, S, N / np.linalg.norm(N)


def points(boxes: BoxGeometry, fast: float, slow: float, depth: float) -> FloatArray:
    """Positions of points of every pixel, ``(n_boxes, n_pixels, 3)``, metre."""
    result = np.zeros((N_BOXES, N_PIXELS, 3))
    for b in range(N_BOXES):
        o, F, S, N = panel(boxes, b)
        for p in range(N_PIXELS):
            f = boxes.centre_px[b, 0] + boxes.fast_px[b, p] + fast
            s = boxes.centre_px[b, 1] + boxes.slow_px[b, p] + slow
            result[b, p] = o + f * boxes.pixel_m[b, 0] * F + s * boxes.pixel_m[b, 1] * S + depth * N
    return result


@pytest.fixture(scope="module", params=[1.0, -1.0])
def moved(request: pytest.FixtureRequest) -> tuple[BoxGeometry, MovedBoxes]:
    boxes = boxes_of(request.param)
    return boxes, MOVE(boxes, PANELS)


def test_moved_panels(moved: tuple[BoxGeometry, MovedBoxes]) -> None:
    boxes, found = moved
    for b in range(N_BOXES):
        o, F, S, N = panel(boxes, b)
        step = boxes.pixel_m[b]
        np.testing.assert_allclose(found.fast_m[b], F * step[0], rtol=1e-11)
        np.testing.assert_allclose(found.slow_m[b], S * step[1], rtol=1e-11)
        np.testing.assert_allclose(found.normal[b], N, rtol=1e-11)
        assert float(found.distance_m[b]) == pytest.approx(o @ N, rel=1e-12)
        assert float(found.area_m2[b]) == pytest.approx(step[0] * step[1], rel=1e-12)
        middle = o + boxes.centre_px[b, 0] * step[0] * F + boxes.centre_px[b, 1] * step[1] * S
        np.testing.assert_allclose(found.position_m[b], middle, rtol=1e-11)
        np.testing.assert_allclose(found.direction[b], middle / np.linalg.norm(middle), rtol=1e-11)


def test_directions_and_solid_angles(moved: tuple[BoxGeometry, MovedBoxes]) -> None:
    boxes, found = moved
    depth = 3e-4
    point = LOOK(boxes, found, np.asarray(0.3), np.asarray(0.8), np.asarray(depth))
    p = points(boxes, 0.3, 0.8, depth)
    r = np.linalg.norm(p, axis=-1)
    np.testing.assert_allclose(point.inverse_r, 1.0 / r, rtol=1e-12)
    u = p / r[..., None]
    np.testing.assert_allclose(np.stack(FULL(found, point), axis=-1), u, rtol=1e-11)
    du = np.stack(point.du, axis=-1)
    np.testing.assert_allclose(du, u - np.asarray(found.direction)[:, None], rtol=1e-9, atol=1e-14)
    omega = np.asarray(found.area_m2)[:, None] * np.asarray(found.distance_m)[:, None] / r**3
    np.testing.assert_allclose(OMEGA(found, point), omega, rtol=1e-11)


def test_small_pixels_keep_their_differences() -> None:
    """Single precision: the difference to the box's direction keeps its own seven digits."""
    wide, narrow = boxes_of(), boxes_of(dtype=np.float32)
    wide = replace(wide, fast_px=narrow.fast_px.astype(float), slow_px=narrow.slow_px.astype(float))
    zero = np.asarray(0.0)
    exact, single = (LOOK(b, MOVE(b, PANELS), zero, zero, zero) for b in (wide, narrow))
    assert single.du[0].dtype == jnp.float32
    for a, b in zip(exact.du, single.du, strict=True):
        assert np.abs(np.asarray(a) - np.asarray(b, float)).max() < 2e-6 * np.abs(np.asarray(a)).max()


def test_captured_fraction(moved: tuple[BoxGeometry, MovedBoxes]) -> None:
    boxes, found = moved
    point = LOOK(boxes, found, np.asarray(0.3), np.asarray(0.8), np.asarray(0.0))
    p = points(boxes, 0.3, 0.8, 0.0)
    along = np.einsum("bpi,bi->bp", p / np.linalg.norm(p, axis=-1, keepdims=True), np.asarray(found.normal))
    D, L = 1.3e-4, 2.9e-4
    for t in (0, 2):
        expected = np.exp(-t * D / (L * along)) - np.exp(-(t + 1) * D / (L * along))
        cap = CAPTURED(found, point, np.asarray(t), np.asarray(D), np.asarray(L))
        np.testing.assert_allclose(cap, expected, rtol=1e-11)


def test_polarization(moved: tuple[BoxGeometry, MovedBoxes]) -> None:
    boxes, found = moved
    k = np.array([0.02, -0.03, 1.0])
    k /= np.linalg.norm(k)
    n_p, kahn = np.array([0.3, 0.9, 0.1]), 0.7
    point = LOOK(boxes, found, np.asarray(0.5), np.asarray(0.5), np.asarray(0.0))
    e = np.cross(k, n_p) / np.linalg.norm(np.cross(k, n_p))
    B = np.cross(e, k)
    E = np.cross(k, B)
    p = points(boxes, 0.5, 0.5, 0.0)
    u = p / np.linalg.norm(p, axis=-1, keepdims=True)
    psi = -np.arctan2(u @ B, u @ E)
    c2 = (u @ k) ** 2
    expected = 0.5 * (1.0 + c2 - kahn * np.cos(2.0 * psi) * (1.0 - c2))
    np.testing.assert_allclose(POLARIZED(found, point, k, n_p, np.asarray(kahn)), expected, rtol=1e-11)


def test_rows_are_picked_by_number(moved: tuple[BoxGeometry, MovedBoxes]) -> None:
    boxes, found = moved
    rows = np.array([2, 0, 2, 1])
    picked, panels = boxes.at(rows), found.at(rows)
    assert float(picked.normal_sign) == float(boxes.normal_sign)
    np.testing.assert_array_equal(picked.centre_px, boxes.centre_px[rows])
    np.testing.assert_array_equal(picked.fast_px, boxes.fast_px[rows])
    np.testing.assert_array_equal(panels.position_m, np.asarray(found.position_m)[rows])


def test_cell_matrix_has_the_lengths_and_angles_of_the_cell() -> None:
    a, b, c = 31.0, 37.0, 43.0
    alpha, beta, gamma = np.radians([83.0, 96.0, 107.0])
    B = np.asarray(cell_matrix(np.array([a, b, c, alpha, beta, gamma])))
    metric = [
        [a * a, a * b * np.cos(gamma), a * c * np.cos(beta)],
        [a * b * np.cos(gamma), b * b, b * c * np.cos(alpha)],
        [a * c * np.cos(beta), b * c * np.cos(alpha), c * c],
    ]
    np.testing.assert_allclose(B.T @ B, metric, rtol=1e-12)
    np.testing.assert_array_equal(B[np.tril_indices(3, -1)], 0.0)
    assert np.all(np.diag(B) > 0)


def test_starting_parameters() -> None:
    p = Parameters.start([1, 2, 3, 4, 5, 6])
    assert [np.shape(a) for a in (p.crystal.rot_xyz, p.mosaic.n_abc, p.mosaic.n_def, p.scale.G)] == [
        *((1, 3), (1, 3), (1, 3), (1,))
    ]
    np.testing.assert_array_equal(p.crystal.cell, [1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(p.mosaic.n_abc, [[10.0] * 3])
    assert (float(p.scale.G[0]), float(p.spectrum.scale)) == (1.0, 1.0)
    np.testing.assert_array_equal(p.diffuse.gamma_A, [50.0] * 3)
    for zero in (
        *(p.crystal.rot_xyz, p.mosaic.n_def, p.mosaic.eta_deg, p.mosaic.eta_def_deg, p.scale.b_factor_A2),
        *(p.spectrum.offset_A, p.panels.rotation_rad, p.panels.translation_m, p.panels.detz_m, p.diffuse.sigma_A),
    ):
        assert not np.any(zero)
    many = Parameters.start(
        np.arange(6.0), n_lattices=2, rot_xyz=[1, 2, 3], G=[4, 5], n_groups=3, panel_translation_m=[7, 8, 9],
        eta_deg=[0.3, 0.5, 0.4], eta_def_deg=[0.2, -0.1, 0.6],
    )  # fmt: skip
    np.testing.assert_array_equal(many.crystal.rot_xyz, [[1, 2, 3]] * 2)
    np.testing.assert_array_equal(many.scale.G, [4, 5])
    np.testing.assert_array_equal(many.panels.translation_m, [[7, 8, 9]] * 3)
    assert many.panels.rotation_rad.shape == (3, 3)
    expected = np.sqrt(0.5**2 + 0.2**2 + 0.1**2 + 0.6**2)
    assert float(many.mosaic.largest_spread_deg()) == pytest.approx(expected, rel=1e-12)
    still = many.mosaic.without_spread()
    np.testing.assert_array_equal(still.eta_deg, np.zeros(3))
    np.testing.assert_array_equal(still.eta_def_deg, np.zeros(3))
    assert still.n_abc is many.mosaic.n_abc

"""Windows of pixels against the exponent as the docstrings have it, at a few wavelengths."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forward.skew_scene import B_FACTOR, rays, skew_parameters, skew_scene, spectrum_ends

from bayesbragg.forward import Options
from bayesbragg.forward.geometry import directions, move_boxes
from bayesbragg.forward.rays import Coefficients, Tilts, Windows, coefficients, pixel_tilts, windows
from bayesbragg.forward.spread import Shapes

PARAMETERS, SCENE = skew_parameters(), skew_scene()
BOX = np.array([3, 0, 4, 1])
K_REFERENCE = jnp.asarray(0.77)


def made_up_shapes() -> Shapes:
    """Two nodes whose every number differs, in frames near the rays of the boxes."""
    generator = np.random.default_rng(4)
    s = rays(PARAMETERS, SCENE).mean(axis=1)[BOX]
    frame = np.zeros((len(BOX), 3, 3))
    for row, ray in enumerate(s):
        n = ray / np.linalg.norm(ray) + 0.02 * generator.standard_normal(3)
        n /= np.linalg.norm(n)
        first = np.cross(n, generator.standard_normal(3))
        first /= np.linalg.norm(first)
        frame[row] = n, first, np.cross(n, first)
    shape = (2, len(BOX))
    length = 0.77 * np.linalg.norm(s, axis=-1) * generator.uniform(0.98, 1.02, shape)
    K = generator.uniform(3e4, 9e4, (*shape, 3)) * np.array([1.0, 0.4, 1.0])
    return Shapes(
        frame=frame,
        length=length,
        outward=generator.uniform(0.2, 0.9, shape),
        lean=generator.uniform(-0.5, 0.5, (*shape, 2)),
        stiffness=K,
        variance=generator.uniform(1e-5, 4e-5, shape),
        weight=np.ones(shape),
    )


def seen(shapes: Shapes, b_factor: bool, dtype: Any) -> tuple[Tilts, Coefficients, Windows]:
    """Tilts of all rows but the first, and their windows."""
    rows = slice(1, len(BOX))
    moved = move_boxes(SCENE.boxes, PARAMETERS.panels).at(BOX[rows])
    half = jnp.asarray(0.5)
    point = directions(SCENE.boxes.at(BOX[rows]), moved, half, half, jnp.asarray(0.0))
    point = jax.tree.map(lambda a: a.astype(dtype), point)
    tilts = pixel_tilts(SCENE, shapes, rows, moved, point, K_REFERENCE)
    columns = coefficients(PARAMETERS, Options(b_factor=b_factor), shapes, dtype)
    mine = jax.tree.map(lambda a: a[:, rows], columns)
    return tilts, columns, windows(tilts, mine, K_REFERENCE.astype(dtype))


@pytest.mark.parametrize("b_factor", [False, True])
def test_windows_are_the_exponent(b_factor: bool) -> None:
    """m + p (k - k*)^2 is ((k a - l)^2 / v + k^2 T) / 2 at every k, node, row and pixel, and wider is v T / a^2."""
    shapes = made_up_shapes()
    _, _, window = seen(shapes, b_factor, jnp.float64)
    B = B_FACTOR if b_factor else 0.0
    rays_of = rays(PARAMETERS, SCENE)
    for node in range(2):
        for row in range(1, len(BOX)):
            s = rays_of[BOX[row]]
            along, t1, t2 = np.asarray(shapes.frame[row]) @ s.T
            K, lean = shapes.stiffness[node, row], shapes.lean[node, row]
            norm = np.linalg.norm(s, axis=-1)
            a = along + shapes.outward[node, row] * (norm - along) - lean[0] * t1 - lean[1] * t2
            T = K[0] * t1**2 + 2.0 * K[1] * t1 * t2 + K[2] * t2**2 + B * norm**2
            l, v = shapes.length[node, row], shapes.variance[node, row]
            miss, centre, sharpness, wider = (
                np.asarray(getattr(window, name)[node, row - 1]) for name in ("miss", "centre", "sharpness", "wider")
            )
            D = a**2 + v * T
            np.testing.assert_allclose(wider, v * T / a**2, rtol=1e-9)
            np.testing.assert_allclose(sharpness, D / (2.0 * v), rtol=1e-9)
            np.testing.assert_allclose(centre, a * l / D - 0.77, rtol=0, atol=1e-11)
            np.testing.assert_allclose(miss, l**2 * T / (2.0 * D), rtol=1e-9)
            for k in (0.7, 0.77, 0.81):
                expected = 0.5 * ((k * a - l) ** 2 / v + k**2 * T)
                np.testing.assert_allclose(miss + sharpness * (k - 0.77 - centre) ** 2, expected, rtol=1e-9)
    low, high = spectrum_ends(PARAMETERS, SCENE)
    assert np.any((np.asarray(window.centre) > low - 0.77) & (np.asarray(window.centre) < high - 0.77))


def test_tilts() -> None:
    shapes = made_up_shapes()
    tilts, _, _ = seen(shapes, False, jnp.float64)
    for row in range(1, len(BOX)):
        s = rays(PARAMETERS, SCENE)[BOX[row]]
        along, t1, t2 = np.asarray(shapes.frame[row]) @ s.T
        norm = np.linalg.norm(s, axis=-1)
        expected = (t1 / along, t2 / along, norm / along - 1.0, along, (shapes.length[0, row] - 0.77 * along) / along)
        for field, value in zip(fields(Tilts), expected, strict=True):
            np.testing.assert_allclose(getattr(tilts, field.name)[row - 1], value, rtol=1e-9, atol=1e-13)


def test_single_precision_keeps_small_differences() -> None:
    """Per-pixel arrays are float32, and k* is as good as differences from the box allow."""
    shapes = made_up_shapes()
    tilts, columns, window = seen(shapes, True, jnp.float32)
    _, _, double = seen(shapes, True, jnp.float64)
    for value in jax.tree.leaves((tilts, columns, window)):
        assert value.dtype == jnp.float32
    np.testing.assert_allclose(window.centre, double.centre, rtol=0, atol=3e-7)
    np.testing.assert_allclose(window.miss, double.miss, rtol=1e-4)
    assert np.abs(np.asarray(double.miss)).max() > 1.0

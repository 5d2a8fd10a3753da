"""Merged channels against moments, known Gauss rules and bins counted by hand; sums through windows against numpy."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest

from bayesbragg.forward.window import GAUSS_POINTS, _gauss_nodes, merge_channels, through_window

FloatArray = npt.NDArray[np.float64]


def moments(x: FloatArray, w: FloatArray, n: int, middle: float, half: float) -> FloatArray:
    return np.array([np.sum(w * ((x - middle) / half) ** power) for power in range(n)])


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_gauss_nodes_keep_moments(n: int) -> None:
    generator = np.random.default_rng(n)
    x = np.sort(generator.uniform(0.7, 0.9, 60))
    w = generator.exponential(size=60)
    nodes, weights = _gauss_nodes(x, w, n)
    assert nodes.shape == weights.shape == (n,)
    assert np.all((nodes > x[0]) & (nodes < x[-1]))
    assert np.all(weights > 0)
    np.testing.assert_allclose(
        moments(nodes, weights, 2 * n, 0.8, 0.1), moments(x, w, 2 * n, 0.8, 0.1), rtol=1e-11, atol=1e-11
    )


def test_gauss_nodes_of_even_channels_are_those_of_legendre() -> None:
    """Twenty points of a Legendre rule stand for the even measure; their own Gauss rules are Legendre's of 1 to 6."""
    x, w = np.polynomial.legendre.leggauss(20)
    for n in range(1, 7):
        nodes, weights = _gauss_nodes(3.0 + 0.5 * x / x[-1], 2.5 * w, n)
        expected, shares = np.polynomial.legendre.leggauss(n)
        np.testing.assert_allclose((nodes - 3.0) / 0.5 * x[-1], expected, atol=1e-11)
        np.testing.assert_allclose(weights, 2.5 * shares, rtol=1e-11)


def test_gauss_nodes_of_few_distinct_channels() -> None:
    """Fewer distinct channels than nodes are kept as they are."""
    x = np.array([1.0, 1.0, 1.25, 2.0, 2.0, 2.0])
    w = np.array([0.5, 1.0, 2.0, 0.25, 0.5, 0.25])
    nodes, weights = _gauss_nodes(x, w, 5)
    np.testing.assert_allclose(nodes, [1.0, 1.25, 2.0], rtol=1e-10)
    np.testing.assert_allclose(weights, [1.5, 2.0, 1.0], rtol=1e-8)
    nodes, weights = _gauss_nodes(x[2:], w[2:], 2)
    np.testing.assert_allclose(nodes, [1.25, 2.0], rtol=1e-10)
    np.testing.assert_allclose(weights, [2.0, 1.0], rtol=1e-10)


def test_channels_that_barely_differ_are_nodes_of_their_own() -> None:
    """A pair 1e-6 of the span apart is still two; the limit lies at 1e-9."""
    x = np.array([1.0, 1.0 + 1e-6, 1.5, 2.0, 2.0])
    nodes, weights = _gauss_nodes(x, np.array([1.0, 2.0, 3.0, 0.5, 0.5]), 5)
    assert len(nodes) == 4
    np.testing.assert_allclose(nodes[2:], [1.5, 2.0], rtol=1e-9)
    assert weights[:2].sum() == pytest.approx(3.0, rel=1e-9)


@pytest.mark.parametrize("points", [2, 3, GAUSS_POINTS])
def test_bins(points: int) -> None:
    """The least number of equal bins of at most 2.6 widths; those with more channels than nodes keep their moments."""
    generator = np.random.default_rng(8)
    # An empty bin, one with two channels, and many more in the others; channels in no order, some dead.
    k = np.concatenate(
        [[0.7, 0.8], generator.uniform(0.7, 0.76, 90), [0.7641, 0.7689], generator.uniform(0.78, 0.8, 30)]
    )
    generator.shuffle(k)
    strength = generator.exponential(size=len(k)) + 0.05
    dead = np.zeros(len(k), bool)
    dead[[n for n in range(len(k)) if n % 7 == 3 and 0.7 < k[n] < 0.76]] = True
    strength[dead] = 0.0
    width = 0.1 / 2.6 / 9.3  # ten bins
    wavelengths, weights = merge_channels(1.0 / k, strength, width, points=points)
    nodes = 1.0 / wavelengths
    assert np.all(np.diff(nodes) > 0)
    edges = np.linspace(0.7, 0.8, 11)
    edges[-1] += 1e-9
    edges[0] -= 1e-9
    count = 0
    for low, high in itertools.pairwise(edges):
        mine, theirs = (nodes >= low) & (nodes < high), (k >= low) & (k < high) & ~dead
        count += mine.sum()
        assert mine.sum() == min(theirs.sum(), points)
        middle, half = 0.5 * (low + high), 0.5 * (high - low)
        np.testing.assert_allclose(
            moments(nodes[mine], weights[mine], 2 * points, middle, half),
            moments(k[theirs], strength[theirs], 2 * points, middle, half),
            atol=1e-9 * max(strength[theirs].sum(), 1.0),
        )
        if theirs.sum() <= points:
            order = np.argsort(k[theirs])
            np.testing.assert_allclose(nodes[mine], k[theirs][order], rtol=1e-14)
            np.testing.assert_array_equal(weights[mine], strength[theirs][order])
    assert count == len(nodes) < len(k) // 2


def test_default_is_four_nodes_a_bin() -> None:
    k = np.linspace(0.75, 0.76, 41)
    wavelengths, _ = merge_channels(1.0 / k, np.ones(41), 1.0)
    assert len(wavelengths) == 4
    for width, n_bins in ((0.01 / 2.6 * 1.0001, 1), (0.01 / 2.6 * 0.9999, 2), (0.01 / 5.2 * 0.9999, 3)):
        wavelengths, _ = merge_channels(1.0 / k, np.ones(41), width)
        assert len(wavelengths) == 4 * n_bins


def test_channels_that_stay() -> None:
    """In order, without the dead: for windows of no width, where no fewer would be left, and one alone."""
    k = np.array([0.77, 0.75, 0.76, 0.78, 0.79, 0.765, 0.71])
    strength = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0])
    order = np.argsort(k[:-1])
    # Two bins of three nodes are as many as channels.
    for width, points in ((0.0, 1), (1e-4, 1), (0.04 / 2.6 / 1.5, 3)):
        wavelengths, weights = merge_channels(1.0 / k, strength, width, points=points)
        np.testing.assert_allclose(1.0 / wavelengths, k[order], rtol=1e-14)
        np.testing.assert_array_equal(weights, strength[order])
    wavelengths, weights = merge_channels(1.0 / k, strength, 0.04 / 2.6 / 1.5, points=2)
    assert len(wavelengths) == 4
    assert weights.sum() == pytest.approx(21.0, rel=1e-12)
    wavelengths, weights = merge_channels(1.0 / k[:1], strength[:1], 0.01)
    np.testing.assert_allclose(wavelengths, 1.0 / k[:1])
    np.testing.assert_array_equal(weights, [1.0])


def test_wavelengths_that_are_named_several_times() -> None:
    """Written with three digits, ninety channels are one: what stands at one wavelength is added up."""
    distinct = np.linspace(1.3, 1.31, 11)
    weight = np.random.default_rng(3).uniform(0.5, 1.5, (11, 90))
    wavelengths, weights = merge_channels(np.repeat(distinct, 90), weight.reshape(-1), 1e-4)
    np.testing.assert_allclose(wavelengths, distinct[::-1], rtol=1e-14)
    np.testing.assert_allclose(weights, weight.sum(axis=1)[::-1], rtol=1e-14)
    wavelengths, weights = merge_channels(np.full(6, 1.3), np.ones(6), 1.0)
    np.testing.assert_allclose((wavelengths, weights), [[1.3], [6.0]], rtol=1e-14)


def test_no_photons() -> None:
    """One dark channel is left, so that arrays are not empty."""
    wavelengths, weights = merge_channels(np.array([1.3, 1.4]), np.zeros(2), 0.01)
    np.testing.assert_array_equal(wavelengths, [1.3])
    np.testing.assert_array_equal(weights, [0.0])


K = np.array([-0.012, -0.004, 0.003, 0.011])
WEIGHT = np.array([0.4, 0.0, 1.0, 0.25])


def window(n_pixels: int = 6) -> tuple[FloatArray, FloatArray, FloatArray]:
    generator = np.random.default_rng(6)
    shape = (2, n_pixels)
    return (
        generator.uniform(0.0, 3.0, shape),
        generator.uniform(-0.02, 0.02, shape),
        generator.uniform(2e3, 9e3, shape),
    )


def summed(miss: Any, centre: Any, sharpness: Any, k: Any, weight: Any) -> FloatArray:
    total: FloatArray = np.zeros_like(miss)
    for place, w in zip(k, weight, strict=True):
        total = total + w * np.exp(-miss - sharpness * (place - centre) ** 2)
    return total


@pytest.mark.parametrize(("dtype", "limit"), [(np.float64, 1e-12), (np.float32, 2e-5)])
def test_sum_through_windows(dtype: Any, limit: float) -> None:
    given = [a.astype(dtype) for a in (*window(), K, WEIGHT)]
    ours = through_window(*(jnp.asarray(a) for a in given))
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours, summed(*window(), K, WEIGHT), rtol=limit)


def test_sharp_windows_in_single_precision() -> None:
    """Where the terms of the product would be thousands, their sum a tenth."""
    k = np.array([0.02, 0.0201], np.float32)
    centre = np.array([[0.02003, 0.01996]], np.float32)
    given = [np.zeros((1, 2), np.float32), centre, np.full((1, 2), 1e8, np.float32), k, np.ones(2, np.float32)]
    expected = summed(*(a.astype(float) for a in given))
    np.testing.assert_allclose(through_window(*(jnp.asarray(a) for a in given)), expected, rtol=3e-5)


def test_dark_nodes_give_nothing() -> None:
    """Not even right at their place, beside one that is far away."""
    ours = through_window(
        *(jnp.asarray(a) for a in ([0.0], [0.0], [1e6])), jnp.array([0.0, 0.01]), jnp.array([0.0, 1.0])
    )
    assert float(ours[0]) == pytest.approx(math.exp(-100.0), rel=1e-9)


def test_slopes_of_the_sum() -> None:
    """Each argument alone, and all together, against differences; forward and reverse."""
    given = [*window(), K, WEIGHT + 0.1]
    generator = np.random.default_rng(9)
    sizes = (1e-5, 1e-8, 1e-2, 1e-8, 1e-5)
    steps = [size * generator.standard_normal(a.shape) for a, size in zip(given, sizes, strict=True)]
    program = jax.jit(lambda p, t: jax.jvp(through_window, p, t)[1])
    value, _ = jax.jvp(lambda miss: through_window(miss, *given[1:]), (given[0],), (steps[0],))
    np.testing.assert_allclose(value, summed(*given), rtol=1e-12)
    for chosen in ([0], [1], [2], [3], [4], [0, 1, 2, 3, 4]):
        tangent = [step if n in chosen else np.zeros_like(step) for n, step in enumerate(steps)]
        ahead, behind = (summed(*(a + sign * t for a, t in zip(given, tangent, strict=True))) for sign in (1, -1))
        expected = 0.5 * (ahead - behind)
        ours = program(tuple(given), tuple(tangent))
        np.testing.assert_allclose(ours, expected, atol=2e-6 * np.abs(expected).max())
        alone = jax.jvp(
            lambda *p, c=tuple(chosen): through_window(
                *(p[c.index(n)] if n in c else jnp.asarray(a) for n, a in enumerate(given))
            ),
            tuple(jnp.asarray(given[n]) for n in chosen),
            tuple(jnp.asarray(tangent[n]) for n in chosen),
        )[1]
        np.testing.assert_allclose(alone, expected, atol=2e-6 * np.abs(expected).max())
    back = jax.grad(lambda *a: jnp.sum(through_window(*a)), argnums=(0, 1, 2, 3, 4))(*(jnp.asarray(a) for a in given))
    total = sum(float(np.sum(np.asarray(b) * s)) for b, s in zip(back, steps, strict=True))
    assert total == pytest.approx(float(np.sum(program(tuple(given), tuple(steps)))), rel=1e-9)

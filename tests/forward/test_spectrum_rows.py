"""Sizes of spectrum tables counted by hand; their rows against Chebyshev series and Hermite splines of numpy, scipy."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from scipy.interpolate import CubicHermiteSpline

from bayesbragg.forward.spectrum_table import SpectrumTable, build_table, covered_widths, row_tables, through_table

FloatArray = npt.NDArray[np.float64]
LEVEL = 2.0 * math.log(2.0)


def built(span: float, narrowest: float, widest: float) -> SpectrumTable | None:
    k = np.array([0.75, 0.75 + 0.4 * span, 0.75 + span])
    return build_table(1.0 / k, np.array([1.0, 3.0, 2.0]), narrowest, widest)


@pytest.mark.parametrize(("ratio", "n_levels"), [(1.0, 4), (15.99, 4), (16.01, 8)])
def test_levels(ratio: float, n_levels: int) -> None:
    table = built(0.01, 4e-4, 4e-4 * ratio)
    assert table is not None
    assert table.values.shape[:2] == (n_levels, 8)
    low, high = covered_widths(table)
    assert low == pytest.approx(4e-4, rel=1e-12)
    assert high == pytest.approx(4e-4 * 2.0**n_levels, rel=1e-12)


@pytest.mark.parametrize(
    ("steps", "n_grid"), [(200, 257), (260, 513), (1000, 1025), (1030, 1537), (1500, 1537), (1540, None), (1900, None)]
)
def test_grid(steps: float, n_grid: int | None) -> None:
    """A fifth of the least width per step, from 12 widths before the spectrum to 12 behind it; a few lengths."""
    narrowest = 4e-4
    # 120 steps or a little more are outside the spectrum.
    span = (steps - 120.0) * 0.2 * narrowest
    table = built(span, narrowest, narrowest)
    if n_grid is None:
        assert table is None
        return
    assert table is not None
    assert table.values.shape == (4, 8, 2 * n_grid)
    middle, high = 0.75 + 0.5 * span, 0.75 + span
    half = 0.5 * span + 12.0 * narrowest * 2.0 ** np.arange(4) * high / middle
    np.testing.assert_allclose(table.first, -half, rtol=1e-10)
    np.testing.assert_allclose(table.step, 2.0 * half / (n_grid - 1), rtol=1e-10)
    assert float(table.lowest) == pytest.approx(2.0 * math.log(narrowest), rel=1e-12)
    assert float(table.middle) == pytest.approx(middle, rel=1e-12)
    assert float(table.most) == pytest.approx(math.log(2.0), rel=1e-12)


def test_entries_far_from_all_light() -> None:
    """ln U down to ln 1e-300, where it stays, without a slope."""
    width = 2e-4
    k = np.array([0.75, 0.75 + 90.0 * width])
    table = build_table(1.0 / k, np.array([1.0, 0.5]), width, width)
    assert table is not None
    n_grid = table.values.shape[-1] // 2
    x = float(table.first[0]) + float(table.step[0]) * np.arange(n_grid)
    floor = math.log(1e-300)
    tau = 2.0 * math.log(width) + 0.5 * LEVEL * (1.0 + np.cos(np.pi * (np.arange(8) + 0.5) / 8))
    for point in (0, 7):
        sd = math.exp(0.5 * tau[point]) * (1.0 + x / float(table.middle))
        terms = [
            math.log(w) - 0.5 * ((place - float(table.middle) - x) / sd) ** 2
            for place, w in zip(k, (1.0, 0.5), strict=True)
        ]
        expected = np.logaddexp(*terms)
        value, slope = table.values[0, point].reshape(n_grid, 2).T
        np.testing.assert_allclose(value, np.maximum(expected, floor), rtol=1e-9, atol=1e-9)
        dark = expected < floor - 1e-6
        assert dark.any() == (point == 7)
        assert np.all(slope[dark] == 0.0)
        assert np.all(slope[expected > floor + 1e-6] != 0.0)


def test_without_photons() -> None:
    """All channels count for the grid, and nothing is seen anywhere."""
    table = build_table(1.0 / np.array([0.75, 0.76, 0.80]), np.zeros(3), 1e-3, 1e-3)
    assert table is not None
    assert float(table.middle) == pytest.approx(0.775, rel=1e-12)
    assert float(table.most) == pytest.approx(math.log(1e-300), rel=1e-12)
    np.testing.assert_allclose(table.values[..., ::2], math.log(1e-300), rtol=1e-12)
    np.testing.assert_array_equal(table.values[..., 1::2], 0.0)


N_GRID = 7


def made_up_table() -> SpectrumTable:
    generator = np.random.default_rng(3)
    # Smooth in tau, so that the derivative is now below 0, now between, now above what is left to the most.
    z = np.cos(np.pi * (np.arange(8) + 0.5) / 8)
    a, b, c = generator.standard_normal((3, 3, 1, 2 * N_GRID))
    values = -1.5 + 0.6 * a + 0.8 * b * z[:, None] + 0.3 * c * z[:, None] ** 3 + 0.05 * z[:, None] ** 7
    return SpectrumTable(
        values,
        np.array([-0.5, -0.7, -1.0]),
        np.array([0.1, 0.2, 0.3]),
        np.asarray(-15.0),
        np.asarray(0.77),
        np.asarray(0.1),
    )


def test_rows_are_chebyshev_series() -> None:
    table = made_up_table()
    places = np.array([[0.3, 1.7, 2.05], [2.999, -0.4, 3.6]])  # before the first level and behind the last, too
    value, derivative, first, inverse = (np.asarray(a) for a in row_tables(table, jnp.asarray(-15.0 + LEVEL * places)))
    assert value.shape == derivative.shape == (2, 3, 2 * N_GRID)
    points = np.cos(np.pi * (np.arange(8) + 0.5) / 8)
    kinds = set()
    for node, row in np.ndindex(2, 3):
        level = min(max(math.floor(places[node, row]), 0), 2)
        z = 2.0 * min(max(places[node, row] - level, 0.0), 1.0) - 1.0
        series = np.polynomial.chebyshev.chebfit(points, np.asarray(table.values[level]), 7)
        expected = np.polynomial.chebyshev.chebval(z, series)
        np.testing.assert_allclose(value[node, row], expected, rtol=1e-9, atol=1e-10)
        slope = np.polynomial.chebyshev.chebval(z, np.polynomial.chebyshev.chebder(series)) * 2.0 / LEVEL
        rough, bend = slope[::2], slope[1::2]
        room = np.maximum(0.1 - expected[::2], 0.0)
        sound = (rough >= 0.0) & (rough <= 0.1 - expected[::2])
        kinds |= set(np.where(rough < 0, "below", np.where(sound, "sound", "above")))
        np.testing.assert_allclose(derivative[node, row, ::2], np.clip(rough, 0.0, room) - 0.5, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(derivative[node, row, 1::2], np.where(sound, bend, 0.0), rtol=1e-8, atol=1e-9)
        assert first[node, row] == table.first[level]
        assert inverse[node, row] == pytest.approx(1.0 / table.step[level], rel=1e-12)
    assert kinds == {"below", "sound", "above"}


def given() -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, tuple[FloatArray, ...]]:
    """miss, x, tau, wider and the tables of two rows: values, derivatives, first point, inverse step."""
    generator = np.random.default_rng(12)
    values, derivatives = generator.standard_normal((2, 2, 2 * N_GRID))
    first, inverse = np.array([-0.3, -0.5]), np.array([10.0, 8.0])
    inner = (np.linspace(0.0, 6.0, 25)[1:-1] + 0.03) / inverse[:, None] + first[:, None]
    return (
        generator.uniform(0.0, 2.0, inner.shape),
        inner,
        np.array([-14.0, -13.0]),
        generator.uniform(0.0, 1.5, inner.shape),
        (values, derivatives, first, inverse),
    )


def spline(tables: tuple[FloatArray, ...], which: int, row: int) -> CubicHermiteSpline:
    grid = tables[2][row] + np.arange(N_GRID) / tables[3][row]
    entries = tables[which][row]
    return CubicHermiteSpline(grid, entries[::2], entries[1::2] * tables[3][row])


def seen(miss: FloatArray, x: FloatArray, wider: FloatArray, tables: tuple[FloatArray, ...]) -> FloatArray:
    """(1 + e)^(1/2) exp(ln U + (d ln U/dtau - 1/2) e / (1 + e) - m)."""
    rows = [
        np.sqrt(1.0 + wider[r])
        * np.exp(spline(tables, 0, r)(x[r]) + spline(tables, 1, r)(x[r]) * wider[r] / (1.0 + wider[r]) - miss[r])
        for r in range(2)
    ]
    return np.stack(rows)


def looked_up(miss: Any, x: Any, tau: Any, wider: Any, tables: tuple[Any, ...]) -> Any:
    return through_table(*(jnp.asarray(a) for a in (miss, x, tau, wider)), tuple(jnp.asarray(a) for a in tables))


def test_values_are_hermite_splines() -> None:
    miss, x, tau, wider, tables = given()
    np.testing.assert_allclose(looked_up(miss, x, tau, wider, tables), seen(miss, x, wider, tables), rtol=1e-10)
    # Beyond the grid: what its ends hold.
    ends = np.array([[-9.0, 9.0], [-9.0, 9.0]])
    zero = np.zeros((2, 2))
    ours = np.asarray(looked_up(zero, ends, tau, zero, tables))
    values = tables[0]
    np.testing.assert_allclose(ours[:, 0], np.exp(values[:, 0]), rtol=1e-12)
    last = [spline(tables, 0, r)(tables[2][r] + (N_GRID - 1.001) / tables[3][r]) for r in range(2)]
    np.testing.assert_allclose(ours[:, 1], np.exp(last), rtol=1e-10)
    np.testing.assert_allclose(ours[:, 1], np.exp(values[:, -2]), rtol=1e-2)


@pytest.mark.parametrize("argument", range(4))
def test_slopes(argument: int) -> None:
    """In miss, x and wider those of the values; in tau 1/2 and what is left of the roughness."""
    miss, x, tau, wider, tables = given()
    arguments = [jnp.asarray(a) for a in (miss, x, tau, wider)]
    rough = np.stack([spline(tables, 1, r)(x[r]) for r in range(2)])
    value = seen(miss, x, wider, tables)
    h = 1e-6
    expected = (
        -value,
        (seen(miss, x + h, wider, tables) - seen(miss, x - h, wider, tables)) / (2.0 * h),
        value * (0.5 + rough / (1.0 + wider)),
        value * (0.5 + rough / (1.0 + wider)) / (1.0 + wider),
    )[argument]
    if argument == 1:
        # The broadening's share of the slope in x counts, as it does in the value.
        assert np.abs(expected - value * np.stack([spline(tables, 0, r)(x[r], 1) for r in range(2)])).max() > 0.1

    def alone(a: Any) -> Any:
        return through_table(
            *arguments[:argument], a, *arguments[argument + 1 :], tuple(jnp.asarray(t) for t in tables)
        )

    tangent = np.random.default_rng(argument).uniform(0.5, 1.5, arguments[argument].shape)
    ours = jax.jvp(alone, (arguments[argument],), (jnp.asarray(tangent),))[1]
    tangent = tangent[:, None] if argument == 2 else tangent
    np.testing.assert_allclose(ours, expected * tangent, rtol=2e-7, atol=2e-7)
    if argument == 3:
        ahead, behind = (seen(miss, x, wider + sign * h, tables) for sign in (1, -1))
        quotient = (ahead - behind) / (2.0 * h)
        # The slope is that at tau + ln(1 + e), which is the quotient's own to first order in e.
        small = wider < 0.1
        np.testing.assert_allclose(expected[small], quotient[small], rtol=0.2, atol=0.05)


def test_all_slopes_at_once() -> None:
    miss, x, tau, wider, tables = given()
    arguments = tuple(jnp.asarray(a) for a in (miss, x, tau, wider))
    tangents = tuple(jnp.asarray(np.random.default_rng(7).standard_normal(a.shape)) for a in arguments)
    fixed = tuple(jnp.asarray(t) for t in tables)
    program = jax.jit(lambda *a: through_table(*a, fixed))
    total = jax.jvp(program, arguments, tangents)[1]
    parts: Any = 0.0
    for n, tangent in enumerate(tangents):
        still = [jnp.zeros_like(a) for a in arguments]
        still[n] = tangent
        parts = parts + jax.jvp(program, arguments, tuple(still))[1]
    np.testing.assert_allclose(total, parts, rtol=1e-9, atol=1e-12)

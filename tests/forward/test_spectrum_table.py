"""The table of spectra against sums over channels, at its own grid points, and the widths that it covers."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesbragg.forward.spectrum_table import LARGEST, POINTS, build_table, covered_widths, row_tables, through_table

WAVELENGTHS = np.linspace(1.30, 1.33, 40)
STRENGTH = np.exp(-(((WAVELENGTHS - 1.312) / 0.006) ** 2)) * (1.0 + 0.5 * np.sin(3e3 * WAVELENGTHS))
NARROWEST, WIDEST = 4e-4, 3e-3


def log_sum(x: np.ndarray, width: np.ndarray, k: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """ln of the sum over channels of w exp(-(k - x)^2 / 2 width^2)."""
    return np.asarray(np.log(np.sum(weight * np.exp(-0.5 * ((k - x[..., None]) / width[..., None]) ** 2), axis=-1)))


def test_entries_are_sums_over_channels() -> None:
    table = build_table(WAVELENGTHS, STRENGTH, NARROWEST, WIDEST)
    assert table is not None
    n_levels, n_points, n_grid = table.values.shape[0], table.values.shape[1], table.values.shape[2] // 2
    assert (n_points, n_levels % 4) == (POINTS, 0)
    k, weight = 1.0 / WAVELENGTHS - table.middle, STRENGTH / STRENGTH.max()
    assert float(table.middle) == pytest.approx(0.5 * (1.0 / WAVELENGTHS.min() + 1.0 / WAVELENGTHS.max()), rel=1e-12)
    assert float(table.most) == pytest.approx(math.log(weight.sum()), rel=1e-12)
    chebyshev = np.cos(np.pi * (np.arange(POINTS) + 0.5) / POINTS)
    for level in (0, n_levels - 1):
        sd = NARROWEST * 2.0**level * 2.0 ** (0.5 * (1.0 + chebyshev))
        x = table.first[level] + table.step[level] * np.arange(n_grid)
        inner = np.abs(x) < 0.5 * (k.max() - k.min()) + 3.0 * sd.min()
        width = sd[:, None] * (1.0 + x[inner] / table.middle)
        expected = log_sum(np.broadcast_to(x[inner], width.shape), width, k, weight)
        turns = table.values[level].reshape(POINTS, n_grid, 2)[:, inner]
        np.testing.assert_allclose(turns[..., 0], expected, rtol=1e-9, atol=1e-9)
        h = 1e-4 * table.step[level]
        ahead, behind = (
            log_sum(np.broadcast_to(there, width.shape), sd[:, None] * (1.0 + there / table.middle), k, weight)
            for there in (x[inner] + h, x[inner] - h)
        )
        slope = (ahead - behind) / (2 * h) * table.step[level]
        np.testing.assert_allclose(turns[..., 1], slope, rtol=1e-5, atol=1e-6)


def test_covered_widths_hold_those_asked_for() -> None:
    table = build_table(WAVELENGTHS, STRENGTH, NARROWEST, WIDEST)
    assert table is not None
    low, high = covered_widths(table)
    assert low == pytest.approx(NARROWEST, rel=1e-12)
    assert high == pytest.approx(NARROWEST * 2.0 ** table.values.shape[0], rel=1e-12)
    assert high >= WIDEST
    assert table.values.shape[0] == 4


def test_a_table_that_would_be_too_long_is_not_made() -> None:
    """Windows far narrower than the spectrum: a grid that resolves them would need more points than are allowed."""
    assert build_table(WAVELENGTHS, STRENGTH, 1e-6, 1e-5) is None
    table = build_table(WAVELENGTHS, STRENGTH, NARROWEST, WIDEST)
    assert table is not None
    assert table.values.shape[2] // 2 <= LARGEST


def test_channels_without_photons_take_no_room() -> None:
    wavelengths = np.append(WAVELENGTHS, [1.5, 1.1])
    padded = build_table(wavelengths, np.append(STRENGTH, [0.0, 0.0]), NARROWEST, WIDEST)
    table = build_table(WAVELENGTHS, STRENGTH, NARROWEST, WIDEST)
    assert padded is not None
    assert table is not None
    np.testing.assert_allclose(padded.values, table.values, rtol=1e-12)
    np.testing.assert_array_equal(padded.first, table.first)


def test_looked_up_values_and_slopes_are_those_of_the_sum() -> None:
    """Between grid points and levels: values to 1e-6 of the peak, slopes to 1e-4 of the steepest."""
    table = build_table(WAVELENGTHS, STRENGTH, NARROWEST, WIDEST)
    assert table is not None
    k, weight = 1.0 / WAVELENGTHS - table.middle, STRENGTH / STRENGTH.max()
    tau = 2.0 * np.log(np.array([5.3e-4, 9e-4, 2.2e-3]))
    x = np.tile(np.linspace(k.min() - 2e-3, k.max() + 2e-3, 301), (3, 1))
    miss = np.full_like(x, 0.3)
    zero, tables = np.zeros_like(x), tuple(np.asarray(a) for a in row_tables(table, jnp.asarray(tau)))

    def summed(x: np.ndarray, tau: np.ndarray) -> np.ndarray:
        width = np.exp(0.5 * tau)[:, None] * (1.0 + x / table.middle)
        return np.asarray(np.exp(log_sum(x, width, k, weight) - 0.3))

    def looked_up(miss: Any, x: Any, tau: Any) -> Any:
        return through_table(miss, x, tau, jnp.asarray(zero), tuple(jnp.asarray(a) for a in tables))

    given = (jnp.asarray(miss), jnp.asarray(x), jnp.asarray(tau))
    peak = summed(x, tau).max()
    np.testing.assert_allclose(looked_up(*given), summed(x, tau), atol=1e-6 * peak)
    h = 1e-7
    for number, (step, reference) in enumerate(
        (
            (np.ones_like(x), -summed(x, tau)),
            (np.ones_like(x), (summed(x + h, tau) - summed(x - h, tau)) / (2 * h)),
            (np.ones_like(tau), (summed(x, tau + 1e-4) - summed(x, tau - 1e-4)) / 2e-4),
        )
    ):
        tangents = [np.zeros_like(a) for a in (miss, x, tau)]
        tangents[number] = step
        _, ours = jax.jvp(looked_up, given, tuple(jnp.asarray(a) for a in tangents))
        np.testing.assert_allclose(ours, reference, atol=(1e-6, 1e-4, 1e-3)[number] * np.abs(reference).max())

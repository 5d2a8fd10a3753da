"""The likelihood planes show no bias in simulations, and honest error bars, from 0.05 to 50 photons per pixel."""

from __future__ import annotations

import numpy as np
import pytest
from stills.background_simulation import fit, simulate

from bayesbragg.stills.boxes import BoxReason, BoxSettings

EDGE_OF_SHADOW = 30
"""First fast pixel in the shadow."""
LEVELS = (0.05, 0.2, 0.5, 1.0, 2.0, 10.0, 50.0)
"""Photons per pixel."""


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def check_unbiased(error: np.ndarray, sd: np.ndarray, holds: np.ndarray, kept: float = 0.99) -> None:
    assert holds.mean() > kept
    mean, standard_error = mean_and_error(error[holds])
    assert abs(mean) < 3 * standard_error
    pull = np.std(error[holds] / sd[holds])
    assert 0.85 < pull < 1.15


@pytest.mark.parametrize(
    ("spot", "integers"),
    [(0.0, False), (0.0, True), (5.0, False), (300.0, True)],
    ids=["empty", "empty-integers", "faint", "bright-integers"],
)
@pytest.mark.parametrize("level", LEVELS)
def test_planes_are_unbiased(level: float, spot: float, integers: bool) -> None:
    simulation = simulate(level, 200, seed=int(1000 * level + spot) + integers, spot=spot, integers=integers)
    _, error, sd, holds = fit(simulation)
    check_unbiased(error, sd, holds)


@pytest.mark.slow
@pytest.mark.parametrize("integers", [False, True], ids=["adu", "integers"])
@pytest.mark.parametrize(("spot", "width"), [(0.0, 1.5), (1.0, 1.5), (20.0, 1.5), (300.0, 1.5), (2e4, 1.8), (1e5, 2.2)])
@pytest.mark.parametrize("level", LEVELS)
def test_planes_are_unbiased_on_many_boxes(level: float, spot: float, width: float, integers: bool) -> None:
    seeds = 7919 * np.arange(6) + int(10 * spot + 100 * level)
    parts = [fit(simulate(level, 500, seed=seed, spot=spot, width=width, integers=integers)) for seed in seeds]
    check_unbiased(*(np.concatenate([part[i] for part in parts]) for i in (1, 2, 3)))


def test_tails_of_very_bright_spots_are_no_plateau() -> None:
    """They hide a quarter of the background, and the box stays; a shadow does so too, and drops it (below)."""
    planes, _, _, _ = fit(simulate(50.0, 500, seed=1_005_000, spot=1e5, width=2.2))
    assert all(reason is BoxReason.SELECTED for reason in planes.reason)


@pytest.mark.parametrize("level", [0.05, 1.0, 10.0])
def test_bright_neighbours_and_zingers_do_no_harm(level: float) -> None:
    """Spots that no list announces, and pixels hit by something else."""
    for disturbance in ({"neighbour": 2000.0}, {"zinger": 100.0}):
        _, error, sd, holds = fit(simulate(level, 300, seed=int(100 * level), spot=100.0, **disturbance))
        check_unbiased(error, sd, holds)


@pytest.mark.parametrize("level", [0.2, 2.0])
def test_faint_neighbours_do_no_harm_when_announced(level: float) -> None:
    """30 photons in a neighbour cannot be seen pixel by pixel; the list of spots keeps them out."""
    simulation = simulate(level, 800, seed=3, neighbour=30.0)
    _, error, sd, holds = fit(simulation, announce=True)
    check_unbiased(error, sd, holds)
    _, unaware, _, _ = fit(simulation)
    assert unaware.mean() > error.mean()


def test_photons_are_given_back() -> None:
    """The likelihood plane holds as many photons as the pixels it was fitted to (where it is not flattened)."""
    simulation = simulate(2.0, 40, seed=11)
    planes, _, _, holds = fit(simulation)
    n_slow, n_fast = planes.used.shape[1:]
    s, f = np.mgrid[:n_slow, :n_fast]
    plane = planes.tilt[:, 0, None, None] * f + planes.tilt[:, 1, None, None] * s + planes.tilt[:, 2, None, None]
    low = np.array([[int(c[0] - 0.5 - 6) - 10, int(c[1] - 0.5 - 6) - 10] for c in simulation.centre])
    counts = np.array(
        [simulation.counts[i, b : b + n_slow, a : a + n_fast] / 28 for i, (a, b) in enumerate(low.tolist())]
    )
    assert holds.all()
    np.testing.assert_allclose(
        np.sum(plane * planes.used, axis=(1, 2)), np.sum(counts * planes.used, axis=(1, 2)), rtol=1e-7
    )


@pytest.mark.parametrize("light", [0.05, 0.3, 0.5])
def test_a_shadow_drops_the_box_with_a_reason(light: float) -> None:
    """An edge through the box's surroundings, behind which this fraction of the light is left."""
    simulation = simulate(20.0, 30, seed=5)
    simulation.counts[:15, :, EDGE_OF_SHADOW:] = np.rint(simulation.counts[:15, :, EDGE_OF_SHADOW:] * light)
    planes, _, _, _ = fit(simulation)
    assert all(reason is BoxReason.CONTRADICTED for reason in planes.reason[:15])
    assert all(reason is BoxReason.SELECTED for reason in planes.reason[15:])


def test_too_few_pixels_drop_the_box_with_a_reason() -> None:
    settings = BoxSettings(pad_shoebox_for_background_estimation=0, min_background_pixels=200)
    planes, _, _, _ = fit(simulate(1.0, 5, seed=6), settings)
    assert all(reason is BoxReason.FEW_PIXELS for reason in planes.reason)


def test_negative_background_drops_the_box_with_a_reason() -> None:
    simulation = simulate(1.0, 4, seed=8)
    simulation.counts -= 280
    planes, _, _, _ = fit(simulation)
    assert all(reason is BoxReason.NEGATIVE for reason in planes.reason)


def test_no_photon_at_all_is_a_background_of_zero() -> None:
    simulation = simulate(1.0, 50, seed=9)
    simulation.counts = np.rint(np.random.default_rng(4).normal(0, 3, simulation.counts.shape))
    planes, _, _, holds = fit(simulation)
    assert holds.all()
    n_slow, n_fast = planes.used.shape[1:]
    level = planes.tilt @ [n_fast / 2, n_slow / 2, 1]
    assert np.all((level > -1e-9) & (level < 0.02))


@pytest.mark.parametrize("level", [0.5, 10.0])
def test_without_padding_the_plane_still_has_no_bias(level: float) -> None:
    settings = BoxSettings(pad_shoebox_for_background_estimation=0)
    _, error, sd, holds = fit(simulate(level, 600, seed=21, spot=20.0, width=0.8), settings)
    check_unbiased(error, sd, holds, kept=0.98)

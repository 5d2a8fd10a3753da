"""Calibration: the harness accepts posteriors that are right and finds those that are not."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from inference.small_posteriors import scale_density

from bayesbragg.diagnostics.calibration import coverage, ecdf_band, laplace_ranks, nuts_ranks, simulate
from bayesbragg.diagnostics.calibration_plots import ecdf_plot, rank_histograms
from bayesbragg.diagnostics.figure_style import save
from bayesbragg.inference.laplace import LaplaceOptions
from bayesbragg.inference.nuts import NutsOptions
from bayesbragg.model.errors import InputError
from bayesbragg.priors import Normal, Positive

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHAPE = np.full((4, 6), 0.3)


def scale(variance: float = 0.1, prior: object = None) -> object:
    """A shot whose only unknown is a scale about 20 with Gaussian noise."""
    return scale_density(
        np.zeros_like(SHAPE), SHAPE, prior or Normal(20.0, 4.0, low=0.0, high=60.0), "gaussian", variance
    )


def test_the_band_holds_families_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    band = ecdf_band(200, 6, 0.9)
    inside = [bool(np.all(band.inside(generator.uniform(size=(200, 6))))) for _ in range(600)]
    assert np.mean(inside) == pytest.approx(0.9, abs=0.045)
    narrow, wide = ecdf_band(200, 1, 0.9), ecdf_band(200, 6, 0.99)
    assert np.all(wide.high >= narrow.high)
    assert np.any(wide.high > narrow.high)


@pytest.mark.parametrize(
    "spoil", [lambda u: u**1.3, lambda u: 0.5 + 0.75 * (u - 0.5), lambda u: 0.5 + 0.6 * np.sinh(2.2 * (u - 0.5)) / 1.33]
)
def test_the_band_finds_bias_and_wrong_widths(spoil: object) -> None:
    ranks = np.random.default_rng(1).uniform(size=(500, 4))
    band = ecdf_band(500, 4)
    assert band.inside(ranks).all()
    ranks[:, 2] = spoil(ranks[:, 2])  # type: ignore[operator]
    assert band.inside(ranks).tolist() == [True, True, False, True]


def test_coverage_counts() -> None:
    ranks = np.column_stack([np.linspace(0.0005, 0.9995, 1000), np.full(1000, 0.9)])
    found = coverage(("even", "high"), ranks)
    assert [(c.name, c.probability) for c in found] == [("even", 0.68), ("high", 0.68), ("even", 0.95), ("high", 0.95)]
    assert [c.found for c in found] == pytest.approx([0.68, 0.0, 0.95, 1.0], abs=0.002)
    assert found[2].error == pytest.approx(np.sqrt(0.95 * 0.05 / 1000))
    assert found[1].pull < -40


def test_data_have_the_noise_of_the_likelihood() -> None:
    simulations = simulate(scale(), 4000, seed=3)  # type: ignore[arg-type]
    assert len(simulations) == 4000
    assert simulations.truths.mean() == pytest.approx(20.0, abs=0.3)
    mu = simulations.truths[:, 0, None, None] * SHAPE
    z = (simulations.counts - mu) / np.sqrt(mu + 0.1)
    assert z.mean() == pytest.approx(0.0, abs=0.02)
    assert z.std() == pytest.approx(1.0, abs=0.02)
    with pytest.raises(InputError, match="G has none"):
        simulate(scale(prior=Positive()), 3)  # type: ignore[arg-type]


def test_right_posteriors_pass_and_wrong_ones_do_not() -> None:
    right = simulate(scale(), 250, seed=5)  # type: ignore[arg-type]
    ranks, passed = laplace_ranks(right, LaplaceOptions(n_draws=500))
    band = ecdf_band(250, 1)
    assert passed.all()
    assert band.inside(ranks).all()
    # A model that believes in half the noise that there is has intervals that are too short.
    noisier = simulate(scale(variance=30.0), 250, seed=5)  # type: ignore[arg-type]
    wrong = type(right)(right.density, noisier.truths, noisier.counts)
    assert not band.inside(laplace_ranks(wrong, LaplaceOptions(n_draws=500))[0]).any()


def test_errors_of_intensities_are_in_the_data_and_in_the_error_bars() -> None:
    sure = scale(prior=Normal(60.0, 12.0, low=0.0, high=200.0))
    pixels = sure.problem.pixels  # type: ignore[attr-defined]
    unsure = sure.with_pixels(replace(pixels, intensity_sd=np.asarray(0.3)))  # type: ignore[attr-defined]
    simulations = simulate(unsure, 4000, seed=2)  # type: ignore[arg-type]
    mu = simulations.truths[:, 0, None, None] * SHAPE
    off = (simulations.counts / mu - 1.0).mean(axis=2)
    expected = np.sqrt(0.3**2 + np.mean((mu + 0.1) / (SHAPE.shape[1] * mu**2)))
    assert off.mean() == pytest.approx(0.0, abs=4 * expected / np.sqrt(off.size))
    assert off.std() == pytest.approx(expected, rel=0.03)
    band, options, rows = ecdf_band(250, 1), LaplaceOptions(n_draws=500), range(250)
    assert band.inside(laplace_ranks(simulations, options, rows=rows)[0]).all()
    # Who takes the intensities for exact has intervals that are too short.
    wrong = replace(simulations, density=sure)  # type: ignore[arg-type]
    assert not band.inside(laplace_ranks(wrong, options, rows=rows)[0]).any()


def test_chains_of_many_data_sets_advance_together() -> None:
    simulations = simulate(scale(), 40, seed=6)  # type: ignore[arg-type]
    options = NutsOptions(n_chains=2, n_draws=300, n_warmup=50)
    alone, divergences = nuts_ranks(simulations, options, rows=range(20))
    together, _ = nuts_ranks(simulations, options, rows=range(20), at_once=10)
    assert divergences.sum() == 0
    # The same posteriors by other draws: ranks differ by the error of some hundred draws.
    assert np.std(alone - together) < 0.06
    assert np.corrcoef(alone[:, 0], together[:, 0])[0, 1] > 0.97


def test_pictures(tmp_path: Path) -> None:
    ranks = np.random.default_rng(0).uniform(size=(300, 7))
    names = tuple("abcdefg")
    for figure in (rank_histograms(names, ranks), ecdf_plot(names, ranks)):
        assert save(figure, tmp_path / "picture.png", dpi=40).stat().st_size > 1000


@pytest.mark.slow
def test_shots_of_sixty_boxes() -> None:
    """Cell, orientation, blocks, scale and spread of shots in closed form; the full version is a benchmark."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        density = importlib.import_module("calibration").make_density("bright")
    finally:
        sys.path.remove(str(BENCHMARKS))
    simulations = simulate(density, 160, seed=11)
    names = density.layout.names
    ranks, passed = laplace_ranks(simulations, LaplaceOptions(n_draws=1000))
    assert passed.mean() > 0.95
    assert ecdf_band(160, len(names)).inside(ranks).all()
    assert max(abs(c.pull) for c in coverage(names, ranks)) < 4.0
    sampled, divergences = nuts_ranks(simulations, rows=range(80))
    assert divergences.sum() == 0
    assert ecdf_band(80, len(names)).inside(sampled).all()
    assert np.std(sampled - ranks[:80]) < 0.06

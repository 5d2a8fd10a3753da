"""The best fit on problems with a known answer, and on the golden target."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import load_golden
from inference.golden_target import golden_density

from bayesbragg.forward.parameters import Parameters
from bayesbragg.inference import LogDensity, MapOptions, Pixels, fit_many, fit_map
from bayesbragg.inference.search import at_bounds
from bayesbragg.model.fit import FitStatus
from bayesbragg.priors import Cell, CellConstraint, Fixed, Normal, Positive, Priors, Uniform, make_layout

TRUTH = {"rotX": 0.02, "rotY": -0.01, "ucell_a": 79.2, "Na": 9.0, "G": 30.0}
TRACES: list[int] = []


@jax.jit
def toy(parameters: Parameters, scene: Any, options: Any) -> Any:
    """One Gaussian spot per box: orientation moves all alike, the cell outwards, blocks make them narrow."""
    TRACES.append(1)
    x, y, where_x, where_y, height = scene
    stretch = 2.0 * (parameters.crystal.cell[0] - 79.0)
    dx = x - 100 * parameters.crystal.rot_xyz[0, 0] - where_x * stretch
    dy = y - 100 * parameters.crystal.rot_xyz[0, 1] - where_y * stretch
    n = parameters.mosaic.n_abc[0, 0]
    return parameters.scale.G[0] * height * (n / 10) ** 2 * jnp.exp(-0.005 * n**2 * (dx**2 + dy**2))


def problem(seed: int, **start: Any) -> tuple[LogDensity, np.ndarray]:
    rng = np.random.default_rng(seed)
    grid = np.linspace(-6, 6, 12)
    x, y = (a.reshape(1, -1) + np.zeros((20, 1)) for a in np.meshgrid(grid, grid))
    scene = (x, y, *rng.uniform(-3, 3, (2, 20, 1)), rng.gamma(2, 1, (20, 1)))
    cell = np.array([79.0, 79.0, 38.4, *[np.pi / 2] * 3])
    priors = Priors(
        RotXYZ=(Uniform(-0.2, 0.2), Uniform(-0.2, 0.2), Normal(0, 0.01)),
        cell=Cell(edge_sd=1.0),
        Nabc=(Uniform(3, 300), Fixed(), Fixed()),
        G=Positive(),
    )
    layout, base = make_layout(
        priors, Parameters.start(cell, **{"n_abc": 14.0, "G": 1.0, **start}), CellConstraint("tetragonal")
    )
    true = np.asarray(layout.start, float).copy()
    for name, value in TRUTH.items():
        true[layout.names.index(name)] = value
    mu = np.asarray(toy(layout.place(true, base), scene, None)) + 2.0
    counts = rng.poisson(mu) + rng.normal(0, 0.3, mu.shape)
    trusted = rng.uniform(size=mu.shape) < 0.95
    pixels = Pixels(np.where(trusted, counts, 1e9), np.full(mu.shape, 2.0), trusted, np.asarray(0.09))
    return LogDensity(toy, scene, None, pixels, layout, base), true


def test_finds_the_optimum_and_says_so() -> None:
    density, true = problem(0)
    fit = fit_map(density)
    assert fit.status is FitStatus.CONVERGED
    assert fit.distance < 0.03
    # It is an optimum: no small step in any direction is better.
    for i in range(len(fit.x)):
        for sign in (-1, 1):
            values = fit.values.copy()
            values[i] += sign * 0.1 * fit.standard_errors[i]
            assert density.target(density.layout.coordinates(values)) > fit.target
    assert np.all(np.abs(fit.values - true) < 5 * fit.standard_errors)
    assert fit.sigma_z == pytest.approx(1.0, abs=0.05)
    assert fit.target == pytest.approx(density.target(fit.x), rel=1e-12)
    assert fit.trace[-1] <= fit.trace[0]
    assert fit.parameters["rotX"][1] == "radian"


def test_starts_far_away_reach_the_same_optimum() -> None:
    best = fit_map(problem(1)[0]).target
    for n, G, rot in ((4.0, 1e-4, 0.03), (28.0, 1e5, -0.01), (14.0, 100.0, [0.04, -0.03, 0])):
        fit = fit_map(problem(1, n_abc=n, G=G, rot_xyz=rot)[0])
        assert fit.target == pytest.approx(best, abs=0.01)


@pytest.mark.slow
def test_errors_are_calibrated() -> None:
    """Over many data sets, (estimate - truth) / standard error has unit spread and no bias."""
    z = []
    for seed in range(40):
        density, true = problem(seed)
        fit = fit_map(density)
        rows = [density.layout.names.index(name) for name in TRUTH]
        z.append(((fit.values - true) / fit.standard_errors)[rows])
    z = np.array(z)
    assert np.all(np.abs(z.mean(axis=0)) < 3.5 / np.sqrt(len(z)))
    assert np.all(np.abs(z.std(axis=0) - 1) < 3.5 / np.sqrt(2 * len(z)))


def test_shots_of_one_shape_compile_once() -> None:
    fit_map(problem(0)[0])
    before = len(TRACES)
    for seed in (11, 12, 13):
        fit_map(problem(seed)[0])
    assert len(TRACES) == before


def test_shots_fitted_together_are_those_fitted_alone() -> None:
    """Each has its own end: one takes many steps, one stands at its optimum already, one has no finite target."""
    densities = [problem(21)[0], problem(22)[0], problem(23, n_abc=5.0, rot_xyz=(0.03, 0.02, 0.0))[0]]
    found = fit_map(densities[1])
    densities[1] = densities[1].with_layout(densities[1].layout.with_start(found.values))
    first = densities[0]
    pixels = replace(first.problem.pixels, background=np.full(first.problem.pixels.counts.shape, np.nan))
    densities.append(LogDensity(toy, first.problem.scene, None, pixels, first.layout, first.problem.base))
    together = fit_many(densities, size=3)
    assert [fit.status for fit in together] == [FitStatus.CONVERGED] * 3 + [FitStatus.FAILED]
    for density, fit in zip(densities[:3], together, strict=False):
        alone = fit_map(density)
        assert fit.iterations == alone.iterations
        assert fit.evaluations == alone.evaluations
        np.testing.assert_allclose(fit.values, alone.values, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(fit.information, alone.information, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(fit.trace, alone.trace, rtol=1e-10)
    assert len({fit.iterations for fit in together[:3]}) > 1
    before = len(TRACES)
    fit_many([problem(seed)[0] for seed in (31, 32, 33, 34)], size=3)
    assert len(TRACES) == before, "batches of one size share a program"


@pytest.mark.parametrize("method", ["lm", "lbfgs"])
def test_both_rules_find_one_optimum(method: Any) -> None:
    density, _ = problem(24)
    fit, other = fit_map(density, MapOptions(method=method)), fit_map(density, MapOptions(tolerance=1e-4))
    assert fit.converged
    assert np.all(np.abs(fit.values - other.values) < 0.05 * other.standard_errors)


def test_a_search_ends_where_the_target_hardly_changes() -> None:
    density, _ = problem(25)
    early = fit_map(density, MapOptions(change=0.05, tolerance=1e-6))
    late = fit_map(density, MapOptions(tolerance=1e-4))
    assert early.converged
    assert "changes no more" in early.reason
    assert early.iterations < late.iterations
    assert early.target - late.target < 0.05 * abs(late.target)


def test_bounds_hold_and_are_reported() -> None:
    density, _ = problem(2)
    priors = Priors(
        RotXYZ=(Uniform(-0.2, 0.012), Uniform(-0.2, 0.2), Normal(0, 0.01)), Nabc=Uniform(3, 300), G=Positive()
    )
    layout, base = make_layout(priors, density.problem.base, CellConstraint("tetragonal"))
    bounded = LogDensity(toy, density.problem.scene, None, density.problem.pixels, layout, base)
    fit = fit_map(bounded)
    assert fit.converged, fit.reason
    assert 0.01199 < fit.values[0] <= 0.012
    assert "rotX" in fit.at_bound


@pytest.mark.parametrize(
    ("value", "low", "high", "information", "near"),
    [
        (1e-6, 0.0, 10.0, 1e-12, True),  # a spread that shrinks to nothing, which the pixels cannot tell from 0
        (0.02, 0.0, 10.0, 1e6, False),  # the same with an error bar of 0.001
        (0.02, 0.0, 10.0, 0.0, False),  # not known, but not at the bound either
        (299.999, 3.0, 300.0, 1.0, True),
        (299.9, 3.0, 300.0, 1.0, False),
        (4e4, 0.0, np.inf, 1 / 500.0**2, False),
        (4e4, 0.0, np.inf, np.nan, False),
        (0.0, -np.inf, np.inf, 1.0, False),
        (-0.2, -0.2, 0.2, np.nan, True),
    ],
)
def test_what_is_at_a_bound(value: float, low: float, high: float, information: float, near: bool) -> None:
    assert at_bounds(*(np.array([v]) for v in (value, low, high, information))).tolist() == [near]


def test_failures_are_results() -> None:
    density, _ = problem(3)
    pixels = density.problem.pixels
    nothing = Pixels(pixels.counts, pixels.background, np.zeros_like(pixels.trusted), pixels.variance)
    arguments = (toy, density.problem.scene, None)
    fit = fit_map(LogDensity(*arguments, nothing, density.layout, density.problem.base))
    assert fit.status is FitStatus.FAILED
    assert "no trusted pixel" in fit.reason
    spoilt = Pixels(np.full(pixels.counts.shape, np.nan), pixels.background, pixels.trusted, pixels.variance)
    fit = fit_map(LogDensity(*arguments, spoilt, density.layout, density.problem.base))
    assert fit.status is FitStatus.FAILED
    assert "finite" in fit.reason
    lost = density.layout.with_start([0.19, 0.19, 0.0, 1.0, 79.0, 38.4, 290.0])
    fit = fit_map(density.with_layout(lost), MapOptions(start_blocks=False))
    assert fit.status is FitStatus.FAILED
    assert "background alone" in fit.reason
    limited = fit_map(density, MapOptions(max_iterations=1, start_blocks=False))
    assert limited.status is FitStatus.ITERATION_LIMIT
    assert np.isfinite(limited.target)


@pytest.mark.slow
def test_golden_problem_from_its_own_start() -> None:
    """The golden data were simulated with parameters near the start: the fit ends below the best stored target."""
    g = load_golden("19d")
    density, _ = golden_density(g)
    fit = fit_map(density)
    assert fit.converged, fit.reason
    assert fit.target < g["f"].min()
    _, gradient = density.value_and_grad(fit.x)
    assert np.linalg.norm(gradient) < 1e-3 * np.linalg.norm(g["g_fd"][0])

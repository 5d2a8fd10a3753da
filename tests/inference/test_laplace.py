"""Laplace with importance weights on posteriors that are known, and its coverage."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpyro.distributions as dist
import pytest
from inference.small_posteriors import Known, at_a_bound, conjugate, linear_gaussian, scale_density
from inference.test_map import problem

from bayesbragg.inference import fit_map
from bayesbragg.inference.laplace import LaplaceOptions, find_mode, laplace, target_of_fit
from bayesbragg.inference.numpyro_model import default_priors, model_target, shot_model
from bayesbragg.inference.unbounded import Bounds, hessian, shot_target, value_and_grad
from bayesbragg.model.errors import InputError
from bayesbragg.model.fit import FitStatus
from bayesbragg.priors import Normal


@pytest.mark.parametrize("make", [conjugate, linear_gaussian, at_a_bound])
def test_known_posteriors(make: Callable[[], Known]) -> None:
    known = make()
    found = laplace(known.target, LaplaceOptions(n_draws=8000), seed=1)
    assert found.verdict.passed, str(found.verdict)
    effective = found.settings["effective_draws"]
    assert np.all(np.abs(found.mean - known.mean) < 5 * known.sd / np.sqrt(effective))
    assert found.sd == pytest.approx(known.sd, rel=0.06)
    if np.isfinite(known.log_evidence):
        assert found.settings["log_evidence"] == pytest.approx(known.log_evidence, abs=0.02)
    if known.cdf is not None:
        ecdf = known.cdf(np.sort(found.draws.reshape(-1)))
        assert np.max(np.abs(ecdf - (np.arange(8000) + 0.5) / 8000)) < 2.5 / np.sqrt(effective)


def test_near_a_bound_is_said() -> None:
    assert "G near a bound" in laplace(at_a_bound().target).verdict.advice


def test_coordinates_come_back() -> None:
    low = np.array([-1.0, 0.0, -np.inf, -np.inf, 0.0, 0.0, -np.inf])
    high = np.array([2.0, np.inf, 3.0, np.inf, 1e12, 1e12, 1.0])
    values, sd = np.array([1.9, 1e-3, -50.0, 7.0, 600.0, 6.0, 0.9]), np.array([1.0, 1e-6, 1.0, 1.0, 5.0, 5.0, 0.2])
    bounds = Bounds.of(low, high, values, sd)
    assert np.asarray(bounds.kind).tolist() == [1, 2, 3, 0, 0, 4, 5]
    y = bounds.coordinates(values)
    assert np.asarray(bounds.values(y)) == pytest.approx(values, rel=1e-9)
    step = 1e-6
    slope = (np.asarray(bounds.values(y + step)) - np.asarray(bounds.values(y - step))) / (2 * step)
    assert np.asarray(bounds.log_jacobian(y)) == pytest.approx(np.log(np.abs(slope)), abs=1e-5)
    assert np.all(np.isfinite(bounds.coordinates([2.0, 0.0, 3.0, 7.0, 0.0, 0.0, 1.0])))
    # Where both bounds are far the value is its own coordinate, and the density ends at them.
    y[4] = -1e-3
    assert np.isneginf(np.asarray(bounds.log_jacobian(y))).tolist() == [False] * 4 + [True] + [False] * 2


def test_a_number_between_far_bounds_has_a_straight_axis() -> None:
    near, far = (Bounds.of([0.0], [10.0], [5.0], [sd]) for sd in (0.7, 0.5))
    assert np.asarray(near.kind).tolist() == [1]
    assert np.asarray(far.kind).tolist() == [0]
    assert far.coordinates([5.3]) == pytest.approx([5.3])


def test_the_numpyro_model_is_the_same_density() -> None:
    density, _ = problem(0)
    fit = fit_map(density)
    own = target_of_fit(density, fit)
    model = model_target(shot_model(density), start=dict(zip(fit.names, fit.values, strict=True)))
    assert model.names == own.names
    rng = np.random.default_rng(0)
    factor = find_mode(own).factor
    points = own.start + 0.5 * rng.standard_normal((4, len(own.start))) @ factor.T
    values = own.to_values(points)
    # Coordinates of the two need not be the same; densities of the physical values must differ by a constant.
    differences = []
    for y, v in zip(points, values, strict=True):
        again = model_target(shot_model(density), start=dict(zip(fit.names, v.tolist(), strict=True)))
        assert again.to_values(again.start[None])[0] == pytest.approx(v, rel=1e-6, abs=1e-9)
        ours = float(value_and_grad(y, own.data, own.potential)[0])
        ours += float(np.sum(np.asarray(own.bounds.log_jacobian(y))))
        theirs = float(again.potential(again.start, ()))
        log_slope = np.linalg.slogdet(_jacobian(again.to_values, again.start))[1]
        differences.append(ours - (theirs + float(log_slope)))
    assert np.ptp(differences) < 1e-3


def _jacobian(function: Callable[[np.ndarray], np.ndarray], y: np.ndarray) -> np.ndarray:
    step = 1e-5
    return np.stack(
        [(function((y + e)[None]) - function((y - e)[None]))[0] / (2 * step) for e in step * np.eye(len(y))]
    )


def test_priors_can_be_replaced_and_parameters_fixed() -> None:
    density, _ = problem(0)
    fit = fit_map(density)
    start = dict(zip(fit.names, fit.values, strict=True))
    tight = {"rotX": dist.Normal(0.0, 1e-6), "ucell_c": 38.4}
    target = model_target(shot_model(density, tight), start=start)
    assert "ucell_c" not in target.names
    found = laplace(target, LaplaceOptions(n_draws=500))
    assert found.values("rotX").std() == pytest.approx(1e-6, rel=0.15)
    # The best fit of this model, not the start, which is that of another.
    assert abs(found.mode[found.names.index("rotX")] - found.values("rotX").mean()) < 2e-6 < abs(start["rotX"])
    with pytest.raises(InputError, match="no such parameter"):
        shot_model(density, {"Nz": 1.0})
    with pytest.raises(InputError, match="distribution or a number"):
        shot_model(density, {"Na": "large"})
    with pytest.raises(InputError, match="lies outside the bounds 3 to 300"):
        shot_model(density, {"Na": dist.Uniform(400.0, 500.0)})
    assert isinstance(default_priors(density.layout)["rotZ"], dist.Normal)


def test_the_expected_curvature_is_close_to_the_exact_one() -> None:
    density, _ = problem(0)
    target = target_of_fit(density, fit_map(density))
    y = find_mode(target).centre
    exact = np.asarray(hessian(y, target.data, target.potential))
    scale = 1 / np.sqrt(np.diag(exact))
    assert target.curvature(y) * np.outer(scale, scale) == pytest.approx(exact * np.outer(scale, scale), abs=0.15)


def test_bad_input_is_one_line() -> None:
    density, _ = problem(0)
    fit = fit_map(density)
    with pytest.raises(InputError, match="at least 100"):
        laplace(target_of_fit(density, fit), LaplaceOptions(n_draws=10))
    failed = type(fit)(**{**fit.__dict__, "status": FitStatus.FAILED, "information": np.full((7, 7), np.nan)})
    with pytest.raises(InputError, match="refine it first"):
        target_of_fit(density, failed)
    with pytest.raises(InputError, match="choose among"):
        laplace(target_of_fit(density, fit)).values("Nz")


def test_ranks_of_the_truth_are_uniform() -> None:
    """Simulation-based calibration of a scale with few counts, where the Gaussian alone would be off."""
    rng = np.random.default_rng(8)
    shape = rng.uniform(0.1, 0.4, (4, 5))
    n, ranks = 200, []
    for i in range(n):
        truth = abs(rng.normal(2.0, 0.8))
        counts = rng.poisson(truth * shape).astype(float)
        density = scale_density(counts, shape, Normal(center=2.0, sd=0.8, low=0.0, high=50.0), "poisson", 0.0)
        found = laplace(shot_target(density, [2.0]), LaplaceOptions(n_draws=1000), seed=i)
        ranks.append(np.mean(found.values("G") < truth))
    ranks = np.array(ranks)
    for probability in (0.68, 0.95):
        inside = np.mean(np.abs(ranks - 0.5) < probability / 2)
        assert inside == pytest.approx(probability, abs=3.5 * np.sqrt(probability * (1 - probability) / n))
    # Kolmogorov-Smirnov: 1.95 / sqrt(n) is exceeded once in a thousand runs.
    assert np.max(np.abs(np.sort(ranks) - (np.arange(n) + 0.5) / n)) < 1.95 / np.sqrt(n)

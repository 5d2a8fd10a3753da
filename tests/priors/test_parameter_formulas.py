"""Transforms, restraints, limits and searches of one number against their formulas written anew with numpy."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import norm

from bayesbragg.model.errors import InputError
from bayesbragg.priors.parameter import Kind, Parameter, coordinate, log_restraint, physical_value

X = np.array([-0.2, 0.4, 1.0, 1.3])
START, LOW, HIGH, SIGMA = 2.5, 0.5, 17.0, 0.4


def sine(x: npt.ArrayLike, start: float, low: float, high: float, sigma: float) -> npt.NDArray[np.float64]:
    """PHYSICS 9, ranged."""
    phase = np.arcsin(2.0 * (start - low) / (high - low) - 1.0)
    return low + (high - low) / 2.0 * (1.0 + np.sin(sigma * (np.asarray(x) - 1.0) + phase))


EXPECTED: dict[Kind, npt.NDArray[np.float64]] = {
    "ranged": sine(X, START, LOW, HIGH, SIGMA),
    "positive": START * np.exp(SIGMA * (X - 1.0)),
    "normal": X,
    "log_ranged": np.exp(sine(X, math.log(START), math.log(LOW), math.log(HIGH), SIGMA)),
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_values_and_coordinates(kind: Kind) -> None:
    p = Parameter(START, kind, LOW, HIGH, SIGMA)
    np.testing.assert_allclose(physical_value(kind, X, START, LOW, HIGH, SIGMA), EXPECTED[kind], rtol=1e-13)
    np.testing.assert_allclose(p.value(X), EXPECTED[kind], rtol=1e-13)
    np.testing.assert_allclose(coordinate(kind, EXPECTED[kind], START, LOW, HIGH, SIGMA), X, rtol=1e-12)
    np.testing.assert_allclose(p.x_of(EXPECTED[kind]), X, rtol=1e-12)
    assert p.start_x == (START if kind == "normal" else 1.0)


def test_values_beyond_the_bounds_are_those_at_the_bounds() -> None:
    p = Parameter(START, "ranged", LOW, HIGH, SIGMA)
    top, bottom = (float(p.x_of(v)) for v in (HIGH, LOW))
    assert float(p.x_of(2.0 * HIGH)) == top
    assert float(p.x_of(-HIGH)) == bottom
    assert top - bottom == pytest.approx(math.pi / SIGMA, rel=1e-12)


def test_a_fixed_number_ranges_one_about_its_start() -> None:
    p = Parameter(START, "ranged", 100.0, 50.0, SIGMA, fixed=True)
    np.testing.assert_allclose(p.value(X), sine(X, START, START - 1.0, START + 1.0, SIGMA), rtol=1e-13)
    assert p.check("name") is p


def test_restraint_is_a_normal_density_of_a_variance() -> None:
    values = np.array([1.0, 2.0, 5.5])
    expected = norm.logpdf(values, loc=2.5, scale=math.sqrt(0.3))
    np.testing.assert_allclose(log_restraint(values, 2.5, 0.3), expected, rtol=1e-13)
    np.testing.assert_allclose(Parameter(1.0, center=2.5, beta=0.3).log_prior(values), expected, rtol=1e-13)
    np.testing.assert_array_equal(Parameter(1.0, low=0.0, high=4.0).log_prior(values), np.zeros(3))
    np.testing.assert_array_equal(Parameter(1.0, center=2.5).log_prior(values), np.zeros(3))


@pytest.mark.parametrize(
    "p",
    [
        Parameter(20.0 * (1 - 5e-10), "ranged", 20.0, 30.0),
        Parameter(30.0 * (1 + 5e-10), "ranged", 20.0, 30.0),
        Parameter(-20.0, "ranged", -20.0, 30.0),
        Parameter(0.5, "positive", 0.0),
        Parameter(0.5, "positive", 0.0, 0.7),
        Parameter(0.5, "log_ranged", 0.2, 0.7),
        Parameter(-3.0, "normal", -4.0),
        Parameter(-3.0, "ranged", -4.0, 2.0),
        Parameter(0.5, sigma=0.01),
        Parameter(5.0, low=3.0, center=3.0 - 7.9 * 0.2, beta=0.04),
        Parameter(5.0, high=9.0, center=9.0 + 7.9 * 0.2, beta=0.04),
        Parameter(5.0, "ranged", 3.0, 9.0, center=8.0, beta=0.04),
    ],
    ids=str,
)
def test_what_makes_sense_passes(p: Parameter) -> None:
    assert p.check("name") is p


@pytest.mark.parametrize(
    ("p", "words"),
    [
        (Parameter(20.0 * (1 - 3e-9), "ranged", 20.0, 30.0), "outside its bounds"),
        (Parameter(30.0 * (1 + 3e-9), "ranged", 20.0, 30.0), "outside its bounds"),
        (Parameter(1e-3 * (1 - 1e-7), "ranged", 1e-3, 2e-3), "outside its bounds"),
        (Parameter(2.0, "ranged", 2.0, 2.0), "is not below maximum"),
        (Parameter(2.0, "ranged", 1.0), "finite minimum and maximum"),
        (Parameter(2.0, "ranged", high=3.0), "finite minimum and maximum"),
        (Parameter(2.0, "log_ranged", 1.0), "finite minimum and maximum"),
        (Parameter(0.0, "positive"), "above 0"),
        (Parameter(2.0, "log_ranged", 0.0, 3.0), "above 0"),
        (Parameter(2.0, sigma=math.inf), "sigma"),
        (Parameter(2.0, sigma=0.0), "sigma"),
        (Parameter(2.0, center=1.0, beta=0.0), "variance"),
        (Parameter(5.0, low=3.0, center=3.0 - 8.1 * 0.2, beta=0.04), "lies outside its bounds"),
        (Parameter(5.0, high=9.0, center=9.0 + 8.1 * 0.2, beta=0.04), "lies outside its bounds"),
        (Parameter(5.0, "ranged", 3.0, 9.0, center=9.0 + 8.1 * 0.2, beta=0.04), "lies outside its bounds"),
        (Parameter(math.inf), "not a finite number"),
        (Parameter(math.nan, fixed=True), "not a finite number"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(p: Parameter, words: str) -> None:
    with pytest.raises(InputError, match="name: ") as error:
        p.check("name")
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("p", "kind", "start", "low", "high"),
    [
        # Scales: a bound that says something stays, a missing one goes where it does not matter.
        (Parameter(2.0, "positive", 0.5, 20.0, 0.3), "log_ranged", 2.0, 0.5, 20.0),
        (Parameter(2.0, "positive", 0.5), "log_ranged", 2.0, 0.5, 2e8),
        (Parameter(2.0, "positive", 0.5, 2.0), "log_ranged", 2.0 / 4.0**1e-6, 0.5, 2.0),
        (Parameter(0.5, "log_ranged", 0.5, 2.0), "log_ranged", 0.5 * 4.0**1e-6, 0.5, 2.0),
        (Parameter(2.0, "log_ranged", 0.5, 20.0, 0.3), "log_ranged", 2.0, 0.5, 20.0),
        (Parameter(1e4, "positive", 0.0, 1e12), "log_ranged", 1e4, 1e8 / 1e12, 1e12),
        (Parameter(3.0, "positive", 0.0, 20.0), "log_ranged", 3.0, 3e-6, 20.0),
        (Parameter(3.0, "positive", 0.0), "log_ranged", 3.0, 3e-8, 3e8),
        # The others: a bound a million starts away, and a start that is not at the very bound.
        (Parameter(4.0, "normal", -1.0, 7.0), "ranged", 4.0, -1.0, 7.0),
        (Parameter(4.0, "ranged", -1.0, 7.0, 0.3), "ranged", 4.0, -1.0, 7.0),
        (Parameter(-1.0, "ranged", -1.0, 7.0), "ranged", -1.0 + 8e-6, -1.0, 7.0),
        (Parameter(7.0, "ranged", -1.0, 7.0), "ranged", 7.0 - 8e-6, -1.0, 7.0),
        (Parameter(0.25, "normal", -3.0), "ranged", 0.25, -3.0, 1e6 - 3.0),
        (Parameter(-0.25, "normal", high=3.0), "ranged", -0.25, 3.0 - 1e6, 3.0),
        (Parameter(-40.0, "normal", high=3.0), "ranged", -40.0, 3.0 - 4e7, 3.0),
    ],
    ids=str,
)
def test_searchable(p: Parameter, kind: Kind, start: float, low: float, high: float) -> None:
    q = p.searchable()
    assert (q.kind, q.sigma) == (kind, 1.0)
    np.testing.assert_allclose([q.low, q.high], [low, high], rtol=1e-12)
    assert q.start == pytest.approx(start, rel=1e-12)


def test_a_number_without_bounds_is_searched_as_it_is() -> None:
    assert (Parameter(4.0).kind, Parameter(4.0).sigma, Parameter(4.0).fixed) == ("normal", 1.0, False)
    p = Parameter(4.0, "ranged", sigma=0.3, center=2.0, beta=3.0).searchable()
    assert p == Parameter(4.0, "normal", sigma=0.3, center=2.0, beta=3.0)


@pytest.mark.parametrize(
    ("p", "start"),
    [
        (Parameter(0.0, "normal", low=-1e-3, center=0.0, beta=1e-8), 0.0),
        (Parameter(0.1, "ranged", low=0.0, high=np.inf), 0.1),
        (Parameter(-2e-4, "ranged", low=-np.inf, high=0.0), -2e-4),
        (Parameter(-1e-3, "normal", low=-1e-3, center=0.0, beta=1e-8), -1e-3 + 1e-7),  # at its bound: a little inside
    ],
)
def test_one_missing_bound_does_not_move_the_start(p: Parameter, start: float) -> None:
    q = p.searchable()
    assert q.start == pytest.approx(start, rel=1e-12, abs=1e-15)
    assert float(q.value(q.start_x)) == pytest.approx(start, rel=1e-6, abs=1e-9)

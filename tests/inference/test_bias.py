"""Fits of simulated shots, by the model that made them, miss the truth by no more than chance allows."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bias() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module("bias")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.slow
def test_a_few_fits_are_as_good_as_their_error_bars(bias: ModuleType) -> None:
    errors = bias.measure(4, ("poisson_gaussian",))["poisson_gaussian"]
    assert errors.unconverged == 0
    # 36 pulls; one beyond 5 standard errors happens once in 50,000 such runs.
    assert np.abs(errors.pulls).max() < 5


@pytest.mark.slow
def test_no_bias_over_100_shots(bias: ModuleType) -> None:
    """Mean errors within 3 standard errors of zero; pulls as wide as the error bars say (8 % is 3.4 sd)."""
    measured = bias.measure(100, ("poisson_gaussian", "gaussian"))
    print("\n" + bias.table(measured))
    for errors in measured.values():
        assert errors.unconverged == 0
        assert np.all(np.abs(errors.mean_in_standard_errors) < 3)
        assert np.all(np.abs(errors.plain_mean_in_standard_errors) < 3)
    assert measured["poisson_gaussian"].pulls.std() == pytest.approx(1, abs=0.08)
    # The classic likelihood takes the noise for Gaussian: its error bars are a little too small, its mean is right.
    assert measured["gaussian"].pulls.std() == pytest.approx(1, abs=0.12)

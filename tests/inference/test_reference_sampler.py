"""NUTS against emcee, a sampler that shares nothing with it but values of the density, on one simulated shot."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from bayesbragg.inference.nuts import NutsOptions, nuts

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_moments_agree_with_a_long_run_of_emcee() -> None:
    pytest.importorskip("emcee")
    sys.path.insert(0, str(BENCHMARKS))
    try:
        benchmark = importlib.import_module("reference_sampler")
        target = benchmark.one_shot()
    finally:
        sys.path.remove(str(BENCHMARKS))
    found = nuts(target, NutsOptions(n_draws=1500), seed=1)
    assert found.verdict.passed, str(found.verdict)
    reference = benchmark.ensemble(target, 8000)
    assert reference.effective.min() > 2000
    means, sds = reference.compare(found)
    assert np.abs(means).max() < 0.1
    assert np.abs(sds).max() < 0.05

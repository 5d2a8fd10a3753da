"""Second-order fits: the same optimum as the L-BFGS-B search, in few evaluations."""

from __future__ import annotations

import numpy as np
import pytest
from golden import golden_cases, load_golden
from inference.golden_target import golden_density

from bayesbragg.inference.map import MapOptions, fit_map


@pytest.mark.parametrize("case", [name for name in golden_cases("19") if name.startswith(("19a", "19b"))])
def test_same_optimum_in_few_evaluations(case: str) -> None:
    density, _ = golden_density(load_golden(case))
    ours = fit_map(density, MapOptions(tolerance=1e-3, method="lm"))
    other = fit_map(density, MapOptions(tolerance=1e-3, method="lbfgs"))
    assert ours.converged
    assert other.converged
    sd = ours.standard_errors
    assert np.all(np.abs(ours.values - other.values) < 0.05 * sd)
    assert abs(ours.target - other.target) < 1e-3
    assert ours.iterations <= 20
    assert np.all(np.diff(ours.trace) < 0)

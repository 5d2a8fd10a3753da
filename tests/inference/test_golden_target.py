"""The classic target and its derivatives (golden cases 19a to 19d; a bare clone has 19d alone)."""

from __future__ import annotations

import numpy as np
import pytest
from golden import golden_cases, load_golden
from inference.golden_target import golden_density


@pytest.mark.parametrize("case", golden_cases("19"))
def test_target_and_gradient(case: str) -> None:
    g = load_golden(case)
    density, rows = golden_density(g)
    assert set(rows) == set(np.flatnonzero(g["vary"]))
    for k in range(3):
        x = g["x"][k][rows]
        np.testing.assert_allclose(density.layout.values(x), g["parameter_values"][k][rows], rtol=1e-12, atol=1e-15)
        value, gradient = density.value_and_grad(x)
        assert value == pytest.approx(g["f"][k], rel=1e-10)
        assert density.target(x) == pytest.approx(value, rel=1e-12)
        reference = g["g_fd"][k][rows]
        assert np.linalg.norm(gradient - reference) < 1e-6 * np.linalg.norm(reference)
        np.testing.assert_allclose(gradient, reference, rtol=1e-5, atol=1e-6 * np.abs(reference).max())

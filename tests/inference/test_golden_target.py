"""The classic target and its derivatives (golden cases 19a to 19d)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from inference.golden_target import golden_density

CASES = ("19a_target_basic", "19b_target_basic_restraints", "19c_target_all", "19d_target_all_restraints")


@pytest.mark.parametrize("case", CASES)
def test_target_and_gradient(case: str, shared: Path) -> None:
    g = dict(np.load(shared / "golden" / f"{case}.npz"))
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

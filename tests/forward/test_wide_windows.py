"""Photons do not depend on how far windows of structure factors reach beyond what is looked up in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from forward.golden_scene import golden_setup
from golden import load_golden

from bayesbragg.forward import expected_photons


@pytest.mark.parametrize("case", ["11b_diffuse_laue_stencil1", "01_mono"])
def test_wider_windows_change_nothing(case: str) -> None:
    parameters, scene, options, _ = golden_setup(load_golden(case))
    before = np.asarray(expected_photons(parameters, scene, options))
    windows = scene.factors
    extent = np.asarray(windows.extent).astype(int)
    wider = [(0, 0), (0, 0), (1, 2), (3, 1), (2, 4)]  # lattices, boxes, h, k, l; uneven, so that no two are alike
    size = int(np.prod(extent))

    def widened(values: np.ndarray) -> np.ndarray:
        if np.asarray(values).size == 0:
            return np.asarray(values)
        table = np.asarray(values)[..., :size].reshape(*np.shape(values)[:2], *extent)
        return np.pad(table, wider).reshape(*np.shape(values)[:2], -1)

    new = replace(
        windows,
        low=np.asarray(windows.low) - np.array([1, 3, 2]),
        extent=extent + np.array([3, 4, 6]),
        real=widened(windows.real),
        imag=widened(windows.imag),
        inside=widened(windows.inside),
    )
    after = np.asarray(expected_photons(parameters, replace(scene, factors=new), options))
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-12 * before.max())

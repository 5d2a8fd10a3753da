"""Every switch of the exact sum against PHYSICS 1.8 added up in plain numpy, on a shot without any symmetry."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import pytest
from forward.uneven_shot import (
    ATTENUATION_MM,
    KERNEL,
    numpy_photons,
    uneven_blocks,
    uneven_mosaic,
    uneven_parameters,
    uneven_scene,
)
from scipy.signal import convolve2d
from scipy.spatial.transform import Rotation
from scipy.special import erfinv

from bayesbragg.forward import Options, expected_photons, window_holds
from bayesbragg.forward.factors import HeavyAtoms
from bayesbragg.forward.quick_jit import understood_options


@functools.cache
def compiled() -> Any:
    """The exact sum compiled quickly, since it runs once or twice."""
    return jax.jit(expected_photons.function, static_argnums=2, compiler_options=understood_options())


def umats(options: Options) -> Any:
    if options.spread == "none":
        return np.eye(3)[None]
    samples = uneven_mosaic()
    theta = np.radians(1.0) * np.sqrt(2.0) * erfinv(samples.cdf)
    vectors = samples.axes * theta[:, None]
    return Rotation.from_rotvec(np.stack([vectors, -vectors], axis=1).reshape(-1, 3)).as_matrix()


CASES: dict[str, dict[str, Any]] = {
    "plain": {"oversample": 2, "sensor_layers": 2, "spread": "isotropic", "b_factor": True},
    "complex": {"complex_factors": True, "oversample_omega": False, "oversample": 2, "b_factor": True},
    "diffuse": {"diffuse": True, "diffuse_stencil": 1, "polarization": False},
    "diffuse alone": {"diffuse": True, "block_scale": False, "b_factor": True},
}


@pytest.mark.parametrize("case", CASES)
def test_photons(case: str) -> None:
    options = Options(**CASES[case])
    parameters, scene = uneven_parameters(), uneven_scene(options)
    assert window_holds(parameters, scene)
    found = np.asarray(compiled()(parameters, scene, options))
    expected = numpy_photons(parameters, options, umats(options), ATTENUATION_MM)
    assert np.all(expected > 0)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_sensor_that_absorbs_nothing_is_not_modelled() -> None:
    options = Options(**CASES["plain"])
    scene = uneven_scene(options, attenuation_length_mm=0.0)
    found = np.asarray(compiled()(uneven_parameters(), scene, options))
    np.testing.assert_allclose(found, numpy_photons(uneven_parameters(), options, umats(options), 0.0), rtol=1e-9)


def test_point_spread_without_any_other_switch_and_without_scatterers() -> None:
    """Bragg photons and background are blurred together; the background itself is taken away again."""
    options = Options(
        complex_factors=True, block_scale=False, polarization=False, oversample_omega=False, point_spread=True
    )
    scene = uneven_scene(options, heavy_atoms=None)
    bright = uneven_parameters(G=[7e13, 4e13])
    found = np.asarray(compiled()(bright, scene, options))
    none = HeavyAtoms(np.zeros((0, 5)), np.zeros(0), np.zeros(0))
    plain = numpy_photons(bright, options, umats(options), ATTENUATION_MM, none)
    shot = uneven_blocks()
    for b, (rows, columns) in enumerate(((3, 4), (3, 4), (2, 3))):
        background = shot.background[b].reshape(3, 4)[:rows, :columns]
        image = plain[b].reshape(3, 4)[:rows, :columns] + background
        corner = image[[0, 0, -1, -1], [0, -1, 0, -1]].mean()
        expected = convolve2d(image - corner, KERNEL, mode="same") + corner - background
        np.testing.assert_allclose(found[b].reshape(3, 4)[:rows, :columns], expected, rtol=1e-9, atol=1e-9)
        assert np.abs(image).max() > 2 * np.abs(background).max()

"""Small pieces of the model alone: windows, scatterers, halos, kernels, corrections, centroids, against plain numpy."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from scipy.integrate import dblquad
from scipy.signal import convolve2d

from bayesbragg.forward import Options, Parameters, Scene, centroid
from bayesbragg.forward.closed import ClosedScene, _corrected_widths, _uncorrected, lacking_variance
from bayesbragg.forward.diffuse import DiffuseModel, diffuse_intensity
from bayesbragg.forward.factors import FactorWindows, HeavyAtoms, anomalous_sum, window_index
from bayesbragg.forward.psf import PointSpread, blur, fibre_kernel

GENERATOR = np.random.default_rng(21)


def test_places_in_a_window() -> None:
    extent = np.array([4, 6, 2])
    low = np.array([[-1, 2, 0], [3, -4, 1]])
    hkl = np.stack(np.meshgrid(*[np.arange(-6.0, 9.0, 1.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    local = tuple(np.tile(hkl[:, i], (2, 1)) for i in range(3))
    found = np.asarray(window_index(local, low, extent))
    for box in range(2):
        place = np.clip(hkl.astype(int) - low[box], 0, extent - 1)
        np.testing.assert_array_equal(found[box], np.ravel_multi_index(tuple(place.T), tuple(extent)))


def test_sum_over_scatterers() -> None:
    sites = np.array([[0.13, 0.27, 0.41, 9.0, 0.8], [0.61, 0.05, 0.77, 14.0, 0.5], [0.3, 0.9, 0.2, 0.0, 2.0]])
    hkl = GENERATOR.integers(-5, 6, (3, 2, 4)).astype(float)
    q2 = GENERATOR.uniform(0.01, 0.2, (2, 4))
    expected = sum(
        site[4] * np.exp(-site[3] * q2 / 4) * np.exp(2j * np.pi * np.einsum("i,i...->...", site[:3], hkl))
        for site in sites
    )
    real, imag = anomalous_sum(HeavyAtoms(sites, np.zeros(0), np.zeros(0)), (hkl[0], hkl[1], hkl[2]), q2)
    np.testing.assert_allclose(np.asarray(real) + 1j * np.asarray(imag), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("stencil", [0, 1])
def test_halos(stencil: int) -> None:
    """PHYSICS 1.10 with two Laue matrices and unequal ratios."""
    laue = GENERATOR.standard_normal((2, 3, 3))
    A = 0.03 * GENERATOR.standard_normal((3, 3))
    gamma, sigma = np.array([12.0, 20.0, 31.0]), np.array([0.3, 0.5, 0.4])
    h0 = GENERATOR.integers(1, 6, (3, 2, 2)).astype(float)
    dh = GENERATOR.uniform(-0.5, 0.5, (3, 2, 2))
    offsets = list(itertools.product(range(-stencil, stencil + 1), repeat=3))
    ratio = GENERATOR.uniform(0.2, 3.0, (len(offsets), 2, 2))
    expected = np.zeros((2, 2))
    for L in laue:
        Q = np.einsum("ij,jbp->ibp", A @ L, h0)
        x = 4 * np.pi**2 * np.einsum("ibp,i,ibp->bp", Q, sigma**2, Q)
        for D, share in zip(offsets, ratio, strict=True):
            r = gamma[:, None, None] * np.einsum("ij,jbp->ibp", A @ L, dh - np.array(D)[:, None, None])
            height = 8 * np.pi * gamma[0] * gamma[1] * gamma[2]
            expected += share * x * np.exp(-x) * height / (1 + 4 * np.pi**2 * np.sum(r**2, axis=0)) ** 2
    expected /= 2 * (2 * stencil + 1) ** 3
    found = jax.jit(diffuse_intensity, static_argnums=4)(
        DiffuseModel(laue), gamma, sigma, A, stencil, tuple(dh), tuple(h0), ratio
    )
    np.testing.assert_allclose(found, expected, rtol=1e-11)


def test_kernel_is_the_integral_of_the_fibre_profile() -> None:
    """g / (2 pi (g^2 + x^2 + y^2)^(3/2)) over each pixel, with a total of one."""
    fwhm, pixel, radius = 130.0, 90.0, 2
    g = 0.65238 * fwhm / pixel

    def over(i: int, j: int) -> float:
        profile = lambda y, x: g / (2 * np.pi * (g * g + x * x + y * y) ** 1.5)  # noqa: E731
        return float(dblquad(profile, i - 0.5, i + 0.5, j - 0.5, j + 0.5)[0])

    expected = np.array([[over(i, j) for j in range(-2, 3)] for i in range(-2, 3)])
    found = fibre_kernel(fwhm, pixel, radius)
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-8)


def test_a_box_of_one_column_has_its_corners_in_it() -> None:
    kernel = np.array([[0.1, 0.2, 0.0], [0.3, 0.15, 0.05], [0.0, 0.12, 0.08]])
    valid = np.zeros((1, 4, 3))
    valid[0, :, 0] = 1.0
    image = GENERATOR.uniform(1.0, 9.0, (1, 12))
    column = image.reshape(4, 3)[:, :1]
    corner = 0.5 * (column[0, 0] + column[-1, 0])
    expected = convolve2d(column - corner, kernel, mode="same") + corner
    found = np.asarray(blur(PointSpread(kernel, valid, np.zeros((1, 12))), image)).reshape(4, 3)
    np.testing.assert_allclose(found[:, :1], expected, rtol=1e-12)


@pytest.mark.parametrize(("subpixels", "wanted"), [(1, 4), (2, 3), (3, 3), (1, 2)])
def test_variance_that_coarser_subpixels_lack(subpixels: int, wanted: int) -> None:
    fine, coarse = ((np.arange(n) + 0.5) / n for n in (wanted, subpixels))
    assert lacking_variance(subpixels, wanted) == pytest.approx(np.var(fine) - np.var(coarse), abs=1e-15)


def test_windows_in_corrected_wavelengths() -> None:
    """lambda' = offset + scale lambda, so k = scale c / (1 - offset c) for c = 1/lambda'; widths by a difference."""
    offset, scale, middle = 0.05, 0.93, 0.77
    p = Parameters.start(np.ones(6), lambda_offset_A=offset, lambda_scale=scale)

    def k_of(c: Any) -> Any:
        return 1.0 / ((1.0 / np.asarray(c) - offset) / scale)

    variance, length = np.array([[2e-6, 3e-6]]), np.array([[0.2, 0.4]])
    shapes: Any = SimpleNamespace(variance=variance, length=length)
    table: Any = SimpleNamespace(middle=np.asarray(middle))
    reference, tau = _corrected_widths(p, table, shapes)
    assert float(k_of(reference)) == pytest.approx(middle, rel=1e-12)
    c = float(reference)
    slope = (k_of(c + 1e-5) - k_of(c - 1e-5)) / 2e-5
    np.testing.assert_allclose(tau, np.log(variance * (c / length * slope) ** 2), rtol=1e-9)
    centre = np.array([-0.05, 0.0, 0.02, 0.1])
    np.testing.assert_allclose(_uncorrected(p, centre, reference), k_of(c + centre) - middle, rtol=1e-10, atol=1e-14)


def test_closed_scene_sums_the_subpixels_it_is_given() -> None:
    nothing: Any = None
    assert ClosedScene(nothing, nothing, nothing, nothing).subpixels == 0
    two, three = (ClosedScene(nothing, nothing, nothing, nothing, subpixels=n) for n in (2, 3))
    assert jax.tree.structure(two) != jax.tree.structure(three)


LOW = np.array([[[0, 0, 0], [5, -3, 2], [1, 1, 1]], [[-2, 4, 1], [0, 1, -7], [2, 2, 2]]])
EXTENT = np.array([4, 6, 2])


@pytest.fixture
def stub() -> Scene:
    """The fields of a scene that centroids use."""
    empty = np.zeros(0)
    atoms = HeavyAtoms(np.zeros((0, 5)), empty, empty)
    factors = FactorWindows(LOW, EXTENT, GENERATOR.uniform(1, 2, (2, 3, 64)), empty, empty, atoms)
    boxes: Any = SimpleNamespace(
        fast_px=np.tile([-1.0, 0.0, 1.0, 2.0], (3, 1)),
        slow_px=np.tile([-2.0, -2.0, 1.0, 1.0], (3, 1)),
        centre_px=np.array([[10.0, 20.0], [30.5, 40.0], [50.0, 60.5]]),
    )
    rest: Any = dict.fromkeys(Scene.__dataclass_fields__)
    return Scene(**{**rest, "boxes": boxes, "factors": factors})


def test_one_reflection_for_each_box(stub: Scene) -> None:
    lattice = np.array([1, 0, 1])
    inside = LOW[lattice, np.arange(3)] + [[3, 5, 1], [1, 2, 1], [0, 0, 0]]
    found = centroid.own_reflections(stub, inside, lattice).factors.real
    expected = np.zeros((2, 3, 64))
    for box, place in enumerate([(3, 5, 1), (1, 2, 1), (0, 0, 0)]):
        expected[lattice[box], box, np.ravel_multi_index(place, tuple(EXTENT))] = 1.0
    np.testing.assert_array_equal(found, expected)
    outside = LOW[lattice, np.arange(3)] + [[4, 0, 0], [0, -1, 1], [1, 1, 2]]
    assert not centroid.own_reflections(stub, outside, lattice).factors.real.any()


def test_centroids(stub: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    photons = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 1.0, 7.0, 100.0], [0.0, 0.0, 0.0, 0.0]])
    seen: list[Any] = []

    def model(parameters: Any, scene: Any, options: Options) -> Any:
        seen.append((parameters, scene.factors.real, options))
        return photons

    monkeypatch.setattr(centroid, "expected_photons", model)
    valid = np.ones((3, 4), bool)
    valid[1, 3] = False
    options = Options(diffuse=True, diffuse_stencil=2, point_spread=True, oversample=3, b_factor=True)
    given: Any = (LOW[0], np.zeros(3, int))
    parameters = Parameters.start(np.ones(6))
    found, total = centroid.own_reflection_centroids(parameters, stub, options, *given, valid)
    np.testing.assert_allclose(total, [10.0, 13.0, 0.0])
    fast = [10.5 + (-1 * 1 + 0 * 2 + 1 * 3 + 2 * 4) / 10, 31.0 + (-1 * 5 + 0 * 1 + 1 * 7) / 13]
    slow = [20.5 + (-2 * 3 + 1 * 7) / 10, 40.5 + (-2 * 6 + 1 * 7) / 13]
    np.testing.assert_allclose(found[:2], np.stack([fast, slow], axis=-1), rtol=1e-14)
    assert np.all(np.isnan(found[2]))
    assert seen[0][0] is parameters
    np.testing.assert_array_equal(seen[0][1], centroid.own_reflections(stub, *given).factors.real)
    assert seen[0][2] == Options(oversample=3, b_factor=True)
    other = replace(options, diffuse=False, complex_factors=True)
    centroid.own_reflection_centroids(parameters, stub, other, *given, valid)
    assert seen[1][2] == Options(oversample=3, b_factor=True)


def test_options_start_with_a_thin_sensor_and_nothing_special() -> None:
    o = Options()
    assert (o.oversample, o.sensor_layers, o.diffuse_stencil, o.mosaic_nodes) == (1, 1, 0, 0)
    assert o.oversample_omega
    assert o.polarization
    assert o.block_scale
    assert [o.complex_factors, o.diffuse, o.b_factor, o.point_spread] == [False] * 4
    assert (o.spread, o.precision) == ("none", "float64")

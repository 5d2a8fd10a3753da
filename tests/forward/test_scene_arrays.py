"""A scene's arrays against the detector, beam, crystals and factors they come from; windows against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from forward.uneven_shot import (
    ATOMS,
    BEAM,
    BEAM_MM,
    CELL_DEG,
    GROUPS,
    KERNEL,
    O_BASIS,
    SPECTRUM,
    TURNS,
    lattice_vectors,
    positions,
    uneven_blocks,
    uneven_detector,
    uneven_factors,
    uneven_mosaic,
    uneven_parameters,
    uneven_scene,
)

from bayesbragg.forward import Options, Parameters, build_scene, expected_photons, window_holds
from bayesbragg.forward.mosaic import sample_axes
from bayesbragg.model import Beam, Crystal, Detector, Shot, Spectrum, StructureFactors

FloatArray = npt.NDArray[np.float64]


def index_range(p: Parameters) -> tuple[FloatArray, FloatArray]:
    """Least and largest fractional index over pixel centres and lit channels, ``(2, 3, 3)`` each."""
    point = positions(p, 0.5, 0.5, 0.0)
    rays = point / np.linalg.norm(point, axis=-1, keepdims=True) - BEAM.direction
    lit = SPECTRUM.wavelengths_A[SPECTRUM.photons > 0]
    inverse = 1.0 / (float(p.spectrum.offset_A) + float(p.spectrum.scale) * lit)
    h = np.stack([[rays @ lattice_vectors(p, lattice) * k for k in inverse] for lattice in range(2)])
    return h.min(axis=(1, 3)), h.max(axis=(1, 3))


def with_spread(p: Parameters) -> tuple[FloatArray, FloatArray]:
    """The range with four standard deviations of what a mosaic rotation w adds to an index, w . (q x a)."""
    low, high = index_range(p)
    largest = np.sqrt(np.max(p.mosaic.eta_deg) ** 2 + np.sum(np.asarray(p.mosaic.eta_def_deg) ** 2))
    point = positions(p, 0.5, 0.5, 0.0)
    rays = point / np.linalg.norm(point, axis=-1, keepdims=True) - BEAM.direction
    lit = SPECTRUM.wavelengths_A[SPECTRUM.photons > 0]
    q = rays / np.min(float(p.spectrum.offset_A) + float(p.spectrum.scale) * lit)
    vectors = np.stack([lattice_vectors(p, lattice).T for lattice in range(2)])
    arms = np.linalg.norm(np.cross(q[None, :, :, None], vectors[:, None, None]), axis=-1)
    reach = 4.0 * np.radians(largest) * arms.max(axis=2)
    return low - reach, high + reach


def test_beam_crystals_and_sensor() -> None:
    scene = uneven_scene(Options())
    strength = 7.94079248018965e-30 * SPECTRUM.photons / (4 * (BEAM_MM * 1e-3) ** 2)
    np.testing.assert_allclose(scene.channels.strength, strength, rtol=1e-14)
    np.testing.assert_array_equal(scene.channels.wavelengths_A, SPECTRUM.wavelengths_A)
    np.testing.assert_array_equal(scene.beam.k, BEAM.direction)
    np.testing.assert_array_equal(scene.beam.polarization_normal, BEAM.polarization_normal)
    assert float(scene.beam.kahn) == pytest.approx(0.6, rel=1e-14)
    assert float(uneven_scene(Options(), kahn_factor=0.25).beam.kahn) == 0.25
    np.testing.assert_allclose(scene.lattices.U, TURNS, atol=1e-12)
    np.testing.assert_array_equal(scene.lattices.basis, O_BASIS)
    assert float(scene.sensor.thickstep_m) == pytest.approx(0.15e-3, rel=1e-14)
    assert float(scene.sensor.attenuation_m) == pytest.approx(0.4e-3, rel=1e-14)
    thin = {"thickstep_mm": 0.0, "attenuation_length_mm": 0.0}
    assert float(uneven_scene(Options(), **thin).sensor.attenuation_m) == 0.0
    np.testing.assert_array_equal(uneven_scene(Options(), diffuse=None).diffuse.laue, np.eye(3)[None])


def test_boxes() -> None:
    detector, shot = uneven_detector(), uneven_blocks()
    boxes = uneven_scene(Options(precision="float32")).boxes
    np.testing.assert_allclose(boxes.origin_m, detector.origin_mm[shot.panel] / 1000.0, rtol=1e-14)
    np.testing.assert_array_equal(boxes.fast, detector.fast[shot.panel])
    np.testing.assert_array_equal(boxes.slow, detector.slow[shot.panel])
    np.testing.assert_array_equal(boxes.normal, detector.normal[shot.panel])
    assert float(boxes.normal_sign) == detector.normal_sign
    np.testing.assert_allclose(boxes.pixel_m, detector.pixel_size_mm[shot.panel] / 1000.0, rtol=1e-14)
    np.testing.assert_array_equal(boxes.group, [0, 1, 0])
    np.testing.assert_allclose(boxes.reference_m, GROUPS.reference_mm[[0, 1, 0]] / 1000.0, rtol=1e-14)
    np.testing.assert_array_equal(boxes.centre_px, [[7.0, 41.5], [32.0, 8.5], [51.5, 21.0]])
    np.testing.assert_array_equal(boxes.fast_px, [[-2, -1, 0, 1] * 3, [-2, -1, 0, 1] * 3, [-1.5, -0.5, 0.5, 1.5] * 3])
    rows = np.repeat([0.0, 1.0, 2.0], 4)
    np.testing.assert_array_equal(boxes.slow_px, [rows - 1.5, rows - 1.5, rows - 1.0])
    assert boxes.fast_px.dtype == boxes.slow_px.dtype == np.float32
    plain = uneven_scene(Options(), groups=None).boxes
    np.testing.assert_array_equal(plain.reference_m, plain.origin_m)
    np.testing.assert_array_equal(plain.group, [0, 0, 0])
    assert plain.fast_px.dtype == np.float64


def test_mosaic_samples() -> None:
    given = uneven_scene(Options(spread="isotropic")).mosaic
    np.testing.assert_array_equal(given.axes, uneven_mosaic().axes)
    drawn = uneven_scene(Options(spread="isotropic"), mosaic=None, n_mosaic=6, mosaic_seed=3).mosaic
    axes, cdf = sample_axes(6, 3)
    np.testing.assert_array_equal(drawn.axes, axes)
    np.testing.assert_array_equal(drawn.cdf, cdf)
    vectors = Crystal.from_cell(CELL_DEG, TURNS[0]).real_space_A
    expected = np.array([v / np.linalg.norm(v) for v in vectors])
    np.testing.assert_allclose(drawn.cell_directions, expected, rtol=1e-12)
    none = uneven_scene(Options(), mosaic=None, n_mosaic=6).mosaic
    np.testing.assert_array_equal(none.axes, np.zeros((1, 3)))
    np.testing.assert_array_equal(none.cdf, np.zeros(1))


def test_what_is_not_said_is_a_narrow_beam_and_a_thin_sensor() -> None:
    crystals = [Crystal.from_cell(CELL_DEG, U) for U in TURNS]
    words = (uneven_detector(), BEAM, SPECTRUM, crystals, uneven_blocks(), uneven_factors(is_complex=False))
    scene = build_scene(*words, uneven_parameters(), Options())
    strength = 7.94079248018965e-30 * SPECTRUM.photons / (4 * 1e-6**2)
    np.testing.assert_allclose(scene.channels.strength, strength, rtol=1e-14)
    assert (float(scene.sensor.thickstep_m), float(scene.sensor.attenuation_m)) == (0.0, 0.0)
    np.testing.assert_array_equal(
        scene.factors.low, build_scene(*words, uneven_parameters(), Options(), margin=1).factors.low
    )
    with pytest.raises(ValueError, match="got 1"):  # rotations come in pairs: how many must be said
        build_scene(*words, uneven_parameters(), Options(spread="isotropic"))
    drawn = build_scene(*words, uneven_parameters(), Options(spread="isotropic"), n_mosaic=4).mosaic
    np.testing.assert_array_equal(drawn.axes, sample_axes(4, 0)[0])
    complex_scene = uneven_scene(Options(complex_factors=True), heavy_atoms=None)
    atoms = complex_scene.factors.heavy_atoms
    assert [a.shape for a in (atoms.sites, atoms.fprime, atoms.fdoubleprime)] == [(0, 5), (0,), (0,)]


def test_point_spread_only_where_it_is_asked_for() -> None:
    spread = uneven_scene(Options(point_spread=True)).point_spread
    np.testing.assert_array_equal(spread.kernel, KERNEL)
    valid = np.ones((3, 3, 4))
    valid[2, 2:], valid[2, :, 3:] = 0.0, 0.0
    np.testing.assert_array_equal(spread.valid, valid)
    np.testing.assert_array_equal(spread.background, uneven_blocks().background)
    none = uneven_scene(Options()).point_spread
    assert [a.shape for a in (none.kernel, none.valid, none.background)] == [(0, 0), (0, 0, 0), (0, 0)]


def steps(extent: npt.ArrayLike) -> npt.NDArray[np.int64]:
    return np.stack(np.unravel_index(np.arange(np.prod(extent)), tuple(np.asarray(extent))), axis=-1)


@pytest.mark.parametrize(
    ("words", "changes", "margin", "length"),
    [
        ({}, {"eta_deg": 0.0}, 2, 216),
        ({}, {"eta_deg": 0.0}, 3, 512),
        ({}, {"eta_deg": 1.0, "eta_def_deg": [0.5, -0.3, 0.2], "lambda_scale": 1.3}, 3, 1024),
        ({"complex_factors": True}, {"eta_deg": 3.0, "lambda_scale": 1.3}, 1, 512),
        ({"diffuse": True, "diffuse_stencil": 2}, {"eta_deg": 1.0}, 0, 512),
    ],
)
def test_windows(words: dict[str, Any], changes: dict[str, Any], margin: int, length: int) -> None:
    options, p = Options(**words), uneven_parameters(**changes)
    found = uneven_scene(options, p, margin=margin).factors
    low, high = with_spread(p)
    pad = margin + options.diffuse_stencil
    first, last = np.ceil(low - 0.5).astype(int) - pad, np.ceil(high - 0.5).astype(int) + pad
    np.testing.assert_array_equal(found.low, first)
    widest = (last - first).max(axis=(0, 1)) + 1
    extent = widest + widest % 2
    np.testing.assert_array_equal(found.extent, extent)
    table = uneven_factors(is_complex=options.complex_factors)
    n = int(np.prod(extent))
    assert found.real.shape == (2, 3, length)
    assert length == 216 or length // 2 < n <= length
    expected = table.lookup(first[:, :, None] + steps(extent))
    np.testing.assert_array_equal(found.real[..., :n], expected.real)
    np.testing.assert_array_equal(found.real[..., n:], 0.0)
    if options.complex_factors:
        np.testing.assert_array_equal(found.imag[..., :n], expected.imag)
        np.testing.assert_array_equal(found.heavy_atoms.sites, ATOMS.sites)
    else:
        assert found.imag.shape == found.heavy_atoms.fprime.shape == (0,)
        assert found.heavy_atoms.sites.shape == (0, 5)
    if options.diffuse:
        hkl, s = first[:, :, None] + steps(extent), options.diffuse_stencil
        inside = np.all((hkl - s >= table.table_min) & (hkl + s <= table.table_max), axis=-1)
        assert inside.any()
        assert not inside.all()
        np.testing.assert_array_equal(found.inside[..., :n], inside)
        np.testing.assert_array_equal(found.inside[..., n:], 0.0)
    else:
        assert found.inside.shape == (0,)


def test_a_mosaic_spread_reaches_far_along_a_long_axis() -> None:
    """At (20, 0, 0) a turn by half a degree moves the index along b = 250 angstrom by one, though k is zero."""
    crystal = Crystal.from_cell([40.0, 250.0, 40.0, 90.0, 90.0, 90.0], np.eye(3))
    theta = np.arcsin(0.5 * 1.3 * 20 / 40.0)  # a* lies along x: the beam that reflects from there
    beam = Beam(np.array([-np.sin(theta), 0.0, np.cos(theta)]), 1.3, np.array([0.0, 1.0, 0.0]))
    out = np.array([np.sin(theta), 0.0, np.cos(theta)])
    fast, slow = np.array([np.cos(theta), 0.0, -np.sin(theta)]), np.array([0.0, 1.0, 0.0])
    detector = Detector(
        (100.0 * out - 0.35 * (fast + slow))[None], fast[None], slow[None], np.full((1, 2), 0.1), np.full((1, 2), 7),
        np.array([[0.0, 1e9]]), np.zeros(1), np.zeros(1), np.ones(1), ("0",),
    )  # fmt: skip
    zero = np.zeros((1, 49))
    shot = Shot(np.zeros(1, int), np.array([[0, 7, 0, 7]]), (7, 7), zero, zero, zero < 1, np.ones(()),
                np.array([[20, 0, 0]]), np.zeros(1, int), np.zeros(1, int), np.zeros((1, 3)))  # fmt: skip
    hkl = np.stack(np.meshgrid(np.arange(10, 31), np.arange(-20, 21), np.arange(-8, 9), indexing="ij"), -1)
    F = np.random.default_rng(0).exponential(100.0, hkl.shape[:3]).reshape(-1)
    factors = StructureFactors(hkl.reshape(-1, 3), F)
    p = Parameters.start([40.0, 250.0, 40.0, *[np.pi / 2] * 3], n_abc=[30.0, 10.0, 30.0], eta_deg=0.5)
    for options in (Options(spread="isotropic"), Options(spread="gaussian_isotropic")):
        spectrum = Spectrum.monochromatic(1.3)
        narrow, wide = (
            build_scene(detector, beam, spectrum, [crystal], shot, factors, p, options, n_mosaic=2000, margin=margin)
            for margin in (1, 6)
        )
        photons, expected = (np.asarray(expected_photons(p, scene, options)) for scene in (narrow, wide))
        np.testing.assert_allclose(photons, expected, atol=1e-9 * expected.max())


def test_a_window_holds_until_a_pixel_leaves_it() -> None:
    """Moved in steps of one index, the window holds just as long as every box's indices lie inside it."""
    options, p = Options(), uneven_parameters(eta_deg=0.0)
    scene = uneven_scene(options, p, margin=1)
    low, high = index_range(p)
    first, last = np.ceil(low - 0.5).astype(int), np.ceil(high - 0.5).astype(int)
    for axis in range(3):
        for shift in range(-5, 6):
            moved = np.asarray(scene.factors.low).copy()
            moved[..., axis] += shift
            end = moved + np.asarray(scene.factors.extent) - 1
            expected = bool(np.all(first >= moved) and np.all(last <= end))
            factors = type(scene.factors)(**{**vars(scene.factors), "low": moved})
            assert window_holds(p, type(scene)(**{**vars(scene), "factors": factors})) == expected
            assert expected or shift

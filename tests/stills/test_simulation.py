"""Simulated stills: their statistics, and predictions against the forward model's own photons."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from forward.golden_scene import golden_detector, golden_setup
from golden import load_golden
from scipy.stats import gamma, norm

from bayesbragg.forward import Options, Parameters
from bayesbragg.forward.scene import PanelGroups
from bayesbragg.model import Beam, Crystal, Detector, Spectrum, StructureFactors
from bayesbragg.stills import prediction
from bayesbragg.stills.boxes import PanelLayout
from bayesbragg.stills.prediction import predict
from bayesbragg.stills.simulation import Camera, Still, expected_bragg, expose, known_background_shot, simulate_still
from bayesbragg.stills.virtual import VirtualExperiment, four_panels, virtual_experiment

CELL = np.array([79.1, 79.1, 38.4, np.pi / 2, np.pi / 2, np.pi / 2])
BLOCKS = (8.0, 9.0, 13.0)


@pytest.fixture(scope="module")
def world() -> VirtualExperiment:
    return replace(virtual_experiment(11, n_channels=4), detector=four_panels(side=120, distance_mm=40.0))


@pytest.fixture(scope="module")
def truth() -> Parameters:
    return Parameters.start(CELL, n_abc=BLOCKS, G=1500.0)


@pytest.fixture(scope="module")
def still(world: VirtualExperiment, truth: Parameters) -> Still:
    return simulate_still(
        truth, world.detector, world.beam, world.spectrum, [world.crystal], world.factors, Options(), seed=5
    )


def test_noise_has_the_mean_and_variance_that_were_asked_for(still: Still) -> None:
    mean = still.bragg + still.background
    counts = still.adu / still.camera.gain
    # Poisson, readout and the rounding to one unit of detector.
    variance = mean + (3.0 / 28.0) ** 2 + 1 / 12 / 28.0**2
    z = (counts - mean) / np.sqrt(variance)
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    fourth = np.mean(3 + (1 / mean))  # of a Poisson variable, in units of its variance squared
    assert abs(np.mean(z**2) - 1) < 4 * np.sqrt((fourth - 1) / z.size)


def test_the_seed_decides_the_noise(world: VirtualExperiment, truth: Parameters, still: Still) -> None:
    def again(seed: int) -> Still:
        return simulate_still(
            truth, world.detector, world.beam, world.spectrum, [world.crystal], world.factors, Options(), seed=seed
        )

    assert np.array_equal(again(5).adu, still.adu)
    assert not np.array_equal(again(6).adu, still.adu)


def test_predicted_boxes_hold_the_bragg_photons(still: Still) -> None:
    """All but the far tails: what the forward model puts on the detector lies in the boxes of the predictions."""
    layout = PanelLayout.of_sizes(still.detector.image_size)
    panel = still.predictions.panel
    corner = np.maximum(np.floor(still.predictions.position).astype(int) - 6, 0)
    end = np.minimum(corner + 13, layout.size[panel])
    bounds = np.stack([corner[:, 0], end[:, 0], corner[:, 1], end[:, 1]], axis=1)
    index, inside = layout.box_pixels(panel, bounds, (13, 13))
    covered = np.zeros(len(still.bragg), dtype=bool)
    covered[index[inside]] = True
    assert still.bragg[covered].sum() > 0.985 * still.bragg.sum()
    assert still.photons.sum() == pytest.approx(still.bragg.sum(), rel=0.02)


def test_expected_centroids_are_near_predictions_and_noisy_ones_near_them(still: Still) -> None:
    bright = still.photons > 50
    assert bright.sum() > 20
    offset = np.linalg.norm(still.predictions.position - still.centroid, axis=1)
    assert np.median(offset[bright]) < 1.0
    table = still.reflections
    error = table["xyzobs.px.value"][:, :2] - still.centroid[still.strong]
    assert np.median(np.linalg.norm(error, axis=1)) < 0.2
    assert np.all(np.abs(error.mean(axis=0)) < 4 * error.std(axis=0) / np.sqrt(len(error)))
    assert np.array_equal(table["miller_index"], still.predictions.miller_index[still.strong])
    pixel = still.detector.pixel_size_mm[table["panel"]]
    assert np.allclose(table["xyzobs.mm.value"][:, :2], table["xyzobs.px.value"][:, :2] * pixel)


def test_two_lattices_add_up(world: VirtualExperiment, truth: Parameters) -> None:
    other = virtual_experiment(12).crystal
    both = Parameters.start(CELL, n_lattices=2, n_abc=BLOCKS, G=[1500.0, 700.0])
    alone = Parameters.start(CELL, n_abc=BLOCKS, G=700.0)

    def image(parameters: Parameters, crystals: list[object]) -> np.ndarray:
        return expected_bragg(
            parameters, world.detector, world.beam, world.spectrum, crystals, world.factors, Options()
        )

    total = image(truth, [world.crystal]) + image(alone, [other])
    assert np.allclose(image(both, [world.crystal, other]), total, rtol=1e-9, atol=1e-12 * total.max())


def test_boxes_do_not_depend_on_the_noise(world: VirtualExperiment, truth: Parameters, still: Still) -> None:
    shot = known_background_shot(still, most=20)
    other = simulate_still(
        truth, world.detector, world.beam, world.spectrum, [world.crystal], world.factors, Options(),
        camera=Camera(gain=10.0, readout_adu=1.0, calibration_sd=0.03), seed=99,
    )  # fmt: skip
    same = known_background_shot(other, most=20)
    assert np.array_equal(shot.bounds, same.bounds)
    assert np.array_equal(shot.background, same.background)
    assert shot.readout_sd == pytest.approx(3 / 28)
    assert same.readout_sd == pytest.approx(0.1)


def test_predictions_obey_bragg() -> None:
    world = virtual_experiment(11, fwhm_eV=100.0)
    found = predict(world.crystal, world.beam, world.spectrum, world.detector, d_min=3.0, n_abc=BLOCKS, widths=0.01)
    ray = world.detector.lab_mm(found.panel, found.position[:, 0], found.position[:, 1])
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    q = (ray - world.beam.direction) / found.wavelength_A[:, None]
    assert len(found) > 5
    assert np.allclose(q @ world.crystal.real_space_A.T, found.miller_index, atol=0.01)
    assert np.all(found.d_A >= 3.0)


def test_predictions_in_pieces_are_the_same_in_less_memory(
    world: VirtualExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (world.crystal, world.beam, world.spectrum, world.detector)
    whole = predict(*arguments, d_min=1.6, n_abc=BLOCKS)
    monkeypatch.setattr(prediction, "AT_ONCE", 5_000)
    tracemalloc.start()
    pieces = predict(*arguments, d_min=1.6, n_abc=BLOCKS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The sphere's box has half a million points, whose indices alone are 12 MB.
    assert len(whole) > 100
    assert peak < 6e6
    for name in whole.__dataclass_fields__:
        np.testing.assert_allclose(getattr(pieces, name), getattr(whole, name), rtol=1e-12, err_msg=name)


def test_mean_of_noisy_images_is_the_forward_model(still: Still) -> None:
    """Every pixel of the mean of 200 images, at the family-wise level of 4 standard errors of one."""
    n, mean = 200, still.bragg + still.background
    camera, generator = still.camera, np.random.default_rng(8)
    total = np.zeros(len(mean))
    for _ in range(n):
        total += expose(mean, camera, generator)
    # With the readout's variance added to both, the sum is nearly Poisson; its tails are those of the gamma function.
    shift = n * ((camera.readout_adu / camera.gain) ** 2 + 1 / 12 / camera.gain**2)
    counts, expected = total / camera.gain + shift, n * mean + shift
    level = 2 * norm.sf(4.0) / len(mean)
    assert gamma.sf(expected, counts).min() > level / 2  # P(N <= counts)
    assert gamma.cdf(expected, np.maximum(counts, 1e-9)).min() > level / 2  # P(N >= counts)
    z = (total / camera.gain - n * mean) / np.sqrt(n * mean + shift)
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert abs(np.mean(z**2) - 1) < 4 * np.sqrt(2 / z.size)
    # As many pixels are beyond 4 standard errors as there should be: a few in a hundred thousand.
    assert np.sum(np.abs(z) > 4) <= 15


def test_without_noise_the_image_is_the_expectation(still: Still) -> None:
    camera = replace(still.camera, saturation_adu=60.0)
    adu = expose(still.bragg + still.background, camera, None)
    np.testing.assert_array_equal(adu, np.minimum(np.rint((still.bragg + still.background) * 28.0), 60.0))
    assert adu.max() == 60


@pytest.mark.parametrize("case", ["01", "03", "04b", "06"])
def test_golden_inputs_give_golden_intensities(case: str) -> None:
    """The whole detector, tile by tile, at the pixels that the classic program was asked for."""
    g = load_golden(case)
    parameters, scene, options, _ = golden_setup(g)
    detector = golden_detector(g)
    # Only panels with golden pixels, and of them the part that holds these, to be quick.
    pixels = g["pixels_panel_fast_slow"]
    detector, pixels = cropped(detector, pixels)
    groups = None
    if "panel_group_id" in g:
        panels = np.unique(g["pixels_panel_fast_slow"][:, 0])
        groups = PanelGroups(g["panel_group_id"][panels], g["panel_group_reference_mm"])
    F = StructureFactors(g["hkl_p1"], g["F_p1"], float(g["default_F"]), g["hkl_table_min"], g["hkl_table_max"])
    image = expected_bragg(
        parameters,
        detector,
        Beam(g["beam_unit_source_to_sample"], float(g["wavelengths_A"].mean()), g["polarization_normal"]),
        Spectrum(g["wavelengths_A"], g["fluxes_photons"]),
        [Crystal.from_cell(g["unit_cell_A_deg"], g["U"], to_primitive=g["O_matrix"])],
        F,
        options,
        beam_size_mm=float(g["beam_size_mm"]),
        kahn_factor=float(g["kahn_factor"]),
        groups=groups,
        mosaic=scene.mosaic if options.spread != "none" else None,
    )
    layout = PanelLayout.of_sizes(detector.image_size)
    panel, fast, slow = pixels.T
    found = image[layout.offset[panel] + slow * layout.size[panel, 0] + fast]
    np.testing.assert_allclose(found, g["I"], rtol=0, atol=1e-9 * g["I"].max())


def cropped(detector: Detector, pixels: np.ndarray) -> tuple[Detector, np.ndarray]:
    """The smallest detector that holds some pixels, and their places on it; one window for all panels."""
    panels, number = np.unique(pixels[:, 0], return_inverse=True)
    low, high = pixels[:, 1:].min(axis=0), pixels[:, 1:].max(axis=0) + 1
    shift = (low * detector.pixel_size_mm[panels])[:, :, None]
    origin = detector.origin_mm[panels] + shift[:, 0] * detector.fast[panels] + shift[:, 1] * detector.slow[panels]
    names = ("fast", "slow", "pixel_size_mm", "trusted_range", "thickness_mm", "attenuation_per_mm", "gain")
    part = replace(
        detector,
        origin_mm=origin,
        image_size=np.tile(high - low, (len(panels), 1)),
        names=tuple(detector.names[p] for p in panels),
        **{name: getattr(detector, name)[panels] for name in names},
    )
    return part, np.column_stack([number, pixels[:, 1:] - low])

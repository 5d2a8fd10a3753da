"""Simulated stills: their statistics, and predictions against the forward model's own photons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bayesbragg.forward import Options, Parameters
from bayesbragg.stills.boxes import PanelLayout
from bayesbragg.stills.prediction import predict
from bayesbragg.stills.simulation import Camera, Still, expected_bragg, known_background_shot, simulate_still
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

"""Spot finding against a plain-loop dispersion threshold, against known spots, and against DIALS."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from bayesbragg.io.images import read_image, read_image_experiment
from bayesbragg.io.reflections import read_reflections
from bayesbragg.model import Beam, Detector
from bayesbragg.model.errors import InputError
from bayesbragg.stills.spotfinding import SpotfinderSettings, find_spots, strong_pixels
from bayesbragg.stills.spots import spot_list

TUTORIAL = SpotfinderSettings(
    gain=28, global_threshold=40, kernel_size=(2, 2), sigma_strong=1, sigma_background=6, min_spot_size=2
)


def flat(n_panels: int = 1, size: tuple[int, int] = (40, 30)) -> Detector:
    return Detector(
        origin_mm=[[-2.0, 2.0 + 5 * i, -50.0] for i in range(n_panels)],
        fast=[[1, 0, 0]] * n_panels,
        slow=[[0, -1, 0]] * n_panels,
        pixel_size_mm=[[0.1, 0.1]] * n_panels,
        image_size=[size] * n_panels,
        trusted_range=[[-10, 5000]] * n_panels,
        thickness_mm=[0] * n_panels,
        attenuation_per_mm=[0] * n_panels,
        gain=[1] * n_panels,
        names=tuple(f"p{i}" for i in range(n_panels)),
    )


BEAM = Beam(np.array([0.0, 0.0, -1.0]), 1.3, np.array([0.0, 1.0, 0.0]))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kernel", [(2, 2), (3, 1)])
def test_threshold_is_that_of_the_definition(kernel: tuple[int, int], masked: bool) -> None:
    rng = np.random.default_rng(0)
    gain = 3.0
    values = gain * rng.poisson(4.0, (2, 14, 17)).astype(float)
    values[0, 5:7, 5:8] += 60
    values[1, 0, 16] += 90
    trusted = rng.random(values.shape) > 0.2 if masked else np.ones(values.shape, dtype=bool)
    settings = SpotfinderSettings(kernel_size=kernel, sigma_background=2.0, sigma_strong=1.5, global_threshold=10)
    expected = np.zeros(values.shape, dtype=bool)
    for p, i, j in np.ndindex(values.shape):
        window = p, slice(max(i - kernel[0], 0), i + kernel[0] + 1), slice(max(j - kernel[1], 0), j + kernel[1] + 1)
        x = values[window][trusted[window]]
        if not trusted[p, i, j] or len(x) < 2 or x.mean() <= 0:
            continue
        expected[p, i, j] = (
            x.var(ddof=1) / x.mean() > gain * (1 + 2.0 * np.sqrt(2 / (len(x) - 1)))
            and values[p, i, j] > x.mean() + 1.5 * np.sqrt(gain * x.mean())
            and values[p, i, j] > 10
        )
    found = strong_pixels(values, trusted if masked else None, gain, settings)
    np.testing.assert_array_equal(found, expected)
    assert 3 < expected.sum() < 60


def image_with_spots() -> list[Any]:
    panels = [np.ones((30, 40)) for _ in range(2)]
    panels[0][10:12, 20:23] = [[50, 200, 30], [20, 90, 40]]
    # Two pixels that touch at a corner are two spots.
    panels[1][3, 4:6] = 300
    panels[1][4, 6:8] = 400
    return panels


def test_centroids_boxes_and_variances() -> None:
    spots = find_spots(image_with_spots(), flat(2), BEAM, SpotfinderSettings(min_spot_size=2, sigma_strong=0.0))
    assert spots["panel"].tolist() == [0, 1, 1]
    assert spots["bbox"][1].tolist() == [4, 6, 3, 4, 0, 1]
    assert spots["bbox"][2].tolist() == [6, 8, 4, 5, 0, 1]
    np.testing.assert_allclose(spots["xyzobs.px.value"][1:, :2], [[5, 3.5], [7, 4.5]])
    box = spots["shoebox"][0]
    x0, _, y0, _ = box.bbox[:4]
    slow, fast = np.nonzero(box.mask[0] == 5)
    weight = box.data[0][slow, fast].astype(float)
    place = np.column_stack([fast + x0 + 0.5, slow + y0 + 0.5])
    mean = np.average(place, axis=0, weights=weight)
    np.testing.assert_allclose(spots["xyzobs.px.value"][0, :2], mean)
    assert spots["intensity.sum.value"][0] == weight.sum()
    square = np.sum(weight[:, None] * (place - mean) ** 2, axis=0)
    variance = square / (weight.sum() ** 2 - np.sum(weight**2)) + 1 / 12
    np.testing.assert_allclose(spots["xyzobs.px.variance"][0, :2], variance)


def test_spots_are_regions_that_share_edges() -> None:
    """The regions of ``scipy.ndimage.label``; none goes on to the next row or panel."""
    generator = np.random.default_rng(2)
    for density in (0.0, 0.1, 0.4, 0.6, 1.0):
        strong = generator.random((3, 17, 23)) < density
        values = generator.integers(1, 100, strong.shape).astype(float)
        spots = spot_list(values, strong, np.array([4, 5, 9]))
        edges = np.zeros((3, 3, 3), dtype=bool)
        edges[1, 1, :] = edges[1, :, 1] = True
        labels, n = ndimage.label(strong, structure=edges)
        assert len(spots) == n
        index = np.arange(1, n + 1)
        np.testing.assert_allclose(spots.counts, ndimage.sum(values, labels, index))
        centre = np.array(ndimage.center_of_mass(values, labels, index)).reshape(-1, 3)
        np.testing.assert_allclose(spots.centroid, centre[:, :0:-1] + 0.5)
        np.testing.assert_array_equal(spots.panel, np.array([4, 5, 9])[np.rint(centre[:, 0]).astype(int)])


def test_filters_and_refusals() -> None:
    panels, detector = image_with_spots(), flat(2)
    settings = SpotfinderSettings(min_spot_size=2, sigma_strong=0.0)
    assert len(find_spots(panels, detector, BEAM, replace(settings, min_spot_size=3))) == 1
    assert len(find_spots(panels, detector, BEAM, replace(settings, max_spot_size=2))) == 2
    ray = detector.lab_mm(0, 21.5, 11.0)
    d = BEAM.wavelength_A / (2 * np.sin(0.5 * np.arccos(ray @ BEAM.direction / np.linalg.norm(ray))))
    far = replace(settings, ice_rings=((0.9 * d, 1.1 * d),), min_spot_size=3)
    assert len(find_spots(panels, detector, BEAM, far)) == 0
    assert 0 not in find_spots(panels, detector, BEAM, replace(settings, d_max=0.9 * d))["panel"]
    assert 0 in find_spots(panels, detector, BEAM, replace(settings, d_min=0.9 * d, d_max=1.1 * d))["panel"]
    untrusted = [np.ones((30, 40), dtype=bool) for _ in panels]
    untrusted[1][:] = False
    assert set(find_spots(panels, detector, BEAM, settings, mask=untrusted)["panel"]) == {0}
    assert len(find_spots([np.zeros((30, 40))] * 2, detector, BEAM)) == 0
    assert len(find_spots([np.full((30, 40), 9e9)] * 2, detector, BEAM)) == 0
    with pytest.raises(InputError, match="1 panels of shapes"):
        find_spots(panels[:1], detector, BEAM)
    noise = np.random.default_rng(0).exponential(300, (30, 40))
    with pytest.raises(InputError, match="pixels are strong"):
        find_spots([noise, noise], detector, BEAM, replace(settings, max_strong_pixel_fraction=0.05))


@pytest.mark.parametrize("shot", range(16))
def test_tutorial_spots_are_those_of_dials(shared: Path, shot: int) -> None:
    experiment = read_image_experiment(shared / "tutorial" / "images" / f"shot_{shot:03d}.h5")
    image = read_image(experiment.image, experiment.detector)
    ours = find_spots(image.raw, experiment.detector, experiment.beam, TUTORIAL, mask=image.mask)
    theirs = read_reflections(shared / "tutorial" / "strong" / f"shot_{shot:03d}_strong.refl")
    place = [np.column_stack([1e5 * t["panel"], t["xyzobs.px.value"][:, :2]]) for t in (ours, theirs)]
    distance, match = cKDTree(place[0]).query(place[1])
    # The same threshold on the same pixels: the very same spots.
    assert len(ours) == len(theirs)
    assert distance.max() < 1e-9
    for name in ("bbox", "intensity.sum.value", "intensity.sum.variance", "flags"):
        np.testing.assert_array_equal(ours[name][match], theirs[name])
    np.testing.assert_allclose(ours["xyzobs.px.variance"][match], theirs["xyzobs.px.variance"], rtol=1e-9)
    for i, box in zip(match, theirs["shoebox"], strict=True):
        np.testing.assert_array_equal(ours["shoebox"][i].data, box.data)
        np.testing.assert_array_equal(ours["shoebox"][i].mask, box.mask)


def test_a_small_panel_full_of_spots_keeps_them() -> None:
    """The fraction of strong pixels is that of the whole image, whatever the sizes of its panels."""
    rng = np.random.default_rng(0)
    small = rng.poisson(1.0, (10, 12)).astype(float)
    for slow, fast in np.ndindex(2, 2):
        small[5 * slow + 1 : 5 * slow + 4, 6 * fast + 1 : 6 * fast + 4] = 1000.0
    panels = [small, *(rng.poisson(1.0, (40, 60)).astype(float) for _ in range(2))]
    detector = replace(flat(3), image_size=np.array([(12, 10), (60, 40), (60, 40)]))
    settings = SpotfinderSettings(max_strong_pixel_fraction=0.25)
    for order in ([0, 1, 2], [1, 2, 0]):
        there = replace(detector, image_size=detector.image_size[order])
        found = find_spots([panels[i] for i in order], there, BEAM, settings)
        assert found["panel"].tolist() == [order.index(0)] * 4


@pytest.mark.parametrize("shot", [401, 601, 701, 801])
def test_extended_threshold_is_that_of_dials(shared: Path, shot: int) -> None:
    """Every spot that DIALS indexed was found by its extended threshold: the same spot is among ours."""
    name = f"idx-20130301060858{shot}"
    experiment = read_image_experiment(shared / "real" / f"{name}.cbf")
    image = read_image(experiment.image, experiment.detector)
    settings = SpotfinderSettings(algorithm="dispersion_extended", gain=25, global_threshold=100, min_spot_size=2)
    ours = find_spots(image.raw, experiment.detector, experiment.beam, settings, mask=image.mask)
    theirs = read_reflections(shared / "real" / "dials" / f"{name}_indexed.refl")
    place = [np.column_stack([1e5 * t["panel"], t["xyzobs.px.value"][:, :2]]) for t in (ours, theirs)]
    distance, match = cKDTree(place[0]).query(place[1])
    assert distance.max() < 1e-9
    np.testing.assert_array_equal(ours["bbox"][match], theirs["bbox"])
    # dials.find_spots 3.12 reports this number for the first image.
    assert shot != 401 or len(ours) == 176

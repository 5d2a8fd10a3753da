"""Shots cut from images: parity with the classic program on its own data, the rules of selection, and bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from bayesbragg.io.reflections import read_reflections
from bayesbragg.model import Beam, Detector, Reflections
from bayesbragg.model.errors import InputError
from bayesbragg.stills.boxes import BoxReason, BoxSettings
from bayesbragg.stills.shot import make_shot

TUTORIAL = BoxSettings(reject_roi_with_hotpix=False)
"""Box settings of the tutorial's process.phil: side 12, plane without weights, padding 10."""


def flat_detector(sizes: list[tuple[int, int]], top: float = 1e6) -> Detector:
    n = len(sizes)
    return Detector(
        origin_mm=np.tile([-5.0, 5.0, -100.0], (n, 1)),
        fast=np.tile([1.0, 0, 0], (n, 1)),
        slow=np.tile([0, -1.0, 0], (n, 1)),
        pixel_size_mm=np.full((n, 2), 0.1),
        image_size=np.array(sizes),
        trusted_range=np.tile([-100.0, top], (n, 1)),
        thickness_mm=np.zeros(n),
        attenuation_per_mm=np.zeros(n),
        gain=np.ones(n),
        names=tuple(f"p{i}" for i in range(n)),
    )


def table(spots: list[tuple[int, float, float]], **columns: np.ndarray) -> Reflections:
    """Reflections (panel, fast, slow) with Miller indices 1 0 0, 2 0 0, ..."""
    n = len(spots)
    given = {
        "panel": np.array([spot[0] for spot in spots]),
        "xyzobs.px.value": np.array([[spot[1], spot[2], 0.5] for spot in spots]).reshape(n, 3),
        "miller_index": np.stack([np.arange(1, n + 1), np.zeros(n, int), np.zeros(n, int)], axis=1),
        "id": np.zeros(n, int),
    }
    return Reflections({**given, **columns})


@pytest.fixture
def still() -> tuple[list[np.ndarray], Detector]:
    """Two panels of different size, 3 photons per pixel, gain 10 ADU per photon."""
    rng = np.random.default_rng(1)
    sizes = [(120, 100), (90, 110)]
    panels = [np.rint(10 * rng.poisson(3.0, (slow, fast)) + rng.normal(0, 2, (slow, fast))) for fast, slow in sizes]
    return panels, flat_detector(sizes)


SPOTS = [(0, 50.3, 40.2), (0, 80.9, 60.1), (1, 40.0, 50.0), (1, 60.5, 80.5)]
NOISE = {"gain": 10.0, "sigma_readout_adu": 2.0}


def shot_numbers(folder: Path) -> list[int]:
    return sorted(int(path.name[5:8]) for path in folder.glob("shot_*_pixels.npz"))


def load_image(path: Path) -> tuple[np.ndarray, Detector]:
    with h5py.File(path) as file:
        image = file["images"][0]
    n = len(image)
    detector = flat_detector([(image.shape[2], image.shape[1])] * n, 1e7)
    return image, detector


@pytest.mark.parametrize(("folder", "run"), [("indexed", "procPoly"), ("indexed_badGeo", "procBad")])
def test_tutorial_boxes_and_planes_equal_the_classic_ones(shared: Path, folder: str, run: str) -> None:
    tutorial = shared / "tutorial"
    numbers = shot_numbers(tutorial / "classic" / run)
    assert len(numbers) == 10
    for number in numbers:
        image, detector = load_image(tutorial / "images" / f"shot_{number:03d}.h5")
        reflections = read_reflections(tutorial / folder / f"shot_{number:03d}_indexed.refl")
        shot, report = make_shot(
            image, detector, reflections, TUTORIAL, gain=28.0, sigma_readout_adu=3.0, background="classic"
        )
        with np.load(tutorial / "classic" / run / f"shot_{number:03d}_pixels.npz") as classic:
            np.testing.assert_array_equal(shot.panel, classic["roi_panel"])
            np.testing.assert_array_equal(shot.bounds, classic["roi_f1_f2_s1_s2"])
            np.testing.assert_array_equal(shot.reflection_row, classic["roi_reflection_row"])
            np.testing.assert_array_equal(shot.miller_index, classic["roi_miller_index"])
            np.testing.assert_allclose(shot.tilt, classic["tilt_abc"], rtol=0, atol=1e-10)
            valid = shot.valid
            np.testing.assert_allclose(shot.background[valid], classic["background_photons"], rtol=0, atol=1e-10)
            np.testing.assert_allclose(shot.counts[valid], classic["data_photons"], rtol=1e-6, atol=1e-6)
            np.testing.assert_array_equal(shot.trusted[valid], classic["trusted"])
            assert float(shot.readout_sd) == pytest.approx(float(classic["sigma_readout_photons"]), rel=1e-12)
        assert np.sum(report.reason == BoxReason.SELECTED) == shot.n_boxes


def test_tutorial_planes_are_right_where_the_classic_ones_are_not(shared: Path) -> None:
    """In spot-free pixels of low-count boxes our planes equal the data's mean within 3 standard errors."""
    tutorial = shared / "tutorial"
    data, ours, theirs, variance = [], [], [], []
    for number in range(4):
        image, detector = load_image(tutorial / "images" / f"shot_{number:03d}.h5")
        reflections = read_reflections(tutorial / "indexed" / f"shot_{number:03d}_indexed.refl")
        options = {"gain": 28.0, "sigma_readout_adu": 3.0}
        shot, _ = make_shot(image, detector, reflections, TUTORIAL, **options)
        old, _ = make_shot(image, detector, reflections, TUTORIAL, background="classic", **options)
        with np.load(tutorial / "classic" / "procPoly" / f"shot_{number:03d}_pixels.npz") as classic:
            model = np.full(old.counts.shape, np.inf)
            model[old.valid] = classic["model_bragg_photons"]
        for row, box in enumerate(old.reflection_row):
            mine = np.flatnonzero(shot.reflection_row == box)
            far = model[row] < 0.02
            if len(mine) == 0 or far.sum() < 20 or old.panel[row] not in (2, 18, 34, 50):
                continue
            data.append(old.counts[row][far].mean())
            variance.append(old.counts[row][far].var() / far.sum())
            ours.append(shot.background[mine[0]][far].mean())
            theirs.append(old.background[row][far].mean())
    # The plane's own error is about a third of that of the few spot-free pixels of its box.
    error = np.sqrt(np.sum(variance) * (1 + 1 / 9)) / len(data)
    assert len(data) > 50
    assert abs(np.mean(ours) - np.mean(data)) < 3 * error
    assert np.mean(theirs) < np.mean(data) - 10 * error
    assert 0.2 < np.min(ours) < np.max(ours) < 1.3


def test_boxes_stand_in_the_order_of_reflections(still: tuple[list[np.ndarray], Detector]) -> None:
    image, detector = still
    shot, report = make_shot(image, detector, table(SPOTS), **NOISE)
    assert shot.shape == (12, 12)
    np.testing.assert_array_equal(shot.reflection_row, [0, 1, 2, 3])
    f1, f2, s1, s2 = shot.bounds[2]
    np.testing.assert_array_equal(shot.counts[2].reshape(12, 12), image[1][s1:s2, f1:f2] / 10)
    np.testing.assert_allclose(shot.background.mean(axis=1), 3.0, atol=0.4)
    assert report.summary() == "4 selected"
    expected = report.tilt[2] @ [f1 - report.padded[2, 0], s1 - report.padded[2, 2], 1]
    assert shot.background[2, 0] == pytest.approx(expected)


def test_every_rule_gives_its_reason(still: tuple[list[np.ndarray], Detector]) -> None:
    image, detector = still
    mask = [np.ones(panel.shape, bool) for panel in image]
    mask[0][60, 80] = False
    image[1][48:52, 38:42] = 5e6
    spots = [*SPOTS, (0, 20.0, 20.0), (0, 20.2, 70.0), (0, 400.0, 20.0), (0, 3.0, 50.0)]
    index = np.array([[1, 0, 0], [2, 0, 0], [3, 0, 0], [4, 0, 0], [0, 0, 0], [4, 0, 0], [5, 0, 0], [6, 0, 0]])
    settings = BoxSettings(reject_edge_reflections=True, mask_all_if_any_outside_trusted_range=True)
    shot, report = make_shot(image, detector, table(spots, miller_index=index), settings, mask=mask, **NOISE)
    assert report.reason.tolist() == [
        BoxReason.SELECTED,
        BoxReason.HOT_PIXEL,
        BoxReason.NO_TRUSTED,
        BoxReason.DUPLICATE,
        BoxReason.NOT_INDEXED,
        BoxReason.DUPLICATE,
        BoxReason.BAD_POSITION,
        BoxReason.EDGE,
    ]
    assert shot.n_boxes == 1
    _, report = make_shot(image, detector, table(SPOTS), BoxSettings(panels="0", fraction=0.5), **NOISE)
    assert report.reason.tolist().count(BoxReason.PANEL) == 2
    assert report.reason.tolist().count(BoxReason.FRACTION) == 1
    _, report = make_shot(image, detector, table(SPOTS), BoxSettings(max_background_misfit=0.15), **NOISE)
    assert "selected" in report.summary()


def test_bad_pixels_are_not_trusted_and_leave_the_background_alone(still: tuple[list[np.ndarray], Detector]) -> None:
    image, detector = still
    clean, _ = make_shot(image, detector, table(SPOTS), **NOISE)
    image[0][38:40, 50] = np.nan
    image[0][55, 50:53] = np.nan
    image[0][42, 52] = 2e6
    shot, _ = make_shot(image, detector, table(SPOTS), **NOISE)
    lost = clean.trusted[0] & ~shot.trusted[0]
    assert lost.sum() == 3
    assert np.all(np.isfinite(shot.counts))
    np.testing.assert_allclose(shot.background[0], clean.background[0], atol=0.2)


def test_dark_rms_per_pixel_becomes_the_readout_noise(still: tuple[list[np.ndarray], Detector]) -> None:
    image, detector = still
    rms = [np.full(panel.shape, 2.0) for panel in image]
    rms[0][40, 50] = 7.0
    one, _ = make_shot(image, detector, table(SPOTS), **NOISE)
    many, _ = make_shot(image, detector, table(SPOTS), gain=10.0, dark_rms_adu=rms)
    f1, _, s1, _ = many.bounds[0]
    sd = many.readout_sd[0].reshape(many.shape)
    assert sd[40 - s1, 50 - f1] == pytest.approx(0.7)
    assert np.sum(sd != 0.2) == 1
    np.testing.assert_allclose(many.background[1], one.background[1], rtol=1e-9)


def test_boxes_by_momentum_transfer_grow_with_angle() -> None:
    """Against the radii of the two cones in the detector plane, from the definition Q = 4 pi sin(theta)/wavelength."""
    detector = replace(flat_detector([(1000, 1000)]), origin_mm=np.array([[-50.0, 50.0, -100.0]]))
    image = [np.random.default_rng(0).poisson(2.0, (1000, 1000)).astype(float)]
    beam = Beam(np.array([0, 0, -1.0]), 1.3, np.array([0, 1.0, 0]))
    spots = [(0, 600.0, 500.0), (0, 900.0, 500.0)]
    settings = BoxSettings(deltaQ=0.06)
    shot, _ = make_shot(image, detector, table(spots), settings, sigma_readout_adu=0.0, beam=beam)
    for bounds, (_, fast, _) in zip(shot.bounds, spots, strict=True):
        two_theta = np.arctan((fast - 500) / 1000)
        q = 4 * np.pi * np.sin(two_theta / 2) / 1.3
        radii = [1000 * np.tan(2 * np.arcsin((q + d) * 1.3 / (4 * np.pi))) for d in (-0.03, 0.03)]
        assert bounds[1] - bounds[0] == 2 * round((radii[1] - radii[0]) / np.sqrt(2) / 2)
    assert shot.bounds[1, 1] - shot.bounds[1, 0] > shot.bounds[0, 1] - shot.bounds[0, 0]
    with pytest.raises(InputError, match="beam"):
        make_shot(image, detector, table(spots), settings)


def test_resolution_ranges_and_lattices(still: tuple[list[np.ndarray], Detector]) -> None:
    image, detector = still
    rlp = np.array([[0.1, 0, 0], [0.2, 0, 0], [0.3, 0, 0], [0.4, 0, 0]])
    same = np.tile([1, 2, 3], (4, 1))
    reflections = table(SPOTS, rlp=rlp, id=np.array([3, 3, 7, 7]), miller_index=np.array([[1, 0, 0], [2, 0, 0]] * 2))
    shot, report = make_shot(image, detector, reflections, BoxSettings(res_ranges="4-6,2-3"), **NOISE)
    assert report.reason.tolist()[:3] == [BoxReason.RESOLUTION, BoxReason.SELECTED, BoxReason.RESOLUTION]
    np.testing.assert_array_equal(shot.lattice, [0, 1])
    with pytest.raises(InputError, match="4 Miller index occurs more than once"):
        make_shot(image, detector, table(SPOTS, miller_index=same), **NOISE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reflections": table([])}, "no reflections"),
        ({"reflections": Reflections({"panel": np.zeros(1, int)})}, "no column 'xyzobs.px.value'"),
        ({"reflections": table([(5, 1.0, 1.0)])}, "panel 5, but the detector has panels 0 to 1"),
        ({"reflections": table([(-1, 1.0, 1.0), (1, 9.0, 9.0)])}, "panel -1"),
        ({"reflections": table(SPOTS, miller_index=np.zeros((4, 3), int))}, "no usable box .4 not indexed"),
        ({"image": [np.zeros((3, 3)), np.zeros((3, 3))]}, "panel 0"),
        ({"image": [np.zeros((3, 3))]}, "1 panels"),
        ({"gain": 0.0}, "gain=0"),
        ({"background": "median"}, "background=median"),
    ],
)
def test_bad_input_is_named_in_one_line(
    still: tuple[list[np.ndarray], Detector], change: dict[str, object], message: str
) -> None:
    arguments = {"image": still[0], "detector": still[1], "reflections": table(SPOTS), **change}
    with pytest.raises(InputError, match=message) as caught:
        make_shot(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"shoebox_size": 1},
        {"deltaQ": -1.0},
        {"centroid": "peak"},
        {"fraction": 0.0},
        {"panels": "0-x"},
        {"res_ranges": "5-2"},
        {"trusted_range": (5.0, 1.0)},
        {"pad_shoebox_for_background_estimation": -3},
    ],
)
def test_settings_refuse_nonsense(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        BoxSettings(**wrong)

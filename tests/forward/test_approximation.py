"""The estimate of a closed form's error against numpy, with made-up pictures for what it compares."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from forward.skew_scene import ETA, ETA_DEF, HKL, LATTICE, skew_parameters, skew_scene, spot

from bayesbragg.forward import Options, Scene, approximation
from bayesbragg.forward.approximation import ApproximationError, _unseen, approximation_error
from bayesbragg.forward.beam_spread import BeamSpread, blur_covariance
from bayesbragg.forward.candidates import Margin
from bayesbragg.forward.closed import ClosedScene
from bayesbragg.forward.spread import Reflexes

FloatArray = npt.NDArray[np.float64]
PARAMETERS, SCENE = skew_parameters(), skew_scene()
ROWS = np.append(np.arange(5), 0)
# The last row, which is not alive, would be the one that errs most.
INDICES = np.vstack([HKL, [[60, 50, -70]]]).astype(float)
REFLEXES = Reflexes(ROWS, LATTICE[ROWS], INDICES, ROWS, np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.0]))
BEAM = BeamSpread(np.array([3e-4, 7e-4]), np.array([5e-5, 2e-5]))


def closed_scene(**changes: Any) -> ClosedScene:
    return replace(ClosedScene(SCENE, SCENE.channels, REFLEXES, np.asarray(0.0)), **changes)


@pytest.mark.parametrize(
    ("of_noise", "of_peak", "small"),
    [(0.05, 1e-3, True), (0.0501, 0.0, False), (0.0, 1.001e-3, False), (0.0, 0.0, True), (1.0, 1.0, False)],
)
def test_limits(of_noise: float, of_peak: float, small: bool) -> None:
    assert ApproximationError(of_noise, of_peak).small == small
    assert ApproximationError(of_noise, of_peak).unseen == 0.0


@pytest.mark.parametrize("spread", ["none", "isotropic", "gaussian_general"])
def test_share_that_rotations_hide(spread: Any) -> None:
    """w^2 (1 + tr C across / 2v) of the worst row that lives; the widest rotation from all six numbers."""
    rotations, blur = (float(a) for a in _unseen(PARAMETERS, closed_scene(), Options(spread=spread)))
    expected = 0.0
    if spread != "none":
        angle = np.radians(math.sqrt(ETA.max() ** 2 + np.sum(ETA_DEF**2)))
        ratios = []
        for row in range(5):
            found = spot(PARAMETERS, SCENE, Options(), LATTICE[row], HKL[row])
            ratios.append(2.0 * found.across * (found.n @ np.linalg.inv(found.C) @ found.n))
        expected = angle**2 * (1.0 + 0.5 * max(ratios))
    assert rotations == pytest.approx(expected, rel=1e-9)
    assert blur == 0.0


def test_flat_blocks_hide_little() -> None:
    """Few cells along q0 and many across: the part of the widths is far below one."""
    flat = skew_parameters(n_abc=[40.0, 40.0, 3.0], n_def=0.0)
    none = np.zeros(2, int)
    rows = Reflexes(none, none, np.array([[0.0, 0.0, 7.0], [3.0, 4.0, 0.0]]), none, np.array([1.0, 0.0]))
    rotations, _ = _unseen(flat, closed_scene(reflexes=rows), Options(spread="isotropic"))
    found = spot(flat, SCENE, Options(), 0, [0, 0, 7])
    ratio = 2.0 * found.across * (found.n @ np.linalg.inv(found.C) @ found.n)
    assert ratio < 0.1
    angle = np.radians(math.sqrt(ETA.max() ** 2 + np.sum(ETA_DEF**2)))
    assert float(rotations) == pytest.approx(angle**2 * (1.0 + 0.5 * ratio), rel=1e-9)


@pytest.mark.parametrize(("beam", "subpixels"), [(BEAM, 0), (None, 2), (BEAM, 1)])
def test_share_that_blur_hides(beam: BeamSpread | None, subpixels: int) -> None:
    """Twice the relative bandwidth times what the blur takes from the peak's square."""
    options = Options(oversample=3)
    closed = closed_scene(beam=beam, subpixels=subpixels)
    _, ours = _unseen(PARAMETERS, closed, options)
    lacking = (1.0 / (subpixels or 3) ** 2 - 1.0 / 9.0) / 12.0
    blur = np.asarray(blur_covariance(PARAMETERS, SCENE, REFLEXES, beam, lacking))
    lost = []
    for row in range(5):
        narrow = spot(PARAMETERS, SCENE, Options(), LATTICE[row], HKL[row])
        wide = spot(PARAMETERS, SCENE, Options(), LATTICE[row], HKL[row], blur=blur[row])
        lost.append(1.0 - np.linalg.det(narrow.C) / np.linalg.det(wide.C))
    k, photons = 1.0 / SCENE.channels.wavelengths_A, SCENE.channels.strength
    mean = np.average(k, weights=photons)
    band = math.sqrt(np.average((k - mean) ** 2, weights=photons)) / mean
    assert float(ours) == pytest.approx(2.0 * band * max(lost), rel=1e-8)
    assert float(ours) > 1e-4


def test_without_photons_the_estimate_is_never_small() -> None:
    """No photons have no bandwidth; the estimate is not a number, never a small one."""
    dark = replace(SCENE, channels=replace(SCENE.channels, strength=np.zeros(6)))
    _, ours = _unseen(PARAMETERS, closed_scene(scene=dark, beam=BEAM), Options())
    assert not float(ours) <= 1e3


class Judge:
    """Stands in for the two forms: hands out pictures, and keeps what it was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ours: FloatArray, reference: FloatArray) -> None:
        self.pictures = [ours, reference]
        self.asked: list[tuple[Scene, Options, Margin, dict[str, Any]]] = []
        self.options: list[tuple[Any, Options]] = []
        monkeypatch.setattr(approximation, "closed_photons", self.closed_photons)
        monkeypatch.setattr(approximation, "prepare_closed", self.prepare_closed)
        monkeypatch.setattr(approximation, "expected_photons", self.closed_photons)
        monkeypatch.setattr(approximation, "_unseen", lambda *_: (1e-4, 2e-4))

    def closed_photons(self, parameters: Any, scene: Any, options: Options) -> FloatArray:
        self.options.append((scene, options))
        return self.pictures.pop(0)

    def prepare_closed(self, parameters: Any, scene: Any, options: Options, margin: Margin, **given: Any) -> str:
        self.asked.append((scene, options, margin, given))
        return "judge"


OURS = np.array([[10.0, 4.0, 0.0], [90.0, -1.0, 55.0]])
REFERENCE = np.array([[10.5, 4.0, 0.0], [90.0, -1.1, 50.0]])
VARIANCE = np.array([[2.0, 3.0, 0.0], [4.0, 5.0, 6.0]])


@pytest.mark.parametrize("spread", ["none", "isotropic"])
def test_largest_differences(monkeypatch: pytest.MonkeyPatch, spread: Any) -> None:
    """In standard deviations of each trusted pixel and of the brightest trusted one; the exact sum hides nothing."""
    hidden = 0.0 if spread == "none" else 3e-4
    every = np.ones((2, 3), bool)
    some = np.array([[True, True, True], [False, True, False]])
    difference = np.abs(OURS - REFERENCE) + hidden * np.abs(REFERENCE)
    noise = np.sqrt(np.array([[12.5, 7.0, 1.0], [94.0, 5.0, 56.0]]))  # 1 stands for a pixel that holds nothing
    for trusted in (every, some):
        Judge(monkeypatch, OURS, REFERENCE)
        found = approximation_error(PARAMETERS, closed_scene(), Options(spread=spread), VARIANCE, trusted)
        assert found.of_noise == pytest.approx((difference / noise)[trusted].max(), rel=1e-12)
        assert found.of_peak == pytest.approx(difference[trusted].max() / REFERENCE[trusted].max(), rel=1e-12)
        assert found.unseen == pytest.approx(hidden, rel=1e-12)
    Judge(monkeypatch, OURS, REFERENCE)
    assert approximation_error(PARAMETERS, closed_scene(), Options(spread=spread), VARIANCE).of_noise > 0.6


def test_a_dark_pixel_without_noise_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Light where none is expected and nothing is measured is an error beyond all bounds; no light is none."""
    for ours, limit in ((1e-6, 1e100), (0.0, -1.0)):
        Judge(monkeypatch, np.array([[ours, 1e-3]]), np.array([[0.0, 1e-3]]))
        found = approximation_error(PARAMETERS, closed_scene(), Options(), 0.0)
        assert found.of_noise > limit
        assert found.small == (ours == 0.0)
    Judge(monkeypatch, np.array([[1.1e-3, 7.0]]), np.array([[1e-3, 9.0]]))
    found = approximation_error(PARAMETERS, closed_scene(), Options(), 0.0, np.array([[True, False]]))
    assert found.of_peak == pytest.approx(0.1)
    Judge(monkeypatch, np.array([[2e-200]]), np.array([[1e-200]]))
    assert approximation_error(PARAMETERS, closed_scene(), Options(), 1.0).of_peak == pytest.approx(1.0)


@pytest.mark.parametrize(("n_channels", "merged"), [(6, False), (128, False), (129, True)])
def test_what_the_judge_is(monkeypatch: pytest.MonkeyPatch, n_channels: int, merged: bool) -> None:
    """Double precision, all subpixels, twice the nodes, a deeper list, and no table."""
    channels = replace(SCENE.channels, strength=np.ones(n_channels), wavelengths_A=np.full(n_channels, 1.3))
    boxes = replace(SCENE.boxes, fast_px=np.float32(SCENE.boxes.fast_px), slow_px=np.float32(SCENE.boxes.slow_px))
    scene = replace(SCENE, channels=channels, boxes=boxes)
    options = Options(spread="isotropic", oversample=4, precision="float32")
    closed = closed_scene(scene=scene, beam=BEAM, subpixels=2, rule=np.ones((5, 2)))
    judge = Judge(monkeypatch, OURS, REFERENCE)
    approximation_error(PARAMETERS, closed, options, VARIANCE)
    ((given_scene, given_options, margin, given),) = judge.asked
    assert given_options == replace(options, precision="float64", mosaic_nodes=10)
    assert margin == Margin(0.05, 0.001, 0.7, 14.0)
    assert given == {"merge": merged, "beam": BEAM, "coarse_subpixels": False, "tabulate": False}
    assert given_scene.boxes.fast_px.dtype == given_scene.boxes.slow_px.dtype == np.float64
    assert judge.options[0] == (closed, options)
    assert judge.options[1] == ("judge", given_options)


@pytest.mark.parametrize(
    ("options", "beam", "rule", "exact"),
    [
        (Options(), None, None, True),
        (Options(), BEAM, None, False),
        (Options(spread="gaussian_general"), None, np.ones((5, 2)), False),
        (Options(spread="isotropic", mosaic_nodes=3), None, None, False),
    ],
)
def test_who_judges(monkeypatch: pytest.MonkeyPatch, options: Options, beam: Any, rule: Any, exact: bool) -> None:
    """The exact sum where it knows all that there is; nodes are doubled only where there are some."""
    judge = Judge(monkeypatch, OURS, REFERENCE)
    approximation_error(PARAMETERS, closed_scene(beam=beam, rule=rule), options, VARIANCE)
    assert len(judge.asked) == (0 if exact else 1)
    assert judge.options[1][1] == options

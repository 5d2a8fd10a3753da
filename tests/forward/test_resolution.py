"""Widths of blocks and windows, and what is chosen by them, against numpy on a skew cell."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from forward.skew_scene import (
    HKL,
    LATTICE,
    N_ABC,
    N_DEF,
    OFFSET,
    SCALE,
    Spot,
    skew_parameters,
    skew_scene,
    spot,
)

from bayesbragg.forward import Options, Parameters
from bayesbragg.forward.beam_spread import BeamSpread, blur_covariance
from bayesbragg.forward.geometry import move_boxes
from bayesbragg.forward.resolution import (
    _block_widths,
    covariance_of,
    enough_subpixels,
    one_gaussian,
    rule_size,
    table_widths,
)
from bayesbragg.forward.spread import Reflexes, Shapes, mixture_size

FloatArray = npt.NDArray[np.float64]
PARAMETERS, SCENE = skew_parameters(eta_deg=[0.7, 0.2, 0.3]), skew_scene()
N_ROWS = len(HKL) + 2
BOX = np.array([0, 1, 2, 3, 4, 0, 4])
# The last row would be the narrowest, and the widest, if it lived.
LATTICES, INDICES = np.append(LATTICE, [0, 0]), np.vstack([HKL, [[9, 1, 2], [40, 30, 20]]]).astype(float)
LIVE = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
REFLEXES = Reflexes(BOX, LATTICES, INDICES, BOX, LIVE)
BEAM = BeamSpread(np.array([3e-4, 7e-4]), np.array([5e-5, 2e-5]))
PLAIN = Options(spread="gaussian_isotropic")


def still(row: int, blur: FloatArray | None = None, parameters: Parameters = PARAMETERS) -> Spot:
    return spot(parameters, SCENE, Options(), int(LATTICES[row]), INDICES[row], blur=blur)


def across(found: Spot) -> FloatArray:
    """The two variances across q0, least first."""
    P = np.eye(3) - np.outer(found.n, found.n)
    return np.asarray(np.linalg.eigvalsh(P @ found.C @ P)[1:])


def along_given(found: Spot) -> float:
    """Variance along q0 where the place across is known."""
    return float(1.0 / (found.n @ np.linalg.inv(found.C) @ found.n))


def widths(parameters: Parameters = PARAMETERS) -> tuple[FloatArray, FloatArray]:
    """Of every row: the narrowest standard deviation as an angle, and on the detector in pixels."""
    moved = move_boxes(SCENE.boxes, PARAMETERS.panels)
    angles, pixels = [], []
    for row in range(N_ROWS):
        found = still(row, parameters=parameters)
        position = np.asarray(moved.position_m[BOX[row]])
        r = float(np.linalg.norm(position))
        k = found.length / np.linalg.norm(position / r - SCENE.beam.k)
        least = math.sqrt(min(across(found)[0], along_given(found)))
        angles.append(math.sqrt(across(found)[0]) / found.length)
        pixels.append(least / k * r / SCENE.boxes.pixel_m[BOX[row]].max())
    return np.array(angles), np.array(pixels)


def test_narrowest_blocks() -> None:
    angle, width = (float(a) for a in _block_widths(PARAMETERS, SCENE, one_gaussian(PLAIN), REFLEXES))
    angles, pixels = widths()
    assert angles[-1] < angles[:-1].min()
    assert angle == pytest.approx(angles[:-1].min(), rel=1e-9)
    assert width == pytest.approx(pixels[:-1].min(), rel=1e-9)
    # Each row alone, of blocks and of needles, so that either of the two widths is the least of some row.
    kinds = set()
    needles = skew_parameters(n_abc=[50.0, 4.0, 5.0], n_def=[0.5, 0.2, 0.3])
    for parameters in (PARAMETERS, needles):
        angles, pixels = widths(parameters)
        for row in range(N_ROWS):
            alone = replace(REFLEXES, live=(np.arange(N_ROWS) == row).astype(float))
            angle, width = (float(a) for a in _block_widths(parameters, SCENE, one_gaussian(PLAIN), alone))
            assert (angle, width) == pytest.approx((angles[row], pixels[row]), rel=1e-9)
            found = still(row, parameters=parameters)
            kinds.add(bool(across(found)[0] < along_given(found)))
    assert kinds == {False, True}


def test_options_of_one_gaussian() -> None:
    given = Options(spread="isotropic", oversample=3, mosaic_nodes=5, b_factor=True, sensor_layers=2)
    expected = Options(spread="gaussian_isotropic", b_factor=True, sensor_layers=2)
    assert one_gaussian(given) == expected
    general = Options(spread="gaussian_general", oversample=2)
    assert one_gaussian(general) == Options(spread="gaussian_general")


def test_size_of_the_rule() -> None:
    """As many nodes as the ratio of the spread to the narrowest block asks for."""
    isotropic = Options(spread="isotropic")
    narrow = widths()[0][:-1].min()
    expected = mixture_size(math.radians(0.7) / narrow)
    assert 2 < expected < 16
    assert rule_size(PARAMETERS, SCENE, isotropic, REFLEXES) == expected
    # Just below and above the ratio where one more is needed.
    reach = 50.0 * (math.sqrt(1.0 + 0.02 * (expected - 0.1)) - 1.0)
    edge = math.degrees(narrow * math.sinh(reach))
    for factor, size in ((1 - 1e-6, expected), (1 + 1e-6, mixture_size(1.001 * math.sinh(reach)))):
        there = replace(PARAMETERS, mosaic=replace(PARAMETERS.mosaic, eta_deg=np.array([factor * edge, 9.0, 9.0])))
        assert rule_size(there, SCENE, isotropic, REFLEXES) == size
    assert rule_size(PARAMETERS, SCENE, replace(isotropic, mosaic_nodes=7), REFLEXES) == 7
    assert rule_size(PARAMETERS, SCENE, replace(PLAIN, mosaic_nodes=7), REFLEXES) == 1


def test_subpixels() -> None:
    """(1/m^4 - 1/n^4) / (480 w^4) may be 3e-4; blocks f times as large make spots that much narrower."""
    width = widths()[1][:-1].min()
    for n, m in ((6, 1), (6, 2), (6, 4), (3, 1), (3, 2), (2, 1)):
        wanted = ((1.0 / m**4 - 1.0 / n**4) / (480.0 * 3e-4)) ** 0.25
        for factor, expected in ((1 - 1e-6, m), (1 + 1e-6, m + 1)):
            f = factor * width / wanted
            there = replace(PARAMETERS, mosaic=replace(PARAMETERS.mosaic, n_abc=f * N_ABC, n_def=f * N_DEF))
            assert enough_subpixels(there, SCENE, replace(PLAIN, oversample=n), REFLEXES) == expected
    huge = replace(PARAMETERS, mosaic=replace(PARAMETERS.mosaic, n_abc=1e3 * N_ABC, n_def=1e3 * N_DEF))
    assert enough_subpixels(huge, SCENE, replace(PLAIN, oversample=5), REFLEXES) == 5
    assert enough_subpixels(huge, SCENE, PLAIN, REFLEXES) == 1


@pytest.mark.parametrize("beam", [None, BEAM])
def test_widths_of_windows(beam: BeamSpread | None) -> None:
    """From that of a block whose place across is known to that of a blurred one whose place is not."""
    lacking = 0.06
    ours = table_widths(PARAMETERS, SCENE, PLAIN, REFLEXES, beam, lacking)
    blur = np.asarray(blur_covariance(PARAMETERS, SCENE, REFLEXES, beam, lacking))
    least = min(along_given(still(row)) / still(row).length ** 2 for row in range(N_ROWS - 1))
    most = max(
        found.n @ found.C @ found.n / still(row).length ** 2
        for row in range(N_ROWS - 1)
        for found in (still(row, blur[row]),)
    )
    live = SCENE.channels.wavelengths_A[SCENE.channels.strength > 0]
    k = 0.5 * (1.0 / live.min() + 1.0 / live.max())
    # The relative width in 1/lambda' times k' dk/dk' is the width in 1/lambda.
    steps = np.array([k - 1e-4, k + 1e-4])
    corrected = 1.0 / (OFFSET + SCALE / steps)
    stretch = corrected.mean() * 2e-4 / (corrected[1] - corrected[0])
    assert ours == pytest.approx((stretch * math.sqrt(least), stretch * math.sqrt(most)), rel=1e-6)
    assert ours[0] == pytest.approx(k * (SCALE + OFFSET * k) / SCALE * math.sqrt(least), rel=1e-9)


def test_covariance_of_the_first_node() -> None:
    generator = np.random.default_rng(1)
    K = np.array([[[5.0, 1.0, 3.0], [2.0, -0.7, 4.0], [3.0, 0.4, 1.0]], [[9.0, 1.0, 2.0]] * 3])
    lean, variance = generator.standard_normal((2, 3, 2)), generator.uniform(0.5, 2.0, (2, 3))
    none = np.zeros((2, 3))
    along, mixed, plane = covariance_of(Shapes(np.zeros((3, 3, 3)), none, none, lean, K, variance, none))
    for row in range(3):
        stiff = np.array([[K[0, row, 0], K[0, row, 1]], [K[0, row, 1], K[0, row, 2]]])
        precision = np.zeros((3, 3))
        w = np.array([1.0, *-lean[0, row]])
        precision[1:, 1:] = stiff
        precision += np.outer(w, w) / variance[0, row]
        expected = np.linalg.inv(precision)
        ours = np.block([[np.array([[along[row]]]), mixed[row][None]], [mixed[row][:, None], plane[row]]])
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)

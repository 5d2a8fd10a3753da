"""Lists of reflections against a search through every index of every window, written out in numpy."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from forward.skew_scene import (
    HKL,
    LATTICE,
    N_ABC,
    N_DEF,
    Spot,
    rays,
    real_vectors,
    skew_parameters,
    skew_scene,
    spectrum_ends,
    spot,
)

from bayesbragg.forward import Options, Parameters, Scene
from bayesbragg.forward.beam_spread import BeamSpread, blur_covariance
from bayesbragg.forward.listed import (
    Margin,
    _index_reach,
    bucket,
    list_reflections,
    narrowest_window,
    places,
    thinned,
)
from bayesbragg.forward.spread import Reflexes

FloatArray = npt.NDArray[np.float64]
Key = tuple[int, int, int, int, int]
SMALL = skew_parameters(eta_deg=[0.25, 0.1, 0.3])
LARGE = skew_parameters(n_abc=4.0 * N_ABC, n_def=4.0 * N_DEF, eta_deg=0.02)
SCENE = skew_scene()
AWAY = replace(LARGE, crystal=replace(LARGE.crystal, rot_xyz=LARGE.crystal.rot_xyz + 0.04))
N_BOXES = len(HKL)
ISOTROPIC, GENERAL = Options(spread="isotropic", b_factor=True, oversample=3), Options(spread="gaussian_general")
BEAM = BeamSpread(np.array([2e-3, 5e-3]), np.array([3e-4, 1e-4]))


class Search:
    """All reflections of all windows: how far they are from each box, and how bright."""

    def __init__(
        self, parameters: Parameters, scene: Scene, options: Options, margin: Margin, beam: BeamSpread | None
    ) -> None:
        self.parameters, self.scene = thinned(parameters, margin.block), scene
        self.options = replace(options, spread="gaussian_isotropic") if options.spread == "isotropic" else options
        self.angle, self.relative, self.depth = math.radians(margin.angle_deg), margin.relative, margin.depth
        self.rays, self.M = rays(parameters, scene), real_vectors(parameters, scene)
        self.ends = spectrum_ends(parameters, scene)
        self.blur = None
        if beam is not None:
            every = np.arange(N_BOXES)
            reflexes = Reflexes(every, every, np.ones((N_BOXES, 3)), every, np.ones(N_BOXES))
            self.blur = np.asarray(blur_covariance(parameters, scene, reflexes, beam, 0.0))

    def spot(self, box: int, lattice: int, hkl: Any, angle: float, relative: float) -> Spot:
        blur = None if self.blur is None else self.blur[box]
        return spot(self.parameters, self.scene, self.options, lattice, hkl, angle=angle, relative=relative, blur=blur)

    def reach(self, box: int, lattice: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Least and largest fractional indices of a box, and five standard deviations of the reflection between."""
        M = self.M[lattice]
        h = np.concatenate([self.rays[box] @ M * k for k in self.ends])
        low, high = h.min(axis=0), h.max(axis=0)
        C = self.spot(box, lattice, 0.5 * (low + high), self.angle, self.relative).C
        return low, high, 5.0 * np.sqrt(np.diag(M.T @ C @ M))

    def candidates(self, box: int, lattice: int) -> list[tuple[int, int, int]]:
        """Indices of the window within reach of the box; the nearest one where there is none along some axis."""
        low, high, reach = self.reach(box, lattice)
        first = np.asarray(self.scene.factors.low)[lattice, box]
        axes = [range(first[i], first[i] + int(self.scene.factors.extent[i])) for i in range(3)]
        if any(math.ceil(low[i] - reach[i]) > math.floor(high[i] + reach[i]) for i in range(3)):
            middle = np.ceil(0.5 * (low + high) - 0.5).astype(int)
            return [tuple(min(max(middle[i], axes[i][0]), axes[i][-1]) for i in range(3))]
        within = [
            [n for n in axis if low[i] - reach[i] <= n <= high[i] + reach[i]]
            or [axis[0] if high[i] + reach[i] < axis[0] else axis[-1]]
            for i, axis in enumerate(axes)
        ]
        return list(product(*within))

    def brightness(self, key: Key, angle: float, relative: float) -> float:
        """2 ln F less the least exponent over pixels and between the ends of the spectrum."""
        box, lattice, *hkl = key
        factors = self.scene.factors
        place = np.ravel_multi_index(tuple(hkl - factors.low[lattice, box]), tuple(int(n) for n in factors.extent))
        F = max(float(factors.real[lattice, box, place]), 1e-150)
        p, k, m = self.spot(box, lattice, hkl, angle, relative).parabola(self.rays[box])
        beyond = k - np.clip(k, *self.ends)
        return 2.0 * math.log(F) - float(np.min(m + p * beyond**2))

    def found(self, every_box: bool) -> dict[Key, float]:
        keys = [
            (box, lattice, *hkl)
            for lattice, box in product(range(2), range(N_BOXES))
            for hkl in self.candidates(box, lattice)
        ]
        wide = {key: self.brightness(key, self.angle, self.relative) for key in keys}
        near = {key: self.brightness(key, 0.0, 0.0) for key in keys}
        best, brightest = np.full(N_BOXES, -np.inf), np.full(N_BOXES, -np.inf)
        for key in keys:
            best[key[0]] = max(best[key[0]], near[key])
            brightest[key[0]] = max(brightest[key[0]], wide[key])
        limit = np.maximum(best, best.max() - 12.0) - self.depth
        return {
            key: wide[key]
            for key in keys
            if wide[key] >= limit[key[0]] or (every_box and wide[key] == brightest[key[0]])
        }


def listed(*given: Any, every_box: bool) -> dict[Key, float]:
    box, lattice, hkl, brightness = list_reflections(*given, every_box=every_box)
    keys = np.column_stack([box, lattice, hkl]).tolist()
    assert len({tuple(key) for key in keys}) == len(keys)
    return {tuple(key): float(b) for key, b in zip(keys, brightness, strict=True)}


def agree(*given: Any, every_box: bool = True) -> dict[Key, float]:
    """The list, held against the search."""
    ours, expected = listed(*given, every_box=every_box), Search(*given).found(every_box)
    assert set(ours) == set(expected)
    for key, value in expected.items():
        assert ours[key] == pytest.approx(value, rel=1e-9, abs=1e-7)
    return ours


MARGINS = (Margin(), Margin(0.0, 0.0, 1.0), Margin(0.4, 0.0, 1.0, 12.0), Margin(0.0, 0.02, 0.8, 7.0))


@pytest.mark.parametrize("margin", MARGINS)
def test_blocks_of_a_few_cells(margin: Margin) -> None:
    """Dozens of reflections of both lattices are within reach of every box."""
    ours = agree(SMALL, SCENE, ISOTROPIC, margin, None)
    assert {key[1] for key in ours} == {0, 1}
    assert len(ours) > len(HKL)
    for box, (hkl, lattice) in enumerate(zip(HKL, LATTICE, strict=True)):
        assert (box, lattice, *hkl) in ours


@pytest.mark.parametrize(("margin", "every_box"), [(Margin(), True), (Margin(0.0, 0.0, 1.0, 30.0), False)])
def test_divergence_and_a_general_spread(margin: Margin, every_box: bool) -> None:
    agree(SMALL, SCENE, GENERAL, margin, BEAM, every_box=every_box)


def test_default_margin_in_numbers() -> None:
    assert listed(SMALL, SCENE, ISOTROPIC, Margin(), None, every_box=True) == listed(
        SMALL, SCENE, ISOTROPIC, Margin(0.05, 0.001, 0.7, 9.0), None, every_box=True
    )
    search = Search(SMALL, SCENE, ISOTROPIC, Margin(), None)
    for name, value in (("angle", math.radians(0.05)), ("relative", 0.001), ("depth", 9.0)):
        assert getattr(search, name) == pytest.approx(value, rel=1e-12)
    assert search.parameters.mosaic.n_abc[0, 0] == pytest.approx(4.9, rel=1e-12)


def test_large_blocks_and_small_windows() -> None:
    """Where nothing is within reach the nearest one is listed, if every box needs one; windows cut off the rest."""
    search = Search(LARGE, SCENE, ISOTROPIC, Margin(), None)
    count = np.array([[len(search.candidates(box, lattice)) for box in range(N_BOXES)] for lattice in range(2)])
    assert count.min() == 1
    shifted = np.asarray(SCENE.factors.low) + np.arange(30).reshape(2, 5, 3) % 5
    factors = replace(SCENE.factors, low=shifted, extent=np.array([2, 3, 1]))
    scene = replace(SCENE, factors=factors)
    for parameters in (LARGE, SMALL):
        ours = agree(parameters, scene, ISOTROPIC, Margin(), None)
        assert {key[0] for key in ours} == set(range(N_BOXES))
        few = agree(parameters, scene, ISOTROPIC, Margin(depth=0.5), None, every_box=False)
        assert set(few) < set(ours)


def test_nothing_within_reach() -> None:
    """Turned away, most boxes have the nearest reflection of either lattice alone; none is left out for its depth."""
    margin, fine = Margin(0.0, 0.0, 1.0, 1e6), skew_scene(pixel_mm=0.2)
    search = Search(AWAY, fine, ISOTROPIC, margin, None)
    ours = agree(AWAY, fine, ISOTROPIC, margin, None)
    alone = 0
    for lattice, box in product(range(2), range(N_BOXES)):
        low, high, reach = search.reach(box, lattice)
        if np.any(np.ceil(low - reach) > np.floor(high + reach)):
            middle, first = 0.5 * (low + high), np.asarray(fine.factors.low)[lattice, box]
            (mine,) = [key[2:] for key in ours if key[:2] == (box, lattice)]
            assert np.all((np.abs(mine - middle) <= 0.5) | (mine == first) | (mine == first + fine.factors.extent - 1))
            alone += 1
    assert alone > 3


def test_reach() -> None:
    angle, relative = 0.01, 0.003
    for options, beam in ((Options(spread="gaussian_isotropic"), None), (GENERAL, BEAM)):
        margin = Margin(math.degrees(angle), relative, 1.0)
        search = Search(SMALL, SCENE, options, margin, beam)
        ours = [np.asarray(a) for a in _index_reach(SMALL, SCENE, options, angle, relative, beam)]
        for lattice, box in product(range(2), range(N_BOXES)):
            for mine, expected in zip(ours, search.reach(box, lattice), strict=True):
                np.testing.assert_allclose(mine[lattice, box], expected, rtol=1e-9, atol=1e-10)


def with_brightness(scene: Scene, key: Key, now: float, wanted: float) -> Scene:
    """The scene with the amplitude of one reflection such that it is as bright as wanted."""
    box, lattice, *hkl = key
    real = scene.factors.real.copy()
    place = np.ravel_multi_index(tuple(hkl - scene.factors.low[lattice, box]), tuple(scene.factors.extent))
    real[lattice, box, place] *= math.exp(0.5 * (wanted - now))
    return replace(scene, factors=replace(scene.factors, real=real))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("angle_deg", "relative"), [(0.1, 0.002), (0.1, 0.0), (0.0, 0.002)])
def test_just_inside_and_just_outside(dark: bool, angle_deg: float, relative: float) -> None:
    """A reflection ``depth`` below the best of its box, or of what is 12 below the shot's best where that is more.

    It is as bright as with the margin; the best are those without.
    """
    margin = Margin(angle_deg, relative, 0.9, 6.0)
    real = SCENE.factors.real.copy()
    if dark:
        real[:, 2] *= 1e-4
    scene = replace(SCENE, factors=replace(SCENE.factors, real=real))
    search = Search(SMALL, scene, ISOTROPIC, margin, None)
    keys = [(box, lattice, *hkl) for lattice in range(2) for box in range(5) for hkl in search.candidates(box, lattice)]
    near = {key: search.brightness(key, 0.0, 0.0) for key in keys}
    own, most = max(near[key] for key in keys if key[0] == 2), max(near.values())
    assert (own < most - 12.0) == dark
    limit = (most - 12.0 if dark else own) - 6.0
    weakest = min((key for key in keys if key[0] == 2), key=lambda key: near[key])
    now = search.brightness(weakest, search.angle, search.relative)
    for step in (1e-6, -1e-6):
        there = with_brightness(scene, weakest, now, limit + step)
        ours = listed(SMALL, there, ISOTROPIC, margin, None, every_box=False)
        assert (weakest in ours) == (step > 0)
        if step > 0:
            assert ours[weakest] == pytest.approx(limit + step, abs=1e-8)


def test_a_box_without_amplitudes_keeps_one_reflection() -> None:
    """Amplitudes of zero count as 1e-150."""
    real = SCENE.factors.real.copy()
    real[:, 3] = 0.0
    scene = replace(SCENE, factors=replace(SCENE.factors, real=real))
    ours = agree(SMALL, scene, ISOTROPIC, Margin(), None)
    (only,) = [value for key, value in ours.items() if key[0] == 3]
    assert 2.0 * math.log(1e-150) - 60.0 < only <= 2.0 * math.log(1e-150)


@pytest.mark.parametrize("b_factor", [False, True])
def test_narrowest_window(b_factor: bool) -> None:
    """That of blocks in one orientation, over all pixels of all rows."""
    options = Options(spread="isotropic", b_factor=b_factor)
    rows = Reflexes(np.arange(5), LATTICE, HKL.astype(float), np.arange(5), np.ones(5))
    largest = max(
        np.max(spot(LARGE, SCENE, replace(options, spread="none"), LATTICE[b], HKL[b]).parabola(ray)[0])
        for b, ray in enumerate(rays(LARGE, SCENE))
    )
    assert narrowest_window(LARGE, SCENE, options, rows) == pytest.approx(math.sqrt(0.5 / largest), rel=1e-7)


def test_places() -> None:
    box, lattice = np.array([4, 0, 2, 2]), np.array([1, 0, 0, 1])
    inside = np.array([[5, 3, 4], [0, 1, 2], [3, 0, 1], [2, 2, 0]])
    hkl = inside + SCENE.factors.low[lattice, box]
    found = places(SCENE, box, lattice, hkl)
    values = SCENE.factors.real[:, :, : 6 * 4 * 5].reshape(2, N_BOXES, 6, 4, 5)
    expected = [values[l, b, h, k, m] for l, b, (h, k, m) in zip(lattice, box, inside, strict=True)]
    np.testing.assert_array_equal(SCENE.factors.real.reshape(-1)[found], expected)


def test_thinned_blocks() -> None:
    found = thinned(SMALL, 1.5).mosaic
    np.testing.assert_allclose(found.n_abc, 1.5 * N_ABC, rtol=1e-15)
    np.testing.assert_allclose(found.n_def, 1.5 * N_DEF, rtol=1e-15)
    np.testing.assert_array_equal(found.eta_deg, SMALL.mosaic.eta_deg)


def test_buckets() -> None:
    """Multiples of the step, or of a quarter of the next power of two where that is more."""
    for n, expected in ((-3, 0), (0, 0), (1, 16), (16, 16), (17, 32), (64, 64), (65, 96), (97, 128), (257, 384)):
        assert bucket(n) == expected
    for n, step, expected in ((1, 4, 4), (5, 4, 8), (17, 4, 24), (32, 4, 32), (33, 4, 48), (3, 1, 3), (100, 64, 128)):
        assert bucket(n, step) == expected

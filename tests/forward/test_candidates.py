"""What is prepared for the closed form: lists in order, merged channels, table, rule; and each way to outgrow it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from forward.skew_scene import N_ABC, N_DEF, SCALE, skew_parameters, skew_scene

from bayesbragg.forward import Options, Scene
from bayesbragg.forward.beam_spread import BeamSpread
from bayesbragg.forward.candidates import FEW_NODES, closed_holds, prepare_closed
from bayesbragg.forward.closed import ClosedScene, lacking_variance
from bayesbragg.forward.listed import Margin, list_reflections, narrowest_window, places
from bayesbragg.forward.resolution import enough_subpixels, rule_size, table_widths
from bayesbragg.forward.spectrum_table import build_table, covered_widths
from bayesbragg.forward.spread import mixture_rule
from bayesbragg.forward.window import merge_channels

LAMBDAS = np.linspace(1.29, 1.335, 90)
PHOTONS = 1e-6 * (1.0 + np.sin(np.arange(90.0)) ** 2)
PHOTONS[7] = 0.0
PARAMETERS = skew_parameters(eta_deg=[0.25, 0.1, 0.3])
SCENE = skew_scene(wavelengths=LAMBDAS, strength=PHOTONS, pixel_mm=0.2)
OPTIONS = Options(spread="isotropic", oversample=6)
BEAM = BeamSpread(np.array([3e-4, 7e-4]), np.array([5e-5, 2e-5]))
MARGIN = Margin(0.5, 0.004, 0.8, 14.0)
N_BOXES = 5


def scaled(factor: float) -> Any:
    return skew_parameters(n_abc=factor * N_ABC, n_def=factor * N_DEF, eta_deg=[0.25, 0.1, 0.3])


@pytest.fixture(scope="module")
def closed() -> ClosedScene:
    return prepare_closed(PARAMETERS, SCENE, OPTIONS, MARGIN, beam=BEAM)


def test_rows(closed: ClosedScene) -> None:
    """The strongest of each box first, then all others box by box, then filling that is not alive."""
    box, lattice, hkl, brightness = list_reflections(PARAMETERS, SCENE, OPTIONS, MARGIN, BEAM, every_box=True)
    expected = sorted(
        zip(box.tolist(), (-brightness).tolist(), lattice.tolist(), hkl.tolist(), strict=True), key=lambda r: r[:2]
    )
    first = [next(row for row in expected if row[0] == b) for b in range(N_BOXES)]
    rows = first + [row for row in expected if row not in first]
    reflexes = closed.reflexes
    n, total = len(rows), len(reflexes.box)
    assert n > 3 * N_BOXES
    np.testing.assert_array_equal(reflexes.box[:n], [row[0] for row in rows])
    np.testing.assert_array_equal(reflexes.lattice[:n], [row[2] for row in rows])
    np.testing.assert_array_equal(reflexes.hkl[:n], [row[3] for row in rows])
    np.testing.assert_array_equal(reflexes.live, np.arange(total) < n)
    assert total == N_BOXES + -(-(n - N_BOXES) // 16) * 16
    for name in ("box", "lattice", "hkl"):
        filling = getattr(reflexes, name)
        np.testing.assert_array_equal(filling[n:], np.broadcast_to(filling[0], filling[n:].shape))
    integers = np.asarray(reflexes.hkl).astype(int)
    np.testing.assert_array_equal(reflexes.position, places(SCENE, reflexes.box, reflexes.lattice, integers))
    assert closed.beam is BEAM
    assert closed.scene is SCENE


def merged(width: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes for windows of that width in 1/lambda', filled up to a multiple of 4, or of 16 where they are many."""
    wavelengths, strength = merge_channels(LAMBDAS, PHOTONS, width * SCALE)
    step = 4 if len(strength) <= 6 else 16
    short = -len(strength) % step
    return np.append(wavelengths, [wavelengths[-1]] * short), np.append(strength, [0.0] * short)


def test_channels_and_table(closed: ClosedScene) -> None:
    """Merged for blocks that have grown by the margin; many are tabulated, for blocks a little beyond it either way."""
    thick = scaled(1.0 / 0.8)
    width = narrowest_window(thick, SCENE, OPTIONS, closed.reflexes)
    assert float(closed.width) == pytest.approx(width, rel=1e-12)
    wavelengths, strength = merged(width)
    assert FEW_NODES < len(strength) < len(PHOTONS)
    brightest = int(np.argmax(strength))
    assert 0 < brightest < len(strength) - 1
    np.testing.assert_allclose(closed.nodes.wavelengths_A, [wavelengths[brightest]])
    np.testing.assert_allclose(closed.nodes.strength, [strength[brightest]])
    assert 1 <= closed.subpixels < 6
    assert closed.subpixels == enough_subpixels(thick, SCENE, OPTIONS, closed.reflexes)
    lacking = lacking_variance(closed.subpixels, 6)
    least, most = table_widths(PARAMETERS, SCENE, OPTIONS, closed.reflexes, BEAM, lacking)
    expected = build_table(wavelengths, strength, least / (1.02 / 0.8), most * 1.02 / 0.8)
    assert expected is not None
    assert closed.table is not None
    assert covered_widths(closed.table)[0] == pytest.approx(least * 0.8 / 1.02, rel=1e-12)
    for name in ("values", "first", "step", "lowest", "middle", "most"):
        np.testing.assert_allclose(getattr(closed.table, name), getattr(expected, name), rtol=1e-9)
    n_nodes = rule_size(thick, SCENE, OPTIONS, closed.reflexes)
    np.testing.assert_array_equal(closed.rule, mixture_rule(n_nodes))


def test_what_may_be_left_out(closed: ClosedScene) -> None:
    plain = prepare_closed(PARAMETERS, SCENE, OPTIONS, MARGIN, beam=BEAM, tabulate=False, coarse_subpixels=False)
    assert plain.table is None
    assert plain.subpixels == 6
    for name, expected in zip(("wavelengths_A", "strength"), merged(float(plain.width)), strict=True):
        np.testing.assert_allclose(getattr(plain.nodes, name), expected)
    assert float(plain.width) == float(closed.width)
    every = prepare_closed(PARAMETERS, SCENE, OPTIONS, MARGIN, beam=BEAM, merge=False)
    assert every.table is None
    assert float(every.width) == 0.0
    np.testing.assert_array_equal(every.nodes.strength, PHOTONS)
    np.testing.assert_array_equal(every.nodes.wavelengths_A, LAMBDAS)
    default = prepare_closed(PARAMETERS, SCENE, OPTIONS, beam=BEAM)
    same = prepare_closed(PARAMETERS, SCENE, OPTIONS, Margin(0.05, 0.001, 0.7, 9.0), beam=BEAM)
    np.testing.assert_array_equal(default.reflexes.hkl, same.reflexes.hkl)
    assert float(default.width) == float(same.width)


def even_channels(n_channels: int, span: float) -> Scene:
    """So many channels that span so much of 1/lambda."""
    wavelengths = 1.0 / np.linspace(0.766 - 0.5 * span, 0.766 + 0.5 * span, n_channels)
    return skew_scene(wavelengths=wavelengths, strength=PHOTONS[20 : 20 + n_channels], pixel_mm=0.2)


@pytest.mark.parametrize("n_channels", [17, 16])
def test_merging_must_leave_fewer(closed: ClosedScene, n_channels: int) -> None:
    """Two bins have eight nodes, filled up to sixteen."""
    scene = even_channels(n_channels, 1.5 * 2.6 * float(closed.width))
    found = prepare_closed(PARAMETERS, scene, OPTIONS, MARGIN, tabulate=False)
    width = narrowest_window(scaled(1.0 / 0.8), scene, OPTIONS, found.reflexes)
    wavelengths, strength = scene.channels.wavelengths_A, scene.channels.strength
    nodes, _ = merge_channels(wavelengths, strength, width * SCALE)
    assert len(nodes) == 8
    if n_channels == 17:
        assert len(found.nodes.strength) == 16
        assert float(found.width) == pytest.approx(width, rel=1e-12)
    else:
        np.testing.assert_array_equal(found.nodes.strength, strength)
        np.testing.assert_array_equal(found.nodes.wavelengths_A, wavelengths)
        assert float(found.width) == 0.0


def test_nodes_that_are_few_are_summed(closed: ClosedScene) -> None:
    """A narrow spectrum makes one bin of four nodes: no table, and no filling."""
    found = prepare_closed(PARAMETERS, even_channels(17, 0.5 * 2.6 * float(closed.width)), OPTIONS, MARGIN)
    assert len(found.nodes.strength) == 4
    assert found.table is None


@pytest.mark.parametrize(("second", "n_nodes", "filled"), [(2, 6, 8), (3, 7, 16)])
def test_up_to_six_nodes_are_few(closed: ClosedScene, second: int, n_nodes: int, filled: int) -> None:
    """Few are filled up to a multiple of 4, more to one of 16: a first bin of four nodes, and two or three channels."""
    span = 1.5 * 2.6 * float(closed.width)
    places = np.concatenate([np.linspace(0.0, 0.4, 17 - second), np.linspace(0.7, 1.0, second)])
    scene = skew_scene(wavelengths=1.0 / (0.766 + span * (places - 0.5)), strength=PHOTONS[20:37], pixel_mm=0.2)
    found = prepare_closed(PARAMETERS, scene, OPTIONS, MARGIN, tabulate=False)
    assert np.count_nonzero(found.nodes.strength) == n_nodes
    assert len(found.nodes.strength) == filled


def lists(closed: ClosedScene, drop: int | list[int]) -> ClosedScene:
    live = np.asarray(closed.reflexes.live).copy()
    live[drop] = 0.0
    return replace(closed, reflexes=replace(closed.reflexes, live=live))


def test_lists_that_hold(closed: ClosedScene) -> None:
    """Whatever is needed now, without a margin, must be alive; what is not may go."""
    assert closed_holds(PARAMETERS, closed, OPTIONS)
    box, lattice, hkl, _ = list_reflections(
        PARAMETERS, SCENE, OPTIONS, Margin(0.0, 0.0, 1.0, 9.0), BEAM, every_box=False
    )
    needed = {tuple(row) for row in np.column_stack([box, lattice, hkl]).tolist()}
    rows = np.column_stack([closed.reflexes.box, closed.reflexes.lattice, closed.reflexes.hkl]).astype(int).tolist()
    alive = [i for i in range(len(rows)) if closed.reflexes.live[i]]
    must = [i for i in alive if tuple(rows[i]) in needed]
    may = [i for i in alive if tuple(rows[i]) not in needed]
    assert len(must) == len(needed)
    assert len(may) > 3
    assert not closed_holds(PARAMETERS, lists(closed, must[-1]), OPTIONS)
    assert closed_holds(PARAMETERS, lists(closed, may[-1]), OPTIONS)


def test_a_dark_box_needs_no_list(closed: ClosedScene) -> None:
    """More than 12 + 9 below the brightest of the shot, in its logarithm."""
    rows = np.flatnonzero(np.asarray(closed.reflexes.box) == 2).tolist()
    assert not closed_holds(PARAMETERS, lists(closed, rows), OPTIONS)
    real = np.asarray(SCENE.factors.real).copy()
    real[:, 2] *= 1e-7
    dark = replace(closed, scene=replace(SCENE, factors=replace(SCENE.factors, real=real)))
    assert closed_holds(PARAMETERS, lists(dark, rows), OPTIONS)
    found = prepare_closed(PARAMETERS, dark.scene, OPTIONS, MARGIN, beam=BEAM, merge=False)
    np.testing.assert_array_equal(found.reflexes.box[:N_BOXES], np.arange(N_BOXES))


def test_windows_that_hold(closed: ClosedScene) -> None:
    """None may be narrower than channels were merged for, nor outside of the table."""
    width = narrowest_window(PARAMETERS, SCENE, OPTIONS, closed.reflexes)
    assert closed_holds(PARAMETERS, replace(closed, width=np.asarray(width * (1 + 5e-10))), OPTIONS)
    assert not closed_holds(PARAMETERS, replace(closed, width=np.asarray(width * (1 + 1e-6))), OPTIONS)
    table = closed.table
    assert table is not None
    least, most = table_widths(
        PARAMETERS, SCENE, OPTIONS, closed.reflexes, BEAM, lacking_variance(closed.subpixels, OPTIONS.oversample)
    )

    def from_width(low: float, n_levels: int) -> ClosedScene:
        values = np.zeros((n_levels, *table.values.shape[1:]))
        return replace(closed, table=replace(table, values=values, lowest=np.asarray(2.0 * np.log(low))))

    assert closed_holds(PARAMETERS, from_width(least * (1 - 1e-6), 8), OPTIONS)
    assert not closed_holds(PARAMETERS, from_width(least * (1 + 1e-6), 8), OPTIONS)
    n_levels = int(np.ceil(np.log2(most / least)))
    low = most / 2.0**n_levels
    assert closed_holds(PARAMETERS, from_width(low * (1 + 1e-6), n_levels), OPTIONS)
    assert not closed_holds(PARAMETERS, from_width(low * (1 - 1e-6), n_levels), OPTIONS)


def test_rules_and_subpixels_that_hold(closed: ClosedScene) -> None:
    n_nodes = rule_size(PARAMETERS, SCENE, OPTIONS, closed.reflexes)
    assert closed_holds(PARAMETERS, replace(closed, rule=mixture_rule(n_nodes)), OPTIONS)
    few = replace(closed, rule=mixture_rule(n_nodes - 1))
    assert not closed_holds(PARAMETERS, few, OPTIONS)
    # Where their number is given, it is what was wanted.
    assert closed_holds(PARAMETERS, few, replace(OPTIONS, mosaic_nodes=n_nodes + 5))
    assert closed_holds(PARAMETERS, replace(closed, rule=None), OPTIONS)
    enough = enough_subpixels(PARAMETERS, SCENE, OPTIONS, closed.reflexes)
    assert 1 < enough < 6
    assert closed_holds(PARAMETERS, replace(closed, subpixels=enough, table=None), OPTIONS)
    assert not closed_holds(PARAMETERS, replace(closed, subpixels=enough - 1, table=None), OPTIONS)


def test_options_without_a_closed_form_are_refused() -> None:
    with pytest.raises(ValueError, match="gaussian_anisotropic"):
        prepare_closed(PARAMETERS, SCENE, Options(spread="anisotropic"))

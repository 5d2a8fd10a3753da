"""The prior of panels: rigid motions, covariances of the hierarchy written out, restraints, bad widths."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from inference.test_centroid_joint import grid_detector

from bayesbragg.model.errors import InputError
from bayesbragg.model.panel_groups import PanelGrouping, group_panels
from bayesbragg.priors.panels import LevelWidths, PanelPriors, hierarchy_covariance, rigid_modes, shared_prior

WIDTHS = {
    "whole": LevelWidths((1.0, 0.5, 0.4), (0.5, 0.6, 1.0)),
    "quadrant": LevelWidths((0.2, 0.1, 0.3), (0.2, 0.25, 0.1)),
    "group": LevelWidths((0.2, 0.1, 0.15), (0.1, 0.12, 0.05)),
}


@pytest.fixture(scope="module")
def grouping() -> PanelGrouping:
    return group_panels(grid_detector(4), np.arange(16))


def test_modes_move_all_groups_of_a_node_as_one_body(grouping: PanelGrouping) -> None:
    rng = np.random.default_rng(1)
    level = grouping.levels[1]
    node = 2
    A = rigid_modes(grouping, level.node, level.centre_mm, node).reshape(16, 6, 6)
    points = grouping.reference_mm + rng.normal(size=(16, 3))  # one of every group, millimetre
    for i, omega in enumerate(np.eye(3)[[2, 0, 1]]):
        for g in range(16):
            angles, shift = A[g, :3, i], A[g, 3:, i]
            turn = grouping.group_axes()[g].T @ angles
            moved = np.cross(turn, 1e-3 * (points[g] - grouping.reference_mm[g])) + shift
            body = np.cross(omega, 1e-3 * (points[g] - level.centre_mm[node]))
            np.testing.assert_allclose(moved, body if level.node[g] == node else 0.0, atol=1e-12)
    for i in range(3):
        for g in range(16):
            expected = np.zeros(6)
            expected[3 + i] = level.node[g] == node
            if level.node[g] == node:
                np.testing.assert_array_equal(A[g, :, 3 + i], expected)


def test_covariance_of_heights_is_that_of_the_levels(grouping: PanelGrouping) -> None:
    """Shifts along z: those of the nodes, and what their rotations about x and y lift a group by."""
    covariance = hierarchy_covariance(grouping, WIDTHS)
    heights = covariance[5::6, 5::6]
    expected = np.zeros((16, 16))
    for level, name in zip(grouping.levels[:2], ("whole", "quadrant"), strict=True):
        _, about_x, about_y, _, _, along_z = WIDTHS[name].sd
        for k in range(level.n_nodes):
            inside = (level.node == k).astype(float)
            x, y, _ = (1e-3 * (grouping.reference_mm - level.centre_mm[k])).T * inside
            expected += along_z**2 * np.outer(inside, inside)
            expected += about_x**2 * np.outer(y, y) + about_y**2 * np.outer(x, x)
    expected += WIDTHS["group"].sd[5] ** 2 * np.eye(16)
    np.testing.assert_allclose(heights, expected, rtol=1e-10, atol=1e-18)
    assert WIDTHS["whole"].sd == pytest.approx([*np.radians([1.0, 0.5, 0.4]), 5e-4, 6e-4, 1e-3])


def test_precision_is_the_inverse_and_shared_numbers_stand_alone(grouping: PanelGrouping) -> None:
    extras = {"detz_shift": 2e-3, "lambda_offset": 0.01, "lambda_scale": 1e-4}
    prior = shared_prior(grouping, PanelPriors(levels=WIDTHS, extras=extras))
    covariance = prior.covariance()
    np.testing.assert_allclose(covariance[:96, :96], hierarchy_covariance(grouping, WIDTHS), rtol=1e-6, atol=1e-16)
    np.testing.assert_allclose(np.diag(covariance)[96:], np.square(list(extras.values())), rtol=1e-10)
    np.testing.assert_array_equal(covariance[:96, 96:], 0.0)
    assert prior.names[-3:] == tuple(extras)
    assert prior.units[-3:] == ("metre", "angstrom", "1")
    values = np.zeros(prior.n)
    values[-3:] = [2e-3, -0.02, 3e-4]
    assert prior.minus_log(values) == pytest.approx(0.5 * (1 + 4 + 9), rel=1e-9)
    assert not np.any(shared_prior(grouping, PanelPriors(levels=WIDTHS)).free[-3:])


def test_fixed_motions_leave_the_prior_of_the_others(grouping: PanelGrouping) -> None:
    fixed = (True, False, False, False, False, True)
    prior = shared_prior(grouping, PanelPriors(levels=WIDTHS, fixed=fixed))
    covariance, full = prior.covariance()[:96, :96], hierarchy_covariance(grouping, WIDTHS)
    inside = np.tile(~np.array(fixed), 16)
    np.testing.assert_array_equal(prior.free[:96], inside)
    np.testing.assert_allclose(covariance[np.ix_(inside, inside)], full[np.ix_(inside, inside)], rtol=1e-6, atol=1e-16)
    np.testing.assert_array_equal(covariance[~inside], 0.0)


def test_classic_restraints_and_close_distances(grouping: PanelGrouping) -> None:
    center = (1e-3, -2e-3, 3e-3, 1e-4, -1e-4, 2e-4)
    beta = (1e-6, 2e-6, 3e-6, 1e-8, 2e-8, 3e-8)
    classic = PanelPriors(levels=None, center=center, beta=beta)
    prior = shared_prior(grouping, classic)
    np.testing.assert_allclose(prior.mean[:96].reshape(16, 6), np.tile(center, (16, 1)), rtol=1e-9)
    np.testing.assert_allclose(np.diag(prior.covariance())[:96].reshape(16, 6), np.tile(beta, (16, 1)), rtol=1e-9)
    values = prior.mean.copy()
    values[:6] += np.sqrt(beta)
    assert prior.minus_log(values) == pytest.approx(3.0, rel=1e-9)
    close = shared_prior(grouping, PanelPriors(levels=None, close_distance_beta=4e-9))
    heights = np.random.default_rng(2).normal(size=16) * 1e-4
    values = np.zeros(close.n)
    values[5:96:6] = heights
    assert close.minus_log(values) == pytest.approx(0.5 * np.var(heights) / 4e-9, rel=1e-9)


def test_named_modes_are_those_of_whole_and_quadrants(grouping: PanelGrouping) -> None:
    prior = shared_prior(grouping, PanelPriors(levels=WIDTHS))
    assert len(prior.mode_names) == prior.modes.shape[1] == 6 * 5
    whole = grouping.levels[0]
    np.testing.assert_array_equal(prior.modes[:96, :6], rigid_modes(grouping, whole.node, whole.centre_mm, 0))
    np.testing.assert_array_equal(prior.modes[96:], 0.0)
    assert prior.mode_names[0] == "whole detector rotation about z (the beam)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": {**WIDTHS, "group": LevelWidths((0.0, 1, 1), (1, 1, 1))}}, "level group"),
        ({"beta": (1, 1, 1, 1, 1, -1)}, "panel betas"),
        ({"extras": {"detz_shift": 0.0}}, "shared numbers"),
        ({"extras": {"detz": 1.0}}, "'detz' is not known"),
        ({"low": (0,) * 6, "high": (0,) * 6}, "RotOrth: minimum 0 is not below maximum 0"),
    ],
)
def test_bad_widths_are_named(grouping: PanelGrouping, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        shared_prior(grouping, replace(PanelPriors(), **change))

"""The prior of tilted panel groups against matrices written out node by node, and restraints solved anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial.transform import Rotation

from bayesbragg.io.phil import load_phil
from bayesbragg.model.errors import InputError
from bayesbragg.model.panel_groups import Level, PanelGrouping
from bayesbragg.priors.panels import (
    EXTRAS,
    LevelWidths,
    PanelPriors,
    hierarchy_covariance,
    inverse_on,
    rigid_modes,
    shared_prior,
)

FloatArray = npt.NDArray[np.float64]

WIDTHS = {
    "whole": LevelWidths((1.0, 0.5, 0.4), (0.5, 0.6, 1.1)),
    "quadrant": LevelWidths((0.2, 0.1, 0.3), (0.2, 0.25, 0.15)),
    "group": LevelWidths((0.25, 0.12, 0.35), (0.1, 0.12, 0.05)),
}
CENTER = (1e-3, -2e-3, 3e-3, 1e-4, -2e-4, 3e-4)
BETA = (1e-6, 2e-6, 3e-6, 1e-8, 2e-8, 3e-8)


def tilted(n_groups: int = 5) -> PanelGrouping:
    """Groups of one or two panels in any attitude, with three levels above."""
    generator = np.random.default_rng(3)
    group = np.array([0, 0, 1, 2, 3, 3, 4])
    group = group[group < n_groups]
    axes = Rotation.random(5, random_state=7).as_matrix()[group]
    reference = generator.normal(size=(5, 3))[:n_groups] * [60.0, 80.0, 20.0]
    nodes = [np.array(node)[:n_groups] for node in ([0, 0, 0, 0, 0], [0, 1, 0, 1, 1], [0, 1, 0, 2, 1])]
    levels = tuple(
        Level(name, node, generator.normal(size=(node.max() + 1, 3)) * 30.0)
        for name, node in zip(("whole", "quadrant", "level 2"), nodes, strict=True)
    )
    return PanelGrouping(group, 10 * np.arange(n_groups) + 3, reference, axes, levels)


def body_motion(axes: FloatArray, arm_m: FloatArray) -> FloatArray:
    """Six numbers of a group for a body's turns about lab z, x, y and its shifts, ``(6, 6)``."""
    x, y, z = arm_m
    omega = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])  # columns: about z, about x, about y
    lever = np.array([[0.0, z, -y], [-z, 0.0, x], [y, -x, 0.0]])  # omega x arm
    result = np.zeros((6, 6))
    result[:3, :3] = axes @ omega
    result[3:, :3] = lever @ omega
    result[3:, 3:] = np.eye(3)
    return result


def node_matrix(grouping: PanelGrouping, level: Level, k: int) -> FloatArray:
    first = [list(grouping.group).index(g) for g in range(grouping.n_groups)]
    blocks = [
        body_motion(grouping.axes[first[g]], (grouping.reference_mm[g] - level.centre_mm[k]) / 1000.0)
        if level.node[g] == k
        else np.zeros((6, 6))
        for g in range(grouping.n_groups)
    ]
    return np.concatenate(blocks)


def variances(name: str) -> FloatArray:
    width = WIDTHS[name]
    return np.array([(v * np.pi / 180) ** 2 for v in width.rotation_deg] + [(v / 1000) ** 2 for v in width.shift_mm])


def covariance_of(grouping: PanelGrouping, names: dict[str, str]) -> FloatArray:
    """``names``: whose widths each level has."""
    total = np.diag(np.tile(variances(names["group"]), grouping.n_groups))
    for level in grouping.levels:
        if level.name in names:
            for k in range(level.n_nodes):
                A = node_matrix(grouping, level, k)
                total += A @ np.diag(variances(names[level.name])) @ A.T
    return total


ALL = {"whole": "whole", "quadrant": "quadrant", "level 2": "quadrant", "group": "group"}


def test_rigid_modes() -> None:
    grouping = tilted()
    for level in grouping.levels:
        for k in range(level.n_nodes):
            found = rigid_modes(grouping, level.node, level.centre_mm, k)
            np.testing.assert_allclose(found, node_matrix(grouping, level, k), rtol=1e-12, atol=1e-15)


def test_covariance_of_the_hierarchy() -> None:
    grouping = tilted()
    text: list[str] = []
    found = hierarchy_covariance(grouping, WIDTHS, text)
    np.testing.assert_allclose(found, covariance_of(grouping, ALL), rtol=1e-11, atol=1e-18)
    assert [line.partition(":")[0] for line in text] == [
        *("whole (1 node)", "quadrant (2 nodes)", "level 2 (3 nodes)", "group (5)")
    ]
    assert "sd 1 0.5 0.4 degree, own shifts (x y z) sd 0.5 0.6 1.1 mm" in text[0]
    assert "sd 0.25 0.12 0.35 degree, own shifts (x y z) sd 0.1 0.12 0.05 mm" in text[-1]
    # Levels that nobody gave a width do not move by themselves.
    two = {name: WIDTHS[name] for name in ("whole", "group")}
    expected = covariance_of(grouping, {"whole": "whole", "group": "group"})
    np.testing.assert_allclose(hierarchy_covariance(grouping, two), expected, rtol=1e-11, atol=1e-18)


def test_a_single_group_is_the_whole_detector() -> None:
    one = tilted(1)
    one = PanelGrouping(one.group, one.labels, one.reference_mm, one.axes, ())
    np.testing.assert_allclose(hierarchy_covariance(one, WIDTHS), np.diag(variances("whole")), rtol=1e-12)
    two = tilted(2)
    pair = PanelGrouping(two.group, two.labels, two.reference_mm, two.axes, ())
    expected = np.diag(np.tile(variances("group"), 2))
    np.testing.assert_allclose(hierarchy_covariance(pair, WIDTHS), expected, rtol=1e-12)
    only = {"group": WIDTHS["group"]}
    np.testing.assert_allclose(hierarchy_covariance(one, only), np.diag(variances("group")), rtol=1e-12)


def test_default_widths_are_those_of_the_phil_file() -> None:
    levels = PanelPriors().levels
    assert levels is not None
    joint = load_phil().joint
    for name, width in levels.items():
        assert list(width.rotation_deg) == getattr(joint, f"{name}_rotation_sd")
        assert list(width.shift_mm) == getattr(joint, f"{name}_shift_sd")
    assert set(levels) == {"whole", "quadrant", "group"}


def test_hierarchy_restraints_and_shared_numbers_multiply() -> None:
    grouping = tilted()
    fixed = (False, True, False, False, False, True)
    beta = (BETA[0], BETA[1], np.inf, *BETA[3:])
    low, high = (-0.1, -0.2, -0.3, -0.4, -0.5, -0.6), (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    priors = PanelPriors(WIDTHS, CENTER, beta, low, high, fixed, extras={"lambda_offset": 0.02})
    prior = shared_prior(grouping, priors)
    free = np.array([i not in (1, 5) for i in range(6)] * 5 + [False, True, False])
    np.testing.assert_array_equal(prior.free, free)
    full = np.zeros((33, 33))
    full[:30, :30] = covariance_of(grouping, ALL)
    scale = np.sqrt(np.diag(full))[free][:-1]
    block = full[np.ix_(free, free)][:-1, :-1]
    inside = np.linalg.inv(block / np.outer(scale, scale)) / np.outer(scale, scale)
    inside += np.diag(np.tile([1 / beta[0], 0.0, 1 / beta[3], 1 / beta[4]], 5))
    precision = np.zeros((21, 21))
    precision[:20, :20] = inside
    precision[20, 20] = 1 / 0.02**2
    found = prior.precision[np.ix_(free, free)]
    np.testing.assert_allclose(found, precision, rtol=1e-7, atol=1e-9 * np.abs(precision).max())
    right = np.tile([CENTER[0] / beta[0], 0.0, CENTER[3] / beta[3], CENTER[4] / beta[4]], 5)
    step = 1 / np.sqrt(np.diag(inside))
    mean = step * np.linalg.solve(inside * np.outer(step, step), step * right)
    np.testing.assert_allclose(prior.mean[free], [*mean, 0.0], rtol=1e-6, atol=1e-10)
    np.testing.assert_array_equal(prior.mean[~free], 0.0)
    values = prior.mean + np.linspace(-1e-4, 2e-4, 33)
    d = (values - prior.mean)[free]
    assert prior.minus_log(values) == pytest.approx(0.5 * d @ precision @ d, rel=1e-6)
    np.testing.assert_array_equal(prior.low, [*low * 5, -np.inf, -np.inf, -np.inf])
    np.testing.assert_array_equal(prior.high, [*high * 5, np.inf, np.inf, np.inf])
    assert prior.n_groups == 5
    assert prior.names[6:12] == tuple(
        f"group13_{m}" for m in ["RotOrth", "RotFast", "RotSlow", "ShiftX", "ShiftY", "ShiftZ"]
    )
    assert prior.names[30:] == EXTRAS == ("detz_shift", "lambda_offset", "lambda_scale")
    assert prior.units[6:12] == ("radian",) * 3 + ("metre",) * 3
    assert prior.units[30:] == ("metre", "angstrom", "1")
    assert prior.text[-1] == "lambda_offset, shared by all shots: normal about 0 with sd 0.02 angstrom"
    assert "RotOrth 1e-06, RotFast 2e-06, RotSlow inf, ShiftX 1e-08" in prior.text[4]
    assert len(prior.text) == 6


def test_the_mean_is_the_center_of_what_varies() -> None:
    prior = shared_prior(tilted(), PanelPriors(None, CENTER, BETA, fixed=(False, True, False, False, True, False)))
    expected = np.where([True, False, True, True, False, True], CENTER, 0.0)
    np.testing.assert_allclose(prior.mean[:30].reshape(5, 6), np.tile(expected, (5, 1)), rtol=1e-12)
    np.testing.assert_array_equal(prior.mean[30:], 0.0)
    # A restraint on what is fixed says nothing.
    rigid = PanelPriors(None, CENTER, (np.inf, 1e-6, *[np.inf] * 4), fixed=(False, True, *[False] * 4))
    assert shared_prior(tilted(), rigid).text == ()
    none = shared_prior(tilted(), PanelPriors(WIDTHS, fixed=(True,) * 6))
    assert not none.free.any()
    np.testing.assert_array_equal(none.precision, 0.0)


def test_distances_that_are_close() -> None:
    beta = 4e-9
    prior = shared_prior(tilted(), PanelPriors(None, close_distance_beta=beta))
    values = np.random.default_rng(5).normal(size=33)
    z = values[[5, 11, 17, 23, 29]]
    assert prior.minus_log(values) == pytest.approx(0.5 * np.mean((z - z.mean()) ** 2) / beta, rel=1e-12)
    both = shared_prior(tilted(), PanelPriors(None, (0.0,) * 6, BETA, close_distance_beta=beta))
    plain = shared_prior(tilted(), PanelPriors(None, (0.0,) * 6, BETA))
    extra = both.minus_log(values) - plain.minus_log(values)
    assert extra == pytest.approx(prior.minus_log(values), rel=1e-6)
    assert prior.text == ("spread of the groups' distances: variance 4e-09 metre^2",)


def test_all_that_is_said_of_a_group_counts() -> None:
    """Hierarchy, restraints about a center that is not zero, and close distances: the densities are multiplied."""
    close = 1e-9
    prior = shared_prior(tilted(), PanelPriors(WIDTHS, CENTER, BETA, close_distance_beta=close))
    alone = shared_prior(tilted(), PanelPriors(WIDTHS))
    center, beta = np.tile(CENTER, 5), np.tile(BETA, 5)

    def product(values: FloatArray) -> float:
        away = values[:30] - center
        return alone.minus_log(values) + 0.5 * np.sum(away**2 / beta) + 0.5 * np.var(values[5:30:6]) / close

    generator = np.random.default_rng(6)
    points = np.zeros((5, 33))
    points[:, :30] = 1e-3 * generator.normal(size=(5, 30))
    apart = [product(v) - prior.minus_log(v) for v in points]
    np.testing.assert_allclose(apart, apart[0], rtol=1e-6)


def test_inverse_of_a_block() -> None:
    generator = np.random.default_rng(8)
    root = generator.normal(size=(4, 4)) * [[1e-6], [1e-3], [1.0], [1e3]]
    matrix = root @ root.T
    free = np.array([True, True, False, True])
    expected = np.zeros((4, 4))
    picked = matrix[np.ix_(free, free)]
    expected[np.ix_(free, free)] = np.linalg.solve(picked, np.eye(3))
    np.testing.assert_allclose(inverse_on(matrix, free), expected, rtol=1e-6)
    flat = np.diag([0.25, 0.0, 3.0])
    np.testing.assert_allclose(inverse_on(flat, np.ones(3, bool)), np.diag([4.0, 0.0, 1 / 3]), rtol=1e-12)


def test_named_modes() -> None:
    grouping = tilted()
    prior = shared_prior(grouping, PanelPriors(WIDTHS))
    whole, quadrant, _ = grouping.levels
    expected = [node_matrix(grouping, whole, 0), *(node_matrix(grouping, quadrant, k) for k in range(2))]
    np.testing.assert_allclose(prior.modes[:30], np.concatenate(expected, axis=1), rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(prior.modes[30:], np.zeros((3, 18)))
    assert len(prior.mode_names) == 18
    assert prior.mode_names[1] == "whole detector rotation about x"
    assert prior.mode_names[12] == "quadrant 1 rotation about z (the beam)"
    assert prior.mode_names[17] == "quadrant 1 shift z"
    one = tilted(1)
    bare = shared_prior(PanelGrouping(one.group, one.labels, one.reference_mm, one.axes, ()))
    assert bare.modes.shape == (9, 0)
    levels = PanelPriors().levels
    assert levels is not None
    np.testing.assert_allclose(bare.covariance()[:6, :6], np.diag(levels["whole"].sd ** 2))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"levels": {"group": LevelWidths((1, 1, 1), (1, 0, 1))}}, "level group: expected numbers above 0, got 0"),
        ({"beta": (1, 1, 0, 1, 1, 1)}, "panel betas"),
        ({"extras": {"lambda_scale": -0.5}}, "shared numbers: expected numbers above 0, got -0.5"),
        ({"extras": {"lambda": 1.0}}, "'lambda' is not known; choose among detz_shift, lambda_offset, lambda_scale"),
        ({"low": (0, 0, 0, 0, 0, 2), "high": (1, 1, 1, 1, 1, 2)}, "ShiftZ: minimum 2 is not below maximum 2"),
    ],
)
def test_mistakes_are_named(words: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        shared_prior(tilted(), PanelPriors(**words))


def test_small_numbers_are_accepted() -> None:
    prior = shared_prior(tilted(), PanelPriors(None, CENTER, (0.5,) * 6, low=(0.1,) * 6, high=(0.2,) * 6))
    np.testing.assert_allclose(np.diag(prior.precision)[:30], 2.0)
    wide = shared_prior(tilted(), PanelPriors(None, CENTER, (4.0,) * 6))
    np.testing.assert_allclose(wide.mean[:30], CENTER * 5, rtol=1e-12)
    np.testing.assert_array_equal(shared_prior(tilted(), PanelPriors(WIDTHS)).mean, np.zeros(33))


def test_panels_are_expected_where_they_stand() -> None:
    """Without a center every motion has mean zero."""
    np.testing.assert_array_equal(shared_prior(tilted(), PanelPriors(None, beta=BETA)).mean, 0.0)

"""Prior objects as parameters, and cells of every setting, against what their docstrings say, written out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bayesbragg.model.errors import InputError
from bayesbragg.priors import Cell, CellConstraint, Fixed, Normal, Parameter, Positive, Priors, Shared, Uniform, Volume

R, H = math.pi / 2, 2 * math.pi / 3
FREE = [11.0, 13.0, 17.0, 1.1, 1.2, 1.3]
A, B, C, AL, BE, GA = FREE
EXPANDED: dict[str, tuple[list[float], list[float]]] = {
    "triclinic": (FREE, FREE),
    "monoclinic": ([A, B, C, BE], [A, B, C, R, BE, R]),
    "monoclinic, unique axis a": ([A, B, C, AL], [A, B, C, AL, R, R]),
    "monoclinic, unique axis c": ([A, B, C, GA], [A, B, C, R, R, GA]),
    "orthorhombic": ([A, B, C], [A, B, C, R, R, R]),
    "tetragonal": ([A, C], [A, A, C, R, R, R]),
    "trigonal": ([A, C], [A, A, C, R, R, H]),
    "rhombohedral": ([A, AL], [A, A, A, AL, AL, AL]),
    "hexagonal": ([A, C], [A, A, C, R, R, H]),
    "cubic": ([A], [A, A, A, R, R, R]),
}


def test_priors_as_parameters() -> None:
    assert Fixed().parameter(3.0) == Parameter(3.0, fixed=True)
    assert Fixed(0.0).parameter(3.0) == Parameter(0.0, fixed=True)
    assert Uniform(1, 9).parameter(3.0) == Parameter(3.0, "ranged", 1, 9, 1.0)
    assert Uniform(1, 9, 4.0, "log_ranged", 0.2).parameter(3.0) == Parameter(4.0, "log_ranged", 1, 9, 0.2)
    inf = math.inf
    assert Normal(2.0, 0.3).parameter(3.0) == Parameter(3.0, "normal", -inf, inf, 1.0, 2.0, 0.3**2)
    assert Normal(None, 0.3, 1, 9).parameter(3.0) == Parameter(3.0, "ranged", 1, 9, 1.0, 3.0, 0.3**2)
    assert Normal(None, 0.3, low=1).parameter(3.0) == Parameter(3.0, "normal", 1, inf, 1.0, 3.0, 0.3**2)
    assert Normal(None, 0.3, high=9).parameter(3.0) == Parameter(3.0, "normal", -inf, 9, 1.0, 3.0, 0.3**2)
    assert Normal(0.0, 0.3, 1, 9, 5.0, "log_ranged", 0.2).parameter(3.0) == Parameter(
        5.0, "log_ranged", 1, 9, 0.2, 0.0, 0.3**2
    )
    assert Normal(None, 0.3, start=5.0).parameter(3.0).center == 5.0
    made = Normal.from_beta(2.0, 0.09, 1, 9, 5.0, "normal", 0.2)
    assert made == Normal(2.0, math.sqrt(0.09), 1, 9, 5.0, "normal", 0.2, 0.09)
    assert made.parameter(3.0).beta == 0.09
    assert Normal.from_beta(2.0, 0.09) == Normal(2.0, math.sqrt(0.09), beta=0.09)
    with pytest.raises(InputError, match="variance"):
        Normal.from_beta(2.0, 0.0).parameter(3.0).check("name")
    assert math.isnan(Normal.from_beta(2.0, -1.0).sd)
    assert Positive().parameter(3.0) == Parameter(3.0, "positive", 0.0, inf, 1.0)
    assert Positive(4.0, 5.0, 0.3, 1.0, 9.0, 0.2).parameter(3.0) == Parameter(4.0, "positive", 1, 9, 0.2, 5.0, 0.3**2)


def test_cell_parameters_are_about_the_starting_cell() -> None:
    angle = Cell().parameter("ucell_beta", 1.8, True)
    assert angle == Parameter(1.8, "ranged", 1.8 - math.radians(5), 1.8 + math.radians(5), 1.0)
    assert Cell().parameter("ucell_a", 80.0, False) == Parameter(80.0, "ranged", 72.0, 88.0, 1.0)
    cell = Cell(
        4.0,
        2.0,
        0.3,
        0.7,
        priors={"ucell_c": Normal(1.0, 2.0)},
        sigmas={"ucell_b": 0.4},
        restraints={"ucell_b": (51.0, 0.02), "ucell_gamma": (1.5, 1e-4)},
    )
    assert cell.parameter("ucell_a", 80.0, False) == Parameter(
        80.0, "ranged", 80.0 - 80.0 * 4.0 / 100.0, 80.0 + 80.0 * 4.0 / 100.0, 1.0, 80.0, 0.3**2
    )
    assert cell.parameter("ucell_b", 50.0, False) == Parameter(50.0, "ranged", 48.0, 52.0, 0.4, 51.0, 0.02)
    assert cell.parameter("ucell_c", 3.0, False) == Normal(1.0, 2.0).parameter(3.0)
    reach = math.radians(2.0)
    assert cell.parameter("ucell_beta", 1.8, True) == Parameter(
        1.8, "ranged", 1.8 - reach, 1.8 + reach, 1.0, 1.8, math.radians(0.7) ** 2
    )
    gamma = cell.parameter("ucell_gamma", 1.6, True)
    assert (gamma.center, gamma.beta) == (1.5, 1e-4)
    assert Cell(edge_sd=0.3).parameter("ucell_beta", 1.8, True).center is None
    assert Cell(angle_sd_deg=0.3).parameter("ucell_a", 80.0, False).center is None


def test_what_priors_take() -> None:
    assert Volume(-3.0, 0.5) == Volume(center=-3.0, beta=0.5)
    for center, beta in ((1.0, 0.0), (math.inf, 1.0), (math.nan, 1.0), (1.0, -2.0)):
        with pytest.raises(InputError, match="Nvol"):
            Volume(center, beta)
    parts: Any = [Fixed(), Uniform(0, 1), Positive()]
    assert Priors(Nabc=parts).Nabc == tuple(parts)
    assert Priors(Nabc=Shared(Normal(0, 1))).Nabc == Shared(Normal(0, 1))
    assert not Priors().per_lattice_blocks
    wrong: Any
    for wrong in (3.0, [Fixed(), 2.0], None):
        with pytest.raises(InputError, match="prior of Ndef"):
            Priors(Ndef=wrong)


@pytest.mark.parametrize("setting", EXPANDED)
def test_every_setting(setting: str) -> None:
    constraint = CellConstraint(setting)
    free, cell = EXPANDED[setting]
    names = dict(zip(FREE, ["a", "b", "c", "alpha", "beta", "gamma"], strict=True))
    assert constraint.names == tuple(f"ucell_{names[value]}" for value in free)
    assert constraint.positions == tuple(FREE.index(value) for value in free)
    assert [constraint.is_angle(name) for name in constraint.names] == [value < 10 for value in free]
    np.testing.assert_allclose(constraint.expand(np.array(free)), cell, rtol=1e-15)
    np.testing.assert_allclose(constraint.free(cell), free, rtol=1e-15)
    assert constraint.deviation(cell) == pytest.approx(0.0, abs=1e-14)


def test_free_numbers_are_means_and_deviations_are_whole_differences() -> None:
    tetragonal = CellConstraint("tetragonal")
    cell = [80.0, 82.0, 40.0, R, R, R]
    np.testing.assert_allclose(tetragonal.free(cell), [81.0, 40.0])
    # 1 of 80 is the larger half of the difference; twice that is the difference.
    assert tetragonal.deviation(cell) == pytest.approx(2.0 * 1.0 / 80.0, rel=1e-12)
    assert tetragonal.deviation([80.0, 80.0, 40.0, R, R + 0.004, R - 0.003]) == pytest.approx(0.008, rel=1e-10)
    # A difference of lengths counts as a share of the length, along c as well.
    cubic = CellConstraint("cubic").deviation([80.0, 80.0, 83.0, R, R, R])
    assert cubic == pytest.approx(2.0 * 2.0 / 83.0, rel=1e-12)
    rhombohedral = CellConstraint("rhombohedral")
    np.testing.assert_allclose(rhombohedral.free([50.0, 53.0, 56.0, 1.1, 1.2, 1.0]), [53.0, 1.1])


@pytest.mark.parametrize(
    ("number", "cell", "setting"),
    [
        (96, [80.0, 80.0 * (1 + 0.9e-3), 40.0, R, R, R], "tetragonal"),
        (4, [50.0, 60.0, 70.0, R, R, R], "monoclinic"),
        (4, [50.0, 60.0, 70.0, R, R, 1.3], "monoclinic, unique axis c"),
        (4, [50.0, 60.0, 70.0, 1.3, R, R], "monoclinic, unique axis a"),
        (146, [50.0, 50.0, 50.0, 1.3, 1.3, 1.3], "rhombohedral"),
        (146, [50.0, 50.0, 90.0, R, R, H], "trigonal"),
        (1, [0.5, 0.6, 0.7, 0.4, 0.5, 0.6], "triclinic"),
        (1, [5.0, 6.0, 7.0, 3.0, 3.1, 3.05], "triclinic"),
    ],
)
def test_settings_of_space_groups(number: int, cell: list[float], setting: str) -> None:
    assert CellConstraint.for_space_group(number, cell).setting == setting


@pytest.mark.parametrize(
    ("number", "cell", "words"),
    [
        (96, [80.0, 80.0 * (1 + 1.2e-3), 40.0, R, R, R], "80 80.096 40 90 90 90 .* tetragonal"),
        (143, [50.0, 50.0, 50.0, 1.3, 1.3, 1.3], "is trigonal"),
        (1, [5.0, 6.0, 7.0, R, R], "expected six numbers"),
        (1, [5.0, 6.0, 0.0, R, R, R], "positive lengths"),
        (1, [5.0, 6.0, math.nan, R, R, R], "positive lengths"),
        (1, [5.0, 6.0, math.inf, R, R, R], "positive lengths"),
        (1, [5.0, 6.0, 7.0, R, R, 0.0], "angles between"),
        (1, [5.0, 6.0, 7.0, R, math.pi, R], "angles between"),
        (1, [5.0, 6.0, 7.0, 4.0, R, R], "angles between"),
        (1, [5.0, 6.0, 7.0, R, -0.1, R], "angles between"),
    ],
)
def test_cells_that_are_refused(number: int, cell: list[float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        CellConstraint.for_space_group(number, cell)

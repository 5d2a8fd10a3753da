"""Cell constraints of the crystal systems, against cells written out by hand and against the golden derivatives."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from bayesbragg.model.errors import InputError
from bayesbragg.priors import CellConstraint

D = np.pi / 180


def rad(*cell: float) -> np.ndarray:
    return np.array([*cell[:3], *(D * a for a in cell[3:])])


CASES = [
    (1, rad(10, 11, 12, 80, 95, 105), ("a", "b", "c", "alpha", "beta", "gamma")),
    (5, rad(90, 60, 70, 90, 105, 90), ("a", "b", "c", "beta")),
    (4, rad(70, 60, 70, 90, 120, 90), ("a", "b", "c", "beta")),
    (4, rad(50, 60, 70, 90, 90, 90), ("a", "b", "c", "beta")),
    (4, rad(50, 60, 70, 90, 90, 101), ("a", "b", "c", "gamma")),
    (4, rad(50, 60, 70, 99, 90, 90), ("a", "b", "c", "alpha")),
    (19, rad(50, 60, 70, 90, 90, 90), ("a", "b", "c")),
    (96, rad(79.1, 79.1, 38.4, 90, 90, 90), ("a", "c")),
    (152, rad(50, 50, 70, 90, 90, 120), ("a", "c")),
    (155, rad(50, 50, 170, 90, 90, 120), ("a", "c")),
    (155, rad(50, 50, 50, 75, 75, 75), ("a", "alpha")),
    (178, rad(50, 50, 70, 90, 90, 120), ("a", "c")),
    (198, rad(50, 50, 50, 90, 90, 90), ("a",)),
]


@pytest.mark.parametrize(("number", "cell", "names"), CASES, ids=lambda v: str(v) if isinstance(v, int) else "")
def test_free_parameters_of_every_system(number: int, cell: np.ndarray, names: tuple[str, ...]) -> None:
    constraint = CellConstraint.for_space_group(number, cell)
    assert constraint.names == tuple(f"ucell_{n}" for n in names)
    free = constraint.free(cell)
    np.testing.assert_allclose(constraint.expand(free), cell, rtol=1e-15)
    # Each free number moves exactly the numbers that must equal it.
    jacobian = np.asarray(jax.jacfwd(constraint.expand)(free))
    for k, name in enumerate(constraint.names):
        position = ("a", "b", "c", "alpha", "beta", "gamma").index(name.removeprefix("ucell_"))
        same = np.isclose(cell, cell[position]) & (np.arange(6) // 3 == position // 3)
        moved = jacobian[:, k] != 0
        assert moved[position]
        assert np.all(same[moved])
    assert set(np.unique(jacobian)) <= {0.0, 1.0}
    assert hash(constraint) == hash(CellConstraint(constraint.setting))


@pytest.mark.parametrize(
    ("number", "cell", "words"),
    [
        (96, rad(79.1, 79.3, 38.4, 90, 90, 90), ("79.1 79.3 38.4 90 90 90", "96", "tetragonal", "a = b")),
        (96, rad(79.1, 79.1, 38.4, 90, 90.2, 90), ("tetragonal",)),
        (5, rad(50, 60, 70, 91, 95, 90), ("monoclinic",)),
        (19, rad(50, 60, 70, 90, 95, 90), ("orthorhombic",)),
        (155, rad(50, 50, 51, 75, 75, 75), ("rhombohedral",)),
        (152, rad(50, 50, 50, 75, 75, 75), ("trigonal",)),
        (198, rad(50, 50, 50.3, 90, 90, 90), ("cubic", "a = b = c")),
    ],
)
def test_a_cell_that_does_not_fit(number: int, cell: np.ndarray, words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as error:
        CellConstraint.for_space_group(number, cell)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


def test_tolerance_is_the_callers() -> None:
    cell = rad(79.1, 79.3, 38.4, 90, 90, 90)
    constraint = CellConstraint.for_space_group(96, cell, tolerance=0.01)
    assert constraint.free(cell)[0] == pytest.approx(79.2)


@pytest.mark.parametrize("number", [0, 231, -4])
def test_no_such_space_group(number: int) -> None:
    with pytest.raises(InputError, match="1 to 230"):
        CellConstraint.for_space_group(number, rad(50, 50, 50, 90, 90, 90))


def test_nonsense_cell() -> None:
    with pytest.raises(InputError, match="positive lengths"):
        CellConstraint.for_space_group(1, rad(50, -50, 50, 90, 90, 90))

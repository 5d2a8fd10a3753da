"""Starting from a table: orientations from Amats, whichever crystal the run starts from; classic tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bayesbragg.forward.rotations import misorientation
from bayesbragg.io.experiments import read_experiments
from bayesbragg.io.tables import read_table
from bayesbragg.model import Crystal
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.results import parameters_from_row, rotation_angles
from bayesbragg.pipeline.settings import StartValues
from bayesbragg.stills.virtual import random_rotation

CELL = np.array([79.1, 79.1, 38.4, 90.0, 90.0, 90.0])
ANGLES = np.array([0.004, -0.002, 0.007])


def test_angles_are_the_inverse_of_the_misorientation() -> None:
    for angles in np.random.default_rng(1).uniform(-0.5, 0.5, (20, 3)):
        np.testing.assert_allclose(rotation_angles(np.asarray(misorientation(angles))), angles, atol=1e-15)


@pytest.fixture
def start() -> Crystal:
    return Crystal.from_cell(CELL * [1.01, 1.01, 0.99, 1, 1, 1], random_rotation(np.random.default_rng(2)))


def row_of(start: Crystal, **more: Any) -> dict[str, Any]:
    end = start.with_cell_and_orientation(CELL, np.asarray(misorientation(ANGLES)) @ start.U)
    row: dict[str, Any] = {"Amats": tuple(end.A_reciprocal.ravel()), "spot_scales": 5.0, "ncells": (7.0, 8.0, 9.0)}
    row |= dict(zip(("a", "b", "c", "al", "be", "ga"), CELL.tolist(), strict=True))
    row |= dict(zip(("rotX", "rotY", "rotZ"), ANGLES.tolist(), strict=True))
    return row | more


def test_the_same_input_takes_the_rotation_over(start: Crystal) -> None:
    parameters = parameters_from_row([row_of(start)], "t.pkl", [start])
    np.testing.assert_allclose(parameters.crystal.rot_xyz, [ANGLES], atol=1e-14)


def test_the_refined_input_is_not_turned_again(start: Crystal) -> None:
    refined = start.with_cell_and_orientation(CELL, np.asarray(misorientation(ANGLES)) @ start.U)
    parameters = parameters_from_row([row_of(start)], "t.pkl", [refined])
    np.testing.assert_allclose(parameters.crystal.rot_xyz, 0.0, atol=1e-14)


def test_another_indexing_is_refused(start: Crystal) -> None:
    other = replace(start, real_space_A=start.real_space_A[[1, 0, 2]] * [[1], [1], [-1]])
    with pytest.raises(InputError, match="degree away from the input's"):
        parameters_from_row([row_of(start)], "t.pkl", [other])


def test_columns_that_old_tables_lack_take_the_init_values(start: Crystal) -> None:
    values = StartValues(eta_deg=(0.1, 0.2, 0.3), b_factor_A2=3.0, lambda_scale=1.01)
    row = row_of(start, ncells_def=None, lam0=np.nan)
    parameters = parameters_from_row([row], "t.pkl", [start], values)
    np.testing.assert_array_equal(parameters.mosaic.eta_deg, [0.1, 0.2, 0.3])
    assert (float(parameters.scale.b_factor_A2), float(parameters.spectrum.scale)) == (3.0, 1.01)
    np.testing.assert_array_equal(parameters.mosaic.n_def, [[0, 0, 0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ncells": "many"}, "unreadable row"),
        ({"Amats": (1.0, 2.0)}, "unreadable row"),
        ({"Amats": (0.0,) * 9}, "unreadable row"),
        ({"spot_scales": np.nan}, "not a number"),
        ({"a": None}, "unreadable row"),
    ],
)
def test_rows_that_cannot_be_used(change: dict[str, Any], message: str, start: Crystal) -> None:
    with pytest.raises(InputError, match=f"t.pkl: {message}|t.pkl: .*{message}"):
        parameters_from_row([row_of(start, **change)], "t.pkl", [start])


def test_a_missing_column_and_another_number_of_lattices(start: Crystal) -> None:
    row = row_of(start)
    with pytest.raises(InputError, match="2 lattices in the table, 1 in the input"):
        parameters_from_row([row, row], "t.pkl", [start])
    del row["Amats"]
    with pytest.raises(InputError, match="no column 'Amats'"):
        parameters_from_row([row], "t.pkl", [start])


def test_classic_tables(shared: Path) -> None:
    """Amats of the classic table mean what its rotX, rotY, rotZ say of the common start, and its refined crystals."""
    tutorial = shared / "tutorial"
    table = read_table(tutorial / "classic/procPoly/hopper_process_summary.pkl")
    assert len(table) == 10
    for row in table.to_dict("records"):
        name = Path(row["exp_name"]).name.removeprefix("idx-")
        for folder, expected in (("indexed", [row["rotX"], row["rotY"], row["rotZ"]]), ("classic/procPoly", [0, 0, 0])):
            (experiment,) = read_experiments(tutorial / folder / name)
            assert experiment.crystal is not None
            parameters = parameters_from_row([row], name, [experiment.crystal])
            np.testing.assert_allclose(parameters.crystal.rot_xyz, [expected], atol=1e-7)
            np.testing.assert_allclose(parameters.crystal.cell[[0, 2]], [row["a"], row["c"]])

"""Space groups against the golden change of basis, the group axioms, and the rules of the crystal systems."""

from __future__ import annotations

from pathlib import Path

import gemmi
import numpy as np
import pytest

from bayesbragg.io.symmetry import (
    cell_misfit,
    lookup_space_group,
    space_group_from_hall,
)
from bayesbragg.model.crystal_system import crystal_system
from bayesbragg.model.errors import InputError


@pytest.mark.parametrize("name", ["P43212", "P 43 21 2", 96, "96", "P 4nw 2abw"])
def test_one_group_by_all_its_names(name: str | int) -> None:
    group = lookup_space_group(name)
    assert (group.hm, group.number, group.hall) == ("P 43 21 2", 96, " P 4nw 2abw")
    np.testing.assert_array_equal(group.to_primitive, np.eye(3))


def test_golden_change_of_basis(shared: Path) -> None:
    golden = np.load(shared / "golden" / "10f_monoclinic_C2.npz")
    np.testing.assert_allclose(lookup_space_group("C 1 2 1").to_primitive, golden["O_matrix"], atol=1e-15)


def test_primitive_basis_of_every_setting() -> None:
    """Every reflection that the centring allows has integer primitive indices, and the cells' volumes are in ratio."""
    h = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3, indexing="ij"), -1).reshape(-1, 3)
    count = 0
    for group in gemmi.spacegroup_table():
        operations = group.operations()
        ours = space_group_from_hall(group.hall)
        shifts = np.array(operations.cen_ops) / gemmi.Op.DEN
        allowed = np.all(np.abs((h @ shifts.T) - np.rint(h @ shifts.T)) < 1e-9, axis=1)
        primitive = h @ ours.to_primitive.T
        whole = np.all(np.abs(primitive - np.rint(primitive)) < 1e-9, axis=1)
        np.testing.assert_array_equal(whole, allowed, err_msg=group.xhm())
        assert abs(np.linalg.det(ours.to_primitive)) == pytest.approx(1 / len(shifts))
        count += 1
    assert count > 500


def test_hall_symbol_with_a_change_of_basis() -> None:
    group = space_group_from_hall(" C 2y (x,y,-x+z)")
    assert group.number == 5
    unlisted = space_group_from_hall("P 4nw 2abw (x+1/12,y,z)")
    assert unlisted.number == 96
    assert len(unlisted.rotations) == 8


def test_equivalent_reflections_have_one_spacing() -> None:
    group = lookup_space_group("P 31 2 1")
    a = 50.0
    metric = np.array([[a * a, -a * a / 2, 0], [-a * a / 2, a * a, 0], [0, 0, 900.0]])
    inverse = np.linalg.inv(metric)
    indices, phases = group.equivalents([[1, 2, 3], [4, -1, 2]])
    assert indices.shape == (6, 2, 3)
    assert phases.shape == (6, 2)
    q2 = np.einsum("oni,ij,onj->on", indices, inverse, indices)
    np.testing.assert_allclose(q2, np.broadcast_to(q2[0], q2.shape))


def test_equivalent_phases_from_atoms() -> None:
    """F(hR) = F(h) exp(-2 pi i h.t) for the Fourier sum over a symmetric set of atoms."""
    group = lookup_space_group("P 43 21 2")
    rng = np.random.default_rng(1)
    atoms = rng.random((3, 3))
    everywhere = np.einsum("oij,aj->oai", group.rotations, atoms) + group.translations[:, None]
    everywhere = everywhere.reshape(-1, 3)

    def structure_factor(h: np.ndarray) -> np.ndarray:
        return np.exp(2j * np.pi * h @ everywhere.T).sum(-1)

    h = np.array([[1, 2, 3], [4, 1, 7]])
    indices, phases = group.equivalents(h)
    np.testing.assert_allclose(structure_factor(indices), structure_factor(h) * np.exp(1j * phases), atol=1e-9)


@pytest.mark.parametrize("name", ["P43213", "banana", "", 0, 231, "P 4nww 2abw"])
def test_unknown_group(name: str | int) -> None:
    with pytest.raises(InputError, match="no space group is called"):
        lookup_space_group(name)


def test_nearest_names_are_given() -> None:
    with pytest.raises(InputError, match="P43212"):
        lookup_space_group("P43213")


@pytest.mark.parametrize(
    ("number", "system"),
    [
        (1, "triclinic"),
        (5, "monoclinic"),
        (19, "orthorhombic"),
        (96, "tetragonal"),
        (146, "trigonal"),
        (173, "hexagonal"),
        (230, "cubic"),
    ],
)
def test_crystal_system(number: int, system: str) -> None:
    assert crystal_system(number) == system


@pytest.mark.parametrize(
    ("cell", "number", "fits"),
    [
        ((79.1, 79.1, 38.4, 90, 90, 90), 96, True),
        ((79.1, 75.0, 38.4, 90, 90, 90), 96, False),
        ((79.1, 79.1, 38.4, 90, 92, 90), 96, False),
        ((95, 60, 70, 90, 108, 90), 5, True),
        ((95, 60, 70, 90, 90, 108), 5, True),
        ((95, 60, 70, 90, 95, 108), 5, False),
        ((50, 50, 90, 90, 90, 120), 146, True),
        ((60, 60, 60, 75, 75, 75), 146, True),
        ((60, 60, 60, 75, 75, 75), 145, False),
        ((60, 60, 60, 75, 76.5, 75), 146, False),
        ((60, 60, 61, 90, 90, 90), 198, False),
        ((60, 61, 62, 80, 95, 100), 1, True),
        ((60, 61, 62, 90, 90, 90), 19, True),
        ((60, 60, 62, 90, 90, 120), 173, True),
        ((60, 60, 62, 90, 90, 90), 173, False),
    ],
)
def test_cell_fits(cell: tuple[float, ...], number: int, fits: bool) -> None:
    assert (cell_misfit(cell, number) is None) is fits

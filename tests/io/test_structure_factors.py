"""Structure factors: expansion against the classic program's lists, MTZ columns, coordinates by direct summation."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import gemmi
import numpy as np
import pytest

from bayesbragg.io import mtz_files
from bayesbragg.io.coordinates import read_pdb_structure_factors
from bayesbragg.io.structure_factors import read_mtz, structure_factors_from_arrays
from bayesbragg.io.symmetry import lookup_space_group
from bayesbragg.model.errors import InputError

CELL = (40.0, 40.0, 60.0, 90.0, 90.0, 90.0)
HKL = np.array([[1, 2, 3], [0, 2, 3], [2, 3, 1], [1, 1, 4]])


def write_mtz(path: Path, columns: dict[str, tuple[str, list[float]]], group: str = "P 43 21 2") -> Path:
    mtz = gemmi.Mtz(with_base=True)
    mtz.spacegroup = gemmi.SpaceGroup(group)
    mtz.set_cell_for_all(gemmi.UnitCell(*CELL))
    mtz.add_dataset("data")
    for label, (kind, _) in columns.items():
        mtz.add_column(label, kind)
    values = np.array([numbers for _, numbers in columns.values()], dtype=np.float32).T
    mtz.set_data(np.hstack([HKL.astype(np.float32), values]))
    mtz.write_to_file(str(path))
    return path


PAIRS = {
    "I(+)": ("K", [100.0, 400.0, np.nan, 9.0]),
    "SIGI(+)": ("M", [1.0, 1.0, np.nan, 1.0]),
    "I(-)": ("K", [121.0, np.nan, 16.0, -4.0]),
    "SIGI(-)": ("M", [1.0, np.nan, 1.0, 1.0]),
}


def test_intensity_pairs(tmp_path: Path) -> None:
    path = write_mtz(tmp_path / "i.mtz", PAIRS)
    f = read_mtz(path, "I(+),SIGI(+),I(-),SIGI(-)", default_F=7.0)
    np.testing.assert_allclose(f.lookup(HKL), [10, 20, 4, 3])
    np.testing.assert_allclose(f.lookup(-HKL), [11, 20, 4, 0])
    rotated = np.array([[-2, 1, 3], [2, 1, -3]])  # 4-fold about c, and a 2-fold of the 422 group
    np.testing.assert_allclose(f.lookup(rotated), [10, 10])
    assert f.lookup([50, 0, 0]) == 7.0
    np.testing.assert_array_equal(read_mtz(path).F, f.F)


def test_amplitudes_complex_and_difference(tmp_path: Path) -> None:
    columns = {
        "Fobs": ("F", [5.0, 6.0, 7.0, np.nan]),
        "SIGFobs": ("Q", [1.0, 1.0, 1.0, np.nan]),
        "DANO": ("D", [2.0, np.nan, -4.0, np.nan]),
        "FC": ("F", [1.0, 2.0, 3.0, 4.0]),
        "PHIC": ("P", [0.0, 90.0, 30.0, 180.0]),
        "I": ("J", [4.0, 9.0, 16.0, 25.0]),
    }
    path = write_mtz(tmp_path / "f.mtz", columns)
    np.testing.assert_allclose(read_mtz(path).lookup(HKL), [5, 6, 7, 0])
    np.testing.assert_allclose(read_mtz(path, "I").lookup(-HKL), [2, 3, 4, 5])
    anomalous = read_mtz(path, "Fobs,DANO")
    np.testing.assert_allclose(anomalous.lookup(HKL)[:3], [6, 6, 5])
    np.testing.assert_allclose(anomalous.lookup(-HKL)[:3], [4, 6, 9])
    complex_f = read_mtz(path, "FC,PHIC")
    expected = np.array([1, 2j, 3 * np.exp(1j * np.pi / 6), -4])
    np.testing.assert_allclose(complex_f.lookup(HKL), expected, atol=1e-6)
    np.testing.assert_allclose(complex_f.lookup(-HKL)[[0, 2]], np.conj(expected)[[0, 2]], atol=1e-6)


def test_resolution_limits(tmp_path: Path) -> None:
    path = write_mtz(tmp_path / "i.mtz", PAIRS)
    spacing = gemmi.UnitCell(*CELL).calculate_d_array(HKL.astype(np.int32))
    f = read_mtz(path, d_min=11.0, d_max=14.0)
    np.testing.assert_array_equal(f.lookup(HKL) > 0, (spacing >= 11) & (spacing <= 14))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("F(+),F(-)", r"no column 'F\(\+\)'; columns are I\(\+\) \(K\)"),
        ("SIGI(+)", "0 amplitudes"),
        ("I(+),PHI", "no column 'PHI'"),
    ],
)
def test_wrong_columns(tmp_path: Path, columns: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_mtz(write_mtz(tmp_path / "i.mtz", PAIRS), columns)
    assert "i.mtz" in str(caught.value)


def test_two_amplitudes_that_are_no_mates(tmp_path: Path) -> None:
    """Observed and calculated amplitudes: the second ones are not those of the Friedel mates."""
    path = write_mtz(tmp_path / "f.mtz", {"F": ("F", [10.0] * 4), "SIGF": ("Q", [1.0] * 4), "FC": ("F", [99.0] * 4)})
    with pytest.raises(InputError, match="F and FC are no pair of Friedel mates"):
        read_mtz(path, "F,SIGF,FC")
    np.testing.assert_allclose(read_mtz(path, "F,SIGF").lookup(-HKL), 10.0)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.mtz: no such MTZ file"):
        read_mtz(tmp_path / "none.mtz")
    whole = write_mtz(tmp_path / "i.mtz", PAIRS).read_bytes()
    for length in (0, 10, 90, len(whole) - 200):
        (tmp_path / "cut.mtz").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut.mtz"):
            read_mtz(tmp_path / "cut.mtz")
    with pytest.raises(InputError, match="no reflection"):
        read_mtz(tmp_path / "i.mtz", d_min=100.0)
    with pytest.raises(InputError, match=r"none.pdb"):
        read_pdb_structure_factors(tmp_path / "none.pdb", 2.0)
    (tmp_path / "empty.pdb").write_text("REMARK\nEND\n")
    with pytest.raises(InputError, match=r"empty.pdb"):
        read_pdb_structure_factors(tmp_path / "empty.pdb", 2.0)


def test_crystal_of_another_kind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_mtz(tmp_path / "i.mtz", PAIRS)
    with pytest.raises(InputError, match="space group"):
        read_mtz(path, space_group="P 6 2 2")
    with pytest.raises(InputError, match="cell"):
        read_mtz(path, cell=(60, 60, 60, 90, 90, 90))
    with caplog.at_level(logging.WARNING):
        read_mtz(path, space_group="P43212", cell=(40.5, 40.5, 60, 90, 90, 90))
        assert not caplog.records
        read_mtz(path, space_group="P 41 21 2", cell=(43, 43, 60, 90, 90, 90))
    assert len(caplog.records) == 2


@pytest.mark.parametrize("symbol", ["P 1", "C 1 2 1", "P 21 21 21", "P 43 21 2", "R 3 :H", "I 41", "F 2 3", "P 65 2 2"])
def test_expansion_against_atoms(symbol: str) -> None:
    """Structure factors of symmetry-related atoms, summed directly, are what the expansion gives."""
    group = lookup_space_group(symbol)
    rng = np.random.default_rng(3)
    operators = gemmi.SpaceGroup(symbol.replace(" :H", ":H")).operations()
    points = np.array([op.apply_to_xyz(xyz) for xyz in rng.random((3, 3)).tolist() for op in operators])
    weights = np.repeat([1.0, 2.0 + 1.0j, 3.0 - 0.5j], len(points) // 3)

    def direct(hkl: np.ndarray) -> np.ndarray:
        return np.exp(2j * np.pi * hkl @ points.T) @ weights

    grid = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3, indexing="ij"), -1).reshape(-1, 3)
    grid = grid[np.any(grid != 0, axis=1)]
    asu = gemmi.ReciprocalAsu(gemmi.SpaceGroup(symbol.replace(" :H", ":H")))
    independent = np.array([h for h in grid.tolist() if asu.is_in(h) or asu.is_in([-x for x in h])])
    f = structure_factors_from_arrays(independent, direct(independent), group)
    conventional = np.rint(f.hkl @ np.linalg.inv(group.to_primitive).T)
    np.testing.assert_allclose(f.F, direct(conventional), atol=1e-9)
    primitive = grid @ group.to_primitive.T
    allowed = np.all(np.abs(primitive - np.rint(primitive)) < 1e-9, axis=1)
    assert np.all(f.contains(group.to_primitive_index(grid[allowed])))
    np.testing.assert_allclose(np.abs(direct(grid[~allowed])), 0, atol=1e-9)


@pytest.mark.parametrize(
    "case",
    ["01_mono", "03_poly", "10a_monoclinic", "10b_orthorhombic", "10c_hexagonal", "10d_trigonal", "10e_triclinic"],
)
def test_expansion_of_golden_lists(shared: Path, case: str) -> None:
    g = np.load(shared / f"golden/{case}.npz")
    meta = json.loads(str(g["meta_json"]))
    f = structure_factors_from_arrays(g["hkl_asu"], g["F_asu"], meta["space_group"])
    assert np.all(f.contains(g["hkl_p1"]))
    np.testing.assert_array_equal(f.lookup(g["hkl_p1"]), g["F_p1"])
    if not int(g["hkl_lists_restricted_to_touched"]):
        assert len(f.hkl) == len(g["hkl_p1"])
        np.testing.assert_array_equal(f.table_min, g["hkl_table_min"])


def test_expansion_of_a_centred_golden_list(shared: Path) -> None:
    """The file lists P1 indices in the primitive basis; taken back and expanded, every value returns."""
    g = np.load(shared / "golden/10f_monoclinic_C2.npz")
    group = lookup_space_group("C 1 2 1")
    np.testing.assert_array_equal(group.to_primitive, g["O_matrix"])
    conventional = np.rint(g["hkl_p1"] @ np.linalg.inv(g["O_matrix"]).T)
    f = structure_factors_from_arrays(conventional, g["F_p1"], group)
    np.testing.assert_array_equal(f.lookup(g["hkl_p1"]), g["F_p1"])
    asu = structure_factors_from_arrays(g["hkl_asu"], g["F_asu"], group)
    both = asu.contains(g["hkl_p1"])
    assert both.sum() > 10
    np.testing.assert_array_equal(asu.lookup(g["hkl_p1"])[both], g["F_p1"][both])


def test_complex_golden_list(shared: Path) -> None:
    g = np.load(shared / "golden/15_complex_fp_fdp.npz")
    f = structure_factors_from_arrays(g["hkl_asu"], g["F_asu"] + 1j * g["F_asu_imag"], "P 43 21 2")
    expected = g["F_p1"] + 1j * g["F_p1_imag"]
    np.testing.assert_allclose(f.lookup(g["hkl_p1"]), expected, atol=1e-13 * np.abs(expected).max())


def test_tutorial_files(shared: Path) -> None:
    folder = shared / "tutorial/structure_factors"
    observed = read_mtz(folder / "iobs_all.mtz", "I(+),SIGI(+),I(-),SIGI(-)", space_group="P43212")
    truth = read_mtz(folder / "truth_F.mtz", "F(+),F(-)")
    np.testing.assert_array_equal(observed.hkl, truth.hkl)
    amplitude = truth.F
    strong = amplitude > np.median(amplitude)
    # 3 % noise on I is 1.5 % on F
    assert np.std(observed.F[strong] / truth.F[strong]) == pytest.approx(0.015, rel=0.05)
    computed = read_pdb_structure_factors(folder / "lysozyme.pdb", 2.0, wavelength_A=1.3724)
    theirs = truth.lookup(computed.hkl)
    listed = theirs > 0
    assert np.mean(listed) > 0.95
    scale = np.sum(theirs * computed.F) / np.sum(computed.F**2)
    assert scale == pytest.approx(1.0, abs=0.005)
    # Both count atoms on special positions once; f' and f'' are from different tables.
    r_factor = np.sum(np.abs(theirs - scale * computed.F)[listed]) / np.sum(theirs[listed])
    assert r_factor < 0.005


def test_lysozyme_against_direct_summation(shared: Path) -> None:
    """The model of the tutorial, atoms on special positions counted once, to 1e-4 of the root mean square amplitude."""
    path = shared / "tutorial/structure_factors/lysozyme.pdb"
    f = read_pdb_structure_factors(path, 2.0, amplitudes=False)
    structure = gemmi.read_structure(str(path))
    structure.setup_cell_images()
    waters = [
        s.atom for s in structure[0].all() if s.residue.name == "HOH" and str(s.residue.seqid) in ("39", "41", "81")
    ]
    oxygens = [atom for atom in waters if atom.element.name == "O"]
    assert len(oxygens) == 3
    for atom in oxygens:
        # On the two-fold axes x, x, 0 and their like, each in the middle between itself and its copy.
        assert structure.cell.is_special_position(atom.pos, 0.5) == 1
        atom.occ = 0.5
    calculator = gemmi.StructureFactorCalculatorX(structure.cell)
    hkl = f.hkl[:: len(f.hkl) // 40]
    expected = np.array([calculator.calculate_sf_from_model(structure[0], list(map(int, h))) for h in hkl])
    np.testing.assert_allclose(f.lookup(hkl), expected, atol=1e-4 * np.sqrt(np.mean(np.abs(expected) ** 2)))


def test_atoms_on_special_positions_count_once(tmp_path: Path) -> None:
    """Half an atom in a general position that merges with its copy on an axis is the whole atom on the axis."""
    line = "HETATM    1  O   HOH A   1    {:8.3f}{:8.3f}{:8.3f}{:6.2f} 20.00           O\n"
    head = "CRYST1   20.000   20.000   30.000  90.00  90.00  90.00 P 4\n"
    amplitudes = []
    for x, occupancy in ((0.0, 1.0), (0.0, 0.25), (0.001, 0.25), (5.0, 1.0)):
        path = tmp_path / "a.pdb"
        path.write_text(head + line.format(x, 0.0, 4.0, occupancy))
        amplitudes.append(read_pdb_structure_factors(path, 3.0).lookup([[1, 2, 3], [0, 0, 4], [3, 1, 0]]))
    np.testing.assert_allclose(amplitudes[0], amplitudes[1], rtol=1e-6)
    np.testing.assert_allclose(amplitudes[0], amplitudes[2], rtol=1e-3)
    assert amplitudes[3][1] == pytest.approx(4 * amplitudes[0][1], rel=1e-3)


def test_cell_and_symmetry_of_a_file(tmp_path: Path) -> None:
    cell, found = mtz_files.read_mtz_symmetry(write_mtz(tmp_path / "i.mtz", PAIRS, "C 1 2 1"))
    assert found.hall == lookup_space_group("C 1 2 1").hall
    np.testing.assert_allclose(cell, gemmi.read_mtz_file(str(tmp_path / "i.mtz")).cell.parameters)


PDB = """CRYST1   20.000   24.000   30.000  90.00  90.00  90.00 P 21 21 21
ATOM      1  N   ALA A   1       2.000   3.000   4.000  1.00 20.00           N
ATOM      2  CA  ALA A   1       3.400   3.200   4.300  1.00 22.00           C
ATOM      3  C   ALA A   1       4.200   2.100   3.700  0.70 25.00           C
HETATM    4 SE   MSE A   2      10.000   8.000   9.500  0.50 18.00          SE
END
"""


@pytest.mark.parametrize("wavelength_A", [None, 0.9790])
def test_coordinates_against_direct_sum(tmp_path: Path, wavelength_A: float | None) -> None:
    path = tmp_path / "a.pdb"
    path.write_text(PDB)
    f = read_pdb_structure_factors(path, 2.0, wavelength_A=wavelength_A, amplitudes=False)
    structure = gemmi.read_structure(str(path))
    hkl = f.hkl[:: len(f.hkl) // 60]
    stol2 = 0.25 / structure.cell.calculate_d_array(hkl.astype(np.int32)) ** 2
    expected = np.zeros(len(hkl), dtype=complex)
    for site in structure[0].all():
        atom = site.atom
        factor = np.array([atom.element.it92.calculate_sf(x) for x in stol2], dtype=complex)
        if wavelength_A is not None:
            fp, fpp = gemmi.cromer_liberman(z=atom.element.atomic_number, energy=12398.419843320026 / wavelength_A)
            factor += fp + 1j * fpp
        for op in gemmi.SpaceGroup("P 21 21 21").operations():
            xyz = np.array(op.apply_to_xyz(structure.cell.fractionalize(atom.pos).tolist()))
            expected += atom.occ * factor * np.exp(-atom.b_iso * stol2) * np.exp(2j * np.pi * hkl @ xyz)
    np.testing.assert_allclose(f.lookup(hkl), expected, atol=2e-4 * np.sqrt(np.mean(np.abs(expected) ** 2)))
    if wavelength_A is not None:
        assert np.max(np.abs(np.abs(f.lookup(hkl)) - np.abs(f.lookup(-hkl)))) > 0.5


def test_solvent(tmp_path: Path) -> None:
    """With a negligible weight nothing changes; with a weight, mostly the low angles do."""
    path = tmp_path / "a.pdb"
    path.write_text(PDB)
    dry = read_pdb_structure_factors(path, 2.0, amplitudes=False)
    wet = read_pdb_structure_factors(path, 2.0, k_sol=0.35, b_sol=50.0, amplitudes=False)
    np.testing.assert_array_equal(wet.hkl, dry.hkl)
    spacing = gemmi.UnitCell(20, 24, 30, 90, 90, 90).calculate_d_array(dry.hkl.astype(np.int32))
    change = np.abs(wet.F - dry.F)
    assert change[spacing > 6].mean() > 10 * change[spacing < 2.5].mean()


@pytest.mark.parametrize(
    ("hkl", "F", "message"),
    [
        ([[1, 2, 3]], [np.nan], "not finite"),
        ([[1, 2, 3]], [1.0, 2.0], "expected"),
        (np.zeros((0, 3)), [], "expected"),
        ([[1, 2]], [1.0], "expected"),
        ([[0, 0, 0]], [1.0], "no index"),
    ],
)
def test_bad_arrays(hkl: object, F: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        structure_factors_from_arrays(hkl, F)  # type: ignore[arg-type]

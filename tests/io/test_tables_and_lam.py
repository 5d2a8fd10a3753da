"""Tables of shots in their formats, rebuilt after a crash; spectra in .lam files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bayesbragg.io.spectra import read_lam, write_lam
from bayesbragg.io.table_rows import write_row
from bayesbragg.io.tables import read_table, rebuild_table, write_table
from bayesbragg.model import Spectrum
from bayesbragg.model.errors import InputError


def row(i: int) -> dict[str, Any]:
    return {
        "exp_name": f"shot_{i}.expt",
        "spot_scales": 1.5 * i,
        "Amats": np.arange(9.0) + i,
        "ncells": (10.0, 11.0, 12.0 + i),
        "oversample": 2,
        "use_diffuse_models": bool(i % 2),
        "spectrum_filename": None if i else "a.lam",
        "covariance": np.eye(2) * i,
    }


def as_lists(cell: Any) -> Any:
    if isinstance(cell, np.ndarray | list | tuple):
        return [as_lists(x) for x in cell]
    return cell


def test_both_files_hold_the_same(tmp_path: Path) -> None:
    table = pd.DataFrame([row(i) for i in range(4)])
    written = write_table(table, tmp_path / "out")
    assert [p.name for p in written] == ["hopper_process_summary.pkl", "hopper_process_summary.parquet"]
    assert not [p for p in (tmp_path / "out").iterdir() if p.name.startswith(".")]
    for path in written:
        again = read_table(path)
        assert list(again.columns) == list(table.columns)
        for name in table:
            ours = [as_lists(None if x is np.nan else x) for x in table[name]]
            assert [as_lists(x) for x in again[name]] == ours, (path, name)


def test_table_is_rebuilt_from_rows(tmp_path: Path, caplog: Any) -> None:
    for i in (2, 0, 1):
        write_row(row(i), tmp_path, f"rank0/shot {i:03d}")
    cut = tmp_path / "pandas" / "shot_cut.parquet"
    cut.write_bytes((tmp_path / "pandas" / "rank0_shot 000.parquet").read_bytes()[:200])
    with caplog.at_level(logging.WARNING):
        table = rebuild_table(tmp_path)
    assert "shot_cut" in caplog.text
    assert table["exp_name"].tolist() == ["shot_0.expt", "shot_1.expt", "shot_2.expt"]
    assert table["spot_scales"].tolist() == [0.0, 1.5, 3.0]
    assert table["oversample"].tolist() == [2, 2, 2]
    np.testing.assert_array_equal(table["Amats"][2], np.arange(9.0) + 2)
    assert table["spectrum_filename"].tolist()[0] == "a.lam"
    assert pd.isna(table["spectrum_filename"].tolist()[1])
    assert (tmp_path / "hopper_process_summary.pkl").is_file()
    assert len(read_table(tmp_path)) == 3
    with pytest.raises(InputError, match="no rows"):
        rebuild_table(tmp_path / "empty")


def test_what_a_row_lacks_keeps_its_kind(tmp_path: Path) -> None:
    cells = {"number": np.nan, "text": None, "list": [np.nan, 1.0], "mixed": [1, "a"], "path": Path("a"), "flag": True}
    found = read_table(write_row(cells, tmp_path, "shot"))
    assert found["number"].dtype == np.float64
    assert np.isnan(found["number"][0])
    assert found["text"][0] is None
    np.testing.assert_array_equal(found["list"][0], [np.nan, 1.0])
    assert found["mixed"][0] == '[1, "a"]'
    assert found["path"][0] == "a"
    assert found["flag"][0] is True or found["flag"][0] == np.True_


def test_folders_and_patterns(tmp_path: Path) -> None:
    write_table(pd.DataFrame([row(0)]), tmp_path / "run1")
    write_table(pd.DataFrame([row(1), row(2) | {"extra": 1.0}]), tmp_path / "run2" / "hopper_process_summary.pkl")
    write_row(row(3), tmp_path / "run3", "shot")
    assert len(read_table(tmp_path / "run1")) == 1
    assert len(read_table(tmp_path / "run2")) == 2
    assert read_table(tmp_path / "run3")["exp_name"].tolist() == ["shot_3.expt"]
    joined = read_table(tmp_path / "run*" / "*.pkl")
    assert joined["exp_name"].tolist() == ["shot_0.expt", "shot_1.expt", "shot_2.expt"]
    assert joined["extra"].tolist()[2] == 1.0
    for bad in (tmp_path / "run9", tmp_path / "x*y.pkl"):
        with pytest.raises(InputError, match="no "):
            read_table(bad)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="in this folder"):
        read_table(tmp_path / "nothing")


def test_cells_of_several_kinds(tmp_path: Path, caplog: Any) -> None:
    table = pd.DataFrame({"odd": pd.Series([1.5, "text", (1, 2)], dtype=object)})
    write_table(table, tmp_path / "t.parquet")
    assert "several kinds" in caplog.text
    assert read_table(tmp_path / "t.parquet")["odd"].tolist() == ["1.5", '"text"', "[1, 2]"]


def test_truncated_parquet(tmp_path: Path) -> None:
    write_table(pd.DataFrame([row(0)]), tmp_path / "t.parquet")
    data = (tmp_path / "t.parquet").read_bytes()
    for length in [0, 3, 4, 8, *np.random.default_rng(0).integers(5, len(data) - 1, 40)]:
        (tmp_path / "cut.parquet").write_bytes(data[:length])
        with pytest.raises(InputError, match=r"cut\.parquet"):
            read_table(tmp_path / "cut.parquet")


def test_lam_round_trip(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    spectrum = Spectrum(1.3 + 0.01 * rng.random(30), 1e9 * rng.random(30))
    write_lam(spectrum, tmp_path / "a.lam")
    again = read_lam(tmp_path / "a.lam")
    np.testing.assert_array_equal(again.wavelengths_A, spectrum.wavelengths_A)
    np.testing.assert_array_equal(again.photons, spectrum.photons)
    # The classic reader: skip a line, commas.
    classic = np.loadtxt(tmp_path / "a.lam", delimiter=",", skiprows=1)
    np.testing.assert_array_equal(classic.T, [spectrum.wavelengths_A, spectrum.photons])


def test_lam_options(tmp_path: Path) -> None:
    path = tmp_path / "b.lam"
    path.write_text("wavelengths weights\n1.0 1\n1.1 2\n\n1.2 3\n1.3 4\n")
    spectrum = read_lam(path, total_flux=1e12, stride=2)
    np.testing.assert_allclose(spectrum.wavelengths_A, [1.0, 1.2])
    np.testing.assert_allclose(spectrum.photons, [0.25e12, 0.75e12])
    path.write_text("1.5,7\n")
    assert read_lam(path).flux == 7


@pytest.mark.parametrize(
    ("text", "stride", "message"),
    [
        ("# t\n1.0,1\n1.1\n", 1, "line 3"),
        ("# t\n1.0,1\n", 2, "stride of 2 over 1"),
        ("# t\n1.0,1\n", 0, "stride of 0"),
        ("# t\n", 1, "no channels"),
        ("# t\n1.0,-1\n", 1, "not negative"),
        ("# t\n0,1\n", 1, "positive"),
        ("# t\nnan,1\n", 1, "positive"),
    ],
)
def test_bad_lam(tmp_path: Path, text: str, stride: int, message: str) -> None:
    (tmp_path / "c.lam").write_text(text)
    with pytest.raises(InputError, match=message):
        read_lam(tmp_path / "c.lam", stride=stride)

"""Masks and tables out of pickles: the right content, and nothing run."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pandas as pd
import pytest

from bayesbragg.io.frame_pickle import frame_from_pickle, frame_to_pickle
from bayesbragg.io.masks import read_mask
from bayesbragg.io.tables import read_table
from bayesbragg.model import Detector
from bayesbragg.model.errors import InputError

DATA = Path(__file__).parents[1] / "data" / "io"


def detector(*shapes: tuple[int, int]) -> Detector:
    """Panels of the given (slow, fast) sizes."""
    n = len(shapes)
    one, axis = np.ones(n), np.tile(np.eye(3)[0], (n, 1))
    size = np.array([(fast, slow) for slow, fast in shapes])
    pairs = np.ones((n, 2))
    return Detector(axis, axis, axis[:, [1, 0, 2]], pairs, size, pairs, one, one, one, tuple("p" * n))


TWO = detector((3, 4), (3, 5))


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [2, 4])
def test_dials_mask(protocol: int) -> None:
    masks = read_mask(DATA / f"dials_mask_protocol{protocol}.pickle", TWO)
    truth = np.load(DATA / "dials_masks.npz")
    for mask, name in zip(masks, ("panel0", "panel1"), strict=True):
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, truth[name])


def test_dials_mask_of_one_panel() -> None:
    """600 pixels: the number of elements needs two digits."""
    (mask,) = read_mask(DATA / "dials_mask_single.pickle", detector((20, 30)))
    np.testing.assert_array_equal(mask, np.load(DATA / "dials_masks.npz")["single"])


def test_large_mask_from_dials(tmp_path: Path, run_dials: Any) -> None:
    path = tmp_path / "big.mask"
    script = """
from dials.array_family import flex
import pickle
m = flex.bool(flex.grid(301, 299), True)
for i in range(0, 301 * 299, 7): m[i] = False
pickle.dump((m,), open({path!r}, "wb"))
print(1)
"""
    run_dials(script.format(path=str(path)))
    expected = (np.arange(301 * 299) % 7 != 0).reshape(301, 299)
    (mask,) = read_mask(path, detector((301, 299)))
    np.testing.assert_array_equal(mask, expected)


def test_masks_of_other_formats(tmp_path: Path) -> None:
    three = detector(*[(4, 5)] * 3)
    truth = np.random.default_rng(0).random((3, 4, 5)) > 0.3
    np.save(tmp_path / "m.npy", truth)
    np.savez(tmp_path / "one.npz", truth.astype(np.uint8))
    np.savez(tmp_path / "each.npz", panel10=truth[2], panel2=truth[1], panel1=truth[0])
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["entry/mask"] = truth
    with h5py.File(tmp_path / "nexus.h5", "w") as file:
        file["entry/pixel_mask"] = np.where(truth, 0, 8).astype(np.uint32)
        file["entry/other"] = 1
    with h5py.File(tmp_path / "nexus_bool.h5", "w") as file:
        file["entry/pixel_mask"] = ~truth
    with (tmp_path / "numpy.pickle").open("wb") as file_out:
        pickle.dump(tuple(truth), file_out)
    for name in ("m.npy", "one.npz", "each.npz", "m.h5", "nexus.h5", "nexus_bool.h5", "numpy.pickle"):
        np.testing.assert_array_equal(read_mask(tmp_path / name, three), truth, err_msg=name)


def test_mask_of_another_detector(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"panel 1 of shape \(3, 5\), the detector's is \(3, 6\)"):
        read_mask(DATA / "dials_mask_protocol2.pickle", detector((3, 4), (3, 6)))
    with pytest.raises(InputError, match="2 panels, the detector has 3"):
        read_mask(DATA / "dials_mask_protocol2.pickle", detector((3, 4), (3, 5), (3, 6)))
    np.save(tmp_path / "m.npy", np.full((3, 4), 7))
    with pytest.raises(InputError, match="not of 0 and 1"):
        read_mask(tmp_path / "m.npy", detector((3, 4)))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("call", ["system", "eval", "getattr", "setattr"])
def test_hostile_pickles_run_nothing(tmp_path: Path, protocol: int, call: str) -> None:
    trace = tmp_path / "trace"
    evil = {
        "system": Evil(os.system, f"touch {trace}"),
        "eval": Evil(eval, f"open({str(trace)!r}, 'w')"),
        "getattr": Evil(getattr, pd.DataFrame, "eval"),
        "setattr": Evil(setattr, "", "x", 1),
    }[call]
    for place, name in ((evil, "bare"), ((np.ones((3, 4), bool), evil), "within")):
        path = tmp_path / f"{name}.pkl"
        path.write_bytes(pickle.dumps(place, protocol))
        for read in (lambda p: read_mask(p, TWO), read_table):
            with pytest.raises(InputError, match="the pickle asks for") as caught:
                read(path)
            assert "nothing was run" in str(caught.value)
            assert "\n" not in str(caught.value)
    assert not trace.exists()


def test_states_are_given_to_stand_ins_only(tmp_path: Path) -> None:
    """A pickle that sets attributes of the classes it names, by the slot state of BUILD."""
    path = tmp_path / "build.pkl"
    for module, name in (("pandas.core.frame", "DataFrame"), ("numpy.core.multiarray", "_reconstruct")):
        body = f"c{module}\n{name}\n".encode() + b"(N}(X\x01\x00\x00\x00xK\x01utb."
        path.write_bytes(b"\x80\x02" + body)
        with pytest.raises(InputError, match="state for"):
            read_table(path)


def test_pickles_of_other_things(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(InputError, match="something else"):
        read_table(path)
    with pytest.raises(InputError, match="no mask"):
        read_mask(path, TWO)
    with pytest.raises(InputError, match="no such file"):
        read_mask(tmp_path / "none", TWO)


def frames_equal(a: pd.DataFrame, b: pd.DataFrame) -> None:
    assert list(a.columns) == list(b.columns)
    assert len(a) == len(b)
    for name in a:
        assert repr(a[name].tolist()) == repr(b[name].tolist()), name


def test_table_of_old_pandas() -> None:
    table = read_table(DATA / "table_pandas1.pkl")
    assert table.loc[0, "Amats"] == (0.1,) * 9
    assert table["eta"].tolist() == [0, 1]
    assert table["flag"].tolist() == [True, False]
    assert table["exp_name"].tolist() == ["a.expt", "b.expt"]
    assert table["spectrum_filename"].tolist() == [None, None]
    assert table.loc[0, "spot_scales"] == 1.5
    assert np.isnan(table.loc[1, "spot_scales"])
    np.testing.assert_array_equal(table.loc[1, "profile"], [0.0, 1.0])


def test_classic_tables_as_pandas_reads_them(shared: Path) -> None:
    for run in ("procPoly", "procBad", "procOpt"):
        path = shared / "tutorial" / "classic" / run / "hopper_process_summary.pkl"
        frames_equal(read_table(path), pd.read_pickle(path))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tables_of_this_pandas(protocol: int) -> None:
    table = pd.DataFrame(
        {"x": [1.5, np.nan], "n": [1, 2], "ok": [True, False], "cell": pd.Series([(1, 2), [np.ones(2)]], dtype=object)}
    )
    table["text"] = pd.Series(["a", None], dtype=object)
    table.columns = pd.Index(list(table.columns), dtype=object)
    frames_equal(frame_from_pickle(pickle.dumps(table, protocol), "x"), table)


def test_old_pandas_reads_our_tables(tmp_path: Path, run_dials: Any) -> None:
    """DIALS' Python has a pandas and numpy of its own, older ones on most machines."""
    table = pd.DataFrame({"x": [1.5, 2.5], "name": ["a", "b"], "A": [(1.0, 2.0), (3.0, 4.0)], "ok": [True, False]})
    (tmp_path / "t.pkl").write_bytes(frame_to_pickle(table))
    script = "import json, pandas\nprint(pandas.read_pickle({path!r}).to_json(orient='list') if False else "
    script += "json.dumps(pandas.read_pickle({path!r}).to_dict('list')))"
    assert run_dials(script.format(path=str(tmp_path / "t.pkl"))) == {
        "x": [1.5, 2.5],
        "name": ["a", "b"],
        "A": [[1.0, 2.0], [3.0, 4.0]],
        "ok": [True, False],
    }
    frames_equal(pd.read_pickle(tmp_path / "t.pkl"), table)


def test_damage_gives_input_errors_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged.pkl"
    readers: list[tuple[Path, Any]] = [
        (DATA / "table_pandas1.pkl", read_table),
        (DATA / "dials_mask_protocol2.pickle", lambda p: read_mask(p, TWO)),
        (DATA / "dials_mask_protocol4.pickle", lambda p: read_mask(p, TWO)),
    ]
    for source, read in readers:
        data = source.read_bytes()
        for length in [0, 1, 2, *rng.integers(2, len(data) - 1, 40)]:
            path.write_bytes(data[:length])
            with pytest.raises(InputError, match=r"damaged\.pkl"):
                read(path)
        for _ in range(500):
            damaged = bytearray(data)
            for place in rng.integers(0, len(data), 2):
                damaged[place] = rng.integers(0, 256)
            path.write_bytes(bytes(damaged))
            with suppress(InputError):
                read(path)


def test_damaged_arrays_give_input_errors_only(tmp_path: Path) -> None:
    truth = np.ones((3, 4), bool)
    np.save(tmp_path / "m.npy", truth)
    np.savez_compressed(tmp_path / "m.npz", truth)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("mask", data=truth, compression="gzip")
    rng = np.random.default_rng(0)
    for name in ("m.npy", "m.npz", "m.h5"):
        data = (tmp_path / name).read_bytes()
        path = tmp_path / f"damaged_{name}"
        for _ in range(40):
            path.write_bytes(data[: rng.integers(0, len(data) - 1)])
            with pytest.raises(InputError, match="damaged_"):
                read_mask(path, detector((3, 4)))
    np.save(tmp_path / "objects.npy", np.array([Evil(os.system, "true")], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="expected a mask"):
        read_mask(tmp_path / "objects.npy", detector((3, 4)))


def test_mask_compressed_by_a_plugin_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Masters of Eiger detectors compress their masks; nothing else may have loaded the filters before."""
    values = np.zeros((3, 4), np.uint32)
    values[1, 2] = 1
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("entry/pixel_mask", data=values, chunks=(3, 4), **hdf5plugin.Bitshuffle())
        file["entry/other"] = 1
    script = (
        "import sys; from bayesbragg.io.panel_arrays import read_array; read_array(*sys.argv[1:3], ('pixel_mask',))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "m.h5"), "mask"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    np.testing.assert_array_equal(read_mask(tmp_path / "m.h5", detector((3, 4)))[0], values == 0)


@pytest.mark.parametrize("read", ["mask", "table"])
def test_small_pickles_do_not_grow_without_end(tmp_path: Path, read: str) -> None:
    """A list of ten times the same list of ten times the same list ... is short to write and long to read."""
    nested: list[Any] = [0] * 10
    for _ in range(15):
        nested = [nested] * 10
    path = tmp_path / "nested.pkl"
    path.write_bytes(pickle.dumps(nested, protocol=2))
    if read == "table":
        cells = np.empty(1, dtype=object)
        cells[0] = nested
        path.write_bytes(frame_to_pickle(pd.DataFrame({"a": pd.Series(cells)})))
    with pytest.raises(InputError, match=r"nested\.pkl"):
        read_mask(path, TWO) if read == "mask" else read_table(path)


def test_pickles_of_numbers_in_place_of_bytes(tmp_path: Path) -> None:
    """Python makes a terabyte of zeros of bytearray(10**12)."""
    path = tmp_path / "zeros.pkl"
    path.write_bytes(pickle.dumps(Evil(bytearray, 10**12), protocol=2))
    with pytest.raises(InputError, match="in place of bytes"):
        read_table(path)

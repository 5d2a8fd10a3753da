"""Reflection tables against DIALS itself, byte for byte, and through damage; matching to experiments."""

from __future__ import annotations

import logging
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from bayesbragg.io.matching import match
from bayesbragg.io.reflections import read_reflections, write_reflections
from bayesbragg.model import Beam, Crystal, Detector, Experiment, ImageReference, Reflections, Shoebox
from bayesbragg.model.errors import InputError

DIALS_TABLE = """
import json
from dials.array_family import flex
n = 3
r = flex.reflection_table()
r["id"] = flex.int([0, 1, -5]); r["bbox"] = flex.int6([(i, i+2, 3, 6, 0, 1) for i in range(n)])
r["x"] = flex.double([1.5, -2.25, 1e300]); r["b"] = flex.bool([True, False, True])
r["flags"] = flex.size_t([7, 2**20, 2**30]); r["miller_index"] = flex.miller_index([(1, -2, 3)] * n)
r["v3"] = flex.vec3_double([(1, 2, 3)] * n); r["v2"] = flex.vec2_double([(4, 5)] * n)
r["m3"] = flex.mat3_double([(1, 2, 3, 4, 5, 6, 7, 8, 9)] * n)
boxes = flex.shoebox(flex.size_t([0, 1, 2]), r["bbox"])
full = flex.shoebox(flex.size_t([0, 1, 2]), r["bbox"]); full.allocate()
box = full[1]
for i in range(6):
    box.data[i] = i + 0.5; box.background[i] = -i; box.mask[i] = i + 1
boxes[1] = box
r["shoebox"] = boxes
r.experiment_identifiers()[0] = "abc"; r.experiment_identifiers()[1] = "def"
r.as_file({path!r})
print(json.dumps(1))
"""

DIALS_REPORT = """
import json
from dials.array_family import flex
r = flex.reflection_table.from_file({path!r})
out = dict(rows=len(r), identifiers=dict(r.experiment_identifiers()), columns={{}})
for k in r.keys():
    c = r[k]
    if k == "shoebox":
        out["columns"][k] = [[b.panel, list(b.bbox), [float(x) for x in b.data], [int(x) for x in b.mask],
                              [float(x) for x in b.background]] for b in c]
    else:
        out["columns"][k] = [list(x) if isinstance(x, tuple) else x for x in c]
print(json.dumps(out))
"""


def small_table() -> Reflections:
    rng = np.random.default_rng(0)
    boxes = np.empty(4, dtype=object)
    for i in range(4):
        shape = (1, 2 + i, 3)
        data, background = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
        boxes[i] = Shoebox(i, (i, i + 3, 0, 2 + i, 0, 1), data, np.full(shape, 5, np.int32), background)
    boxes[3] = Shoebox(3, (0, 3, 0, 5, 0, 1), *(np.zeros((0, 0, 0), t) for t in (np.float32, np.int32, np.float32)))
    columns: dict[str, Any] = {
        "id": np.array([0, 0, 1, -1]),
        "panel": np.array([0, 1, 2, 3]),
        "flags": np.array([1, 2, 4, 2**33]),
        "xyzobs.px.value": rng.normal(size=(4, 3)),
        "bbox": np.arange(24).reshape(4, 6),
        "miller_index": np.arange(12).reshape(4, 3) - 6,
        "ok": np.array([True, False, True, True]),
        "matrix": rng.normal(size=(4, 3, 3)),
        "pair": rng.normal(size=(4, 2)),
        "score": rng.normal(size=4),
        "shoebox": boxes,
    }
    return Reflections(columns, {0: "first", 1: "second"})


def same(a: Reflections, b: Reflections) -> None:
    assert set(a.columns) == set(b.columns)
    assert dict(a.identifiers) == dict(b.identifiers)
    for name, column in a.columns.items():
        if name != "shoebox":
            np.testing.assert_array_equal(column, b[name], err_msg=name)
            continue
        for x, y in zip(column, b[name], strict=True):
            assert (x.panel, tuple(x.bbox)) == (y.panel, tuple(y.bbox))
            for part in ("data", "mask", "background"):
                np.testing.assert_array_equal(getattr(x, part).ravel(), getattr(y, part).ravel())


def test_round_trip(tmp_path: Path) -> None:
    table = small_table()
    write_reflections(table, tmp_path / "a.refl")
    first = read_reflections(tmp_path / "a.refl")
    same(table, first)
    assert first.types["flags"] == "std::size_t"
    assert first.types["miller_index"] == "cctbx::miller::index<>"
    write_reflections(first, tmp_path / "b.refl")
    assert (tmp_path / "a.refl").read_bytes() == (tmp_path / "b.refl").read_bytes()


def test_a_table_written_by_dials(tmp_path: Path, run_dials: Any) -> None:
    path = tmp_path / "dials.refl"
    run_dials(DIALS_TABLE.format(path=str(path)))
    table = read_reflections(path)
    assert len(table) == 3
    assert dict(table.identifiers) == {0: "abc", 1: "def"}
    np.testing.assert_array_equal(table["id"], [0, 1, -5])
    np.testing.assert_array_equal(table["flags"], [7, 2**20, 2**30])
    np.testing.assert_array_equal(table["m3"][1], np.arange(1, 10).reshape(3, 3))
    box = table["shoebox"][1]
    assert box.data.shape == (1, 3, 2)
    np.testing.assert_array_equal(box.data.ravel(), np.arange(6) + 0.5)
    np.testing.assert_array_equal(box.mask.ravel(), np.arange(1, 7))
    np.testing.assert_array_equal(box.background.ravel(), -np.arange(6.0))
    write_reflections(table, tmp_path / "again.refl")
    assert (tmp_path / "again.refl").read_bytes() == path.read_bytes()


def test_dials_reads_our_table(tmp_path: Path, run_dials: Any) -> None:
    table = small_table().select([2, 0, 3])
    write_reflections(table, tmp_path / "ours.refl")
    report = run_dials(DIALS_REPORT.format(path=str(tmp_path / "ours.refl")))
    assert report["rows"] == 3
    assert report["identifiers"] == {"0": "first", "1": "second"}
    for name, column in table.columns.items():
        if name != "shoebox":
            np.testing.assert_array_equal(np.reshape(report["columns"][name], column.shape), column)
    panel, bbox, data, mask, background = report["columns"]["shoebox"][0]
    box = table["shoebox"][0]
    assert (panel, tuple(bbox)) == (box.panel, box.bbox)
    np.testing.assert_array_equal(data, box.data.ravel())
    np.testing.assert_array_equal(mask, box.mask.ravel())
    np.testing.assert_array_equal(background, box.background.ravel())


def test_newer_shoeboxes_with_byte_masks(tmp_path: Path) -> None:
    head = struct.pack("<I6iB", 3, 0, 2, 0, 1, 0, 1, 2)
    body = np.array([1.5, 2.5], "<f4").tobytes() + bytes([5, 3]) + np.array([0.5, 0.25], "<f4").tobytes()
    table = ["dials::af::reflection_table", 2, {"nrows": 1, "data": {"shoebox": ["Shoebox<>", [1, head + body]]}}]
    (tmp_path / "new.refl").write_bytes(msgpack.packb(table))
    box = read_reflections(tmp_path / "new.refl")["shoebox"][0]
    np.testing.assert_array_equal(box.mask, [[[5, 3]]])
    np.testing.assert_array_equal(box.background, [[[0.5, 0.25]]])


def opaque_file(path: Path) -> Path:
    data = {"id": ["int", [3, np.zeros(3, "<i4").tobytes()]], "odd": ["Future<>", [3, b"any bytes"]]}
    path.write_bytes(msgpack.packb(["dials::af::reflection_table", 1, {"identifiers": {}, "nrows": 3, "data": data}]))
    return path


def test_unknown_types_survive_untouched_tables(tmp_path: Path, caplog: Any) -> None:
    table = read_reflections(opaque_file(tmp_path / "odd.refl"))
    write_reflections(table.with_columns(score=np.arange(3.0)), tmp_path / "out.refl")
    raw = msgpack.unpackb((tmp_path / "out.refl").read_bytes())
    assert raw[2]["data"]["odd"] == ["Future<>", [3, b"any bytes"]]
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        write_reflections(table.select([0, 2]), tmp_path / "less.refl")
    assert "odd" in caplog.text
    assert "odd" not in read_reflections(tmp_path / "less.refl")
    write_reflections(table.select(np.zeros(0, int)).without_columns(["id"]), tmp_path / "none.refl")
    assert read_reflections(tmp_path / "none.refl").types == {"odd": "Future<>"}


def test_text_columns_are_read_but_not_written(tmp_path: Path, caplog: Any) -> None:
    """DIALS stores the memory of its strings: an address, a length, and up to 15 characters."""
    rows = [
        struct.pack("<QQ", 1234, len(t)) + t[:15].ljust(16, b"\0") for t in (b"abc", b"", b"longer than 15 letters")
    ]
    table = ["dials::af::reflection_table", 1, {"nrows": 3, "data": {"t": ["std::string", [3, b"".join(rows)]]}}]
    (tmp_path / "t.refl").write_bytes(msgpack.packb(table))
    found = read_reflections(tmp_path / "t.refl")
    assert list(found["t"]) == ["abc", "", ""]
    write_reflections(found.with_columns(id=np.zeros(3, int)), tmp_path / "u.refl")
    assert "crashes" in caplog.text
    assert "t" not in read_reflections(tmp_path / "u.refl")


def test_changed_kind_of_a_column_gets_a_new_type(tmp_path: Path) -> None:
    write_reflections(small_table(), tmp_path / "a.refl")
    table = read_reflections(tmp_path / "a.refl").with_columns(ok=np.array([0.5, 1, 2, 3]), panel=np.zeros(4, np.int32))
    write_reflections(table, tmp_path / "b.refl")
    again = read_reflections(tmp_path / "b.refl")
    assert (again.types["ok"], again.types["panel"]) == ("double", "std::size_t")


def test_damage_gives_input_errors_only(tmp_path: Path) -> None:
    write_reflections(small_table(), tmp_path / "a.refl")
    data = (tmp_path / "a.refl").read_bytes()
    path = tmp_path / "damaged.refl"
    rng = np.random.default_rng(0)
    for length in [0, 1, 5, *rng.integers(2, len(data) - 1, 80)]:
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match=r"damaged\.refl") as caught:
            read_reflections(path)
        assert "\n" not in str(caught.value)
    for _ in range(500):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(bytes(damaged))
        with suppress(InputError):
            read_reflections(path)


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "old.pickle").write_bytes(b"\x80\x02}q\x00.")
    (tmp_path / "old.refl").write_bytes(b"\x80\x02}q\x00.")
    for name in ("old.pickle", "old.refl"):
        with pytest.raises(InputError, match="a pickle"):
            read_reflections(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        read_reflections(tmp_path / "none.refl")
    (tmp_path / "other.refl").write_bytes(msgpack.packb(["something", 1, {}]))
    with pytest.raises(InputError, match="something"):
        read_reflections(tmp_path / "other.refl")


def test_empty_table(tmp_path: Path, run_dials: Any) -> None:
    write_reflections(small_table().select(np.zeros(4, bool)), tmp_path / "empty.refl")
    assert len(read_reflections(tmp_path / "empty.refl")) == 0
    assert run_dials(DIALS_REPORT.format(path=str(tmp_path / "empty.refl")))["rows"] == 0


def experiment(name: str, image: str | None, index: int = 0) -> Experiment:
    one = np.ones(1)
    axis = np.eye(3)[:1]
    detector = Detector(axis, axis, np.eye(3)[1:2], one[:, None] @ [[1, 1]], [[9, 9]], [[0, 1]], one, one, one, ("p",))  # type: ignore[arg-type]
    reference = ImageReference(Path("/data") / image, index) if image else None
    return Experiment(name, Beam(np.array([0, 0, -1.0]), 1.0, np.eye(3)[1]), detector, Crystal(np.eye(3)), reference)


def test_match_by_identifier() -> None:
    """Two lattices of image b, not next to each other; numbers in the table unlike the order of the list."""
    experiments = [
        experiment("p", "b.h5"),
        experiment("q", "a.h5"),
        experiment("r", "b.h5"),
        experiment("s", "b.h5", 1),
    ]
    ids = np.array([4, 0, 2, 0, 7, -1, 4, 2])
    table = Reflections({"id": ids, "row": np.arange(8)}, {4: "p", 0: "r", 2: "q", 7: "gone"})
    groups = match(experiments, table)
    assert [g.numbers for g in groups] == [(0, 2), (1,), (3,)]
    b, a, b1 = (g.reflections for g in groups)
    np.testing.assert_array_equal(b["row"], [0, 1, 3, 6])
    np.testing.assert_array_equal(b["id"], [0, 1, 1, 0])
    assert dict(b.identifiers) == {0: "p", 1: "r"}
    np.testing.assert_array_equal(a["row"], [2, 7])
    np.testing.assert_array_equal(a["id"], [0, 0])
    assert len(b1) == 0
    assert groups[2].image is not None
    assert groups[2].image.index == 1


def test_match_by_order() -> None:
    experiments = [experiment("", "a.h5"), experiment("", "b.h5")]
    groups = match(experiments, Reflections({"id": np.array([1, 0, 1])}))
    assert [len(g.reflections) for g in groups] == [1, 2]
    groups = match([experiment("x", None), experiment("y", None)], Reflections({"id": np.array([1, 0, 1])}))
    assert [len(g.reflections) for g in groups] == [1, 2]
    (only,) = match(experiments[:1], Reflections({"row": np.arange(3)}))
    np.testing.assert_array_equal(only.reflections["id"], [0, 0, 0])


def test_match_refuses_strangers() -> None:
    with pytest.raises(InputError, match="no experiment identifier is in both"):
        match([experiment("x", "a.h5")], Reflections({"id": np.array([0])}, {0: "y"}))
    with pytest.raises(InputError, match="no column 'id'"):
        match([experiment("x", "a.h5"), experiment("y", "a.h5")], Reflections({"row": np.array([0])}))
    with pytest.raises(InputError, match="same identifier"):
        match([experiment("x", "a.h5"), experiment("x", "b.h5")], Reflections({"id": np.array([0])}))


@pytest.mark.parametrize(
    "name",
    [
        "tutorial/indexed/shot_000_indexed.refl",
        "tutorial/classic/procPoly/shot_001_indexed.refl",
        "real/dials/idx-20130301060858401_integrated.refl",
    ],
)
def test_real_tables_survive_byte_for_byte(shared: Path, tmp_path: Path, name: str) -> None:
    table = read_reflections(shared / name)
    write_reflections(table, tmp_path / "out.refl")
    before, after = (
        msgpack.unpackb(p.read_bytes(), strict_map_key=False) for p in (shared / name, tmp_path / "out.refl")
    )
    assert before == after

"""What a store of programs keeps and for how long, and what an argument's kind is, against what is said of them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesbragg.forward import stored_jit
from bayesbragg.forward.program_names import digest, source_digest, versions
from bayesbragg.forward.stored_jit import _kind, _Store, close_store, forget_stored, open_store

DAY = 86400.0


@pytest.fixture(autouse=True)
def nothing_ahead(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(stored_jit, "FIRST", 0)
    close_store()
    yield
    close_store()


def doubled(x: Any, y: Any = 0.0) -> Any:
    return 2.0 * x + y


def tripled(x: Any) -> Any:
    return 3.0 * x


def test_folders_of_others_stay_a_month(tmp_path: Path) -> None:
    ages = {"fresh": 1.0, "weeks": 29.9, "month": 30.5}
    for name, age in ages.items():
        (tmp_path / name / "inside").mkdir(parents=True)
        when = time.time() - age * DAY
        os.utime(tmp_path / name, (when, when))
    own = tmp_path / digest(iter([source_digest(), *versions()]))
    own.mkdir()
    os.utime(own, (0.0, 0.0))
    assert _Store(tmp_path).here == own
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["fresh", "weeks", own.name])
    assert time.time() - own.stat().st_mtime < DAY
    # A folder whose parents are not there yet is made.
    deep = tmp_path / "a" / "b"
    assert _Store(deep).here == deep / own.name
    assert (deep / own.name).is_dir()


def test_a_store_is_opened_once_for_a_folder(tmp_path: Path) -> None:
    open_store(tmp_path / "one")
    first = stored_jit._store
    assert first is not None
    open_store(tmp_path / "one")
    assert stored_jit._store is first
    open_store(tmp_path / "two")
    assert stored_jit._store is not first
    assert stored_jit._store is not None
    assert stored_jit._store.folder == tmp_path / "two"
    close_store()
    assert stored_jit._store is None
    forget_stored()


def test_list_of_what_was_used_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _Store(tmp_path, "fits")
    assert store.here is not None
    monkeypatch.setattr(stored_jit, "FIRST", 2)
    path = store.here / "first-fits.json"
    store._note("a", {})
    assert not path.exists()
    store._note("b", {"option": 1})
    store._note("c", {})
    assert json.loads(path.read_bytes()) == [["a", {}], ["b", {"option": 1}]]
    monkeypatch.setattr(stored_jit, "FIRST", 0)
    _Store(tmp_path, "other")._note("a", {})
    assert not (store.here / "first-other.json").exists()


def test_nothing_is_noted_or_fetched_where_there_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = _Store(tmp_path / "file" / "below")
    assert store.here is None
    store._note("a", {})
    store.fetch()
    assert store.used == []
    assert store.coming == {}


def test_kinds_of_arguments() -> None:
    array = np.ones((2, 3), np.float32)
    assert _kind(array) == ((2, 3), np.dtype("float32"), False)
    assert _kind(jnp.asarray(array)) == _kind(array)
    assert _kind(2.0) == ((), jnp.result_type(float), True)
    assert _kind(np.float64(2.0)) == ((), np.dtype("float64"), False)


def test_programs_are_counted_wherever_they_are(tmp_path: Path) -> None:
    function: Any = stored_jit.stored_jit()(doubled)
    other: Any = stored_jit.stored_jit()(tripled)
    assert function.n_programs() == 0
    assert float(function(np.asarray(3.0))) == 6.0
    function(np.ones(2))
    assert function.n_programs() == 2
    open_store(tmp_path)
    assert stored_jit._store is not None
    # Programs of the store: one of this function, one that could not be written, one of another function.
    stored_jit._store.loaded = {(function, 1): doubled, (function, 2): None, (other, 3): doubled}
    assert function.n_programs() == 3
    assert other.n_programs() == 1
    forget_stored()
    assert function.n_programs() == 2


def test_options_reach_the_compiler_and_keywords_the_function(tmp_path: Path) -> None:
    wrong: Any = stored_jit.stored_jit(compiler_options=lambda: {"no_such_option_of_the_compiler": True})(doubled)
    with pytest.raises(jax.errors.JaxRuntimeError, match="no_such_option_of_the_compiler"):
        wrong(np.asarray(1.0))
    function: Any = stored_jit.stored_jit("y")(doubled)
    open_store(tmp_path)
    assert float(function(np.asarray(3.0), y=1.0)) == 7.0
    assert float(function(np.asarray(3.0))) == 6.0

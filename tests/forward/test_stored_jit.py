"""Programs on disk: the same numbers with and without them, and none found by what is not the same."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import load_golden
from inference.golden_target import golden_density

from bayesbragg.forward import program_names, spectrum_table, stored_jit
from bayesbragg.inference import density as density_module
from bayesbragg.inference import lm, start
from bayesbragg.inference.map import fit_map
from bayesbragg.inference.search import MapOptions
from bayesbragg.pipeline.device import forget_programs

TABULATE: Any = spectrum_table._tabulate


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    stored_jit.open_store(tmp_path / "ready")
    yield tmp_path / "ready"
    stored_jit.close_store()


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def arguments(n: int = 5) -> tuple[Any, ...]:
    k = np.linspace(-1e-3, 1e-3, n)
    return k, np.exp(-((k / 5e-4) ** 2)), np.full(2, -0.002), np.full(2, 1e-4), np.full((2, 3), -14.0), np.asarray(0.7)


def no_tracing(*_: Any, **__: Any) -> NoReturn:
    raise AssertionError("the function was traced")


def test_a_later_process_finds_the_program_and_the_same_numbers(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored_jit.close_store()
    plain = np.asarray(TABULATE(*arguments(), n_grid=16))
    stored_jit.open_store(store)
    first = np.asarray(TABULATE(*arguments(), n_grid=16))
    assert len(files(store)) == 1
    # A process that has nothing in memory, and a function that cannot be traced.
    stored_jit.forget_stored()
    jax.clear_caches()
    monkeypatch.setattr(TABULATE, "function", no_tracing)
    again = np.asarray(TABULATE(*arguments(), n_grid=16))
    np.testing.assert_array_equal(first, plain)
    np.testing.assert_array_equal(again, plain)


def test_other_shapes_types_and_static_arguments_are_other_programs(store: Path) -> None:
    TABULATE(*arguments(), n_grid=16)
    TABULATE(*arguments(), n_grid=18)
    TABULATE(*arguments(7), n_grid=16)
    TABULATE(*(np.float32(a) for a in arguments()), n_grid=16)
    assert len(files(store)) == 4
    TABULATE(*arguments(), n_grid=16)
    assert len(files(store)) == 4
    assert TABULATE.n_programs() - TABULATE.jitted._cache_size() == 4


def test_a_fit_traces_nothing_the_second_time_and_ends_at_the_same_bits(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    density, _ = golden_density(load_golden("19a"))
    stored_jit.close_store()
    plain = fit_map(density, MapOptions())
    stored_jit.open_store(store)
    fit_map(density, MapOptions())
    forget_programs(share=0.0)
    for function in (lm.lm_search, start.start_values, density_module.summarized):
        monkeypatch.setattr(function, "function", no_tracing)
    again = fit_map(density, MapOptions())
    np.testing.assert_array_equal(again.values, plain.values)
    np.testing.assert_array_equal(again.information, plain.information)
    assert again.target == plain.target
    np.testing.assert_array_equal(again.trace, plain.trace)


def test_calls_that_are_being_traced_become_part_of_their_program(store: Path) -> None:
    def total(scale: Any) -> Any:
        k, *rest = arguments()
        return jnp.sum(TABULATE(k, scale * rest[0], *rest[1:], n_grid=16))

    value, slope = jax.value_and_grad(total)(1.0)
    h = 1e-5
    assert float(slope) == pytest.approx(float((total(1.0 + h) - total(1.0 - h)) / (2 * h)), rel=1e-6)
    assert float(value) == pytest.approx(float(total(1.0)), rel=1e-12)


def doubled(x: Any) -> Any:
    return 2.0 * x


def test_functions_and_types_of_others_go_the_ordinary_way(store: Path) -> None:
    mine = stored_jit.stored_jit()(doubled)
    assert float(mine(np.asarray(3.0))) == 6.0
    assert files(store) == []
    made = jax.value_and_grad(spectrum_table.covered_widths)
    for thing in (doubled, lambda x: x, made, object(), np.array([None])):
        with pytest.raises(program_names.Unnamed):
            list(program_names.words(thing))
    assert list(program_names.words(spectrum_table.covered_widths))


def test_names_tell_apart_what_differs() -> None:
    function = spectrum_table.covered_widths
    options = function, 1, 1.0, True, "1", b"1", None, (1,), [1], {"a": 1}, np.float32(1), np.ones(1)
    assert len({tuple(program_names.words(thing)) for thing in options}) == len(options)


@pytest.mark.parametrize("content", [b"", b"not a program", None])
def test_a_damaged_file_is_written_again(store: Path, content: bytes | None) -> None:
    right = np.asarray(TABULATE(*arguments(), n_grid=16))
    (path,) = files(store)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    stored_jit.forget_stored()
    np.testing.assert_array_equal(np.asarray(TABULATE(*arguments(), n_grid=16)), right)
    assert len(path.read_bytes()) > len(whole) // 2


def test_another_source_is_another_folder_and_old_ones_go(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    TABULATE(*arguments(), n_grid=16)
    (old,) = store.iterdir()
    monkeypatch.setattr(stored_jit, "source_digest", lambda: "changed")
    stored_jit.close_store()
    stored_jit.open_store(store)
    TABULATE(*arguments(), n_grid=16)
    assert len(list(store.iterdir())) == 2
    month = time.time() - 31 * 86400
    os.utime(old, (month, month))
    stored_jit.close_store()
    stored_jit.open_store(store)
    TABULATE(*arguments(), n_grid=16)
    assert old not in list(store.iterdir())


def test_a_folder_that_cannot_be_made_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    stored_jit.open_store(tmp_path / "file" / "ready")
    try:
        assert np.all(np.isfinite(TABULATE(*arguments(), n_grid=16)))
    finally:
        stored_jit.close_store()


def test_what_a_process_used_first_is_loaded_ahead_by_the_next(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored_jit.close_store()
    stored_jit.open_store(store)
    monkeypatch.setattr(stored_jit, "FIRST", 2)
    right = np.asarray(TABULATE(*arguments(), n_grid=16))
    TABULATE(*arguments(), n_grid=18)
    stored_jit.close_store()
    monkeypatch.setattr(stored_jit, "FIRST", 0)
    stored_jit.open_store(store)
    opened = stored_jit._store
    assert opened is not None
    opened.fetch()
    assert len(opened.coming) == 2
    monkeypatch.setattr(stored_jit, "_read", no_tracing)
    monkeypatch.setattr(TABULATE, "function", no_tracing)
    np.testing.assert_array_equal(np.asarray(TABULATE(*arguments(), n_grid=16)), right)
    assert len(opened.coming) == 1


@pytest.mark.parametrize("content", ["", "{", "[1]", '[["no such program", {}]]', '[["a", {"no_such_option": 1}]]'])
def test_a_damaged_list_of_programs_stops_nothing(store: Path, content: str) -> None:
    right = np.asarray(TABULATE(*arguments(), n_grid=16))
    (folder,) = store.iterdir()
    (folder / "first-.json").write_text(content)
    stored_jit.close_store()
    stored_jit.open_store(store)
    assert stored_jit._store is not None
    stored_jit._store.fetch()
    np.testing.assert_array_equal(np.asarray(TABULATE(*arguments(), n_grid=16)), right)

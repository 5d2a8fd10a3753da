"""Names of programs: what is in a digest, which platform is meant, and whose functions have a name that lasts."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

import bayesbragg
from bayesbragg.forward import program_names
from bayesbragg.forward.options import Options
from bayesbragg.forward.program_names import Unnamed, digest, platform, source_digest, words
from bayesbragg.io.files import __name__ as IO_NAME
from bayesbragg.model.beam import Beam


def test_digests() -> None:
    assert digest(iter(["ab", "c"])) == hashlib.sha256(b"ab\0c\0").hexdigest()[:40]
    assert digest(iter(["ab", "c"])) != digest(iter(["a", "bc"]))
    root = Path(bayesbragg.__file__).parent
    total = hashlib.sha256()
    for path in sorted(p for room in ("model", "forward", "priors", "inference") for p in (root / room).rglob("*.py")):
        total.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    source_digest.cache_clear()
    assert source_digest() == total.hexdigest()


def device(kind: str, version: str) -> Any:
    return SimpleNamespace(platform=kind, client=SimpleNamespace(platform_version=version))


@pytest.mark.parametrize(
    ("kind", "version", "name"),
    [("gpu", "CUDA 12", "cuda"), ("gpu", "PJRT ROCm 6", "rocm"), ("tpu", "ROCm", "tpu"), ("cpu", "", "cpu")],
)
def test_platform_is_that_of_the_first_device(
    monkeypatch: pytest.MonkeyPatch, kind: str, version: str, name: str
) -> None:
    monkeypatch.setattr(jax, "devices", lambda: [device(kind, version), device("other", "")])
    before = jax.config.jax_default_device  # type: ignore[attr-defined]
    jax.config.update("jax_default_device", None)
    try:
        assert platform() == name
    finally:
        jax.config.update("jax_default_device", before)


def test_platform_is_the_default_where_there_is_one() -> None:
    with jax.default_device(jax.devices("cpu")[0]):
        assert platform() == "cpu"


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function at the top of a module of another package, in a room of the same name."""
    module = ModuleType("elsewhere.model")

    def function() -> None:
        """Nothing."""

    function.__module__, function.__qualname__ = "elsewhere.model", "function"
    module.function = function  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "elsewhere.model", module)
    return function


def test_whose_functions_have_names(elsewhere: Any) -> None:
    assert list(words(Beam)) == ["bayesbragg.model.beam.Beam"]
    assert list(words(int)) == ["builtins.int"]
    assert list(words(np.linalg.norm)) == ["numpy.linalg.norm"]
    assert list(words(digest)) == ["bayesbragg.forward.program_names.digest"]
    assert IO_NAME == "bayesbragg.io.files"
    reader = next(v for v in vars(sys.modules[IO_NAME]).values() if getattr(v, "__module__", "") == IO_NAME)
    for thing in (elsewhere, reader, bayesbragg, SimpleNamespace()):
        with pytest.raises(Unnamed):
            list(words(thing))


def test_words_of_things() -> None:
    assert list(words(None)) == ["NoneType None"]
    assert list(words(2.5)) == ["float 2.5"]
    assert list(words(np.dtype("float32"))) == ["type float32"]
    assert list(words(np.array([1, 2], np.uint8))) == ["array (2,) uint8 0102"]
    assert list(words({"a": 1})) == ["mapping 1", "builtins.tuple 2", "str 'a'", "int 1"]
    found = list(words(Options(oversample=7)))
    assert found[0] == "bayesbragg.forward.options.Options"
    assert found[1:4] == ["builtins.tuple 2", "str 'oversample'", "int 7"]
    tree = jax.tree.structure((1, {"b": 2}))
    assert next(words(tree)) == f"tree {tree.num_nodes}"
    assert list(words(program_names.Unnamed)) == ["bayesbragg.forward.program_names.Unnamed"]

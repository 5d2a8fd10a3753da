"""Programs that later processes need not trace.

JAX keeps compiled programs on disk, but finds them by their text: to learn that a program is there, every process
traces the function and lowers it, which takes several times as long as to load what it finds. A function under
`stored_jit` also leaves its lowered text on disk (`jax.export`), under a name made from what the text is made from: the
source of the rooms that compute, the versions of what traces it, the platform, and the call's static arguments,
structures, shapes and types.

Where a call depends on anything that cannot be in its name, such as a function of the user's own, it goes the ordinary
way; so it does where no folder is open. Results do not depend on it.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import inspect
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

__all__ = ["close_store", "forget_stored", "open_store", "stored_jit"]

_LOG = logging.getLogger(__name__)
_ROOMS = ("model", "forward", "priors", "inference")
"""What programs are traced from."""
_UNUSED_DAYS = 30.0


class _Unnamed(Exception):
    """Something that a program may depend on and that has no name which outlives the process."""


class _Store:
    """Programs in a folder, and those that this process has used.

    Args:
        folder: of all sources and versions.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loaded: dict[Any, Callable[..., Any] | None] = {}

    def program(self, function: _StoredJit, static: Mapping[str, Any], structure: Any, leaves: Any, kinds: Any) -> Any:
        """The program for a call, a function of leaves: from the folder, or traced and written there.

        None: the call has no name, or its program cannot be written.
        """
        if self.here is None:
            return None
        try:
            path = self.here / _digest(_words((function, static, structure, kinds)))
        except _Unnamed as reason:
            _LOG.debug("%s: not stored: %s", function.__name__, reason)
            return None
        found = _read(path)
        if found is None:
            found = _traced(function, static, structure, leaves, path)
        return None if found is None else jax.jit(found.call, compiler_options=function.options() or None)

    @functools.cached_property
    def here(self) -> Path | None:
        """The folder of this source and these versions; None if it cannot be used.

        Those of others that nobody has used for a month are removed.
        """
        here = self.folder / _digest(iter([_source(), *_versions()]))
        try:
            here.mkdir(parents=True, exist_ok=True)
            os.utime(here)
            for other in self.folder.iterdir():
                if other != here and time.time() - other.stat().st_mtime > _UNUSED_DAYS * 86400:
                    shutil.rmtree(other, ignore_errors=True)
        except OSError as error:
            _LOG.debug("programs are not kept: %s", error)
            return None
        return here


_store: _Store | None = None


def open_store(folder: Path) -> None:
    """Look for programs in a folder, and leave new ones there, from now on."""
    global _store
    if _store is None or _store.folder != folder:
        _store = _Store(folder)


def close_store() -> None:
    """Trace everything from now on."""
    global _store
    _store = None


def forget_stored() -> None:
    """Drop the programs held in memory; those in the folder stay."""
    if _store is not None:
        _store.loaded.clear()


class _StoredJit:
    """A function of arrays under `jax.jit`, and its programs."""

    __name__: str

    def __init__(
        self, function: Callable[..., Any], static_argnames: tuple[str, ...], options: Callable[[], dict[str, Any]]
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.static_argnames = static_argnames
        self.options = options
        self.signature = inspect.signature(function)

    @functools.cached_property
    def jitted(self) -> Any:
        """The function under `jax.jit`."""
        return jax.jit(self.function, static_argnames=self.static_argnames, compiler_options=self.options() or None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        store = _store
        if store is None:
            return self.jitted(*args, **kwargs)
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        static = {name: given.pop(name) for name in self.static_argnames}
        leaves, structure = jax.tree.flatten(given)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return self.jitted(*args, **kwargs)
        kinds = (tuple(map(_kind, leaves)), bool(jax.config.jax_enable_x64))  # type: ignore[attr-defined]
        key = (self, tuple(static.values()), structure, kinds)
        if key not in store.loaded:
            store.loaded[key] = store.program(self, static, structure, leaves, kinds)
        program = store.loaded[key]
        return self.jitted(*args, **kwargs) if program is None else program(*leaves)


def stored_jit(
    static_argnames: str | tuple[str, ...] = (),
    returns: tuple[type, ...] = (),
    compiler_options: Callable[[], dict[str, Any]] = dict,
) -> Callable[[Callable[..., Any]], Any]:
    """`jax.jit` as a decorator that finds its program in the folder of `open_store`, if one is open.

    For functions at the top level of a module, under their own names. Calls by functions that are being traced become
    part of their programs, as with `jax.jit`.

    Args:
        returns: types of the package that results are made of, named tuples and dataclasses of arrays.
        compiler_options: makes the options of `jax.jit`, once they are needed.
    """
    names = (static_argnames,) if isinstance(static_argnames, str) else static_argnames
    for kind in returns:
        _register(kind)
    return lambda function: _StoredJit(function, names, compiler_options)


@functools.cache
def _register(kind: type) -> None:
    """Make results of this type writable, once in a process."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    if issubclass(kind, tuple):
        export.register_namedtuple_serialization(kind, serialized_name=name)
        return
    export.register_pytree_node_serialization(
        kind, serialized_name=name, serialize_auxdata=lambda _: b"", deserialize_auxdata=lambda _: ()
    )


def _kind(leaf: Any) -> tuple[tuple[int, ...], Any, bool]:
    """Shape, type and weakness of an argument."""
    if isinstance(leaf, np.ndarray):
        return leaf.shape, leaf.dtype, False
    seen = leaf if isinstance(leaf, jax.Array) else jax.typeof(leaf)
    return seen.shape, seen.dtype, bool(seen.weak_type)


def _traced(function: _StoredJit, static: Mapping[str, Any], structure: Any, leaves: Any, path: Path) -> Any:
    """The lowered program of a call, which is written; None if that cannot be."""

    def flat(*leaves: Any) -> Any:
        return function.function(**static, **jax.tree.unflatten(structure, leaves))

    flat.__name__ = function.__name__
    try:
        found = export.export(jax.jit(flat))(*leaves)
        _write(path, found.serialize())
    except Exception as error:  # an error of the function itself comes again the ordinary way
        _LOG.debug("%s: not stored: %s", function.__name__, error)
        return None
    return found


def _read(path: Path) -> Any:
    try:
        return export.deserialize(bytearray(path.read_bytes())) if path.is_file() else None
    except Exception as error:  # whatever is wrong with a file, it is written again
        _LOG.debug("%s: cannot be read: %s", path, error)
        return None


def _write(path: Path, content: bytes | bytearray) -> None:
    """Write a file so that other processes see all of it or nothing."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(content)
        os.replace(file.name, path)
    except OSError as error:
        _LOG.debug("%s: not kept: %s", path, error)


def _digest(words: Iterator[str]) -> str:
    total = hashlib.sha256()
    for word in words:
        total.update(word.encode())
        total.update(b"\0")
    return total.hexdigest()[:40]


@functools.cache
def _source() -> str:
    """Digest of the source of the rooms."""
    total = hashlib.sha256()
    root = Path(__file__).resolve().parents[1]
    for path in sorted(path for room in _ROOMS for path in (root / room).rglob("*.py")):
        total.update(str(path.relative_to(root)).encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def _versions() -> Iterator[str]:
    yield from (sys.version, jax.__version__, version("jaxlib"), np.__version__, jax.default_backend())


def _words(thing: Any) -> Iterator[str]:
    """A static argument, or the structure of arguments, in words that mean the same in every process.

    Raises:
        _Unnamed: there are none.
    """
    if thing is None or isinstance(thing, (bool, int, float, complex, str, bytes)):
        yield f"{type(thing).__name__} {thing!r}"
    elif isinstance(thing, enum.Enum):
        yield f"{_name(type(thing))} {thing.name}"
    elif isinstance(thing, jax.tree_util.PyTreeDef):
        yield f"tree {thing.num_nodes}"
        node = thing.node_data()
        if node is not None:
            yield from _words(node)
        for child in thing.children():
            yield from _words(child)
    elif isinstance(thing, (np.ndarray, np.generic)) and not thing.dtype.hasobject:
        yield f"array {thing.shape} {thing.dtype} {thing.tobytes().hex()}"
    elif isinstance(thing, np.dtype):
        yield f"type {thing}"
    elif isinstance(thing, Mapping):
        yield f"mapping {len(thing)}"
        for item in thing.items():
            yield from _words(item)
    elif isinstance(thing, (tuple, list)):
        yield f"{_name(type(thing))} {len(thing)}"
        for item in thing:
            yield from _words(item)
    elif is_dataclass(thing) and not isinstance(thing, type):
        yield _name(type(thing))
        for part in fields(thing):
            yield from _words((part.name, getattr(thing, part.name)))
    else:
        yield _name(thing)


def _name(thing: Any) -> str:
    """Where a type or function stands whose text is in the digests of source and versions.

    Raises:
        _Unnamed: it does not stand at the top level of a module of the rooms, of Python's own types, numpy or JAX.
    """
    if thing is type(None):
        return "None"
    module, name = getattr(thing, "__module__", None) or "", getattr(thing, "__qualname__", "")
    package, _, rest = module.partition(".")
    told = package in ("builtins", "numpy", "jax") or (
        package == __name__.partition(".")[0] and rest.partition(".")[0] in _ROOMS
    )
    # A function that was made from another one bears its name: only what stands under the name is meant by it.
    if not told or getattr(sys.modules.get(module), name, None) is not thing:
        raise _Unnamed(f"{module}.{name}")
    return f"{module}.{name}"

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

import functools
import inspect
import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from bayesbragg.forward.program_names import Unnamed, digest, platform, source_digest, versions, words

__all__ = ["close_store", "forget_stored", "open_store", "stored_jit"]

_LOG = logging.getLogger(__name__)
_UNUSED_DAYS = 30.0
_SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_numpy_dtype_promotion")
"""What the text of a program depends on besides."""
FIRST = 12
"""Programs that are loaded ahead; 0 for none."""


class _Store:
    """Programs in a folder, and those that this process has used.

    Args:
        folder: of all sources and versions.
        purpose: of this process; those of one purpose use the same programs first.
    """

    def __init__(self, folder: Path, purpose: str = "") -> None:
        self.folder = folder
        self.first_name = f"first-{purpose}.json"
        self.loaded: dict[Any, Callable[..., Any] | None] = {}
        self.used: list[tuple[str, dict[str, Any]]] = []
        self.coming: dict[str, Future[Any]] = {}

    def program(self, function: _StoredJit, static: Mapping[str, Any], structure: Any, leaves: Any, kinds: Any) -> Any:
        """The program for a call, a function of leaves: from the folder, or traced and written there.

        None: the call has no name, or its program cannot be written.
        """
        if self.here is None:
            return None
        try:
            path = self.here / digest(words((function, static, structure, kinds)))
        except Unnamed as reason:
            _LOG.debug("%s: not stored: %s", function.__name__, reason)
            return None
        options = function.options()
        self._note(path.name, options)
        fetched = self._fetched(path.name)
        if fetched is not None:
            return fetched
        found = _read(path)
        if found is None:
            found = _traced(function, static, structure, leaves, path)
        return None if found is None else jax.jit(found.call, compiler_options=options or None)

    def _note(self, name: str, options: dict[str, Any]) -> None:
        """Leave a list of the programs that this process used first, for the next one."""
        if self.here is None or len(self.used) >= FIRST:
            return
        self.used.append((name, options))
        if len(self.used) == FIRST:
            _write(self.here / self.first_name, json.dumps(self.used).encode())

    def fetch(self) -> None:
        """Load what an earlier process used first, while this one still reads its input."""
        if self.here is None or not (self.here / self.first_name).is_file():
            return
        try:
            rows = json.loads((self.here / self.first_name).read_bytes())
            self.coming = {str(name): Future() for name, _ in rows}
            futures = dict(self.coming)
        except (OSError, ValueError, TypeError):
            return
        for name, options in rows:
            # A program that was asked for in the meantime is loaded by who asked; after the end nobody asks.
            if not threading.main_thread().is_alive() or not futures[name].set_running_or_notify_cancel():
                continue
            program = None
            try:
                found = _read(self.here / name)
                if found is not None:
                    program = jax.jit(found.call, compiler_options=options or None).lower(*found.in_avals).compile()
            except Exception as error:  # whatever it is, who asks for the program meets it again
                _LOG.debug("%s: not fetched: %s", name, error)
            futures[name].set_result(program)

    def _fetched(self, name: str) -> Any:
        """The program, if it was fetched or is being fetched."""
        future = self.coming.pop(name, None)
        return None if future is None or future.cancel() else future.result()

    @functools.cached_property
    def here(self) -> Path | None:
        """The folder of this source and these versions; None if it cannot be used.

        Those of others that nobody has used for a month are removed.
        """
        here = self.folder / digest(iter([source_digest(), *versions()]))
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


def open_store(folder: Path, purpose: str = "") -> None:
    """Look for programs in a folder, and leave new ones there, from now on.

    The device must have been chosen by then. What the last process of this ``purpose`` used first is loaded at once.
    """
    global _store
    if _store is None or _store.folder != folder:
        _store = _Store(folder, purpose)
        if FIRST:
            threading.Thread(target=_store.fetch, name="programs").start()


def close_store() -> None:
    """Trace everything from now on."""
    global _store
    _store = None


def forget_stored() -> None:
    """Drop the programs held in memory; those in the folder stay."""
    if _store is not None:
        _store.loaded.clear()
        _store.coming.clear()


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

    def n_programs(self) -> int:
        """How many programs of this function are in memory."""
        loaded = _store.loaded if _store is not None else {}
        stored = sum(key[0] is self and program is not None for key, program in loaded.items())
        return stored + int(self.jitted._cache_size())

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
        kinds = (tuple(map(_kind, leaves)), *(getattr(jax.config, name) for name in _SETTINGS))
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
        found = export.export(jax.jit(flat), platforms=[platform()])(*leaves)
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

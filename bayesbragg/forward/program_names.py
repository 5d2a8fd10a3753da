"""Names of programs that mean the same in every process, for `bayesbragg.forward.stored_jit`.

A name is made from everything that a program is made from: source, versions, static arguments, structures, shapes and
types. What has no name that outlives the process, such as a function of the user's own, is refused.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

__all__ = ["Unnamed", "digest", "platform", "source_digest", "versions", "words"]

_ROOMS = ("model", "forward", "priors", "inference")
"""What programs are traced from."""


class Unnamed(Exception):
    """Something that a program may depend on and that has no name which outlives the process."""


def digest(words: Iterator[str]) -> str:
    total = hashlib.sha256()
    for word in words:
        total.update(word.encode())
        total.update(b"\0")
    return total.hexdigest()[:40]


@functools.cache
def source_digest() -> str:
    """Digest of the source of the rooms."""
    total = hashlib.sha256()
    root = Path(__file__).resolve().parents[1]
    for path in sorted(path for room in _ROOMS for path in (root / room).rglob("*.py")):
        total.update(str(path.relative_to(root)).encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def platform() -> str:
    """What programs run on by default, in the words of `jax.export`: cpu, cuda, rocm."""
    device = jax.config.jax_default_device or jax.devices()[0]  # type: ignore[attr-defined]
    if isinstance(device, str):
        return device
    if device.platform == "gpu":
        return "rocm" if "rocm" in device.client.platform_version.lower() else "cuda"
    return str(device.platform)


def versions() -> Iterator[str]:
    yield from (sys.version, jax.__version__, *map(version, ("jaxlib", "numpy", "numpyro")), platform())


def words(thing: Any) -> Iterator[str]:
    """A static argument, or the structure of arguments, in words that mean the same in every process.

    Raises:
        Unnamed: there are none.
    """
    if thing is None or isinstance(thing, (bool, int, float, complex, str, bytes)):
        yield f"{type(thing).__name__} {thing!r}"
    elif isinstance(thing, enum.Enum):
        yield f"{_name(type(thing))} {thing.name}"
    elif isinstance(thing, jax.tree_util.PyTreeDef):
        yield f"tree {thing.num_nodes}"
        node = thing.node_data()
        if node is not None:
            yield from words(node)
        for child in thing.children():
            yield from words(child)
    elif isinstance(thing, (np.ndarray, np.generic)) and not thing.dtype.hasobject:
        yield f"array {thing.shape} {thing.dtype} {thing.tobytes().hex()}"
    elif isinstance(thing, np.dtype):
        yield f"type {thing}"
    elif isinstance(thing, Mapping):
        yield f"mapping {len(thing)}"
        for item in thing.items():
            yield from words(item)
    elif isinstance(thing, (tuple, list)):
        yield f"{_name(type(thing))} {len(thing)}"
        for item in thing:
            yield from words(item)
    elif is_dataclass(thing) and not isinstance(thing, type):
        yield _name(type(thing))
        for part in fields(thing):
            yield from words((part.name, getattr(thing, part.name)))
    else:
        yield _name(thing)


def _name(thing: Any) -> str:
    """Where a type or function stands whose text is in the digests of source and versions.

    Raises:
        Unnamed: it does not stand at the top level of a module of the rooms, of Python's own types, numpy or JAX.
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
        raise Unnamed(f"{module}.{name}")
    return f"{module}.{name}"

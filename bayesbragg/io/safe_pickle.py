"""Pickles read without running what is in them.

A pickle is a program that may call any function of Python. Here every name it asks for is looked up in a short table
of stand-ins, and nothing else is found; state may only be given to stand-ins that expect it. So the worst that a
hostile file can do is to hold wrong numbers. `numpy_globals` has the stand-ins for arrays, with which tables
(`bayesbragg.io.frame_pickle`) and masks (`bayesbragg.io.masks`) are put together.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt

from bayesbragg.model.errors import InputError

__all__ = ["MALFORMED", "StandIn", "allowance", "numpy_globals", "plain", "restricted_load"]

Globals = Mapping[tuple[str, str], Any]

MALFORMED = (
    pickle.UnpicklingError,
    AttributeError,
    AssertionError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
"""What a damaged pickle can raise."""


class StandIn:
    """An object that a pickle may give a state to."""

    def __setstate__(self, state: Any) -> None:
        raise NotImplementedError


class _Forbidden(Exception):
    pass


class _Restricted(pickle._Unpickler):
    """The unpickler written in Python: a damaged file cannot make it reserve memory for objects it does not hold."""

    def __init__(self, data: bytes, allowed: Globals) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._allowed[module, name]
        except KeyError:
            raise _Forbidden(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _Forbidden("a persistent object")

    def get_extension(self, code: int) -> None:
        raise _Forbidden(f"extension {code}")

    def load_build(self) -> None:
        stack = cast(Any, self).stack
        state = stack.pop()
        if not isinstance(stack[-1], StandIn):
            raise _Forbidden(f"state for {type(stack[-1]).__name__}")
        stack[-1].__setstate__(state)

    dispatch: ClassVar[dict[int, Any]] = dict(cast(Any, pickle._Unpickler).dispatch)
    dispatch[pickle.BUILD[0]] = load_build


def restricted_load(data: bytes, allowed: Globals, path: str | os.PathLike[str], what: str, remedy: str) -> Any:
    """The object of a pickle that uses no other names than those allowed.

    Args:
        data: content of the file.
        allowed: (module, name) to what stands for it.
        path, what, remedy: the file, what was expected, and what to do, for error messages.

    Raises:
        InputError: the pickle is damaged, or asks for a name that is not allowed; nothing of it was run.
    """
    try:
        return _Restricted(data, allowed).load()
    except _Forbidden as error:
        raise InputError(
            f"{path}: the pickle asks for {error}, which does not belong in a {what}; nothing was run; {remedy}"
        ) from None
    except MALFORMED as error:
        raise InputError(
            f"{path}: not a whole pickle ({' '.join(str(error).split())[:120]}); expected a {what}; {remedy}"
        ) from None


class _DType(StandIn):
    """A number type: code such as ``f8`` or ``O8``, and byte order."""

    def __init__(self, code: Any, align: Any = False, copy: Any = True) -> None:
        self.code, self.order = str(code), "|"

    def __setstate__(self, state: Any) -> None:
        self.order = str(state[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type; plain numbers, texts and objects only."""
        if self.code[:1] not in "biufcSUO" or self.order not in "<>=|" or not self.code[1:].isdigit():
            raise ValueError(f"array of type {self.order}{self.code}")
        return np.dtype("O") if self.code[0] == "O" else np.dtype(self.order.replace("|", "") + self.code)


class _Array(StandIn):
    """An array, whose content follows."""

    def __init__(self) -> None:
        self.value: npt.NDArray[Any] = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _version, shape, kind, fortran, content = state
        dtype = kind.dtype
        if dtype.kind == "O":
            flat = np.empty(len(content), dtype=object)
            flat[:] = list(content)
        else:
            flat = np.frombuffer(_bytes(content), dtype).copy()
        self.value = flat.reshape(shape, order="F" if fortran else "C")


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    return _Array()


def _from_buffer(data: Any, kind: _DType, shape: Any, order: Any) -> npt.NDArray[Any]:
    if kind.dtype.kind == "O":
        raise ValueError("a buffer of objects")
    return np.frombuffer(_bytes(data), kind.dtype).copy().reshape(shape, order="F" if order == "F" else "C")


def _scalar(kind: _DType, content: Any = b"") -> Any:
    if kind.dtype.kind == "O":
        raise ValueError("a number of type object")
    return np.frombuffer(_bytes(content), kind.dtype)[0]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"encoding {encoding!r}")
    return str(text).encode("latin1")


class _NdArrayClass:
    """Stands for the array class itself, which pickles name but need not use."""


def numpy_globals() -> dict[tuple[str, str], Any]:
    """Names that pickled numbers, arrays and slices ask for, of numpy 1 and 2 and Python 2 and 3."""
    table: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): _NdArrayClass,
        ("numpy", "dtype"): _DType,
        ("_codecs", "encode"): _encode,
    }
    functions: dict[tuple[str, str], Callable[..., Any]] = {
        ("multiarray", "_reconstruct"): _reconstruct,
        ("multiarray", "scalar"): _scalar,
        ("numeric", "_frombuffer"): _from_buffer,
    }
    for (module, name), function in functions.items():
        table[f"numpy.core.{module}", name] = table[f"numpy._core.{module}", name] = function
    for module in ("builtins", "__builtin__"):
        table[module, "slice"], table[module, "bytearray"] = slice, _bytes
    return table


def _bytes(content: Any = b"", encoding: Any = "latin1") -> bytes:
    """Bytes that the pickle holds; of a number, `bytes` would make as many as it says."""
    if isinstance(content, str):
        return _encode(content, encoding)
    if not isinstance(content, (bytes, bytearray)):
        raise ValueError(f"a {type(content).__name__} in place of bytes")
    return bytes(content)


def allowance(data: bytes) -> Iterator[int]:
    """What `plain` may unfold of a pickle: a hundred values for each of its bytes.

    Pickles write a list that stands in many places once. Tables share some that way; of one within the other, a few
    hundred bytes make more values than any memory holds.
    """
    return iter(range(1000 + 100 * len(data)))


def plain(value: Any, left: Iterator[int], depth: int = 0) -> Any:
    """A value with its stand-ins for arrays replaced by the arrays, at every depth.

    Args:
        value: part of what `restricted_load` gave.
        left: the pickle's `allowance`, used up by all of its parts together.

    Raises:
        ValueError: nested deeper than any table is, or more values than the allowance.
    """
    if depth > 20 or next(left, None) is None:
        raise ValueError("nested too deeply")
    if isinstance(value, _Array):
        value = value.value
    if isinstance(value, np.ndarray) and value.dtype == object:
        result = np.empty(value.shape, dtype=object)
        for index in np.ndindex(value.shape):
            result[index] = plain(value[index], left, depth + 1)
        return result
    if isinstance(value, (list, tuple)):
        return type(value)(plain(x, left, depth + 1) for x in value)
    if isinstance(value, dict):
        return {plain(k, left, depth + 1): plain(v, left, depth + 1) for k, v in value.items()}
    if isinstance(value, (StandIn, type)) or callable(value):
        raise ValueError(f"a {type(value).__name__} in place of a value")
    return value

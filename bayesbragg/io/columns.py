"""Columns of a DIALS reflection table: type names and binary layouts, to and from numpy.

A column is ``[type name, [rows, bytes]]``, the bytes being the C++ array, little endian. Two types differ:

* ``Shoebox<>``: per row uint32 panel, six int32 of bounding box, one byte, and if that is not 0 the float32 data, the
  mask and the float32 background, in order z, y, x. The byte is 1 for an int32 mask, 2 for an uint8 one (newer DIALS).
* ``std::string``: DIALS writes the memory of its string objects, 32 bytes a row, which holds texts of at most 15
  characters and only the address of longer ones; DIALS crashes when it reads them back. The short texts are read here.

Other types are carried as they are, as long as their rows stay complete and in order.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesbragg.model.reflections import Shoebox

__all__ = ["OpaqueRow", "Unwritable", "column_type", "decode_column", "encode_column"]

Column = npt.NDArray[Any]

_LAYOUTS: dict[str, tuple[str, tuple[int, ...], str]] = {
    "bool": ("?", (), "?"),
    "int": ("<i4", (), "i8"),
    "std::size_t": ("<i8", (), "i8"),
    "double": ("<f8", (), "f8"),
    "vec2<double>": ("<f8", (2,), "f8"),
    "vec3<double>": ("<f8", (3,), "f8"),
    "mat3<double>": ("<f8", (3, 3), "f8"),
    "int6": ("<i4", (6,), "i8"),
    "cctbx::miller::index<>": ("<i4", (3,), "i8"),
}
"""Type name to dtype in the file, shape of one row, dtype in memory."""

SHOEBOX, STRING = "Shoebox<>", "std::string"
_HEAD = struct.Struct("<I6iB")
_STRING_BYTES, _STRING_SHORT = 32, 15
_USUAL_TYPES = {"id": "int", "panel": "std::size_t", "flags": "std::size_t", "partial_id": "std::size_t"}


class Unwritable(Exception):
    """A column that cannot be written; the text says why."""


@dataclass(frozen=True, eq=False)
class OpaqueRow:
    """One row of a column of unknown type: the whole column's content, and which row of it this is."""

    content: Any = field(repr=False)
    row: int
    n_rows: int


def decode_column(type_name: str, n_rows: int, content: Any) -> Column:
    """The numpy array of a column.

    Args:
        type_name: DIALS' name of the type.
        n_rows: rows of the table.
        content: what the file holds for it, ``[rows, bytes]``.

    Returns:
        an array with `n_rows` rows; integers as int64, ``mat3<double>`` as ``(n, 3, 3)``.

    Raises:
        ValueError: the bytes do not fit the type and number of rows.
    """
    if type_name not in _LAYOUTS and type_name not in (SHOEBOX, STRING):
        if n_rows > 0 and (content[0] != n_rows or len(content[1]) < n_rows):
            raise ValueError(f"{content[0]!r:.40} rows in a table of {n_rows} rows")
        rows = np.empty(n_rows, dtype=object)
        rows[:] = [OpaqueRow(content, i, n_rows) for i in range(n_rows)]
        return rows
    count, data = content
    if count != n_rows or not isinstance(data, bytes):
        raise ValueError(f"{count} rows of {type(data).__name__} in a table of {n_rows} rows")
    if type_name == SHOEBOX:
        return _decode_shoeboxes(n_rows, data)
    if type_name == STRING:
        return _decode_strings(n_rows, data)
    stored, shape, in_memory = _LAYOUTS[type_name]
    width = np.dtype(stored).itemsize * int(np.prod(shape, dtype=int))
    if len(data) != n_rows * width:
        raise ValueError(f"{len(data)} bytes, expected {n_rows} rows of {width}")
    return np.frombuffer(data, dtype=stored).reshape(n_rows, *shape).astype(in_memory)


def _decode_shoeboxes(n_rows: int, data: bytes) -> Column:
    if n_rows * _HEAD.size > len(data):
        raise ValueError(f"{len(data)} bytes cannot hold {n_rows} shoeboxes")
    boxes = np.empty(n_rows, dtype=object)
    place = 0
    for i in range(n_rows):
        if place + _HEAD.size > len(data):
            raise ValueError(f"shoeboxes end after {i} of {n_rows} rows")
        panel, x0, x1, y0, y1, z0, z1, code = _HEAD.unpack_from(data, place)
        place += _HEAD.size
        shape = (z1 - z0, y1 - y0, x1 - x0)
        if min(shape) < 0 or code not in (0, 1, 2):
            raise ValueError(f"shoebox of row {i} has bounds {(x0, x1, y0, y1, z0, z1)} and code {code}")
        n = shape[0] * shape[1] * shape[2] if code else 0
        shape = shape if code else (0, 0, 0)
        arrays = []
        for stored, kept in (("<f4", "f4"), ("<i4" if code == 1 else "u1", "i4"), ("<f4", "f4")):
            size = n * np.dtype(stored).itemsize
            if place + size > len(data):
                raise ValueError(f"shoeboxes end after {i} of {n_rows} rows")
            arrays.append(np.frombuffer(data, stored, n, place).astype(kept).reshape(shape))
            place += size
        boxes[i] = Shoebox(panel, (x0, x1, y0, y1, z0, z1), *arrays)
    if place != len(data):
        raise ValueError(f"{len(data) - place} bytes left over after {n_rows} shoeboxes")
    return boxes


def _decode_strings(n_rows: int, data: bytes) -> Column:
    if len(data) != n_rows * _STRING_BYTES:
        raise ValueError(f"{len(data)} bytes, expected {n_rows} rows of {_STRING_BYTES}")
    texts = np.empty(n_rows, dtype=object)
    for i in range(n_rows):
        row = data[i * _STRING_BYTES : (i + 1) * _STRING_BYTES]
        (length,) = struct.unpack_from("<Q", row, 8)
        texts[i] = row[16 : 16 + length].decode("utf-8", "replace") if length <= _STRING_SHORT else ""
    return texts


def column_type(name: str, column: Column) -> str:
    """The DIALS type for a column made in memory.

    Raises:
        Unwritable: no type of DIALS holds it.
    """
    kind, shape = column.dtype.kind, column.shape[1:]
    if kind == "O":
        if all(isinstance(x, Shoebox) for x in column):
            return SHOEBOX
    elif shape == ():
        if kind == "b":
            return "bool"
        if kind in "iu":
            small = column.size == 0 or (column.min() >= -(2**31) and column.max() < 2**31)
            return _USUAL_TYPES.get(name, "int" if small else "std::size_t")
        if kind == "f":
            return "double"
    elif kind in "iu" and shape in ((3,), (6,)):
        return "int6" if shape == (6,) else "cctbx::miller::index<>"
    elif kind == "f" and shape in ((2,), (3,), (3, 3)):
        return {(2,): "vec2<double>", (3,): "vec3<double>", (3, 3): "mat3<double>"}[shape]
    raise Unwritable(f"DIALS has no column type for rows of {column.dtype} with shape {shape}")


def encode_column(name: str, type_name: str | None, column: Column) -> tuple[str, Any]:
    """Type name and content of a column, for the file.

    Args:
        name: name of the column.
        type_name: type that it had in its file; where the column does not fit it any more, or for None, a type is
            chosen by `column_type`.
        column: the rows.

    Raises:
        Unwritable: the column must be left out; the text says why.
    """
    column = np.asarray(column)
    opaque = column.dtype == object and len(column) > 0 and isinstance(column[0], OpaqueRow)
    if opaque and type_name is not None:
        first = column[0]
        if len(column) != first.n_rows or any(
            not isinstance(x, OpaqueRow) or x.content is not first.content or x.row != i for i, x in enumerate(column)
        ):
            raise Unwritable(f"rows of the unknown type {type_name!r} cannot be selected or reordered")
        return type_name, first.content
    if type_name == STRING:
        raise Unwritable("DIALS crashes on columns of text (std::string)")
    if type_name is not None and type_name not in (*_LAYOUTS, SHOEBOX) and len(column) == 0:
        return type_name, [0, b""]
    if type_name not in _LAYOUTS or not _fits(column, type_name):
        type_name = column_type(name, column)
    if type_name == SHOEBOX:
        return type_name, [len(column), b"".join(_encode_shoebox(x) for x in column)]
    stored, shape, _ = _LAYOUTS[type_name]
    values = column.astype(stored)
    if column.dtype.kind in "iu" and not np.array_equal(values, column):
        raise Unwritable(f"numbers too large for DIALS type {type_name}")
    return type_name, [len(column), values.reshape(len(column), *shape).tobytes()]


def _fits(column: Column, type_name: str) -> bool:
    stored, shape, _ = _LAYOUTS[type_name]
    wanted = {"b": "b", "i": "iu", "f": "fiu"}[np.dtype(stored).kind]
    return column.shape[1:] == shape and column.dtype.kind in wanted


def _encode_shoebox(box: Shoebox) -> bytes:
    x0, x1, y0, y1, z0, z1 = (int(x) for x in box.bbox)
    if box.data.size == 0:
        return _HEAD.pack(box.panel, x0, x1, y0, y1, z0, z1, 0)
    shape = (z1 - z0, y1 - y0, x1 - x0)
    for array in (box.data, box.mask, box.background):
        if array.shape != shape:
            raise Unwritable(f"a shoebox with bounds {box.bbox} has an array of shape {array.shape}")
    head = _HEAD.pack(box.panel, x0, x1, y0, y1, z0, z1, 1)
    return (
        head
        + box.data.astype("<f4").tobytes()
        + box.mask.astype("<i4").tobytes()
        + box.background.astype("<f4").tobytes()
    )

"""DIALS reflection tables (``.refl``), read and written without DIALS.

The file is one MessagePack array: the text ``dials::af::reflection_table``, a version (1, or 2 in newer DIALS), and a
map of ``identifiers`` (number in the ``id`` column to experiment identifier), ``nrows`` and ``data`` (columns, see
`bayesbragg.io.columns`). Version 1 is written, which every DIALS since 3.0 reads.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import msgpack
import numpy as np

from bayesbragg.io.columns import STRING, Unwritable, decode_column, encode_column
from bayesbragg.io.files import read_bytes, write_bytes
from bayesbragg.model.errors import InputError
from bayesbragg.model.reflections import Reflections

__all__ = ["read_reflections", "write_reflections"]

MAGIC = "dials::af::reflection_table"
WHAT = "DIALS reflection table (.refl, MessagePack)"

_MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, MemoryError)

log = logging.getLogger(__name__)


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def read_reflections(path: str | os.PathLike[str]) -> Reflections:
    """Every column of a DIALS reflection table.

    Raises:
        InputError: missing, truncated or malformed file; a pickle of old DIALS.
    """
    data = read_bytes(path, WHAT)
    if (data[:1] == b"\x80" and data[1:2] <= b"\x05") or str(path).endswith((".pickle", ".pkl")):
        raise InputError(
            f"{path}: a pickle, as DIALS before 3.0 wrote; expected a {WHAT}; "
            "convert it with DIALS: flex.reflection_table.from_file(...).as_file('new.refl')"
        )
    try:
        magic, version, header = msgpack.unpackb(data, raw=True, strict_map_key=False)
        if magic != MAGIC.encode() or version not in (1, 2):
            raise ValueError(f"it says {magic!r:.60} version {version!r:.20}")
        n_rows = header[b"nrows"]
        if not isinstance(n_rows, int) or not 0 <= n_rows < 2**40:
            raise ValueError(f"{n_rows!r:.40} rows")
        identifiers = {int(k): _text(v) for k, v in header.get(b"identifiers", {}).items()}
    except (*_MALFORMED, msgpack.UnpackException, RecursionError) as error:
        raise InputError(f"{path}: {_reason(error)}; expected a whole {WHAT}; write it again with DIALS") from None
    columns, types = {}, {}
    name = ""
    try:
        for key, (kind, content) in header[b"data"].items():
            name, types[_text(key)] = _text(key), _text(kind)
            columns[name] = decode_column(_text(kind), n_rows, content)
            if types[name] == STRING:
                log.warning("%s: column %r holds text; DIALS files keep at most 15 characters of it", path, name)
    except _MALFORMED as error:
        raise InputError(
            f"{path}: column {name!r}: {_reason(error)}; expected a whole {WHAT}; write it again with DIALS"
        ) from None
    return Reflections(columns, identifiers, types)


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__ if not str(error) else error}".split())[:200]


def write_reflections(reflections: Reflections, path: str | os.PathLike[str]) -> None:
    """Write a DIALS reflection table, atomically.

    Columns keep the types of the file that they came from; new ones get the DIALS type that holds them. A column that
    DIALS could not read is left out with a warning.
    """
    data: dict[str, Any] = {}
    for name in sorted(reflections.columns):
        column = np.asarray(reflections.columns[name])
        try:
            data[name] = encode_column(name, reflections.types.get(name), column)
        except Unwritable as error:
            log.warning("%s: column %r is left out: %s", path, name, error)
    header = {
        "identifiers": {int(k): str(v) for k, v in reflections.identifiers.items()},
        "nrows": len(reflections),
        "data": data,
    }
    write_bytes(path, msgpack.packb([MAGIC, 1, header], use_bin_type=True))

"""Opening HDF5 files so that whatever is wrong with them becomes one line: damage, missing parts, missing filters.

Text and references of variable length lie in global heaps (HDF5 file format specification, III.E): objects one after
the other, each with its size. The HDF5 library steps from one to the next, and never ends where a damaged file states a
step of nothing; so the steps are checked here before it sees them.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py

from bayesbragg.model.errors import InputError

__all__ = ["heaps_end", "looks_like_hdf5", "opened_hdf5"]

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# What h5py raises on files that are cut short or overwritten in places.
_DAMAGE = (OSError, LookupError, ValueError, TypeError, RuntimeError, AttributeError, MemoryError, OverflowError)
_NO_FILTER = re.compile(r"filter.*not (?:registered|available)|required filter|plugin", re.IGNORECASE)


def looks_like_hdf5(path: Path) -> bool:
    """Whether a file is HDF5, by content; by its name where there is no such file."""
    try:
        with path.open("rb") as file:
            return file.read(len(SIGNATURE)) == SIGNATURE
    except OSError:
        return path.suffix.lower() in (".h5", ".hdf5", ".nxs", ".cxi")


_HEAP, _HEADER = b"GCOL\x01\0\0\0", 16
"""Signature and version of a global heap, and length of its header and of that of each of its objects."""
SEARCHED_BYTES = 256 << 20
"""Of larger files only this much at the beginning is searched for heaps: masters and attributes come first."""


def heaps_end(path: Path) -> bool:
    """Whether a walk through every global heap of the file comes to an end."""
    try:
        stat = path.stat()
        return _heaps_end(path, stat.st_mtime_ns, stat.st_size)
    except (OSError, ValueError):
        return True


@lru_cache(maxsize=256)
def _heaps_end(path: Path, _modified: int, size: int) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        last = min(size, SEARCHED_BYTES)
        at = data.find(_HEAP, 0, last)
        while at >= 0:
            length = struct.unpack_from("<Q", data, at + 8)[0] if at + _HEADER <= size else 0
            place, end = at + _HEADER, min(at + length, size)
            while place + _HEADER <= end:
                index, _, _, n = struct.unpack_from("<HHIQ", data, place)
                step = n if index == 0 else _HEADER + (n + 7) // 8 * 8
                if step == 0:
                    return False
                place += step
            at = data.find(_HEAP, at + len(_HEAP), last)
    return True


@contextmanager
def opened_hdf5(path: Path, what: str) -> Iterator[Any]:
    """The open file; whatever goes wrong inside the block becomes an `InputError`.

    Args:
        path: the file.
        what: what it should be, such as ``a NeXus image file (NXmx)``.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected {what}; check the image path in the experiment list")
    if not heaps_end(path):
        raise InputError(f"{path}: a heap of the HDF5 file is damaged; expected {what}; copy it again")
    # Registers compression filters with h5py; only files that use one need it.
    with suppress(ImportError):
        import hdf5plugin  # noqa: F401
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:160]
        if _NO_FILTER.search(reason):
            raise InputError(
                f"{path}: its pixels are compressed with a filter that is not installed ({reason}); install or update "
                "hdf5plugin (pip install -U hdf5plugin)"
            ) from None
        raise InputError(f"{path}: {reason}; expected {what}; the file may be cut short, copy it again") from None

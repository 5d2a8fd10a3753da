"""Opening HDF5 files so that whatever is wrong with them becomes one line: damage, missing parts, missing filters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py

from bayesbragg.model.errors import InputError

__all__ = ["looks_like_hdf5", "opened_hdf5"]

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# What h5py raises on files that are cut short or overwritten in places.
_DAMAGE = (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, MemoryError, OverflowError)
_NO_FILTER = re.compile(r"filter.*not (?:registered|available)|required filter|plugin", re.IGNORECASE)


def looks_like_hdf5(path: Path) -> bool:
    """Whether a file is HDF5, by content; by its name where there is no such file."""
    try:
        with path.open("rb") as file:
            return file.read(len(SIGNATURE)) == SIGNATURE
    except OSError:
        return path.suffix.lower() in (".h5", ".hdf5", ".nxs", ".cxi")


@contextmanager
def opened_hdf5(path: Path, what: str) -> Iterator[Any]:
    """The open file; whatever goes wrong inside the block becomes an `InputError`.

    Args:
        path: the file.
        what: what it should be, such as ``image file (HDF5 with the data set 'images')``.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an {what}; check the image path in the experiment list")
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
        raise InputError(f"{path}: {reason}; expected an {what}; the file may be cut short, copy it again") from None

"""Files whole or not at all: reading with a one-line error, writing under a temporary name and renaming."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bayesbragg.model.errors import InputError

__all__ = ["atomic_path", "read_bytes", "write_bytes"]


def read_bytes(path: str | os.PathLike[str], what: str) -> bytes:
    """The content of a file.

    Args:
        path: the file.
        what: what it should be, for the error message, such as ``experiment list (.expt)``.

    Raises:
        InputError: the file is missing or cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected a {what}; check the path") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a {what}") from None


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name in the same folder, which becomes `path` when the block ends without an error.

    The folder is made where it does not exist. A reader of `path` sees the old file or the new one, never a part.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    try:
        yield Path(name)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)

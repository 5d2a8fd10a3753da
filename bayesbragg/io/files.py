"""Files whole or not at all: reading with a one-line error, writing under a temporary name and renaming."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from bayesbragg.model.atomic import atomic_path
from bayesbragg.model.errors import InputError

__all__ = ["MALFORMED_JSON", "atomic_path", "read_bytes", "reason_of", "write_bytes"]

MALFORMED_JSON = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, np.linalg.LinAlgError)
"""What JSON objects with parts that are missing or wrong lead to."""


def reason_of(error: Exception) -> str:
    """What an error says, in one line that is not too long; a key that is missing reads "no 'key'"."""
    text = f"no {error}" if isinstance(error, KeyError) else str(error)
    return " ".join(text.split())[:160]


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


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)

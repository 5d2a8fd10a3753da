"""The error for bad input: one line that names the file, the value, what was expected and what to do."""

from __future__ import annotations

__all__ = ["InputError"]


class InputError(ValueError):
    """Input that cannot be used. The command line prints its message as one line and exits with code 2."""

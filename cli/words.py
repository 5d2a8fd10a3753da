"""The words after a command: parameter files, other files, and KEY=VALUE; quoted wildcards are expanded."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from bayesbragg.model.errors import InputError

__all__ = ["is_parameter", "sort_words"]


def is_parameter(word: str) -> bool:
    """Whether a word is KEY=VALUE; a file may have an equals sign in its name."""
    # os.path, since a long value is no name of a file, which pathlib raises an error for.
    return "=" in word and not os.path.exists(word)


def sort_words(words: Sequence[str]) -> tuple[list[Path], list[Path], list[str]]:
    """PHIL files, all other files, and KEY=VALUE words.

    Raises:
        InputError: a file that is not there, or a pattern that no file fits.
    """
    from bayesbragg.io.phil import PHIL_ENDINGS

    phil: list[Path] = []
    files: list[Path] = []
    parameters: list[str] = []
    for word in words:
        if is_parameter(word):
            parameters.append(word)
            continue
        names = [word]
        if glob.has_magic(word) and not os.path.exists(word):
            names = sorted(glob.glob(word))
            if not names:
                raise InputError(f"{word}: no file fits this pattern; check it and the working directory")
        for name in names:
            if not os.path.exists(name):
                raise InputError(f"{name}: no such file; a parameter is given as key=value")
            (phil if name.endswith(PHIL_ENDINGS) else files).append(Path(name))
    return phil, files, parameters

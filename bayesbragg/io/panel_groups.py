"""The classic panel group file: lines of panel number and group number."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from bayesbragg.io.files import read_bytes
from bayesbragg.model.errors import InputError

__all__ = ["read_panel_groups"]

WHAT = "panel group file (a panel number and a group number in each line)"


def read_panel_groups(path: str | os.PathLike[str], n_panels: int) -> npt.NDArray[np.int64]:
    """Group number of every panel, ``(n_panels,)``. Empty lines and what follows a ``#`` are passed over.

    Raises:
        InputError: a line of another form, a panel that is missing, repeated or not one of the detector's.
    """
    groups: dict[int, int] = {}
    try:
        text = read_bytes(path, WHAT).decode()
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; expected a {WHAT}") from None
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#")[0].split()
        if not words:
            continue
        try:
            panel, group = (int(word) for word in words)
        except ValueError:
            raise InputError(f"{path}: line {number} is {line.strip()!r}; expected two whole numbers") from None
        if not 0 <= panel < n_panels:
            raise InputError(
                f"{path}: line {number} names panel {panel}, but the detector has panels 0 to {n_panels - 1}; "
                "give the group file of this detector"
            )
        if panel in groups:
            raise InputError(f"{path}: line {number} names panel {panel} a second time; keep one of its lines")
        groups[panel] = group
    missing = sorted(set(range(n_panels)) - set(groups))
    if missing:
        shown = ", ".join(map(str, missing[:8])) + (" ..." if len(missing) > 8 else "")
        raise InputError(
            f"{path}: {len(missing)} of the detector's {n_panels} panels have no group (panel {shown}); "
            "give every panel a line"
        )
    return np.array([groups[p] for p in range(n_panels)], dtype=np.int64)

"""Golden numbers from an independent program: the full files where they lie beside the checkout, else thinned ones.

The full files are in ``../shared/golden``; ``tests/data/golden`` holds fewer boxes of the same files, so that a bare
clone tests every case. Both have the same keys, except that thinned files leave out some (see tests/data/README.md).
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["FULL", "THINNED", "golden_cases", "golden_path", "load_golden"]

THINNED = Path(__file__).resolve().parent / "data" / "golden"
FULL = Path(__file__).resolve().parents[2] / "shared" / "golden"


def _folders() -> list[Path]:
    return [THINNED] if os.environ.get("GOLDEN") == "thinned" else [FULL, THINNED]


def golden_cases(prefix: str = "") -> list[str]:
    """Names of the cases that this checkout can load, such as ``01_mono``, sorted; those that start with `prefix`."""
    names = {path.stem for folder in _folders() if folder.is_dir() for path in folder.glob("*.npz")}
    return sorted(name for name in names if name.startswith(prefix))


def golden_path(case: str) -> Path:
    """The file of a case; a unique beginning of its name will do, such as ``01`` or ``02a``.

    Set ``GOLDEN=thinned`` in the environment to test a checkout as if the full files were not there.

    Raises:
        FileNotFoundError: no file, or more than one, has that name.
    """
    for folder in _folders():
        exact = folder / f"{case}.npz"
        found = [exact] if exact.is_file() else sorted(folder.glob(f"{case}*.npz"))
        if len(found) == 1:
            return found[0]
        if len(found) > 1:
            raise FileNotFoundError(f"golden case {case!r} is ambiguous: {[path.stem for path in found]}")
    raise FileNotFoundError(f"no golden case {case!r}; there are: {', '.join(golden_cases())}")


@lru_cache(maxsize=8)
def _load(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        arrays: dict[str, Any] = {name: file[name] for name in file.files}
    for array in arrays.values():
        array.setflags(write=False)
    arrays["meta"] = json.loads(str(arrays["meta_json"]))
    return arrays


def load_golden(case: str) -> dict[str, Any]:
    """Arrays of a case by name (read-only), and ``meta``, the parsed JSON record of how it was made.

    Raises:
        FileNotFoundError: see `golden_path`.
    """
    return dict(_load(golden_path(case)))

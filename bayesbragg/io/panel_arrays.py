"""One array per panel out of NumPy and HDF5 files, such as masks and backgrounds."""

from __future__ import annotations

import io
import os
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from bayesbragg.io.files import read_bytes
from bayesbragg.io.hdf5_files import opened_hdf5
from bayesbragg.model.detector import Detector
from bayesbragg.model.errors import InputError

__all__ = ["panels_of", "read_array"]

Array = npt.NDArray[Any]
_MALFORMED = (OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, MemoryError, OverflowError)


def read_array(path: str | os.PathLike[str], what: str, names: tuple[str, ...]) -> tuple[str, Any]:
    """The array of a ``.npy``, ``.npz`` or HDF5 file; the kind of file is told by its content.

    Args:
        path: the file.
        what: what it holds, for error messages.
        names: names of the data set to look for, best first; a file with a single one may call it anything.

    Returns:
        name of the data set ("" for ``.npy``) and its array, or list of arrays for an ``.npz`` with one per panel
        (in the order of their names, numbers counted).

    Raises:
        InputError: missing or damaged file, pickled objects, or no such data set.
    """
    data = read_bytes(path, what)
    try:
        if data.startswith(b"\x93NUMPY"):
            return "", np.load(io.BytesIO(data), allow_pickle=False)
        if data.startswith(b"PK"):
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                name = _choose(list(archive.files), names)
                if name is not None:
                    return name, archive[name]
                return "", [archive[key] for key in sorted(archive.files, key=_natural)]
        if data.startswith(b"\x89HDF\r\n\x1a\n"):
            with opened_hdf5(Path(path), f"a {what} as .npy, .npz or HDF5") as file:
                found: list[str] = []
                file.visititems(lambda key, item: found.append(key) if isinstance(item, h5py.Dataset) else None)
                name = _choose(found, names)
                if name is not None:
                    return name, file[name][()]
            raise ValueError(f"data sets {', '.join(found) or 'none'}, but no {' or '.join(names)}")
    except InputError:
        raise
    except (*_MALFORMED, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise InputError(
            f"{path}: {' '.join(str(error).split())[:200]}; expected a {what} as .npy, .npz or HDF5; write it again"
        ) from None
    raise InputError(f"{path}: neither NumPy nor HDF5; expected a {what} as .npy, .npz or HDF5")


def _choose(found: list[str], names: tuple[str, ...]) -> str | None:
    for name in names:
        for key in found:
            if key.rsplit("/", 1)[-1] == name:
                return key
    return found[0] if len(found) == 1 else None


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def panels_of(array: Any, detector: Detector, path: str | os.PathLike[str], what: str) -> list[Array]:
    """One array per panel, ``(slow, fast)``, out of a stack ``(n_panels, slow, fast)``, a single panel or a list.

    Raises:
        InputError: the number or sizes of the panels are not the detector's.
    """
    if isinstance(array, np.ndarray):
        panels = [array] if array.ndim == 2 else list(array) if array.ndim == 3 else [array]
    else:
        panels = [np.asarray(x) for x in array]
    expected = [(int(slow), int(fast)) for fast, slow in detector.image_size]
    found = [p.shape for p in panels]
    if found != expected:
        panel = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), None)
        detail = (
            f"{len(found)} panels, the detector has {len(expected)}"
            if panel is None
            else f"panel {panel} of shape {found[panel]}, the detector's is {expected[panel]} (slow, fast)"
        )
        raise InputError(f"{path}: {what} with {detail}; give the {what} of this detector")
    return panels

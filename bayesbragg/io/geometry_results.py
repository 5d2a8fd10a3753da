"""Files of a joint geometry fit: the posterior of the panels (HDF5) and the state of a search (npz)."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from bayesbragg.io.files import atomic_path

__all__ = ["read_arrays", "write_arrays", "write_posterior"]


def write_posterior(
    path: str | os.PathLike[str],
    *,
    names: Sequence[str],
    units: Sequence[str],
    arrays: Mapping[str, npt.NDArray[Any]],
    attributes: Mapping[str, Any],
) -> None:
    """The posterior of the shared numbers.

    Args:
        names, units: of the numbers, in order.
        arrays: data sets, such as ``mean`` ``(p,)`` and ``covariance`` ``(p, p)``, in those units.
        attributes: anything else, as text or numbers.
    """
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        text = h5py.string_dtype()
        file.create_dataset("names", data=np.array(list(names), dtype=object), dtype=text)
        file.create_dataset("units", data=np.array(list(units), dtype=object), dtype=text)
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        for name, value in attributes.items():
            file.attrs[name] = value


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Plain arrays as ``.npz``, atomically."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **dict(arrays))


def read_arrays(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[Any]] | None:
    """Arrays of `write_arrays`; None where there is no whole file. Nothing is unpickled."""
    if not Path(path).is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError):
        return None

"""ArviZ's container of named groups: the one place that knows which it is, and how it is stored.

ArviZ changed it: `InferenceData` before 1.0, xarray's `DataTree` since. Everything else goes through `groups_of`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray

with warnings.catch_warnings():
    # ArviZ announces its own future on import; that is no news to our users.
    warnings.simplefilter("ignore")
    import arviz

from bayesbragg.model.atomic import atomic_path
from bayesbragg.model.errors import InputError

__all__ = ["container", "groups_of", "read_netcdf", "write_netcdf"]


def container(groups: Mapping[str, xarray.Dataset]) -> Any:
    """ArviZ's container of named groups."""
    # Asked for in the module's own names: ArviZ 1.x answers `arviz.InferenceData` too, with a warning and DataTree.
    kind = vars(arviz).get("InferenceData")
    if kind is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return kind(**groups)
    tree = xarray.DataTree.from_dict(dict(groups))
    tree.attrs.update(next(iter(groups.values())).attrs)
    return tree


def groups_of(data: Any) -> dict[str, xarray.Dataset]:
    """The groups of ArviZ's container, whichever it is, as datasets."""
    if isinstance(data, xarray.DataTree):
        return {name: node.to_dataset() for name, node in data.children.items()}
    return {name: data[name] for name in data.groups()}


def write_netcdf(data: Any, path: str | os.PathLike[str]) -> Path:
    """Write ArviZ's container as NetCDF, under a temporary name that is then renamed."""
    path = Path(path)
    with atomic_path(path) as temporary:
        tree = xarray.DataTree.from_dict(groups_of(data))
        tree.to_netcdf(temporary, engine="h5netcdf")
    return path


def read_netcdf(path: str | os.PathLike[str]) -> Any:
    """ArviZ's container from a file of `write_netcdf`, in memory.

    Raises:
        InputError: missing file, or not a posterior.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a posterior (.nc) that `bayesbragg posterior` wrote")
    try:
        with xarray.open_datatree(path, engine="h5netcdf") as tree:
            groups = {name: node.to_dataset().load() for name, node in tree.children.items()}
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: {reason}; expected a posterior (.nc) that `bayesbragg posterior` wrote") from None
    if "posterior" not in groups:
        raise InputError(f"{path}: no group 'posterior' in it; expected a file that `bayesbragg posterior` wrote")
    return container(groups)

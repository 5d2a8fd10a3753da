"""Masks of untrusted pixels: DIALS mask pickles (decoded, never run), NumPy and HDF5.

A DIALS mask is a pickled tuple of ``flex.bool``, one per panel, True where the pixel may be trusted. The state of a
``flex.bool`` is its grid and a text: a header with the number of elements (first byte: length of the header; then the
number, base 256, lowest digit first) and one character ``0`` or ``1`` per element.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesbragg.io.files import read_bytes
from bayesbragg.io.panel_arrays import panels_of, read_array
from bayesbragg.io.safe_pickle import MALFORMED, StandIn, allowance, numpy_globals, plain, restricted_load
from bayesbragg.model.detector import Detector
from bayesbragg.model.errors import InputError

__all__ = ["read_mask"]

WHAT = "mask"
REMEDY = "make the mask again with dials.generate_mask, or save it as .npy"
BoolArray = npt.NDArray[np.bool_]


class _Grid(StandIn):
    def __init__(self, origin: Any = (), last: Any = (), open_range: Any = True) -> None:
        extra = 0 if open_range else 1
        self.shape = tuple(int(b) - int(a) + extra for a, b in zip(origin, last, strict=True))

    def __setstate__(self, state: Any) -> None:
        """The focus: the part of the grid that is in use, which masks do not restrict."""


class _FlexBool(StandIn):
    def __init__(self) -> None:
        self.value: BoolArray = np.empty(0, dtype=bool)

    def __setstate__(self, state: Any) -> None:
        grid, text = state
        data = text.encode("latin1") if isinstance(text, str) else bytes(text)
        header = max(data[0] & 0x7F, 1)
        count = int.from_bytes(data[1:header], "little")
        elements = np.frombuffer(data, np.uint8, offset=header)
        if len(elements) != count or not np.all((elements == ord("0")) | (elements == ord("1"))):
            raise ValueError(f"a flex.bool of {count} elements with {len(elements)} characters")
        self.value = (elements == ord("1")).reshape(grid.shape)


_ALLOWED = {
    **numpy_globals(),
    ("scitbx_array_family_flex_ext", "bool"): _FlexBool,
    ("scitbx_array_family_flex_ext", "grid"): _Grid,
}


def _from_pickle(data: bytes, path: str | os.PathLike[str]) -> list[npt.NDArray[Any]]:
    found = restricted_load(data, _ALLOWED, path, WHAT, REMEDY)
    members = found if isinstance(found, (tuple, list)) else (found,)
    panels, left = [], allowance(data)
    for member in members:
        try:
            value = member.value if isinstance(member, _FlexBool) else plain(member, left)
        except MALFORMED:
            value = None
        if not isinstance(value, np.ndarray):
            raise InputError(f"{path}: a pickle that is no {WHAT}; expected flex.bool arrays, one per panel; {REMEDY}")
        panels.append(value)
    return list(panels[0]) if len(panels) == 1 and panels[0].ndim == 3 else panels


def read_mask(path: str | os.PathLike[str], detector: Detector) -> list[BoolArray]:
    """The mask of a detector, True where a pixel may be trusted.

    Args:
        path: a DIALS mask pickle; ``.npy`` or ``.npz`` (one array of shape ``(n_panels, slow, fast)``, or one per
            panel); or HDF5 with a data set ``mask``. A data set called ``pixel_mask`` follows the NeXus convention,
            where 0 means good.
        detector: the detector that the panels must fit.

    Returns:
        one array per panel, ``(slow, fast)``.

    Raises:
        InputError: missing or damaged file, a pickle that asks for anything but a mask (nothing of it is run), or
            panels of another detector.
    """
    data = read_bytes(path, "mask (DIALS pickle, .npy, .npz or HDF5)")
    name = ""
    array: Any
    if data.startswith((b"\x93NUMPY", b"PK", b"\x89HDF\r\n\x1a\n")):
        name, array = read_array(path, WHAT, ("mask", "pixel_mask"))
    else:
        array = _from_pickle(data, path)
    masks = []
    for i, panel in enumerate(panels_of(array, detector, path, WHAT)):
        if name.rsplit("/", 1)[-1] == "pixel_mask" and panel.dtype.kind in "biu":
            masks.append(panel == 0)
        elif panel.dtype.kind in "biu" and np.all((panel == 0) | (panel == 1)):
            masks.append(panel.astype(bool))
        else:
            raise InputError(f"{path}: panel {i} of the mask is not of 0 and 1 ({panel.dtype}); save it as booleans")
    return masks

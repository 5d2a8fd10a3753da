"""Arrays of many shots as those of one, with an axis more: what is mapped over shots in one program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

__all__ = ["stack"]


def stack(trees: Sequence[Any]) -> Any:
    """Trees of arrays of equal shapes as one tree on the device, whose arrays have the trees as their first axis.

    By numpy: there are hundreds of small arrays, and each shape of them would be another program to compile.
    """
    return jax.device_put(jax.tree.map(lambda *arrays: np.stack([np.asarray(a) for a in arrays]), *trees))

"""Rigid motion of panel groups, box by box: the six numbers of a box's own group, exactly differentiable.

Each box lies on one panel and so in one group. Moving the boxes by an array ``(n_boxes, 6)`` lets a derivative push
one direction for all groups at once: six tangents, whatever the number of groups.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from bayesbragg.forward.geometry import BoxGeometry
from bayesbragg.forward.rotations import successive_rotations

__all__ = ["MOTIONS", "MOTION_UNITS", "move_rigidly"]

Array = Any

MOTIONS = ("RotOrth", "RotFast", "RotSlow", "ShiftX", "ShiftY", "ShiftZ")
MOTION_UNITS = ("radian", "radian", "radian", "metre", "metre", "metre")


def move_rigidly(boxes: BoxGeometry, axes: Array, motion: Array) -> BoxGeometry:
    """Boxes whose panels have moved about ``boxes.reference_m``.

    Args:
        axes: orthogonal, fast and slow axis of each box's motion, ``(n_boxes, 3, 3)``.
        motion: angles (radian) and shifts (metre) of each box's group, ``(n_boxes, 6)``, ordered as `MOTIONS`.
    """
    turn = successive_rotations(axes, motion[:, :3])
    arm = boxes.origin_m - boxes.reference_m

    def turned(vectors: Array) -> Array:
        return jnp.einsum("bij,bj->bi", turn, vectors)

    return replace(
        boxes,
        origin_m=boxes.reference_m + turned(arm) + motion[:, 3:],
        fast=turned(boxes.fast),
        slow=turned(boxes.slow),
        normal=turned(boxes.normal),
    )

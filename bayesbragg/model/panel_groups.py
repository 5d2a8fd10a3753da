"""Which panels move together, about which point, and how groups hang together in the detector's hierarchy.

A group of panels moves as one rigid body: three angles about orthogonal, fast and slow axis and a shift along the
laboratory axes (PHYSICS 1.1). Its axes are those of its first panel and its turning point is its centroid, so that
angles and shifts are as independent as they can be; `classic_reference` gives what the classic program does instead:
every panel turns about its own axes around the first panel's corner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bayesbragg.model.detector import Detector
from bayesbragg.model.errors import InputError

__all__ = ["Level", "PanelGrouping", "Shorthand", "group_panels", "hierarchy_groups", "shorthand_groups"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Shorthand = Literal["whole", "quadrants", "pairs", "single"]


@dataclass(frozen=True, eq=False)
class Level:
    """A level of the hierarchy above the groups.

    Attributes:
        name: such as ``whole`` or ``quadrant``.
        node: node of every group at this level, ``(n_groups,)``, from 0.
        centre_mm: point about which each node turns, ``(n_nodes, 3)``, millimetre.
    """

    name: str
    node: IntArray
    centre_mm: FloatArray

    @property
    def n_nodes(self) -> int:
        return len(self.centre_mm)


@dataclass(frozen=True, eq=False)
class PanelGrouping:
    """Panel groups of a detector.

    Attributes:
        group: group of every panel, ``(n_panels,)``, from 0.
        labels: the number that the user gave to each group, ``(n_groups,)``.
        reference_mm: point about which each group turns, ``(n_groups, 3)``, millimetre.
        axes: orthogonal, fast and slow axis (rows) about which each panel turns, ``(n_panels, 3, 3)``.
        levels: the levels above, from the whole detector downwards; none for a single group.
        rotation_reference: ``centroid`` or ``classic``.
    """

    group: IntArray
    labels: IntArray
    reference_mm: FloatArray
    axes: FloatArray
    levels: tuple[Level, ...]
    rotation_reference: str = "centroid"

    @property
    def n_groups(self) -> int:
        return len(self.reference_mm)

    def group_axes(self) -> FloatArray:
        """Axes of each group: those of its first panel, ``(n_groups, 3, 3)``."""
        first = np.array([int(np.flatnonzero(self.group == g)[0]) for g in range(self.n_groups)])
        return np.asarray(self.axes[first])

    def classic_reference(self, detector: Detector) -> PanelGrouping:
        """The same groups with the classic turning points and axes."""
        first = np.array([int(np.flatnonzero(self.group == g)[0]) for g in range(self.n_groups)])
        axes = np.stack([detector.normal, detector.fast, detector.slow], axis=1)
        return replace(self, reference_mm=detector.origin_mm[first], axes=axes, rotation_reference="classic")


def group_panels(detector: Detector, group: npt.ArrayLike) -> PanelGrouping:
    """Groups from a group number for every panel; the levels above come from the detector's hierarchy.

    Args:
        group: any numbers, ``(n_panels,)``; equal ones move together.

    Raises:
        InputError: not one number for each panel.
    """
    given = np.asarray(group)
    if given.shape != (detector.n_panels,):
        raise InputError(f"panel groups for {given.size} panels, but the detector has {detector.n_panels}")
    labels, number = np.unique(given, return_inverse=True)
    centre = panel_centres_mm(detector)
    reference = np.stack([centre[number == g].mean(axis=0) for g in range(len(labels))])
    first = np.array([int(np.flatnonzero(number == g)[0]) for g in range(len(labels))])
    axes = np.stack([detector.normal, detector.fast, detector.slow], axis=1)[first][number]
    levels = _levels(detector, number.astype(np.int64), reference)
    return PanelGrouping(number.astype(np.int64), labels.astype(np.int64), reference, axes, levels)


def panel_centres_mm(detector: Detector) -> FloatArray:
    """Middle of every panel, ``(n_panels, 3)``, millimetre."""
    size = detector.image_size
    return detector.lab_mm(np.arange(detector.n_panels), size[:, 0] / 2, size[:, 1] / 2)


def shorthand_groups(detector: Detector, name: Shorthand) -> IntArray:
    """Group numbers by a word: ``whole`` detector, ``quadrants`` (by position, or by the hierarchy where it has
    four parts), ``pairs`` of consecutive panels, or every panel ``single``."""
    n = detector.n_panels
    if name == "whole":
        return np.zeros(n, dtype=np.int64)
    if name == "single":
        return np.arange(n)
    if name == "pairs":
        return np.arange(n) // 2
    paths = _paths(detector)
    if paths is not None:
        for depth in range(max(len(p) for p in paths)):
            nodes = _nodes(paths, depth)
            if nodes.max() == 3:
                return nodes
    return _quadrants(panel_centres_mm(detector))


def hierarchy_groups(detector: Detector, depth: int) -> IntArray:
    """Groups from the hierarchy in the detector's file: the nodes at a depth (0 is the root's children).

    Raises:
        InputError: the file has no hierarchy of that depth.
    """
    paths = _paths(detector)
    deepest = 0 if paths is None else max(len(p) for p in paths)
    if paths is None or not 0 <= depth < deepest:
        raise InputError(
            f"panel groups from level {depth} of the detector's hierarchy: it has levels 0 to {deepest - 1}"
            if deepest
            else "panel groups from the detector's hierarchy: the detector has none; give a panel group file"
        )
    return _nodes(paths, depth)


def _levels(detector: Detector, group: IntArray, reference_mm: FloatArray) -> tuple[Level, ...]:
    n_groups = len(reference_mm)
    if n_groups < 2:
        return ()
    found = [np.zeros(n_groups, dtype=np.int64)]
    paths = _paths(detector)
    if paths is not None:
        for depth in range(max(len(p) for p in paths)):
            node = _nodes(paths, depth)
            of_group = [np.unique(node[group == g]) for g in range(n_groups)]
            if any(len(nodes) > 1 for nodes in of_group):
                break  # groups are larger than the nodes from here on
            merged = np.array([int(nodes[0]) for nodes in of_group])
            n_nodes = len(np.unique(merged))
            if len(np.unique(found[-1])) < n_nodes < n_groups:
                found.append(np.unique(merged, return_inverse=True)[1].astype(np.int64))
    if len(found) == 1 and n_groups >= 8:
        quadrant = np.unique(_quadrants(reference_mm), return_inverse=True)[1].astype(np.int64)
        if quadrant.max() > 0:
            found.append(quadrant)
    names = ["whole", "quadrant", *(f"level {i}" for i in range(2, len(found)))]
    return tuple(
        Level(name, node, np.stack([reference_mm[node == k].mean(axis=0) for k in range(node.max() + 1)]))
        for name, node in zip(names, found, strict=False)
    )


def _quadrants(points: FloatArray) -> IntArray:
    middle = points.mean(axis=0)
    right, up = points[:, 0] > middle[0], points[:, 1] > middle[1]
    return np.asarray(2 * up.astype(np.int64) + (right != up), dtype=np.int64)


def _paths(detector: Detector) -> list[tuple[int, ...]] | None:
    """The nodes above each panel, as numbers of children, without the root."""
    document = detector.document
    root: Mapping[str, Any] | None = document.get("hierarchy") if document is not None else None
    if not root:
        return None
    paths: dict[int, tuple[int, ...]] = {}
    stack: list[tuple[Mapping[str, Any], tuple[int, ...]]] = [(root, ())]
    while stack:
        node, path = stack.pop()
        for number, child in enumerate(node.get("children", ())):
            if "panel" in child:
                paths[int(child["panel"])] = path
            else:
                stack.append((child, (*path, number)))
    if set(paths) != set(range(detector.n_panels)) or not any(paths.values()):
        return None
    return [paths[p] for p in range(detector.n_panels)]


def _nodes(paths: list[tuple[int, ...]], depth: int) -> IntArray:
    heads = [path[: depth + 1] for path in paths]
    order = {head: i for i, head in enumerate(sorted(set(heads)))}
    return np.array([order[head] for head in heads], dtype=np.int64)

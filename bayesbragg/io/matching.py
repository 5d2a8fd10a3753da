"""Which reflections belong to which experiment, and which experiments are lattices on one image.

Rows are tied to experiments by identifier: a table says which number in its ``id`` column stands for which
identifier. Old files without identifiers are tied by order: row ``id`` n belongs to the n-th experiment.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bayesbragg.model.errors import InputError
from bayesbragg.model.experiment import Experiment, ImageReference
from bayesbragg.model.reflections import Reflections

__all__ = ["ImageGroup", "match"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ImageGroup:
    """The lattices of one image and their reflections.

    Attributes:
        experiments: one per lattice, in the order of the list.
        reflections: their rows; column ``id`` holds the number of the lattice in `experiments`.
        image: the image; None where the experiments name none.
        numbers: place of each experiment in the list that was matched.
    """

    experiments: tuple[Experiment, ...]
    reflections: Reflections
    image: ImageReference | None
    numbers: tuple[int, ...]


def _number_of_id(experiments: Sequence[Experiment], reflections: Reflections) -> dict[int, int]:
    """Value of the ``id`` column to place of the experiment."""
    known = {e.identifier: i for i, e in enumerate(experiments) if e.identifier}
    if len(known) < sum(bool(e.identifier) for e in experiments):
        raise InputError(
            "two experiments have the same identifier; give every experiment its own (dials.combine_experiments)"
        )
    if reflections.identifiers and known:
        found = {row_id: known[name] for row_id, name in reflections.identifiers.items() if name in known}
        if not found:
            theirs, ours = next(iter(reflections.identifiers.values())), next(iter(known))
            raise InputError(
                f"no experiment identifier is in both files (reflections: {theirs}, ...; experiments: {ours}, ...); "
                "give the .expt and .refl of one run"
            )
        return found
    return {i: i for i in range(len(experiments))}


def match(experiments: Sequence[Experiment], reflections: Reflections) -> list[ImageGroup]:
    """Group experiments by image, each group with its rows.

    Rows of experiments that are not in the list, and unindexed ones (``id`` -1), are left out. Experiments without
    an image are a group each.

    Returns:
        one group per image, in the order of the images' first experiments; groups may have no rows.

    Raises:
        InputError: no column ``id``, or identifiers that have nothing in common.
    """
    if "id" not in reflections and len(experiments) == 1:
        reflections = reflections.with_columns(id=np.zeros(len(reflections), dtype=np.int64))
    if "id" not in reflections:
        raise InputError("the reflection table has no column 'id'; give one written by DIALS for these experiments")
    ids = np.asarray(reflections["id"], dtype=np.int64)
    table = np.array(sorted(_number_of_id(experiments, reflections).items()), dtype=np.int64).reshape(-1, 2)
    at = np.minimum(np.searchsorted(table[:, 0], ids), max(len(table) - 1, 0))
    known = table[at, 0] == ids if len(table) else np.zeros(len(ids), dtype=bool)
    number = np.where(known, table[at, 1], -1) if len(table) else np.full(len(ids), -1)
    lost = int(np.sum((number < 0) & (ids >= 0)))
    if lost:
        log.warning("%d of %d reflections belong to experiments that are not in the list", lost, len(ids))
    groups: dict[object, list[int]] = {}
    for i, e in enumerate(experiments):
        groups.setdefault((e.image.path, e.image.index) if e.image else i, []).append(i)
    group_of = np.full(len(experiments) + 1, -1, dtype=np.int64)
    lattice = np.full(len(experiments) + 1, -1, dtype=np.int64)
    for k, members in enumerate(groups.values()):
        group_of[members], lattice[members] = k, np.arange(len(members))
    order = np.argsort(group_of[number], kind="stable")
    edges = np.searchsorted(group_of[number][order], np.arange(len(groups) + 1))
    result = []
    for k, members in enumerate(groups.values()):
        rows = order[edges[k] : edges[k + 1]]
        chosen = reflections.select(rows).with_columns(id=lattice[number[rows]])
        names = {j: experiments[i].identifier for j, i in enumerate(members) if experiments[i].identifier}
        result.append(
            ImageGroup(
                experiments=tuple(experiments[i] for i in members),
                reflections=Reflections(chosen.columns, names, chosen.types),
                image=experiments[members[0]].image,
                numbers=tuple(members),
            )
        )
    return result

"""DIALS experiment lists (``.expt``, or ``.json`` of old), read and written without DIALS.

The file is JSON: lists of models (beam, detector, crystal, imageset, ...) and experiments that point to them by
number. The beam's ``direction`` points from the sample to the source, ours is the direction of travel; lengths are
in angstrom (crystal) and millimetre (detector). Parts that bayesbragg does not model are carried in the
``document`` fields and written back: models that experiments shared stay shared.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bayesbragg.io.beams import beam_from_document, beam_to_document
from bayesbragg.io.detectors import detector_from_document, detector_text
from bayesbragg.io.files import MALFORMED_JSON, read_bytes, reason_of, write_bytes
from bayesbragg.io.imagesets import imageset_to_document, read_image_reference
from bayesbragg.io.symmetry import space_group_from_hall
from bayesbragg.model.beam import Beam
from bayesbragg.model.crystal import Crystal
from bayesbragg.model.detector import Detector
from bayesbragg.model.errors import InputError
from bayesbragg.model.experiment import Experiment, ImageReference

__all__ = [
    "read_beam",
    "read_detector",
    "read_experiments",
    "replace_detector",
    "write_experiments",
]

Model = TypeVar("Model", Beam, Detector)

MODELLED = ("imageset", "beam", "detector", "crystal")
CARRIED = ("goniometer", "scan", "profile", "scaling_model")
LIST_KEY = "__list__"
"""Key of an experiment's document under which the unknown top-level parts of its file are kept."""

STALE_WITH_CRYSTAL = (
    "A_at_scan_points",
    "B_covariance",
    "B_covariance_at_scan_points",
    "recalculated_unit_cell",
    "recalculated_cell_parameter_sd",
    "recalculated_cell_volume_sd",
)
"""Parts of a crystal's JSON object that describe its old cell and do not hold for a refined one."""


def _load(path: str | os.PathLike[str]) -> dict[str, Any]:
    what = "DIALS experiment list (.expt or .json)"
    data = read_bytes(path, what)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: not a whole JSON file ({error}); expected a {what}; write it again with DIALS"
        ) from None
    if not isinstance(document, dict) or document.get("__id__") != "ExperimentList":
        raise InputError(f"{path}: JSON without __id__ 'ExperimentList'; expected a {what}")
    if not isinstance(document.get("experiment"), list):
        raise InputError(f"{path}: an experiment list without the list 'experiment'; write it again with DIALS")
    return document


def _crystal_from_document(document: Mapping[str, Any]) -> Crystal:
    """The crystal of a JSON object.

    Raises:
        KeyError, TypeError, ValueError: the object is not a crystal.
    """
    hall = str(document["space_group_hall_symbol"])
    group = space_group_from_hall(hall)
    vectors = np.array([document[f"real_space_{x}"] for x in "abc"], dtype=np.float64)
    return Crystal(vectors, group.hm, group.number, hall, group.to_primitive, document)


def _crystal_to_document(crystal: Crystal) -> dict[str, Any]:
    new: dict[str, Any] = {"__id__": "crystal"} if crystal.document is None else dict(crystal.document)
    vectors = crystal.real_space_A.tolist()
    if [new.get(f"real_space_{x}") for x in "abc"] != vectors:
        new.update({f"real_space_{x}": row for x, row in zip("abc", vectors, strict=True)})
        for key in STALE_WITH_CRYSTAL:
            new.pop(key, None)
    new["space_group_hall_symbol"] = crystal.hall_symbol
    return new


def read_experiments(path: str | os.PathLike[str]) -> list[Experiment]:
    """Every experiment of a DIALS list, in the order of the file.

    Models that experiments share in the file are the same object in each of them.

    Raises:
        InputError: missing, truncated or malformed file; an experiment without beam or detector.
    """
    document = _load(path)
    folder = Path(os.path.abspath(path)).parent
    unknown = {k: v for k, v in document.items() if k not in (*MODELLED, *CARRIED, "experiment", "__id__")}
    cache: dict[tuple[str, int], Any] = {}

    def model(raw: Mapping[str, Any], kind: str) -> Any:
        """The JSON object that an experiment points to, or None."""
        pointer = raw.get(kind)
        if pointer is None:
            return None
        models = document.get(kind) or []
        if not isinstance(pointer, int) or not 0 <= pointer < len(models):
            raise ValueError(f"it points to {kind} {pointer!r}, the file has {len(models)}")
        return models[pointer]

    def built(raw: Mapping[str, Any], kind: str, build: Any) -> Any:
        source = model(raw, kind)
        if source is None:
            return None
        key = (kind, raw[kind])
        if key not in cache:
            cache[key] = build(source)
        return cache[key]

    experiments = []
    turns: Counter[int] = Counter()
    where = ""
    try:
        where = "the list: "
        users = Counter(raw.get("imageset") for raw in document["experiment"])
        for number, raw in enumerate(document["experiment"]):
            where = f"experiment {number}: "
            beam = built(raw, "beam", beam_from_document)
            detector = built(raw, "detector", detector_from_document)
            if beam is None or detector is None:
                raise ValueError(f"it has no {'beam' if beam is None else 'detector'}; a still needs both")
            crystal = built(raw, "crystal", _crystal_from_document)
            imageset, image = model(raw, "imageset"), None
            if imageset is not None:
                pointer = raw["imageset"]
                image = read_image_reference(imageset, model(raw, "scan"), folder, turns[pointer], users[pointer])
                turns[pointer] += 1
                key = (str(image.path), image.index) if image else ("", 0)
                image = cache.setdefault(key, image)
            extra = {k: v for k, v in raw.items() if k not in MODELLED} | {
                k: model(raw, k) for k in CARRIED if k in raw
            }
            identifier = str(raw.get("identifier") or "")
            experiments.append(Experiment(identifier, beam, detector, crystal, image, {**extra, LIST_KEY: unknown}))
    except MALFORMED_JSON as error:
        raise InputError(
            f"{path}: {where}{reason_of(error)}; expected a list written by DIALS; write it again or leave it out"
        ) from None
    return experiments


def write_experiments(experiments: Sequence[Experiment], path: str | os.PathLike[str]) -> None:
    """Write a DIALS experiment list, atomically.

    Refined crystals, beams and moved panels are written with their new values, everything else as it was read.
    Experiments that hold the same object share it in the file. Image paths are absolute.
    """
    lists: dict[str, list[Any]] = {kind: [] for kind in (*MODELLED, *CARRIED)}
    places: dict[tuple[str, Any], int] = {}

    def place(kind: str, key: Any, make: Any) -> int:
        if (kind, key) not in places:
            places[kind, key] = len(lists[kind])
            lists[kind].append(make())
        return places[kind, key]

    def image_key(image: ImageReference) -> tuple[str, int, int]:
        return str(image.path), image.index, id(image.document)

    entries = []
    for e in experiments:
        document = dict(e.document or {})
        document.pop(LIST_KEY, None)
        entry: dict[str, Any] = {"__id__": "Experiment", "identifier": e.identifier}
        entry["beam"] = place("beam", id(e.beam), lambda b=e.beam: beam_to_document(b))
        entry["detector"] = place("detector", e.detector, lambda d=e.detector: detector_text(d))
        if e.crystal is not None:
            entry["crystal"] = place("crystal", id(e.crystal), lambda c=e.crystal: _crystal_to_document(c))
        if e.image is not None:
            entry["imageset"] = place("imageset", image_key(e.image), lambda i=e.image: imageset_to_document(i))
        for kind in CARRIED:
            carried = document.pop(kind, None)
            if carried is not None:
                entry[kind] = place(kind, id(carried), lambda m=carried: m)
        entries.append({**document, **entry})
    unknown = (experiments[0].document or {}).get(LIST_KEY, {}) if experiments else {}
    document = {"__id__": "ExperimentList", "experiment": entries, **lists, **unknown}
    write_bytes(path, (_json_with_texts(document) + "\n").encode())


def _json_with_texts(document: dict[str, Any]) -> str:
    """JSON of a list whose detectors are texts already."""
    texts = document["detector"]
    result = json.dumps({**document, "detector": [f"@detector {i}@" for i in range(len(texts))]}, indent=2)
    for i, text in enumerate(texts):
        result = result.replace(f'"@detector {i}@"', text.replace("\n", "\n" + 4 * " "), 1)
    return result


def read_detector(path: str | os.PathLike[str]) -> Detector:
    """The first detector of an experiment list, which needs no beam, crystal or image.

    Raises:
        InputError: missing or malformed file, or no detector in it.
    """
    return _first(path, "detector", detector_from_document)


def read_beam(path: str | os.PathLike[str]) -> Beam:
    """The first beam of an experiment list, which needs no detector, crystal or image.

    Raises:
        InputError: missing or malformed file, or no beam in it.
    """
    return _first(path, "beam", beam_from_document)


def _first(path: str | os.PathLike[str], kind: str, read: Callable[[dict[str, Any]], Model]) -> Model:
    document = _load(path)
    try:
        if not document.get(kind):
            raise ValueError(f"it holds no {kind}")
        return read(document[kind][0])
    except MALFORMED_JSON as error:
        raise InputError(f"{path}: {reason_of(error)}; expected an experiment list with a {kind}") from None


def replace_detector(experiments: Sequence[Experiment], reference_path: str | os.PathLike[str]) -> list[Experiment]:
    """The experiments with the detector of another experiment list (``reference_geometry``).

    Raises:
        InputError: the reference cannot be read, or its panels differ from those of an experiment in number or size.
    """
    detector = read_detector(reference_path)
    remedy = "give a reference geometry of the same detector"
    for number, experiment in enumerate(experiments):
        ours = experiment.detector
        if ours.n_panels != detector.n_panels:
            raise InputError(
                f"{reference_path}: its detector has {detector.n_panels} panels, that of experiment {number} has "
                f"{ours.n_panels}; {remedy}"
            )
        if not np.array_equal(ours.image_size, detector.image_size):
            panel = int(np.argmax(np.any(ours.image_size != detector.image_size, axis=1)))
            theirs, here = detector.image_size[panel].tolist(), ours.image_size[panel].tolist()
            raise InputError(
                f"{reference_path}: panel {panel} has {theirs} pixels (fast, slow), that of experiment {number} has "
                f"{here}; {remedy}"
            )
    return [replace(e, detector=detector) for e in experiments]

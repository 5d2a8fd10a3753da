"""The detector of a DIALS experiment list: panels in a hierarchy of groups, to and from the laboratory frame.

Every vector in the file is relative to the group above it (PHYSICS, from files to the model): with the group's frame
M = (fast, slow, fast x slow) and origin o, all in the laboratory, a local vector v becomes M v and a local origin p
becomes o + M p. DIALS normalises the axes at every level, and so does this module. Vectors are in millimetres.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesbragg.model.detector import Detector

__all__ = ["detector_from_document", "detector_text", "detector_to_document"]

FloatArray = npt.NDArray[np.float64]
Frame = tuple[FloatArray, FloatArray]
"""Origin (3,) and matrix (3, 3) with columns fast, slow, normal, in the laboratory."""

_NODE: dict[str, Any] = {
    "name": "",
    "type": "",
    "fast_axis": [1.0, 0.0, 0.0],
    "slow_axis": [0.0, 1.0, 0.0],
    "origin": [0.0, 0.0, 0.0],
    "raw_image_offset": [0, 0],
    "image_size": [0, 0],
    "pixel_size": [0.0, 0.0],
    "trusted_range": [0.0, 0.0],
    "thickness": 0.0,
    "material": "",
    "mu": 0.0,
    "identifier": "",
    "mask": [],
    "gain": 1.0,
    "pedestal": 0.0,
    "px_mm_strategy": {"type": "SimplePxMmStrategy"},
}

_PARALLAX = {"thickness": "t0", "mu": "mu"}
"""Names of the sensor's thickness and attenuation in the parallax correction of old files."""


def _matrix(fast: Any, slow: Any) -> FloatArray:
    f, s = (np.array(v, dtype=np.float64) for v in (fast, slow))
    if f.shape != (3,) or s.shape != (3,):
        raise ValueError(f"axes of a panel must be three numbers each, got {fast} and {slow}")
    f, s = f / np.linalg.norm(f), s / np.linalg.norm(s)
    # Written out: np.cross takes most of the time of reading a detector of many panels.
    (a, b, c), (u, v, w) = f, s
    return np.array([f, s, (b * w - c * v, c * u - a * w, a * v - b * u)]).T


def _below(node: Mapping[str, Any], parent: Frame) -> Frame:
    origin, matrix = parent
    local = np.array(node["origin"], dtype=np.float64)
    frame = matrix @ _matrix(node["fast_axis"], node["slow_axis"])[:, :2]
    return origin + matrix @ local, _matrix(frame[:, 0], frame[:, 1])


def _parents(document: Mapping[str, Any]) -> list[Frame]:
    """The frame that each panel's vectors are relative to."""
    identity: Frame = (np.zeros(3), np.eye(3))
    parents = [identity] * len(document["panels"])
    if not document.get("hierarchy"):
        return parents
    stack = [(document["hierarchy"], identity)]
    while stack:
        node, above = stack.pop()
        frame = _below(node, above)
        for child in node.get("children", ()):
            if "panel" in child:
                if not 0 <= child["panel"] < len(parents):
                    raise ValueError(f"the hierarchy names panel {child['panel']}, there are {len(parents)}")
                parents[child["panel"]] = frame
            else:
                stack.append((child, frame))
    return parents


def _lab(document: Mapping[str, Any]) -> tuple[FloatArray, FloatArray, FloatArray]:
    frames = [_below(p, above) for p, above in zip(document["panels"], _parents(document), strict=True)]
    return (
        np.array([origin for origin, _ in frames]),
        np.array([matrix[:, 0] for _, matrix in frames]),
        np.array([matrix[:, 1] for _, matrix in frames]),
    )


def _sensor(panel: Mapping[str, Any], key: str) -> float:
    """Thickness or attenuation; where the parallax correction states it too, as in old files, that one counts."""
    strategy = panel.get("px_mm_strategy") or {}
    return float(strategy.get(_PARALLAX[key], panel.get(key, 0.0)))


def detector_from_document(document: Any) -> Detector:
    """The detector of a JSON object (or bare list of panels), with panel vectors in the laboratory frame.

    Lists that tell the same detector one after the other, as those of a run do, share it.

    Raises:
        KeyError, TypeError, ValueError: the object is not a detector.
    """
    if isinstance(document, list):
        document = {"panels": document}
    return _from_text(json.dumps(document))


@lru_cache(maxsize=2)
def _from_text(text: str) -> Detector:
    """By its text, so that the detector has a document of its own, which nobody else changes."""
    return _built(json.loads(text))


@lru_cache(maxsize=2)
def detector_text(detector: Detector) -> str:
    """JSON of a detector, indented by two: long, and the same for all shots of a run."""
    return json.dumps(detector_to_document(detector), indent=2)


def _built(document: Mapping[str, Any]) -> Detector:
    panels = document["panels"]
    if not panels:
        raise ValueError("a detector without panels")
    origin, fast, slow = _lab(document)
    detector = Detector(
        origin_mm=origin,
        fast=fast,
        slow=slow,
        pixel_size_mm=np.array([p["pixel_size"] for p in panels], dtype=float),
        image_size=np.array([p["image_size"] for p in panels], dtype=int),
        trusted_range=np.array([p.get("trusted_range", (-np.inf, np.inf)) for p in panels], dtype=float),
        thickness_mm=np.array([_sensor(p, "thickness") for p in panels], dtype=float),
        attenuation_per_mm=np.array([_sensor(p, "mu") for p in panels], dtype=float),
        gain=np.array([p.get("gain", 1.0) for p in panels], dtype=float),
        names=tuple(str(p.get("name", "")) for p in panels),
        document=document,
    )
    vectors = np.concatenate([origin, fast, slow])
    if not np.all(np.isfinite(vectors)):
        raise ValueError("panel vectors must be finite numbers and axes not zero")
    if not np.all(np.isfinite([detector.thickness_mm, detector.attenuation_per_mm, detector.gain])):
        raise ValueError("thickness, attenuation (mu) and gain of a panel must be finite numbers")
    if np.any(np.isnan(detector.trusted_range)):
        raise ValueError("a trusted range must be two numbers")
    if np.any(np.abs(np.sum(fast * slow, axis=1)) > 1e-5):
        raise ValueError("the fast and slow axes of a panel are not perpendicular")
    if not (np.all(detector.pixel_size_mm > 0) and np.all(detector.image_size > 0)):
        raise ValueError("pixel sizes and image sizes must be positive")
    return detector


def detector_to_document(detector: Detector) -> dict[str, Any]:
    """The JSON object of a detector.

    The groups of the file that the detector came from stay where they are. A panel that was moved gets new vectors
    relative to its group, so that DIALS composes the very laboratory vectors of `detector`; all else is kept.
    """
    if detector.document is None or len(detector.document["panels"]) != detector.n_panels:
        document: dict[str, Any] = {"panels": [_new_panel(detector, i) for i in range(detector.n_panels)]}
        document["hierarchy"] = {**copy.deepcopy(_NODE), "children": [{"panel": i} for i in range(detector.n_panels)]}
        return document
    document = copy.deepcopy(dict(detector.document))
    before = _lab(document)
    for i, ((o, matrix), panel) in enumerate(zip(_parents(document), document["panels"], strict=True)):
        now = detector.origin_mm[i], detector.fast[i], detector.slow[i]
        if not all(np.array_equal(a[i], b) for a, b in zip(before, now, strict=True)):
            inverse = np.linalg.inv(matrix)
            panel["origin"] = (inverse @ (now[0] - o)).tolist()
            panel["fast_axis"] = (inverse @ now[1]).tolist()
            panel["slow_axis"] = (inverse @ now[2]).tolist()
        for key, value, default in (
            ("trusted_range", detector.trusted_range[i], (-np.inf, np.inf)),
            ("thickness", detector.thickness_mm[i], _sensor(panel, "thickness")),
            ("mu", detector.attenuation_per_mm[i], _sensor(panel, "mu")),
            ("gain", detector.gain[i], 1.0),
            ("pixel_size", detector.pixel_size_mm[i], None),
        ):
            stated = default if key in _PARALLAX else panel.get(key, default)
            if not np.array_equal(np.array(stated, dtype=float), value):
                panel[key] = value.tolist()
                if _PARALLAX.get(key) in (panel.get("px_mm_strategy") or {}):
                    panel["px_mm_strategy"][_PARALLAX[key]] = value.tolist()
    return document


def _new_panel(detector: Detector, i: int) -> dict[str, Any]:
    return {
        **copy.deepcopy(_NODE),
        "name": detector.names[i],
        "type": "SENSOR_PAD",
        "fast_axis": detector.fast[i].tolist(),
        "slow_axis": detector.slow[i].tolist(),
        "origin": detector.origin_mm[i].tolist(),
        "image_size": detector.image_size[i].tolist(),
        "pixel_size": detector.pixel_size_mm[i].tolist(),
        "trusted_range": detector.trusted_range[i].tolist(),
        "thickness": float(detector.thickness_mm[i]),
        "mu": float(detector.attenuation_per_mm[i]),
        "gain": float(detector.gain[i]),
    }

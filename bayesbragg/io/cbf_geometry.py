"""Tables and geometry of a full CBF header (imgCIF dictionary).

Every panel hangs on a chain of axes. A translation moves by its vector times its setting, a rotation turns about its
vector; each is shifted by its offset first. Axes of one ``equipment_component`` are one rigid body, and these bodies
are the groups of the detector's hierarchy, as dxtbx builds it. Lengths are millimetres, angles in the file degrees;
the laboratory frame is that of the file, with z from the sample to the source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["beam_document", "detector_document", "sections", "table"]

FloatArray = npt.NDArray[np.float64]
Row = Mapping[str, str]


def table(handle: Any, category: str, skip: str = "") -> list[dict[str, str]]:
    """Rows of a category by column name; null values are left out, and so is the column `skip`."""
    try:
        handle.find_category(category.encode())
    except Exception:
        return []
    rows: list[dict[str, str]] = [{} for _ in range(handle.count_rows())]
    for column in range(handle.count_columns()):
        handle.select_column(column)
        name = handle.column_name().decode("ascii", "replace").lower()
        for number, row in enumerate(rows):
            handle.select_row(number)
            if name != skip and handle.get_typeofvalue() != b"null":
                value = handle.get_value().decode("ascii", "replace")
                if value not in (".", "?"):
                    row[name] = value
    return rows


def sections(handle: Any) -> dict[str, tuple[str, tuple[slice, ...]]]:
    """Array and part of it (slowest axis first) of every section, in the order of the file."""
    found: dict[str, tuple[str, dict[int, slice]]] = {}
    for row in table(handle, "array_structure_list_section"):
        _, parts = found.setdefault(row["id"], (row["array_id"], {}))
        parts[int(row["index"])] = slice(int(row["start"]) - 1, int(row["end"]))
    return {name: (array, tuple(p[i] for i in sorted(p, reverse=True))) for name, (array, p) in found.items()}


class _Axes:
    """The axes of the header, their settings in the frame, and the rigid bodies that they form."""

    def __init__(self, handle: Any) -> None:
        self.rows = {row["id"]: row for row in table(handle, "axis")}
        self.setting: dict[str, tuple[float, float]] = {}
        for category, angle, displacement in (
            ("diffrn_scan_axis", "angle_start", "displacement_start"),
            ("diffrn_scan_frame_axis", "angle", "displacement"),
        ):
            for row in table(handle, category):
                self.setting[row["axis_id"]] = (float(row.get(angle, 0.0)), float(row.get(displacement, 0.0)))

    def vector(self, axis: str, what: str = "vector") -> FloatArray:
        return np.array([float(self.rows[axis].get(f"{what}[{i}]", 0.0)) for i in (1, 2, 3)])

    def step(self, axis: str) -> FloatArray:
        """Frame of an axis in that of the axis it depends on, ``(4, 4)``."""
        angle, displacement = self.setting.get(axis, (0.0, 0.0))
        vector = self.vector(axis)
        unit = vector / np.linalg.norm(vector)
        matrix = np.eye(4)
        matrix[:3, 3] = self.vector(axis, "offset")
        kind = self.rows[axis]["type"]
        if kind == "rotation":
            cross = np.cross(np.eye(3), unit)
            t = np.radians(angle)
            matrix[:3, :3] = np.eye(3) + np.sin(t) * cross + (1.0 - np.cos(t)) * (cross @ cross)
        elif kind == "translation":
            matrix[:3, 3] += unit * displacement
        else:
            raise ValueError(f"axis {axis} of type {kind!r}; expected rotation or translation")
        return matrix

    def body(self, axis: str) -> tuple[str | None, FloatArray]:
        """The axis that the rigid body of `axis` hangs on (None: the laboratory), and the frame of `axis` in it."""
        matrix, component = np.eye(4), self.rows[axis].get("equipment_component")
        seen: set[str] = set()
        at: str | None = axis
        while at is not None and self.rows[at].get("equipment_component") == component:
            if at in seen:
                raise ValueError(f"axis {at} depends on itself")
            seen.add(at)
            matrix = self.step(at) @ matrix
            at = self.rows[at].get("depends_on")
        return at, matrix

    def above(self, axis: str | None) -> Iterator[str]:
        """The bodies from the laboratory down to that of `axis`, each named by the axis it ends with."""
        if axis is not None:
            yield from self.above(self.body(axis)[0])
            yield axis


def _frame(matrix: FloatArray) -> dict[str, Any]:
    return {k: matrix[:3, i].tolist() for k, i in (("fast_axis", 0), ("slow_axis", 1), ("origin", 3))}


def _panels(handle: Any) -> list[tuple[str, str, Sequence[Row]]]:
    """Name, array, and rows (fast, slow) of ``array_structure_list`` that have an axis, of every panel."""
    found: dict[str, list[Row]] = {}
    for row in table(handle, "array_structure_list"):
        if "axis_set_id" in row:
            found.setdefault(row.get("array_section_id", row["array_id"]), []).append(row)
    if not found:
        raise KeyError("axes of the arrays in array_structure_list")
    return [(name, r[0]["array_id"], sorted(r, key=lambda x: int(x["precedence"]))[:2]) for name, r in found.items()]


def detector_document(handle: Any) -> dict[str, Any]:
    """The JSON object of the detector."""
    axes = _Axes(handle)
    sets = {row["axis_set_id"]: row for row in table(handle, "array_structure_list_axis")}
    counts = {row["array_id"]: row for row in table(handle, "array_intensities")}
    parts_of = sections(handle)
    groups: dict[str, dict[str, Any]] = {}
    root: dict[str, Any] = {**_frame(np.eye(4)), "name": "", "children": []}
    panels: list[dict[str, Any]] = []
    for name, array, rows in _panels(handle):
        chosen = [sets[row["axis_set_id"]] for row in rows]
        fast, slow = (row["axis_id"] for row in chosen)
        inner = fast if axes.rows[fast].get("depends_on") == slow else slow
        hangs_on, matrix = axes.body(inner)
        parent = root
        for body in axes.above(hangs_on):
            if body not in groups:
                above, frame = axes.body(body)
                if above is None and not groups:
                    # One arm carries everything: its frame is that of the whole detector.
                    root.update(_frame(frame), name=body)
                    groups[body] = root
                else:
                    groups[body] = {**_frame(frame), "name": body, "children": []}
                    parent["children"].append(groups[body])
            parent = groups[body]
        parent["children"].append({"panel": len(panels)})
        size = [int(row["dimension"]) for row in rows]
        if name in parts_of:
            size = [part.stop - part.start for part in parts_of[name][1][:-3:-1]]
        count = counts.get(array, {})
        # The axes' own directions count, turned with the rotations of their body.
        turn = matrix[:3, :3]
        panels.append(
            {
                "name": name,
                "fast_axis": (turn @ axes.vector(fast)).tolist(),
                "slow_axis": (turn @ axes.vector(slow)).tolist(),
                "origin": matrix[:3, 3].tolist(),
                "image_size": size,
                "pixel_size": [abs(float(row["displacement_increment"])) for row in chosen],
                "trusted_range": [float(count.get("undefined_value", -1.0)), float(count.get("overload", np.inf))],
                "gain": float(count.get("gain", 1.0)),
                "thickness": 0.0,
                "mu": 0.0,
                "material": "",
                "type": "SENSOR_PAD",
                "raw_image_offset": [0, 0],
                "mask": [],
                "identifier": "",
                "pedestal": 0.0,
                "px_mm_strategy": {"type": "SimplePxMmStrategy"},
            }
        )
    return {"panels": panels, "hierarchy": root}


def beam_document(handle: Any) -> dict[str, Any]:
    """The JSON object of the beam: wavelength, direction to the source, polarization."""
    waves = table(handle, "diffrn_radiation_wavelength")
    values = [(float(w["wavelength"]), float(w.get("wt", 1.0))) for w in waves if "wavelength" in w]
    if not values:
        raise KeyError("wavelength in the header (_diffrn_radiation_wavelength)")
    source = next((r for r in table(handle, "axis") if r.get("equipment") == "source"), {})
    direction = [float(source.get(f"vector[{i}]", d)) for i, d in ((1, 0.0), (2, 0.0), (3, 1.0))]
    radiation = next(iter(table(handle, "diffrn_radiation")), {})
    document: dict[str, Any] = {"direction": direction}
    document["wavelength"] = float(np.average([v for v, _ in values], weights=[w for _, w in values]))
    angle = np.radians(float(radiation.get("polarizn_source_norm", 0.0)))
    document["polarization_normal"] = [float(np.sin(angle)), float(np.cos(angle)), 0.0]
    ratio = radiation.get("polarizn_source_ratio")
    document["polarization_fraction"] = 0.999 if ratio is None else (1.0 + float(ratio)) / 2.0
    return document

"""A small CBF with a full header: two layers of two panels each, on a turned quadrant, packed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pycbf

__all__ = ["ANGLE", "HEADER", "write_cbf"]

ANGLE = 30.0
HEADER = {
    "diffrn_detector_axis": (("detector_id", "axis_id"), [("D", "ARM"), ("D", "QUAD")]),
    "array_structure_list": (
        ("array_id", "array_section_id", "index", "dimension", "precedence", "direction", "axis_set_id"),
        [
            ("A", ".", 1, 10, 1, "increasing", "."),
            ("A", ".", 2, 4, 2, "increasing", "."),
            ("A", ".", 3, 2, 3, "increasing", "."),
            *[("A", f"P{i}", 1, 5, 1, "increasing", f"F{i}") for i in range(4)],
            *[("A", f"P{i}", 2, 4, 2, "increasing", f"S{i}") for i in range(4)],
        ],
    ),
    "array_structure_list_section": (
        ("array_id", "id", "index", "start", "end"),
        [
            row
            for i in range(4)
            for row in (
                ("A", f"P{i}", 1, 1 + 5 * (i % 2), 5 + 5 * (i % 2)),
                ("A", f"P{i}", 2, 1, 4),
                ("A", f"P{i}", 3, 1 + i // 2, 1 + i // 2),
            )
        ],
    ),
    "array_structure_list_axis": (
        ("axis_set_id", "axis_id", "displacement", "displacement_increment"),
        [row for i in range(4) for row in ((f"F{i}", f"F{i}", 0, 0.1), (f"S{i}", f"S{i}", 0, 0.2))],
    ),
    "axis": (
        (
            *("id", "type", "equipment", "depends_on", "equipment_component"),
            *(f"{what}[{i}]" for what in ("vector", "offset") for i in (1, 2, 3)),
        ),
        [
            ("SOURCE", "general", "source", ".", ".", 0, 0, 1, ".", ".", "."),
            ("Z", "translation", "detector", ".", "arm", 0, 0, 1, ".", ".", "."),
            ("ARM", "rotation", "detector", "Z", "arm", 0, 0, 1, 0, 0, 0),
            ("QUAD", "rotation", "detector", "ARM", "quadrant", 0, 0, 1, 10, 0, 0),
            *[(f"S{i}", "translation", "detector", "QUAD", "asic", 0, -1, 0, i, 2, 0) for i in range(4)],
            *[(f"F{i}", "translation", "detector", f"S{i}", "asic", 1, 0, 0, 0, 0, 0) for i in range(4)],
        ],
    ),
    "diffrn_scan_frame_axis": (
        ("axis_id", "frame_id", "angle", "displacement"),
        [("Z", "FRAME1", 0, -100), ("ARM", "FRAME1", 0, 0), ("QUAD", "FRAME1", ANGLE, 0)],
    ),
    "diffrn_radiation_wavelength": (("id", "wavelength", "wt"), [("W", 1.3, 1.0)]),
    "array_intensities": (("array_id", "binary_id", "gain", "overload", "undefined_value"), [("A", 1, 2.0, 900, -4)]),
    "array_structure": (("id", "encoding_type"), [("A", "signed 32-bit integer")]),
}


def write_cbf(path: Path, pixels: Any) -> Path:
    """Write pixels ``(2, 4, 10)``, int32, and return the path."""
    handle = pycbf.cbf_handle_struct()
    handle.new_datablock(b"test")
    for name, (columns, rows) in HEADER.items():
        handle.new_category(name.encode())
        for column in columns:
            handle.new_column(column.encode())
        for row in rows:
            handle.new_row()
            for column, value in zip(columns, row, strict=True):
                handle.find_column(column.encode())
                handle.set_value(str(value).encode())
                handle.set_typeofvalue(b"null" if value == "." else b"dblq")
    handle.new_category(b"array_data")
    for column in (b"array_id", b"binary_id", b"data"):
        handle.new_column(column)
    handle.new_row()
    for column, value in ((b"array_id", b"A"), (b"binary_id", b"1")):
        handle.find_column(column)
        handle.set_value(value)
    handle.find_column(b"data")
    handle.set_integerarray_wdims_fs(
        pycbf.CBF_PACKED, 1, pixels.tobytes(), 4, 1, pixels.size, b"little_endian", 10, 4, 2, 0
    )
    handle.write_widefile(
        str(path).encode(), pycbf.CBF, pycbf.MIME_HEADERS | pycbf.MSG_DIGEST | pycbf.PAD_4K, pycbf.ENC_NONE
    )
    return path

"""Detector and beam of a NeXus file that follows the application definition NXmx.

Every module of the detector hangs on a chain of axes (``depends_on``): T = ... T3 T2 T1, each a rotation or a
translation with an offset (NeXus manual, NXtransformations); nxmx computes the matrix of an axis. The axes inside the
module's own group are the panel's, those above it become the groups of the detector's hierarchy, axes of one
``equipment_component`` together. NeXus has z along the beam and y up (McStas); a turn by 180 degrees about y leads to
the laboratory frame, where z points from the sample to the source. Lengths become millimetres.

Files of older Eiger detectors state no axes; there the distance, the beam centre and the pixel size make a flat
detector across the beam. The sensor's attenuation is 2 r_e lambda times the sum of f'' in its unit cell over the cell's
volume: absorption alone, which is 2 to 10 % below tables that include scattering.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gemmi
import h5py
import numpy as np
import numpy.typing as npt

from bayesbragg.model.beam import WAVELENGTH_ENERGY_A_EV

__all__ = ["attenuation_per_mm", "children", "detector_document", "length_mm", "modules_of", "scalar", "text"]

FloatArray = npt.NDArray[np.float64]

TO_LABORATORY = np.diag([-1.0, 1.0, -1.0, 1.0])
ELECTRON_RADIUS_A = 2.8179403e-5
MATERIALS = {
    "si": ({"Si": 8}, 5.4310),
    "silicon": ({"Si": 8}, 5.4310),
    "gaas": ({"Ga": 4, "As": 4}, 5.6533),
    "cdte": ({"Cd": 4, "Te": 4}, 6.4810),
    "ge": ({"Ge": 8}, 5.6579),
}
"""Atoms in the cubic cell of a sensor's material, and its edge in angstrom."""
LEAST, MOST = -2147483647.0, 2147483647.0
"""Trusted range of a file that states none."""


def scalar(group: Any, name: str) -> float | None:
    """A number of a group, or None if it has none of this name."""
    item = group.get(name)
    return float(np.asarray(item[()]).ravel()[0]) if isinstance(item, h5py.Dataset) and item.size else None


def text(value: Any) -> str:
    """Text of an attribute or data set, whichever way it was stored."""
    value = np.asarray(value).ravel()[0] if np.ndim(value) else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def length_mm(group: Any, name: str, default_unit: str = "m") -> float | None:
    """A length of a group, millimetre, or None if it has none of this name."""
    import nxmx

    value = scalar(group, name)
    if value is None:
        return None
    unit = text(group[name].attrs.get("units", default_unit))
    return float((value * nxmx.ureg.Unit(unit)).to("mm").magnitude)


def attenuation_per_mm(material: str, wavelength_A: float) -> float:
    """Linear attenuation coefficient of a sensor, 1/millimetre; 0 for a material that is not known."""
    atoms, edge = MATERIALS.get(material.strip().lower(), ({}, 1.0))
    energy = WAVELENGTH_ENERGY_A_EV / wavelength_A
    absorbed = sum(
        n * gemmi.cromer_liberman(z=gemmi.Element(e).atomic_number, energy=energy)[1] for e, n in atoms.items()
    )
    return float(2.0 * ELECTRON_RADIUS_A * wavelength_A * absorbed / edge**3 * 1e7)


def modules_of(detector: Any) -> list[Any]:
    """The groups of the detector's modules, in the order of their names, which is that of dxtbx."""
    return children(detector, "NXdetector_module")


def children(group: Any, kind: str) -> list[Any]:
    """The groups of one NeXus class inside a group; links that lead nowhere are passed over."""
    found = (group.get(name) for name in group)
    return [g for g in found if isinstance(g, h5py.Group) and text(g.attrs.get("NX_class", "")) == kind]


def _chain(axis: Any) -> list[Any]:
    """An axis and all that it depends on, inner to outer."""
    import nxmx

    chain: list[Any] = []
    seen: set[str] = set()
    while True:
        if axis.name in seen:
            raise ValueError(f"axis {axis.name} depends on itself")
        seen.add(axis.name)
        chain.append(nxmx.NXtransformationsAxis(axis))  # type: ignore[no-untyped-call]
        above = text(axis.attrs.get("depends_on", "."))
        if above in (".", ""):
            return chain
        if above not in axis.parent:
            raise KeyError(f"axis {above!r}, on which {axis.name} depends")
        axis = axis.parent[above]


def _matrix(axis: Any, index: int) -> FloatArray:
    """Frame of an axis in that of the axis that it depends on, laboratory axes, ``(4, 4)``, millimetre."""
    kind = axis.transformation_type
    if kind not in ("rotation", "translation"):
        raise ValueError(f"axis {axis.path} of type {kind!r}; expected rotation or translation")
    if np.shape(axis.vector) != (3,) or not np.linalg.norm(axis.vector) > 0:
        raise ValueError(f"axis {axis.path} has the vector {axis.vector}; expected three numbers, not all zero")
    matrices = np.asarray(axis.matrix, dtype=np.float64)
    return np.asarray(TO_LABORATORY @ matrices[min(index, len(matrices) - 1)] @ TO_LABORATORY)


def _frame(matrix: FloatArray) -> dict[str, Any]:
    return {k: matrix[:3, i].tolist() for k, i in (("fast_axis", 0), ("slow_axis", 1), ("origin", 3))}


def _direction(module: Any, name: str) -> tuple[FloatArray, float]:
    """Unit vector and size of a pixel along one of its directions."""
    if name not in module:
        raise KeyError(f"{name} of {module.name}")
    vector = np.asarray(module[name].attrs.get("vector"), dtype=np.float64)
    size = length_mm(module, name)
    if vector.shape != (3,) or size is None or not np.linalg.norm(vector) > 0:
        raise ValueError(f"{name} of {module.name} needs a pixel size and a vector of three numbers")
    return TO_LABORATORY[:3, :3] @ vector / np.linalg.norm(vector), abs(size)


def _start(module: Any, detector: Any) -> list[Any]:
    """The chain that a module hangs on."""
    fast = module["fast_pixel_direction"]
    above = text(fast.attrs.get("depends_on", "."))
    if above not in (".", ""):
        if above not in fast.parent:
            raise KeyError(f"axis {above!r}, on which {fast.name} depends")
        return _chain(fast.parent[above])
    if "module_offset" in module:
        return _chain(module["module_offset"])
    if "depends_on" in detector and text(detector["depends_on"][()]) in detector:
        return _chain(detector[text(detector["depends_on"][()])])
    raise KeyError(f"depends_on of {fast.name}: nothing says where the detector stands")


def _bodies(chain: Sequence[Any], module: Any, index: int) -> tuple[list[tuple[str, FloatArray]], FloatArray]:
    """Groups above a module from the laboratory down (name, frame in the one above), and the module's own frame."""
    own = np.eye(4)
    groups: list[tuple[str, str | None, FloatArray]] = []
    for axis in chain:
        step = _matrix(axis, index)
        path = str(axis.path)
        if not groups and path.startswith(module.name + "/"):
            own = step @ own
            continue
        component = axis.equipment_component
        if groups and component is not None and component == groups[-1][1]:
            name, _, frame = groups[-1]
            groups[-1] = (name, component, step @ frame)
        else:
            groups.append((path, component, step))
    return [(name, frame) for name, _, frame in reversed(groups)], own


def _panel(name: str, size: Sequence[int], pixel: Sequence[float], common: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "image_size": [int(size[0]), int(size[1])],
        "pixel_size": [float(pixel[0]), float(pixel[1])],
        "type": "SENSOR_PAD",
        "raw_image_offset": [0, 0],
        "mask": [],
        "identifier": "",
        "gain": 1.0,
        "pedestal": 0.0,
        **common,
    }


def _common(detector: Any, wavelength_A: float) -> dict[str, Any]:
    """What all panels share: trusted range and sensor."""
    low, high = scalar(detector, "underload_value"), scalar(detector, "saturation_value")
    thickness = length_mm(detector, "sensor_thickness") or 0.0
    material = text(detector["sensor_material"][()]) if "sensor_material" in detector else ""
    mu = attenuation_per_mm(material, wavelength_A)
    strategy: dict[str, Any] = {"type": "SimplePxMmStrategy"}
    if mu > 0 and thickness > 0:
        strategy = {"type": "ParallaxCorrectedPxMmStrategy", "mu": mu, "t0": thickness}
    return {
        "trusted_range": [LEAST if low is None else low, MOST if high is None else high],
        "thickness": thickness,
        "material": material,
        "mu": mu,
        "px_mm_strategy": strategy,
    }


def detector_document(detector: Any, index: int, wavelength_A: float, shape: tuple[int, ...]) -> dict[str, Any]:
    """The JSON object of an experiment list's detector.

    Args:
        detector: the NXdetector group.
        index: number of the image, for axes that move.
        wavelength_A: for the sensor's attenuation, angstrom.
        shape: of one image, for detectors without modules.

    Raises:
        KeyError, ValueError: something is missing or wrong; the message says what.
    """
    common = _common(detector, wavelength_A)
    modules = modules_of(detector)
    root: dict[str, Any] = {**_frame(np.eye(4)), "name": str(detector.name), "children": []}
    if not modules:
        return {"panels": [_flat(detector, common, shape)], "hierarchy": {**root, "children": [{"panel": 0}]}}
    panels: list[dict[str, Any]] = []
    groups: dict[tuple[str, ...], dict[str, Any]] = {(): root}
    for module in modules:
        above, own = _bodies(_start(module, detector), module, index)
        if len(modules) == 1:
            for _, frame in reversed(above):
                own = frame @ own
            above = []
        path: tuple[str, ...] = ()
        for name, frame in above:
            if (*path, name) not in groups:
                groups[*path, name] = {**_frame(frame), "name": name, "children": []}
                groups[path]["children"].append(groups[*path, name])
            path = (*path, name)
        groups[path]["children"].append({"panel": len(panels)})
        (fast, fast_mm), (slow, slow_mm) = (_direction(module, f"{x}_pixel_direction") for x in ("fast", "slow"))
        size = (
            [int(n) for n in np.asarray(module["data_size"][()]).ravel()][-2:] if "data_size" in module else shape[-2:]
        )
        panel = _panel(str(module.name), size[::-1], (fast_mm, slow_mm), common)
        turn = own[:3, :3]
        panel |= {"fast_axis": (turn @ fast).tolist(), "slow_axis": (turn @ slow).tolist()}
        panels.append({**panel, "origin": own[:3, 3].tolist()})
    return {"panels": panels, "hierarchy": root}


def _flat(detector: Any, common: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """One panel across the beam, from distance, beam centre and pixel size."""
    pixel = [length_mm(detector, f"{x}_pixel_size") for x in "xy"]
    distance = next((d for n in ("distance", "detector_distance") if (d := length_mm(detector, n)) is not None), None)
    centre = [scalar(detector, f"beam_center_{x}") for x in "xy"]
    known = {"x_pixel_size": pixel[0], "y_pixel_size": pixel[1], "detector_distance": distance}
    known |= {"beam_center_x": centre[0], "beam_center_y": centre[1]}
    missing = [name for name, value in known.items() if value is None]
    if missing or distance is None or None in pixel or None in centre:
        raise KeyError(f"NXdetector_module and no {', '.join(missing)} in {detector.name}")
    x, y = (_centre_mm(detector, f"beam_center_{a}", float(p)) for a, p in zip("xy", pixel, strict=True))  # type: ignore[arg-type]
    panel = _panel(str(detector.name), shape[-2:][::-1], pixel, common)  # type: ignore[arg-type]
    return panel | {"fast_axis": [1.0, 0.0, 0.0], "slow_axis": [0.0, -1.0, 0.0], "origin": [-x, y, -distance]}


def _centre_mm(detector: Any, name: str, pixel_mm: float) -> float:
    """A coordinate of the beam centre; in pixels unless its unit is a length."""
    unit = text(detector[name].attrs.get("units", "pixel")).lower()
    in_pixels = unit.startswith("pixel") or unit in ("", "px")
    value = scalar(detector, name) if in_pixels else length_mm(detector, name)
    return float(value or 0.0) * (pixel_mm if in_pixels else 1.0)

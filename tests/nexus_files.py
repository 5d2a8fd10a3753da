"""NeXus files for tests: a small writer that shares nothing with the reader, and its geometry worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.spatial.transform import Rotation

FLIP = np.diag([-1.0, 1.0, -1.0])


def group(parent: Any, name: str, kind: str, /, **values: Any) -> Any:
    """A group of a NeXus class with data sets; a pair (value, unit) has a unit."""
    made = parent.create_group(name)
    made.attrs["NX_class"] = kind
    for key, value in values.items():
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], str):
            made[key] = value[0]
            made[key].attrs["units"] = value[1]
        else:
            made[key] = value
    return made


def axis(parent: Any, name: str, value: Any, unit: str, kind: str, vector: Any, depends_on: str, **more: Any) -> str:
    """One axis of a chain; returns its path."""
    parent[name] = np.atleast_1d(value)
    attrs = parent[name].attrs
    attrs["units"], attrs["transformation_type"] = np.bytes_(unit), kind
    attrs["vector"], attrs["depends_on"] = np.asarray(vector, float), depends_on
    for key, text in more.items():
        attrs[key] = text
    return str(parent[name].name)


def entry_of(file: Any, wavelength: Any = 1.25, sensor: str = "Si", **detector: Any) -> tuple[Any, Any]:
    """Entry and detector of a new master file."""
    entry = group(file, "entry", "NXentry", definition="NXmx")
    instrument = group(entry, "instrument", "NXinstrument")
    group(instrument, "beam", "NXbeam", incident_wavelength=(wavelength, "angstrom"))
    thickness = {"sensor_material": sensor, "sensor_thickness": (320.0, "um")}
    made = group(instrument, "detector", "NXdetector", description="test", **thickness, **detector)
    group(entry, "sample", "NXsample", name="x", depends_on=".")
    group(entry, "source", "NXsource", name="none")
    return entry, made


def module(detector: Any, name: str, place: Any, size: Any, offset_mm: Any, above: str, turn: float = 0.0) -> None:
    """A module with an offset and pixels of 0.075 mm along -x and -y of the NeXus frame, turned about the beam."""
    made = group(detector, name, "NXdetector_module", data_origin=np.array(place), data_size=np.array(size))
    length = float(np.linalg.norm(offset_mm))
    vector = np.asarray(offset_mm) / length if length else [1.0, 0, 0]
    at = axis(made, "module_offset", length, "mm", "translation", vector, above)
    c, s = np.cos(turn), np.sin(turn)
    axis(made, "fast_pixel_direction", 7.5e-5, "m", "translation", [-c, -s, 0], at)
    axis(made, "slow_pixel_direction", 75.0, "um", "translation", [s, -c, 0], at)


def eiger(folder: Path, frames: Any, *, per_file: int = 2, virtual: bool = False, wavelength: Any = 1.25) -> Path:
    """One module on a two-theta arm of 10 degree and 150 mm, its pixels in other files."""
    path = folder / "eiger_master.h5"
    n, n_slow, n_fast = frames.shape
    import hdf5plugin

    files = []
    for number, first in enumerate(range(0, n, per_file), start=1):
        files.append(folder / f"eiger_data_{number:06d}.h5")
        with h5py.File(files[-1], "w") as file:
            part = frames[first : first + per_file]
            file.create_dataset("entry/data/data", data=part, chunks=(1, n_slow, n_fast), **hdf5plugin.Bitshuffle())
    with h5py.File(path, "w") as file:
        mask = np.zeros((n_slow, n_fast), np.uint32)
        mask[3, 4], mask[5, 6], mask[7, 8] = 1, 1 << 20, 1 << 8
        entry, detector = entry_of(file, wavelength, saturation_value=9000, pixel_mask=mask)
        data = group(entry, "data", "NXdata")
        if virtual:
            layout = h5py.VirtualLayout(frames.shape, frames.dtype)
            for number, first in enumerate(range(0, n, per_file)):
                stop = min(first + per_file, n)
                source = h5py.VirtualSource(files[number].name, "entry/data/data", (stop - first, n_slow, n_fast))
                layout[first:stop] = source
            data.create_virtual_dataset("data", layout)
            data.attrs["signal"] = "data"
        else:
            for number, file_path in enumerate(files, start=1):
                data[f"data_{number:06d}"] = h5py.ExternalLink(file_path.name, "entry/data/data")
            data["data_000099"] = h5py.ExternalLink("never_written.h5", "entry/data/data")
        axes = group(detector, "transformations", "NXtransformations")
        arm = axis(axes, "two_theta", 10.0, "deg", "rotation", [0, 1, 0], ".")
        z = axis(axes, "det_z", 0.15, "m", "translation", [0, 0, 1], arm)
        detector["depends_on"] = z
        module(detector, "module", [0, 0], [n_slow, n_fast], [1.5, 1.2, 0], z)
    return path


def eiger_panels() -> tuple[Any, Any, Any]:
    """Origin, fast and slow of that detector in the laboratory."""
    arm = Rotation.from_rotvec([0, np.radians(10.0), 0]).as_matrix()
    origin = FLIP @ arm @ np.array([1.5, 1.2, 150.0])
    return origin[None], (FLIP @ arm @ [-1, 0, 0])[None], (FLIP @ arm @ [0, -1, 0])[None]


QUADRANTS = ((0.2, 9.0, 8.0), (-0.1, -1.0, 8.5))
MODULES = ((0.01, 0.5, -0.5), (-0.02, 0.4, -6.0))


def jungfrau(path: Path, frames: Any, n_pixels: tuple[int, int], *, spectrum: Any = None, flat: bool = True) -> Path:
    """Two quadrants of two modules each, in levels: rail, quadrant (turn and shift), module (turn and shift).

    Args:
        frames: ``(n, 4 n_slow, n_fast)`` where `flat`, else ``(n, 4, n_slow, n_fast)``.
        spectrum: wavelengths ``(m,)`` and weights ``(n, m)``.
    """
    n_slow, n_fast = n_pixels
    with h5py.File(path, "w") as file:
        entry, detector = entry_of(file, np.linspace(1.3, 1.31, len(frames)), "GaAs", underload_value=-10)
        beam = entry["instrument/beam"]
        if spectrum is not None:
            beam["incident_wavelength"].attrs["variant"] = "incident_wavelength_spectrum"
            beam["incident_wavelength_spectrum"] = spectrum[0] * 0.1
            beam["incident_wavelength_spectrum"].attrs["units"] = "nm"
            beam["incident_wavelength_spectrum_weights"] = spectrum[1]
        data = group(entry, "data", "NXdata", data=frames)
        data.attrs["signal"] = "data"
        axes = group(detector, "transformations", "NXtransformations")
        rail = axis(axes, "rail", np.linspace(100, 103, len(frames)), "mm", "translation", [0, 0, 1], ".")
        for q, (turn, x, y) in enumerate(QUADRANTS):
            more = {"equipment_component": f"quadrant_{q}"}
            place = axis(
                axes,
                f"shift_{q}",
                1.0,
                "mm",
                "translation",
                [0, 0, 1],
                rail,
                offset=[x, y, 0],
                offset_units="mm",
                **more,
            )
            quadrant = axis(axes, f"turn_{q}", turn, "rad", "rotation", [0, 0, 1], place, **more)
            for m, (angle, dx, dy) in enumerate(MODULES):
                number = 2 * q + m
                start = [number * n_slow, 0] if flat else [number, 0, 0]
                size = [n_slow, n_fast] if flat else [1, n_slow, n_fast]
                module(detector, f"q{q}m{m}", start, size, [dx, dy, 0.3], quadrant, angle)
    return path


def jungfrau_panels(z: float) -> tuple[Any, Any, Any]:
    """Origin, fast and slow of that detector's panels in the laboratory, at a position of the rail in millimetre."""
    origin, fast, slow = [], [], []
    for turn, x, y in QUADRANTS:
        quadrant = Rotation.from_rotvec([0, 0, turn]).as_matrix()
        for angle, dx, dy in MODULES:
            c, s = np.cos(angle), np.sin(angle)
            origin.append(FLIP @ (quadrant @ [dx, dy, 0.3] + [x, y, 1.0 + z]))
            fast.append(FLIP @ quadrant @ [-c, -s, 0])
            slow.append(FLIP @ quadrant @ [s, -c, 0])
    return np.array(origin), np.array(fast), np.array(slow)

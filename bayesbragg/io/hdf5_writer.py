"""Writing images as HDF5 with geometry and spectra inside, in the layout that nanoBragg gave them.

`bayesbragg.io.hdf5_images` reads them back, and so does h5py as they stand; DIALS finds the same pixels through a NeXus
view (`bayesbragg.io.nexus_writer`) where the beam travels along the laboratory's -z, as NeXus has it. ``images`` is
``(n_images, n_panels, slow, fast)``, ``wavelengths`` (angstrom) and ``spectrum`` (photons) have one row per image, or
are one spectrum for all. Further arrays, such as the truth of a simulation, lie in a group of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from bayesbragg.io.detectors import detector_to_document
from bayesbragg.io.files import atomic_path
from bayesbragg.io.nexus_writer import add_nexus_view
from bayesbragg.model import Beam, Detector, Spectrum
from bayesbragg.model.errors import InputError

__all__ = ["ImageFile", "image_file"]


class ImageFile:
    """An image file that is being written; see `image_file`."""

    def __init__(self, file: Any, n_images: int) -> None:
        self._file, self._n_images = file, n_images

    def put(self, index: int, panels: Sequence[npt.NDArray[Any]], spectrum: Spectrum) -> None:
        """Store one image, ``(slow, fast)`` for each panel, and its spectrum; all have one number of channels."""
        self._file["images"][index] = np.stack(panels)
        for name, values in (("wavelengths", spectrum.wavelengths_A), ("spectrum", spectrum.photons)):
            if name not in self._file:
                shape = (self._n_images, spectrum.n_channels) if self._n_images > 1 else (spectrum.n_channels,)
                self._file.create_dataset(name, shape, np.float64, track_times=False)
            self._file[name][(index,) if self._n_images > 1 else ...] = values

    def spectra(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
        """Wavelengths and photons of all images, ``(n_images, n_channels)`` each, or None if none were stored."""
        if "spectrum" not in self._file:
            return None
        waves, photons = (np.reshape(self._file[n][()], (self._n_images, -1)) for n in ("wavelengths", "spectrum"))
        return waves, photons

    def put_group(self, name: str, arrays: Mapping[str, npt.ArrayLike]) -> None:
        """Store further arrays."""
        group = self._file.create_group(name)
        for key, values in arrays.items():
            group.create_dataset(key, data=values, track_times=False)


@contextmanager
def image_file(
    path: str | os.PathLike[str],
    n_images: int,
    detector: Detector,
    beam: Beam,
    dtype: npt.DTypeLike = np.int32,
) -> Iterator[ImageFile]:
    """A file to put images into, written atomically.

    Args:
        path: the file.
        n_images: how many images it will hold.
        detector, beam: as the file states them.
        dtype: of the pixels.

    Raises:
        InputError: panels of different sizes, which the format cannot hold.
    """
    sizes = {(int(slow), int(fast)) for fast, slow in detector.image_size}
    if len(sizes) > 1:
        raise InputError(f"{path}: panels of sizes {sorted(sizes)} (slow, fast); HDF5 images need panels of one size")
    shape = next(iter(sizes))
    with atomic_path(path) as temporary, h5py.File(temporary, "w", track_order=True) as file:
        images = file.create_dataset(
            "images",
            (n_images, detector.n_panels, *shape),
            dtype,
            chunks=(1, 1, *shape),
            shuffle=True,
            compression="gzip",
            compression_opts=4,
            track_times=False,
        )
        images.attrs["dxtbx_detector_string"] = repr(_plain(detector_to_document(detector)))
        images.attrs["dxtbx_beam_string"] = repr(_beam_literal(beam))
        made = ImageFile(file, n_images)
        yield made
        if np.allclose(beam.direction, (0.0, 0.0, -1.0), atol=1e-6):
            add_nexus_view(file, detector, beam, made.spectra())


def _beam_literal(beam: Beam) -> dict[str, Any]:
    return {
        "direction": tuple((-beam.direction).tolist()),
        "wavelength": float(beam.wavelength_A),
        "divergence": 0.0,
        "sigma_divergence": 0.0,
        "polarization_normal": tuple(beam.polarization_normal.tolist()),
        "polarization_fraction": float(beam.polarization_fraction),
        "flux": 0.0,
        "transmission": 1.0,
    }


def _plain(value: Any) -> Any:
    """Numbers without infinities, which a Python literal cannot state."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, str):
        return value
    if isinstance(value, Iterable):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return float(np.copysign(1e30, value))
    return value

"""Images that only dxtbx knows, where it is installed: formats of facilities, through its registry of format classes.

dxtbx is not needed; without it this reader accepts nothing. Beam and detector come over as the JSON objects that dxtbx
itself writes to experiment lists.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesbragg.io.beams import beam_from_document
from bayesbragg.io.detectors import detector_from_document
from bayesbragg.model.beam import WAVELENGTH_ENERGY_A_EV, Spectrum
from bayesbragg.model.errors import InputError
from bayesbragg.model.experiment import Experiment, ImageReference

__all__ = ["DxtbxReader"]


class DxtbxReader:
    """Reads what dxtbx reads."""

    def accepts(self, path: Path) -> bool:
        """Whether dxtbx is there and has a format class for the file."""
        if not path.is_file() or find_spec("dxtbx") is None:
            return False
        try:
            registry = import_module("dxtbx.format.Registry")
            return registry.get_format_class_for_file(str(path)) is not None
        except Exception:
            # Format classes of dxtbx fail in many ways on files that are not theirs.
            return False

    def count(self, path: Path) -> int:
        """Number of images."""
        return len(_imageset(path))

    def read(self, path: Path, index: int) -> tuple[list[npt.NDArray[Any]], Spectrum | None]:
        """The panels of one image, ``(slow, fast)``, and its spectrum."""
        images = _one(path, index)
        try:
            panels = [_numpy(panel) for panel in images.get_raw_data(index)]
            return panels, _spectrum(images, index)
        except Exception as error:
            raise _failed(path, error) from None

    def mask(self, path: Path, index: int) -> list[npt.NDArray[np.bool_]] | None:
        """Pixels that dxtbx trusts, by panel."""
        images = _one(path, index)
        try:
            return [_numpy(panel).astype(bool) for panel in images.get_mask(index)]
        except Exception as error:
            raise _failed(path, error) from None

    def experiment(self, path: Path, index: int) -> Experiment:
        """Beam and detector as dxtbx states them."""
        images = _one(path, index)
        try:
            detector = detector_from_document(images.get_detector(index).to_dict())
            beam = beam_from_document(images.get_beam(index).to_dict())
        except Exception as error:
            raise _failed(path, error) from None
        return Experiment("", beam, detector, None, ImageReference(path, index))


def _imageset(path: Path) -> Any:
    try:
        format_class = import_module("dxtbx.format.Registry").get_format_class_for_file(str(path))
        return format_class.get_imageset([str(path)], as_imageset=True)
    except Exception as error:
        raise _failed(path, error) from None


def _one(path: Path, index: int) -> Any:
    images = _imageset(path)
    if not 0 <= index < len(images):
        raise InputError(f"{path}: image {index} was asked for, the file has {len(images)} (the first is 0)")
    return images


def _numpy(flex: Any) -> npt.NDArray[Any]:
    return np.array(flex.as_numpy_array())


def _spectrum(images: Any, index: int) -> Spectrum | None:
    try:
        spectrum = images.get_spectrum(index)
    except Exception:
        # Formats of single images, which have no spectra, fail on the argument.
        return None
    if spectrum is None:
        return None
    return Spectrum(WAVELENGTH_ENERGY_A_EV / _numpy(spectrum.get_energies_eV()), _numpy(spectrum.get_weights()))


def _failed(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:160]
    return InputError(f"{path}: dxtbx cannot read it: {type(error).__name__} {reason}; give another format")

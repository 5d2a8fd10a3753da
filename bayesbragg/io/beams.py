"""The beam of a DIALS experiment list, to and from its JSON object.

The object's ``direction`` points from the sample to the source, ours is the direction of travel. Wavelengths are in
angstrom.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bayesbragg.model.beam import Beam

__all__ = ["beam_from_document", "beam_to_document"]


def beam_from_document(document: Mapping[str, Any]) -> Beam:
    """The beam of a JSON object. A polychromatic beam counts with the middle of its wavelength range.

    Raises:
        KeyError, TypeError, ValueError: the object is not a beam.
    """
    if "wavelength" in document:
        wavelength = float(document["wavelength"])
    else:
        wavelength = float(np.mean(document["wavelength_range"]))
    direction = -np.array(document["direction"], dtype=np.float64)
    normal = np.array(document.get("polarization_normal", (0.0, 1.0, 0.0)), dtype=np.float64)
    fraction = float(document.get("polarization_fraction", 0.999))
    numbers = np.concatenate([np.ravel(direction), np.ravel(normal), [wavelength, fraction]])
    if normal.shape != (3,) or not np.all(np.isfinite(numbers)):
        raise ValueError("beam direction, polarization and wavelength must be finite numbers")
    return Beam(direction, wavelength, normal, fraction, document)


def beam_to_document(beam: Beam) -> dict[str, Any]:
    """The JSON object of a beam: that of its file, with new values where they differ."""
    new: dict[str, Any] = {} if beam.document is None else dict(beam.document)
    before = beam_from_document(new) if new else None
    if before is None or not np.array_equal(before.direction, beam.direction):
        new["direction"] = (-beam.direction).tolist()
    if before is None or before.wavelength_A != beam.wavelength_A:
        new["wavelength"] = float(beam.wavelength_A)
    if before is None or not np.array_equal(before.polarization_normal, beam.polarization_normal):
        new["polarization_normal"] = beam.polarization_normal.tolist()
    if before is None or before.polarization_fraction != beam.polarization_fraction:
        new["polarization_fraction"] = float(beam.polarization_fraction)
    for key, value in (("divergence", 0.0), ("sigma_divergence", 0.0), ("flux", 0.0), ("transmission", 1.0)):
        if before is None:
            new[key] = value
    return new

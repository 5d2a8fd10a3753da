"""The X-ray beam and its spectrum.

The beam's direction is the direction of travel, from the source to the sample (DIALS files store the opposite).
Wavelengths are in angstrom, spectrum weights in photons; the sum of the weights is the shot's flux.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["WAVELENGTH_ENERGY_A_EV", "Beam", "Spectrum"]

WAVELENGTH_ENERGY_A_EV = 12398.419843320026
"""Wavelength times energy, angstrom electronvolt (CODATA 2018: h c / e)."""

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Photons per wavelength channel.

    Attributes:
        wavelengths_A: ``(n_channels,)``, angstrom.
        photons: photons of each channel in the shot, ``(n_channels,)``; their sum is the flux.
    """

    wavelengths_A: FloatArray
    photons: FloatArray

    def __post_init__(self) -> None:
        for name in ("wavelengths_A", "photons"):
            array = np.atleast_1d(np.array(getattr(self, name), dtype=np.float64))
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if self.wavelengths_A.ndim != 1 or self.wavelengths_A.shape != self.photons.shape:
            raise ValueError(
                f"spectrum: {self.wavelengths_A.shape} wavelengths and {self.photons.shape} weights do not match"
            )
        if not (np.all(np.isfinite(self.wavelengths_A)) and np.all(self.wavelengths_A > 0)):
            raise ValueError("spectrum: every wavelength must be a positive number of angstroms")
        if not (np.all(np.isfinite(self.photons)) and np.all(self.photons >= 0) and np.any(self.photons > 0)):
            raise ValueError("spectrum: weights must be photons, not negative, and not all zero")

    @classmethod
    def monochromatic(cls, wavelength_A: float, flux: float = 1e12) -> Spectrum:
        """One channel holding the whole flux (photons)."""
        return cls(np.array([wavelength_A]), np.array([flux]))

    @property
    def n_channels(self) -> int:
        return len(self.wavelengths_A)

    @property
    def flux(self) -> float:
        """Photons in the shot."""
        return float(self.photons.sum())

    @property
    def mean_wavelength_A(self) -> float:
        """Mean wavelength weighted by photons, angstrom."""
        return float(np.sum(self.wavelengths_A * self.photons) / self.photons.sum())

    @property
    def energies_eV(self) -> FloatArray:
        return np.asarray(WAVELENGTH_ENERGY_A_EV / self.wavelengths_A)

    def with_flux(self, flux: float) -> Spectrum:
        """The same shape with another number of photons in all."""
        return Spectrum(self.wavelengths_A, self.photons * (flux / self.photons.sum()))


@dataclass(frozen=True, eq=False)
class Beam:
    """Direction, wavelength and polarization of the beam.

    Attributes:
        direction: unit vector of travel, source to sample, ``(3,)``.
        wavelength_A: nominal wavelength, angstrom.
        polarization_normal: normal of the polarization plane, ``(3,)``.
        polarization_fraction: fraction of the photons polarized in the plane, 0.5 (none) to 1 (all).
        document: the JSON object of the file that the beam came from, or None.
    """

    direction: FloatArray
    wavelength_A: float
    polarization_normal: FloatArray
    polarization_fraction: float = 0.999
    document: Mapping[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        direction = np.array(self.direction, dtype=np.float64)
        length = np.linalg.norm(direction)
        if direction.shape != (3,) or not length > 0:
            raise ValueError(f"beam direction must be a vector of three numbers, got {self.direction}")
        object.__setattr__(self, "direction", direction / length)
        object.__setattr__(self, "polarization_normal", np.array(self.polarization_normal, dtype=np.float64))
        if not self.wavelength_A > 0:
            raise ValueError(f"beam wavelength must be positive, got {self.wavelength_A} angstrom")

    @property
    def kahn_factor(self) -> float:
        """Kahn polarization factor, 2 * fraction - 1 (0 unpolarized, 1 fully polarized)."""
        return 2.0 * self.polarization_fraction - 1.0

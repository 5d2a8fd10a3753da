"""Made-up and thinned spectra: a Gaussian about a wavelength, and every n-th channel of a measured one.

Both follow the classic program (docs/spectra.md). Energies are in electronvolt, wavelengths in angstrom, weights in
photons.
"""

from __future__ import annotations

import numpy as np

from bayesbragg.model.beam import WAVELENGTH_ENERGY_A_EV, Spectrum
from bayesbragg.model.errors import InputError

__all__ = ["gaussian_spectrum", "stride_spectrum"]

_FWHM_PER_SIGMA = 2.35482


def gaussian_spectrum(
    mean_A: float,
    fwhm_eV: float = 10.0,
    n_channels: int = 20,
    resolution_eV: float = 1.0,
    flux: float = 1e12,
) -> Spectrum:
    """A Gaussian in energy, sampled on evenly spaced channels about the nominal energy.

    The channels run from mean - n r / 2 to mean + n r / 2 with both ends included, so that they stand
    n r / (n - 1) apart, a little wider than the resolution r. One channel stands at the mean.

    Args:
        mean_A: nominal wavelength, angstrom; its energy is the centre.
        fwhm_eV: full width at half maximum, electronvolt.
        n_channels: number of channels.
        resolution_eV: r above, electronvolt.
        flux: photons in all.

    Raises:
        InputError: a number that is not positive.
    """
    for name, value in (("wavelength", mean_A), ("fwhm", fwhm_eV), ("res", resolution_eV), ("flux", flux)):
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"Gaussian spectrum: {name} = {value}; expected a positive number")
    if n_channels < 1:
        raise InputError(f"Gaussian spectrum: nchannels = {n_channels}; expected at least 1")
    offset_eV = np.linspace(-0.5, 0.5, n_channels) * n_channels * resolution_eV if n_channels > 1 else np.zeros(1)
    centre_eV = WAVELENGTH_ENERGY_A_EV / mean_A
    if not centre_eV + offset_eV[0] > 0:
        raise InputError(f"Gaussian spectrum: {n_channels} channels of {resolution_eV} eV reach below 0 eV; use fewer")
    weights = np.exp(-0.5 * (offset_eV * _FWHM_PER_SIGMA / fwhm_eV) ** 2)
    return Spectrum(WAVELENGTH_ENERGY_A_EV / (centre_eV + offset_eV), weights * (flux / weights.sum()))


def stride_spectrum(spectrum: Spectrum, stride: int, flux: float | None = None) -> Spectrum:
    """Every n-th channel of a spectrum, beginning with the first.

    Args:
        spectrum: the whole spectrum.
        stride: n.
        flux: photons in all afterwards; None keeps each channel's own photons.

    Raises:
        InputError: a stride below 1 or beyond the number of channels.
    """
    if not 1 <= stride <= spectrum.n_channels:
        raise InputError(f"spectrum stride = {stride}: expected 1 to {spectrum.n_channels}, the number of channels")
    photons = spectrum.photons[::stride]
    if not np.any(photons > 0):
        raise InputError(f"spectrum stride = {stride}: the channels that are left hold no photons; use a smaller one")
    thinned = Spectrum(spectrum.wavelengths_A[::stride], photons)
    return thinned if flux is None else thinned.with_flux(flux)

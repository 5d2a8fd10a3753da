"""Spectra of a self-amplified spontaneous emission (SASE) X-ray laser: random spikes under a Gaussian envelope.

White complex noise in energy, smoothed to the width of one spike, times the square root of the envelope; its squared
modulus is the spectrum (the partial-coherence method, Pfeifer et al. 2010, Opt. Lett. 35, 3441). Smoothing by a
Gaussian amplitude of full width w gives spikes of about that width; each channel's intensity is exponentially
distributed about the envelope. Energies are electronvolt.
"""

from __future__ import annotations

import numpy as np

from bayesbragg.model.beam import WAVELENGTH_ENERGY_A_EV, Spectrum
from bayesbragg.model.errors import InputError
from bayesbragg.model.spectra import gaussian_spectrum

__all__ = ["sase_spectrum"]


def sase_spectrum(
    mean_A: float,
    generator: np.random.Generator,
    *,
    fwhm_eV: float = 20.0,
    spike_eV: float = 2.0,
    jitter_eV: float = 0.0,
    n_channels: int = 30,
    resolution_eV: float = 2.0,
    flux: float = 1e12,
) -> Spectrum:
    """One shot's spectrum.

    Args:
        mean_A: wavelength of the mean energy, angstrom.
        fwhm_eV: full width at half maximum of the envelope.
        spike_eV: full width of a spike's amplitude; 0 makes channels independent.
        jitter_eV: standard deviation of the envelope's centre from shot to shot; the channels stay where they are.
        n_channels, resolution_eV: as for `bayesbragg.model.spectra.gaussian_spectrum`.
        flux: photons in all.

    Raises:
        InputError: a number that is not positive where it has to be.
    """
    if spike_eV < 0 or jitter_eV < 0:
        raise InputError(f"SASE spectrum: spike {spike_eV} eV and jitter {jitter_eV} eV; expected 0 or more")
    grid = gaussian_spectrum(mean_A, fwhm_eV, n_channels, resolution_eV, 1.0)
    energy = grid.energies_eV
    centre = WAVELENGTH_ENERGY_A_EV / mean_A + jitter_eV * generator.standard_normal()
    sigma = fwhm_eV / (2.0 * np.sqrt(2.0 * np.log(2.0)))
    noise = generator.standard_normal(n_channels) + 1j * generator.standard_normal(n_channels)
    if spike_eV > 0 and n_channels > 1:
        width = spike_eV / (2.0 * np.sqrt(2.0 * np.log(2.0)))
        kernel = np.exp(-0.5 * ((energy[:, None] - energy) / width) ** 2)
        noise = kernel @ noise / np.linalg.norm(kernel, axis=1)
    weight = np.exp(-0.5 * ((energy - centre) / sigma) ** 2) * np.abs(noise) ** 2
    if not weight.sum() > 0:
        raise InputError(f"SASE spectrum: no photons in the channels; a jitter of {jitter_eV} eV is too large for them")
    return Spectrum(grid.wavelengths_A, weight * (flux / weight.sum()))

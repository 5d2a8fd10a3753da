"""Down-sampling of a measured spectrum, as the classic program does it (docs/spectra.md).

Baseline through both ends, low-pass filter forwards and backwards, mean per energy bin, scaling to a flux.
"""

from __future__ import annotations

import numpy as np

from bayesbragg.model.beam import WAVELENGTH_ENERGY_A_EV, Spectrum
from bayesbragg.model.errors import InputError
from bayesbragg.model.spectra import stride_spectrum

__all__ = ["downsample_spectrum"]


def downsample_spectrum(
    spectrum: Spectrum,
    *,
    filt_freq: float = 0.07,
    filt_order: int = 3,
    tail: int = 50,
    delta_en: float = 0.5,
    stride: int = 1,
    flux: float | None = 1e12,
) -> Spectrum:
    """A smooth spectrum of fewer channels.

    Args:
        spectrum: as measured, one channel per spectrometer pixel, in the spectrometer's order.
        filt_freq: cut-off of the Butterworth low-pass filter as a fraction of the Nyquist frequency, 0 to 1.
        filt_order: its order.
        tail: channels at each end that tell the straight baseline.
        delta_en: width of the new channels, electronvolt.
        stride: keep every n-th of the new channels.
        flux: photons in all afterwards; None keeps the photons above the baseline.

    Returns:
        channels by rising energy. Bins that hold no old channel are left out; bins below the baseline stay with
        weight 0, because the number of channels enters the fluence.

    Raises:
        InputError: settings that this spectrum cannot meet.
    """
    from scipy import signal  # only now: it takes half a second to import

    if not 0 < filt_freq < 1 or filt_order < 1 or tail < 1 or not delta_en > 0:
        raise InputError(
            f"down-sampling: filt_freq = {filt_freq} (0 to 1), filt_order = {filt_order} (at least 1), "
            f"tail = {tail} (at least 1), delta_en = {delta_en} (positive)"
        )
    energies, photons = spectrum.energies_eV, spectrum.photons
    edges = np.arange(energies.min(), energies.max(), delta_en)
    if len(energies) <= 3 * (filt_order + 1) or len(edges) < 2:
        raise InputError(
            f"down-sampling: {len(energies)} channels over {np.ptp(energies):.3g} eV are too few for "
            f"filt_order = {filt_order} and delta_en = {delta_en} eV; set downsamp_spec.skip = True"
        )
    ends = np.r_[0:tail, -tail:0] if 2 * tail <= len(energies) else np.arange(len(energies))
    middle = energies.mean()
    baseline = np.polyval(np.polyfit(energies[ends] - middle, photons[ends], 1), energies - middle)
    smooth = signal.filtfilt(*signal.butter(filt_order, filt_freq, "low"), photons - baseline)
    # The last bin takes its upper edge in; what lies above it belongs to no bin.
    index = np.searchsorted(edges, energies, side="right") - 1
    index[energies == edges[-1]] = len(edges) - 2
    inside = index < len(edges) - 1
    count = np.bincount(index[inside], minlength=len(edges) - 1)
    total = np.bincount(index[inside], weights=smooth[inside], minlength=len(edges) - 1)
    kept = count > 0
    mean = np.maximum(total[kept] / count[kept], 0.0)
    if not np.any(mean > 0):
        raise InputError("down-sampling: nothing stands above the baseline; shorten downsamp_spec.tail or skip it")
    centres = (0.5 * (edges[1:] + edges[:-1]))[kept]
    # A bin's mean stands for all the channels that fall into it.
    above = float(np.maximum(photons - baseline, 0.0).sum())
    thinned = stride_spectrum(Spectrum(WAVELENGTH_ENERGY_A_EV / centres, mean), stride)
    return thinned.with_flux(above if flux is None else flux)

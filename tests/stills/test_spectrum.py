"""Down-sampling and automatic oversampling."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal, stats

from bayesbragg.model.beam import WAVELENGTH_ENERGY_A_EV, Spectrum
from bayesbragg.model.errors import InputError
from bayesbragg.stills.oversampling import automatic_oversample
from bayesbragg.stills.spectrum import downsample_spectrum


def measured(n: int = 1000, seed: int = 0) -> Spectrum:
    """A peak of 12 eV on a sloping baseline, one channel per 0.1 eV, with noise."""
    rng = np.random.default_rng(seed)
    energies = 9000.0 + 0.1 * np.arange(n)
    peak = 500 * np.exp(-0.5 * ((energies - 9040.0) / 5.0) ** 2)
    return Spectrum(WAVELENGTH_ENERGY_A_EV / energies, 100 + 0.5 * np.arange(n) / 10 + peak + rng.normal(0, 5, n))


def test_against_scipy_statistic() -> None:
    """The recipe written with scipy's own binning."""
    spectrum = measured()
    e, w = spectrum.energies_eV, spectrum.photons
    line = np.polyfit(np.r_[e[:50], e[-50:]] - 9000, np.r_[w[:50], w[-50:]], 1)
    smooth = signal.filtfilt(*signal.butter(3, 0.07, "low"), w - np.polyval(line, e - 9000))
    edges = np.arange(e.min(), e.max(), 0.5)
    mean = np.maximum(stats.binned_statistic(e, smooth, bins=edges).statistic, 0)
    result = downsample_spectrum(spectrum, flux=2e12)
    np.testing.assert_allclose(result.energies_eV, 0.5 * (edges[1:] + edges[:-1]))
    np.testing.assert_allclose(result.photons, mean * 2e12 / mean.sum(), rtol=1e-6, atol=1.0)


def test_recovers_the_peak() -> None:
    result = downsample_spectrum(measured(), delta_en=1.0)
    weight = result.photons / result.flux
    mean = np.sum(weight * result.energies_eV)
    assert result.flux == pytest.approx(1e12)
    assert mean == pytest.approx(9040.0, abs=0.3)
    assert abs(result.energies_eV[np.argmax(weight)] - 9040.0) <= 1.0
    photons = downsample_spectrum(measured(), flux=None).flux
    assert photons == pytest.approx(500 * 5.0 * np.sqrt(2 * np.pi) / 0.1, rel=0.05)


def test_stride_and_order_of_channels() -> None:
    spectrum = measured()
    whole, third = downsample_spectrum(spectrum), downsample_spectrum(spectrum, stride=3)
    np.testing.assert_allclose(third.wavelengths_A, whole.wavelengths_A[::3])
    backwards = Spectrum(spectrum.wavelengths_A[::-1], spectrum.photons[::-1])
    np.testing.assert_allclose(downsample_spectrum(backwards).photons, whole.photons, rtol=1e-3, atol=1e7)


def test_narrow_bins_are_finite() -> None:
    assert np.all(np.isfinite(downsample_spectrum(measured(), delta_en=0.03).photons))


@pytest.mark.parametrize("change", [{"filt_freq": 1.5}, {"delta_en": 0.0}, {"delta_en": 1e4}, {"tail": 0}])
def test_bad_settings(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match="down-sampling"):
        downsample_spectrum(measured(), **change)  # type: ignore[arg-type]


def test_too_few_channels() -> None:
    with pytest.raises(InputError, match=r"downsamp_spec.skip"):
        downsample_spectrum(measured(8))


def test_automatic_oversample() -> None:
    """Three samples across a spot: its width 1/L against the pixel's p/(lambda D), both as angles here."""
    assert automatic_oversample([10, 10, 10], [79.1, 79.1, 38.4], 1.372, 105.0, 0.11) == 2
    assert automatic_oversample([1, 1, 1], [50, 50, 50], 1.0, 500.0, 0.05) == 1
    assert automatic_oversample([0.1, 0.1, 0.1], [50, 50, 50], 1.0, 100.0, 1.0) == 2
    for n in (20, 57, 300):
        spot_rad = 1.0 / (n * 100.0)  # lambda / L at 1 angstrom
        pixel_rad = 0.1 / 200.0
        found = automatic_oversample([n, 5, 5], [100, 100, 100], 1.0, 200.0, 0.1)
        assert pixel_rad / found <= spot_rad / 3 * (1 + 1e-12) < pixel_rad / (found - 1)

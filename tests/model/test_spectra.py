"""Gaussian and thinned spectra against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from bayesbragg.model.beam import WAVELENGTH_ENERGY_A_EV, Spectrum
from bayesbragg.model.errors import InputError
from bayesbragg.model.spectra import gaussian_spectrum, stride_spectrum


def test_gaussian_moments() -> None:
    """A fine, wide Gaussian has the mean and the standard deviation that it was asked for."""
    spectrum = gaussian_spectrum(1.3, fwhm_eV=20.0, n_channels=1001, resolution_eV=0.2, flux=3e11)
    weight = spectrum.photons / spectrum.flux
    mean = np.sum(weight * spectrum.energies_eV)
    sd = np.sqrt(np.sum(weight * (spectrum.energies_eV - mean) ** 2))
    assert spectrum.flux == pytest.approx(3e11)
    assert mean == pytest.approx(WAVELENGTH_ENERGY_A_EV / 1.3, abs=1e-6)
    assert sd == pytest.approx(20.0 / (2 * np.sqrt(2 * np.log(2))), rel=1e-5)


def test_gaussian_channels() -> None:
    """The classic channels: ends included, so 20 channels of 1 eV stand 20/19 eV apart."""
    energies = gaussian_spectrum(1.4).energies_eV
    np.testing.assert_allclose(np.diff(energies), 20 / 19)
    np.testing.assert_allclose(energies[[0, -1]] - WAVELENGTH_ENERGY_A_EV / 1.4, [-10, 10])
    assert gaussian_spectrum(1.4, n_channels=1).wavelengths_A[0] == pytest.approx(1.4)


def test_stride() -> None:
    spectrum = Spectrum(np.linspace(1.0, 1.1, 7), np.arange(1.0, 8.0))
    thinned = stride_spectrum(spectrum, 3)
    np.testing.assert_array_equal(thinned.photons, [1, 4, 7])
    np.testing.assert_array_equal(thinned.wavelengths_A, spectrum.wavelengths_A[[0, 3, 6]])
    assert stride_spectrum(spectrum, 3, flux=24.0).photons.tolist() == [2, 8, 14]


@pytest.mark.parametrize("stride", [0, 8, -1])
def test_bad_stride(stride: int) -> None:
    with pytest.raises(InputError, match="stride"):
        stride_spectrum(Spectrum(np.linspace(1.0, 1.1, 7), np.ones(7)), stride)


@pytest.mark.parametrize("change", [{"fwhm_eV": 0.0}, {"n_channels": 0}, {"flux": -1.0}, {"resolution_eV": np.nan}])
def test_bad_gaussian(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match="Gaussian spectrum"):
        gaussian_spectrum(1.0, **change)  # type: ignore[arg-type]

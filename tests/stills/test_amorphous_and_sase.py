"""Air and water by hand for one pixel; statistics of X-ray laser spectra."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bayesbragg.model import Beam
from bayesbragg.model.errors import InputError
from bayesbragg.stills.amorphous import MEDIA, amorphous_background
from bayesbragg.stills.sase import sase_spectrum
from bayesbragg.stills.virtual import four_panels


def test_one_pixel_by_hand() -> None:
    detector = four_panels(side=20, distance_mm=40.0)
    # Unpolarized, so that P = (1 + cos^2 2 theta) / 2.
    beam = Beam(np.array([0.0, 0.0, -1.0]), 1.3, np.array([0.0, 1.0, 0.0]), 0.5)
    photons = amorphous_background(detector, beam, 1e11, {"water": 0.01, "air": 3.0})
    assert photons.shape == (4 * 400,)
    for panel, fast, slow in ((0, 0, 0), (2, 13, 7)):
        place = detector.lab_mm(panel, fast + 0.5, slow + 0.5)
        r = np.linalg.norm(place)
        two_theta = np.arccos(-place[2] / r)
        solid_angle = 0.1**2 * 40.0 / r**3
        polarization = (1 + np.cos(two_theta) ** 2) / 2
        stol = np.sin(two_theta / 2) / 1.3
        expected = 0.0
        for name, thickness_m in (("water", 1e-5), ("air", 3e-3)):
            medium = MEDIA[name]
            F = np.interp(stol, medium.stol, medium.form_factor)
            molecules = {"water": 1e6 / 18.0, "air": 1.2e3 / 28.0}[name] * 6.02214076e23
            expected += 7.94079248018965e-30 * 1e11 * F**2 * polarization * solid_angle * molecules * thickness_m
        assert photons.reshape(4, 20, 20)[panel, slow, fast] == pytest.approx(expected, rel=1e-9)
    assert not amorphous_background(detector, beam, 1e11, {"water": 0.0}).any()
    vertical = replace(beam, polarization_fraction=1.0)
    image = amorphous_background(four_panels(side=200, distance_mm=40.0), vertical, 1e11, {"water": 0.01})
    corner = image.reshape(4, 200, 200)[1]
    # As far from the beam along the polarization (x) as across it (y).
    assert corner[0, 199] < 0.85 * corner[199, 0]


def test_sase_spectra_have_the_mean_and_the_spread_of_exponential_spikes() -> None:
    generator = np.random.default_rng(0)
    n, settings = 4000, {"fwhm_eV": 20.0, "n_channels": 41, "resolution_eV": 1.0, "flux": 1e11}
    weights = np.array([sase_spectrum(1.3, generator, spike_eV=2.0, **settings).photons for _ in range(n)])
    np.testing.assert_allclose(weights.sum(axis=1), 1e11)
    energy = sase_spectrum(1.3, generator, **settings).energies_eV
    mean = weights.mean(axis=0)
    centre = np.average(energy, weights=mean)
    sd = np.sqrt(np.average((energy - centre) ** 2, weights=mean))
    assert centre == pytest.approx(12398.419843320026 / 1.3, abs=0.3)
    assert sd == pytest.approx(20.0 / 2.3548, rel=0.05)
    # Neighbouring channels within a spike go together, far ones do not.
    relative = weights[:, 15:26] / mean[15:26]
    near, far = (np.corrcoef(relative[:, 0], relative[:, k])[0, 1] for k in (1, 10))
    # exp(-step^2 / 2 w^2) = 0.48 for spikes of Gaussian amplitude, less what the fixed total takes away.
    assert 0.33 < near < 0.48
    assert abs(far) < 0.2
    rough = np.array([sase_spectrum(1.3, generator, spike_eV=0.0, **settings).photons for _ in range(n)])
    assert abs(np.corrcoef(rough[:, 20], rough[:, 21])[0, 1]) < 0.15
    moved = [sase_spectrum(1.3, generator, jitter_eV=5.0, **settings).mean_wavelength_A for _ in range(500)]
    still = [sase_spectrum(1.3, generator, **settings).mean_wavelength_A for _ in range(500)]
    assert np.std(moved) > 1.3 * np.std(still)
    again = [sase_spectrum(1.3, np.random.default_rng(3), **settings).photons for _ in range(2)]
    np.testing.assert_array_equal(*again)
    with pytest.raises(InputError, match="expected 0 or more"):
        sase_spectrum(1.3, generator, spike_eV=-1.0)

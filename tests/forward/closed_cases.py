"""Small scenes for tests of the closed forms: the virtual experiment with other blocks, spreads and bandwidths."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from bayesbragg.forward import Options, Parameters, Scene, build_scene
from bayesbragg.model import Spectrum
from bayesbragg.model.spectra import gaussian_spectrum
from bayesbragg.stills.prediction import predict
from bayesbragg.stills.virtual import blank_shot, virtual_experiment

CELL = np.array([79.1, 79.1, 38.4, np.pi / 2, np.pi / 2, np.pi / 2])


def small_scene(
    *,
    n_boxes: int = 8,
    side: int = 12,
    n_channels: int = 30,
    bandwidth: float = 0.003,
    blocks: npt.ArrayLike = (13.0, 14.0, 15.0),
    eta_deg: float = 0.0,
    n_mosaic: int = 2,
    seed: int = 0,
    **options: Any,
) -> tuple[Parameters, Scene, Options]:
    """Boxes on predicted reflections of the virtual experiment, from low to high angle.

    Args:
        bandwidth: full width of a Gaussian spectrum at half maximum, relative; 0 for one channel.
    """
    e = virtual_experiment(seed, n_channels=n_channels)
    mean_A = float(np.average(e.spectrum.wavelengths_A, weights=e.spectrum.photons))
    if bandwidth:
        fwhm_eV = bandwidth * 12398.42 / mean_A
        spectrum = gaussian_spectrum(mean_A, fwhm_eV, n_channels, 3.0 * fwhm_eV / n_channels)
    else:
        spectrum = Spectrum(np.array([mean_A]), np.array([1e12]))
    switches = Options(**options)
    parameters = Parameters.start(CELL, n_abc=blocks, eta_deg=eta_deg, G=600.0)
    found = predict(e.crystal, e.beam, spectrum, e.detector, d_min=2.6, n_abc=(13.0, 14.0, 15.0), eta_deg=0.1)
    shot = blank_shot(found, e.detector, n_boxes=n_boxes, side=side)
    scene = build_scene(
        e.detector, e.beam, spectrum, [e.crystal], shot, e.factors, parameters, switches, n_mosaic=n_mosaic, margin=1
    )
    return parameters, jax.tree.map(np.asarray, scene), switches

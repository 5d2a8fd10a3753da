"""Partiality: the share of a reflection that a still records, relative to the best orientation for it.

The intensity of a reflection, summed over its spot, falls with its distance eps = |k / lambda + q| - 1 / lambda from
the Ewald sphere of each wavelength as exp(-eps^2 / 2 sigma^2), sigma^2 = r^T C r, with r the unit vector of the
scattered ray and C the covariance of the mosaic block's Gaussian (and of the mosaic spread) in reciprocal space.
Turning the crystal shifts all eps together, so that

    partiality = sum_i w_i exp(-eps_i^2 / 2 sigma^2) / max over s of sum_i w_i exp(-(eps_i - s)^2 / 2 sigma^2),

with w_i the photons of wavelength i: 1 where no other orientation gives more. Lengths are 1/angstrom without 2 pi.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bayesbragg.forward.exact import FUDGE
from bayesbragg.model import Beam, Crystal, Spectrum

__all__ = ["partialities"]

FloatArray = npt.NDArray[np.float64]

MOST_CHANNELS = 64
SHIFTS = 65
AT_ONCE = 512


def partialities(
    crystal: Crystal,
    beam: Beam,
    spectrum: Spectrum,
    miller_index: npt.ArrayLike,
    *,
    n_abc: npt.ArrayLike,
    n_def: npt.ArrayLike = (0.0, 0.0, 0.0),
    turns: npt.ArrayLike = 0.0,
) -> FloatArray:
    """Partiality of each reflection, above 0 (or 0 where it underflows) to 1, ``(n,)``.

    Args:
        miller_index: conventional setting, ``(n, 3)``.
        n_abc, n_def: block matrix Na, Nb, Nc and Nd (ab), Ne (bc), Nf (ac), cells.
        turns: covariance of the mosaic spread's rotation vector in the lab, ``(3, 3)``, or its variance about every
            axis, radian^2.
    """
    q = np.asarray(miller_index) @ crystal.A_reciprocal.T
    wavelengths, weight = _thinned(spectrum)
    k = beam.direction / wavelengths[:, None]
    result = np.empty(len(q))
    spread = np.asarray(turns, dtype=float)
    spread = spread * np.eye(3) if spread.ndim == 0 else spread
    a, b, c = np.asarray(n_abc, dtype=float)
    d, e, f = np.asarray(n_def, dtype=float)
    blocks = np.array([[a, d, f], [d, b, e], [f, e, c]])
    # F_latt^2 = exp(-2 FUDGE |N dh|^2), dh in the primitive basis: dq = A_p dh.
    to_q = np.linalg.inv(crystal.to_primitive @ crystal.real_space_A) @ np.linalg.inv(blocks)
    covariance = to_q @ to_q.T / (4.0 * FUDGE)
    for first in range(0, len(q), AT_ONCE):
        rows = slice(first, first + AT_ONCE)
        ray = k[None] + q[rows, None, :]
        length = np.linalg.norm(ray, axis=2)
        eps = length - 1.0 / wavelengths
        middle = np.sum(ray * weight[:, None], axis=1)
        middle /= np.linalg.norm(middle, axis=1, keepdims=True)
        arm = np.cross(middle, q[rows])
        swing = np.einsum("ni,ij,nj->n", arm, spread, arm)
        sigma = np.sqrt(np.einsum("ni,ij,nj->n", middle, covariance, middle) + swing)
        here = np.exp(-0.5 * (eps / sigma[:, None]) ** 2) @ weight
        low, high = eps.min(axis=1), eps.max(axis=1)
        shift = low[:, None] + (high - low)[:, None] * np.linspace(0.0, 1.0, SHIFTS)
        apart = (eps[:, None, :] - shift[:, :, None]) / sigma[:, None, None]
        best = (np.exp(-0.5 * apart**2) @ weight).max(axis=1)
        result[rows] = np.minimum(here / best, 1.0)
    return result


def _thinned(spectrum: Spectrum) -> tuple[FloatArray, FloatArray]:
    """Wavelengths and weights of the channels with photons, neighbours joined where there are many."""
    live = spectrum.photons > 0
    wavelengths, photons = spectrum.wavelengths_A[live], spectrum.photons[live]
    order = np.argsort(wavelengths)
    wavelengths, photons = wavelengths[order], photons[order]
    step = -(-len(photons) // MOST_CHANNELS)
    first = np.arange(0, len(photons), step)
    total = np.add.reduceat(photons, first)
    return np.add.reduceat(wavelengths * photons, first) / total, total / total.sum()

"""What a lattice's reflections are excited by, learned from their spots: rotations of domains, spectrum, block size.

A still sees a reflection where something brings it onto the Ewald sphere: domains that are turned by w (a rotation
vector), wavelengths that are off by a share b, or the width of the reciprocal lattice point, d. Let these be normal,
w with any covariance, b, and d equally in every direction; u = (w, b, d) has the covariance C. With q the reciprocal
lattice vector, k the beam's and s = k + q, a reflection at the distance eps from the sphere is excited where

    0 = eps + g.u,   eps = |s| - |k|,   g = (q x s/|s|, |k| (k.s/|k||s| - 1), s/|s|),

so that eps is normal with variance g.C g, and the middle of its spot is moved by the mean of u given that,

    u = -C g eps / (g.C g),   d position / d u = d position / d s (w x q + b k + d):

along the radius, as the spectrum has it, and, where rotations about the beam go with others, along the ring. Both tell
C, together with orientation and cell: a maximum of the likelihood with weak priors, by scoring steps, with Student's
weights (8 degrees of freedom) against spots that belong elsewhere. Lengths are 1/angstrom, positions pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bayesbragg.model import Beam, Crystal, Detector

__all__ = ["Excitation", "excited_centroids", "observations"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Excitation:
    """Covariances of what excites a lattice's reflections.

    Attributes:
        rotation: of the domains' rotation vector in the lab, ``(3, 3)``, radian^2.
        wavelength: relative standard deviation of the wavelength.
        width: standard deviation of a reciprocal lattice point in each direction, 1/angstrom.
        sigma_px: of an observed position about its prediction, pixels.
    """

    rotation: FloatArray
    wavelength: float
    width: float
    sigma_px: float

    @property
    def covariance(self) -> FloatArray:
        """Of (rotation, wavelength, width), ``(7, 7)``."""
        C = np.zeros((7, 7))
        C[:3, :3], C[3, 3] = self.rotation, self.wavelength**2
        C[4:, 4:] = self.width**2 * np.eye(3)
        return C


def observations(
    crystal: Crystal, beam: Beam, detector: Detector, hkl: npt.ArrayLike, panel: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Position ``(n, 2)`` of k + q, distance from the sphere ``(n,)``, and derivatives of both in u, ``(n, 3, 7)``.

    The first row of the derivatives is that of the distance.
    """
    q = np.asarray(hkl, dtype=float) @ crystal.A_reciprocal.T
    k = beam.direction / beam.wavelength_A
    s = k + q
    length = np.linalg.norm(s, axis=1)
    frame, origin = detector.pixel_frame[panel], detector.pixel_origin[panel]
    along = np.einsum("nij,nj->ni", frame, s)
    reach, aside = origin[:, 2] / along[:, 2], along[:, :2] / along[:, 2:]
    position = aside * origin[:, 2:] - origin[:, :2]
    # Derivatives in s, and in u with d s = w x q + b k + d.
    by_s = np.empty((len(q), 3, 3))
    by_s[:, 0] = s / length[:, None]
    by_s[:, 1:] = (frame[:, :2] - aside[:, :, None] * frame[:, 2:]) * reach[:, None, None]
    derivative = np.empty((len(q), 3, 7))
    for i, j, m in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        derivative[:, :, i] = q[:, j, None] * by_s[:, :, m] - q[:, m, None] * by_s[:, :, j]
    derivative[:, :, 3] = by_s @ k
    derivative[:, 0, 3] -= 1.0 / beam.wavelength_A
    derivative[:, :, 4:] = by_s
    return position, length - 1.0 / beam.wavelength_A, derivative


def excited_centroids(
    crystal: Crystal, beam: Beam, detector: Detector, hkl: npt.ArrayLike, panel: IntArray, excitation: Excitation
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Where reflections fall, given that they are excited.

    Args:
        hkl: Miller indices, ``(n, 3)``.
        panel: panels whose planes are met, ``(n,)``.

    Returns:
        position ``(n, 2)`` in pixels, distance from the sphere ``(n,)`` and its standard deviation ``(n,)`` in
        1/angstrom, and ray ``(n, 3)``, a vector of length 1 / wavelength.
    """
    position, distance, derivative = observations(crystal, beam, detector, hkl, panel)
    g, C = derivative[:, 0], excitation.covariance
    toward = g @ C
    variance = np.sum(toward * g, axis=1)
    u = -toward * (distance / variance)[:, None]
    position = position + np.einsum("nij,nj->ni", derivative[:, 1:], u)
    ray = detector.lab_mm(panel, position[:, 0], position[:, 1])
    ray = ray / np.linalg.norm(ray, axis=1, keepdims=True) / beam.wavelength_A
    return position, distance, np.sqrt(variance), ray

"""The smooth background of a simulated still: a ring such as water gives, on what air and solvent scatter elsewhere."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bayesbragg.model import Beam, Detector

__all__ = ["ring_background"]

FloatArray = npt.NDArray[np.float64]


def ring_background(
    detector: Detector, beam: Beam, photons: float, *, ring_A: float = 3.2, ring_width: float = 0.06
) -> FloatArray:
    """A smooth radial background such as water and air give, flat ``(n_pixels,)``, photons.

    A ring about 1/d = 1/ring_A on a level that falls with the angle, times the solid angle of the pixel.

    Args:
        photons: expected photons per pixel where the background is brightest.
        ring_A: spacing of the ring, angstrom.
        ring_width: its standard deviation, 1/angstrom.
    """
    parts = []
    for number, (n_fast, n_slow) in enumerate(detector.image_size.tolist()):
        s, f = np.meshgrid(np.arange(n_slow) + 0.5, np.arange(n_fast) + 0.5, indexing="ij")
        position = detector.lab_mm(np.full(f.shape, number), f, s)
        length = np.linalg.norm(position, axis=-1)
        cosine = position @ detector.normal[number] / length
        q = np.linalg.norm(position / length[..., None] - beam.direction, axis=-1) / beam.wavelength_A
        ring = np.exp(-0.5 * ((q - 1.0 / ring_A) / ring_width) ** 2)
        air = np.exp(-q / 0.15)
        parts.append(((0.25 + 0.6 * ring + 0.4 * air) * cosine**3).ravel())
    shape = np.concatenate(parts)
    return np.asarray(shape * (photons / shape.max()))

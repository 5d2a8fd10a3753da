"""Lists of spots with known truth, for tests and benchmarks of indexing: no pixels, only positions and their errors.

Spots of each lattice are drawn at random from the reflections that a still excites, displaced by normal errors, and
mixed with spurious ones spread evenly over the part of the detector that the reflections cover.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bayesbragg.model import Beam, Crystal, Detector, Reflections, Spectrum
from bayesbragg.stills.prediction import predict

__all__ = ["one_panel", "virtual_spots"]


def one_panel(distance_mm: float = 100.0, n_pixels: int = 2000, pixel_mm: float = 0.1) -> Detector:
    """A square panel across the beam, which travels along -z and meets its middle."""
    half = n_pixels * pixel_mm / 2.0
    return Detector(
        origin_mm=np.array([[-half, half, -distance_mm]]),
        fast=np.array([[1.0, 0.0, 0.0]]),
        slow=np.array([[0.0, -1.0, 0.0]]),
        pixel_size_mm=np.full((1, 2), pixel_mm),
        image_size=np.full((1, 2), n_pixels),
        trusted_range=np.array([[-1.0, 1e6]]),
        thickness_mm=np.zeros(1),
        attenuation_per_mm=np.zeros(1),
        gain=np.ones(1),
        names=("p",),
    )


def virtual_spots(
    crystals: Sequence[Crystal],
    detector: Detector,
    beam: Beam,
    generator: np.random.Generator,
    *,
    n_spots: int,
    spurious: float = 0.0,
    noise_px: float = 0.3,
    d_min: float = 2.8,
    spectrum: Spectrum | None = None,
) -> Reflections:
    """A table of strong spots on a detector of one panel, in random order.

    Args:
        n_spots: spots of each lattice.
        spurious: fraction of spurious spots among all, 0 to below 1.
        noise_px: standard deviation of each coordinate, pixels.
        d_min: resolution of the reflections that are drawn from, angstrom.
        spectrum: wavelengths that excite them; the beam's alone if not given.
    """
    spectrum = Spectrum.monochromatic(beam.wavelength_A) if spectrum is None else spectrum
    places: list[npt.NDArray[np.float64]] = []
    for crystal in crystals:
        excited = predict(crystal, beam, spectrum, detector, d_min=d_min, n_abc=30.0 * np.ones(3), widths=2.0)
        chosen = generator.choice(len(excited), min(n_spots, len(excited)), replace=False)
        places.append(excited.position[chosen] + generator.normal(0.0, noise_px, (len(chosen), 2)))
    middle = detector.intersect(0, beam.direction)
    radius = max(float(np.linalg.norm(p - middle, axis=1).max()) for p in places)
    n_spurious = round(sum(len(p) for p in places) * spurious / (1.0 - spurious))
    angle = generator.uniform(0.0, 2.0 * np.pi, n_spurious)
    r = radius * np.sqrt(generator.uniform(0.0, 1.0, n_spurious))
    places.append(middle + np.column_stack([r * np.cos(angle), r * np.sin(angle)]))
    xy = generator.permutation(np.concatenate(places))
    columns = {"panel": np.zeros(len(xy), np.int64), "xyzobs.px.value": np.column_stack([xy, np.zeros(len(xy))])}
    return Reflections(columns)

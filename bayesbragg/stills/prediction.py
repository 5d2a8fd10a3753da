"""Which reflections of a crystal a still excites, and where they fall on the detector.

A reflection q scatters exactly at one wavelength, 1/lambda = -q^2 / (2 k.q) with k the unit vector of the beam. Where
the spectrum does not hold that wavelength, the nearest one that it holds is taken, and the distance of the reflection
from that Ewald sphere is compared with the width that mosaic blocks and spread give it. Lengths in reciprocal space
are in 1/angstrom without 2 pi, positions in pixels from the outer corner of the first pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bayesbragg.forward.exact import FUDGE
from bayesbragg.model import Beam, Crystal, Detector, Spectrum

__all__ = ["Predictions", "join_predictions", "predict"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

AT_ONCE = 500_000
"""Lattice points that are looked at together."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Excited reflections that meet a panel.

    Attributes:
        miller_index: conventional setting, ``(n, 3)``.
        primitive_index: the same in the primitive basis, ``(n, 3)``.
        panel: panel number, ``(n,)``.
        position: fast and slow pixel coordinates, ``(n, 2)``.
        wavelength_A: wavelength at which the reflection is nearest to scattering, ``(n,)``.
        excitation: distance from that Ewald sphere in standard deviations of the spot's width, ``(n,)``.
        d_A: resolution, ``(n,)``.
    """

    miller_index: IntArray
    primitive_index: IntArray
    panel: IntArray
    position: FloatArray
    wavelength_A: FloatArray
    excitation: FloatArray
    d_A: FloatArray

    def __len__(self) -> int:
        return len(self.panel)

    def select(self, rows: npt.ArrayLike) -> Predictions:
        """The rows of a mask or an index array."""
        rows = np.asarray(rows)
        return Predictions(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})


def predict(
    crystal: Crystal,
    beam: Beam,
    spectrum: Spectrum,
    detector: Detector,
    *,
    d_min: float,
    n_abc: npt.ArrayLike,
    eta_deg: float = 0.0,
    widths: float = 4.0,
) -> Predictions:
    """Reflections within a few spot widths of the Ewald spheres of a spectrum.

    Args:
        crystal: orientation and cell.
        spectrum: wavelengths with photons span the spheres.
        d_min: resolution limit, angstrom.
        n_abc: cells per mosaic block along a, b, c, ``(3,)``; F_latt^2 falls as exp(-2 |N dh|^2 / 0.63).
        eta_deg: mosaic spread, degree.
        widths: largest distance from the spheres, in standard deviations of the spot's width.
    """
    live = spectrum.wavelengths_A[spectrum.photons > 0]
    to_primitive = crystal.to_primitive @ crystal.real_space_A

    def excited(conventional: IntArray, primitive: IntArray) -> Predictions:
        q = conventional @ crystal.A_reciprocal.T
        q_squared = np.sum(q * q, axis=1)
        along = q @ beam.direction
        with np.errstate(divide="ignore"):
            wavelength = np.clip(np.where(along < 0, -2.0 * along / q_squared, live.max()), live.min(), live.max())
        scattered = beam.direction / wavelength[:, None] + q
        length = np.linalg.norm(scattered, axis=1)
        ray = scattered / length[:, None]
        # Width along the ray: a step of one standard deviation of the block's Gaussian, and the swing of the spread.
        steps = np.linalg.norm(ray @ to_primitive.T * np.asarray(n_abc, dtype=float), axis=1)
        block = 1.0 / (np.sqrt(4.0 * FUDGE) * steps)
        swing = np.radians(eta_deg) * np.sqrt(q_squared)
        excitation = np.abs(length - 1.0 / wavelength) / np.hypot(block, swing)
        rows = np.flatnonzero((excitation <= widths) & (along < 0))
        panel, position = _on_panels(detector, ray[rows])
        hit = panel >= 0
        rows = rows[hit]
        return Predictions(
            conventional[rows],
            primitive[rows],
            panel[hit],
            position[hit],
            wavelength[rows],
            excitation[rows],
            1.0 / np.sqrt(q_squared[rows]),
        )

    return join_predictions([excited(*points) for points in _lattice_points(crystal, d_min)])[0]


def join_predictions(parts: Sequence[Predictions]) -> tuple[Predictions, IntArray]:
    """Predictions of several lattices as one list, and the number of the lattice of each, ``(n,)``."""
    names = Predictions.__dataclass_fields__
    joined = Predictions(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})
    return joined, np.repeat(np.arange(len(parts)), [len(p) for p in parts])


def _lattice_points(crystal: Crystal, d_min: float) -> Iterator[tuple[IntArray, IntArray]]:
    """Every lattice point but the origin inside the sphere 1/d_min, conventional and primitive, each ``(n, 3)``.

    They come in pieces, sorted: a large cell has tens of millions of them, of which a still excites some thousands.
    """
    reach = np.ceil(np.linalg.norm(crystal.real_space_A, axis=1) / d_min).astype(int)
    first, *others = (np.arange(-n, n + 1) for n in reach)
    in_layer = len(others[0]) * len(others[1])
    for part in np.array_split(first, -(-len(first) * in_layer // AT_ONCE)):
        hkl = np.stack(np.meshgrid(part, *others, indexing="ij"), axis=-1).reshape(-1, 3)
        q = hkl @ crystal.A_reciprocal.T
        length = np.linalg.norm(q, axis=1)
        primitive = hkl @ crystal.to_primitive.T
        rounded = np.rint(primitive)
        keep = (length > 0) & (length <= 1.0 / d_min) & np.all(np.abs(primitive - rounded) < 1e-6, axis=1)
        yield hkl[keep], rounded[keep].astype(np.int64)


def _on_panels(detector: Detector, ray: FloatArray) -> tuple[IntArray, FloatArray]:
    """First panel that each ray hits (-1 for none) and the pixel coordinates there."""
    panels = np.arange(detector.n_panels)
    position = detector.intersect(panels[None, :], ray[:, None, :])
    inside = np.all((position >= 0) & (position < detector.image_size), axis=-1)
    panel = np.where(inside.any(axis=1), inside.argmax(axis=1), -1)
    return panel, np.asarray(position[np.arange(len(ray)), panel])

"""A small virtual experiment: detector, beam, spectrum, crystal and structure factors, all from a seed.

For tests, examples and benchmarks that need a plausible experiment and no files: a lysozyme-like tetragonal crystal on
four small panels, 72 mm from the sample. Structure factors follow the statistics of Wilson: intensities of random
atoms are exponentially distributed about sum f^2 exp(-B / (2 d^2)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bayesbragg.model import Beam, Crystal, Detector, Shot, Spectrum, StructureFactors
from bayesbragg.model.spectra import gaussian_spectrum
from bayesbragg.stills.prediction import Predictions

__all__ = [
    "VirtualExperiment",
    "blank_shot",
    "four_panels",
    "random_rotation",
    "virtual_experiment",
    "wilson_amplitudes",
]

LYSOZYME_CELL = (79.1, 79.1, 38.4, 90.0, 90.0, 90.0)
"""Tetragonal hen egg-white lysozyme: angstrom and degree."""


@dataclass(frozen=True, eq=False)
class VirtualExperiment:
    """What a still is made with; see the classes of the fields."""

    detector: Detector
    beam: Beam
    spectrum: Spectrum
    crystal: Crystal
    factors: StructureFactors


def random_rotation(generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """A rotation matrix uniform over all orientations (from a random unit quaternion), ``(3, 3)``."""
    w, x, y, z = (q := generator.standard_normal(4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def four_panels(
    side: int = 300, pixel_mm: float = 0.1, distance_mm: float = 72.0, gap_px: float = 8.0, gain: float = 28.0
) -> Detector:
    """Four square panels around the beam, which travels along -z; each is a little out of true, as real ones are.

    Args:
        side: pixels along each side of a panel.
        pixel_mm: pixel size, millimetre.
        distance_mm: distance from the sample, millimetre.
        gap_px: gap between panels, pixels.
        gain: detector units per photon that the detector states of itself.
    """
    low, high = -(side + gap_px / 2) * pixel_mm, gap_px / 2 * pixel_mm
    turn_deg = np.array([0.15, -0.1, 0.2, -0.05])
    corner = np.array([[low, -high], [high, -high], [low, -low], [high, -low]])
    angle = np.radians(turn_deg)
    zero = np.zeros(4)
    return Detector(
        origin_mm=np.column_stack([corner, np.full(4, -distance_mm)]),
        fast=np.stack([np.cos(angle), np.sin(angle), zero], axis=1),
        slow=np.stack([np.sin(angle), -np.cos(angle), zero], axis=1),
        pixel_size_mm=np.full((4, 2), pixel_mm),
        image_size=np.full((4, 2), side),
        trusted_range=np.tile([-100.0, 1e6], (4, 1)),
        thickness_mm=zero,
        attenuation_per_mm=zero,
        gain=np.full(4, gain),
        names=tuple(f"panel_{i}" for i in range(4)),
    )


def wilson_amplitudes(
    d_A: npt.ArrayLike,
    generator: np.random.Generator,
    *,
    n_atoms: float = 8000.0,
    electrons: float = 7.0,
    b_factor_A2: float = 20.0,
    centric: npt.ArrayLike = False,
) -> npt.NDArray[np.float64]:
    """Amplitudes of random atoms, electrons, ``(n,)``.

    Args:
        d_A: resolution of each reflection, angstrom, ``(n,)``.
        n_atoms: atoms in the cell, each of ``electrons`` electrons.
        b_factor_A2: Debye-Waller factor of the atoms, angstrom^2.
        centric: reflections whose structure factor is real: their intensities follow chi-square of one degree.
    """
    d = np.asarray(d_A, dtype=float)
    mean = n_atoms * electrons**2 * np.exp(-b_factor_A2 / (2.0 * d**2))
    acentric, real = generator.exponential(size=d.shape), generator.chisquare(1, size=d.shape)
    return np.asarray(np.sqrt(mean * np.where(centric, real, acentric)))


def virtual_experiment(
    seed: int = 0, *, n_channels: int = 12, fwhm_eV: float = 20.0, d_min: float = 2.5, flux: float = 1e12
) -> VirtualExperiment:
    """An experiment with a crystal in a random orientation.

    Structure factors depend on ``d_min`` alone, orientations on the seed: shots of one crystal form share the former.

    Args:
        n_channels: channels of the Gaussian spectrum about 1.3 angstrom.
        fwhm_eV: its width, electronvolt.
        d_min: resolution limit of the structure factors, angstrom.
        flux: photons in the shot.
    """
    cell = np.array(LYSOZYME_CELL)
    crystal = Crystal.from_cell(
        cell,
        random_rotation(np.random.default_rng(seed)),
        space_group="P 43 21 2",
        space_group_number=96,
        hall_symbol=" P 4nw 2abw",
    )
    reach = np.ceil(cell[:3] / d_min).astype(int)
    axes = [np.arange(-n, n + 1) for n in reach]
    hkl = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    inverse_d = np.linalg.norm(hkl / cell[:3], axis=1)
    keep = (inverse_d > 0) & (inverse_d <= 1.0 / d_min)
    amplitudes = wilson_amplitudes(1.0 / inverse_d[keep], np.random.default_rng(96))
    wavelength = 1.3
    return VirtualExperiment(
        detector=four_panels(),
        beam=Beam(np.array([0.0, 0.0, -1.0]), wavelength, np.array([0.0, 1.0, 0.0])),
        spectrum=gaussian_spectrum(wavelength, fwhm_eV, n_channels, 3.0 * fwhm_eV / n_channels, flux),
        crystal=crystal,
        factors=StructureFactors(hkl[keep], amplitudes),
    )


def blank_shot(found: Predictions, detector: Detector, *, n_boxes: int, side: int) -> Shot:
    """Boxes without photons or background on predicted spots, for scenes whose photons come from the model.

    The boxes are spread evenly over the list of predictions, and may overlap.

    Args:
        found: where spots are expected; those whose box would leave its panel are passed over.
        detector: its panels are all of one size.
        n_boxes: how many boxes; where there are fewer predictions, some come twice.
        side: pixels along each side of a box.
    """
    corner = np.floor(found.position).astype(int) - side // 2
    inside = np.flatnonzero(np.all((corner >= 0) & (corner < detector.image_size[0] - side), axis=1))
    rows = inside[np.linspace(0, len(inside) - 1, n_boxes).astype(int)]
    fast, slow = corner[rows].T
    blank = np.zeros((n_boxes, side * side))
    return Shot(
        panel=found.panel[rows],
        bounds=np.column_stack([fast, fast + side, slow, slow + side]),
        shape=(side, side),
        counts=blank,
        background=blank,
        trusted=np.ones_like(blank, dtype=bool),
        readout_sd=np.asarray(1.0),
        miller_index=found.miller_index[rows],
        reflection_row=np.arange(n_boxes),
        lattice=np.zeros(n_boxes, int),
        tilt=np.zeros((n_boxes, 3)),
    )

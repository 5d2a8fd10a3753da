"""One lattice among the spots of a still: found, refined, and judged by chance.

Orientations are sought in reciprocal space and refined on the detector. A lattice is believed if it is unlikely that so
many of the spots would lie so near it if they lay anywhere, times the number of orientations there are. Lengths are
angstrom, positions pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.special import bdtrc

from bayesbragg.model import Beam, Crystal, Detector
from bayesbragg.stills.lattice_search import reduced_basis, search_orientations, sharpen
from bayesbragg.stills.orientation_refinement import OrientationFit, refine_orientation, with_excitation

__all__ = ["IndexingSettings", "Lattice", "SpotsOfStill", "assign_spots", "find_lattice"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LEARNED_PX, LEARNED_SIGMA = 0.5, 4.0
"""The largest offset, in pixels and standard deviations, once it is known what excites the reflections."""
STREAK = 2.0
"""Half the length of the streak that the spectrum makes of a spot, in standard deviations of the wavelength."""
FEWEST = 12
"""Spots from which on that is learned."""
ROUNDS = 2
TOLERANCES = (0.06, 0.1, 0.15, 0.2)
"""Distances from a lattice point, in index units, at which agreement is compared with chance."""


@dataclass(frozen=True)
class IndexingSettings:
    """How lattices are sought.

    Attributes:
        max_lattices: how many to look for.
        min_spots: least number of indexed spots of a lattice.
        max_chance: largest expected number of orientations that would do as well by chance.
        n_search: spots of lowest resolution that the search over orientations uses.
        scales: sizes of the reciprocal lattice that are tried in turn, for a distance that is off.
        candidates: orientations that are refined.
        hkl_tolerance: largest difference of a spot's fractional index from a whole number.
        max_offset_px, max_offset_sigma: largest offset of a spot from its prediction, pixels and in standard
            deviations of the offsets; the larger of the two counts, and the spectrum's streak is added.
        refine_cell: whether the cell varies, within its crystal system.
    """

    max_lattices: int = 1
    min_spots: int = 6
    max_chance: float = 1e-3
    n_search: int = 60
    scales: tuple[float, ...] = (1.0, 0.99, 1.01)
    candidates: int = 12
    hkl_tolerance: float = 0.3
    max_offset_px: float = 1.0
    max_offset_sigma: float = 3.0
    refine_cell: bool = True


@dataclass(frozen=True, eq=False)
class Lattice:
    """One lattice that was found.

    Attributes:
        fit: refined crystal and spreads.
        rows: strong spots that belong to it, ``(n,)``.
        hkl: their Miller indices, ``(n, 3)``.
        chance: expected number of orientations that would index as many spots by chance.
    """

    fit: OrientationFit
    rows: IntArray
    hkl: IntArray
    chance: float


@dataclass(frozen=True, eq=False)
class SpotsOfStill:
    """The spots of one still and what indexing knows of it.

    Attributes:
        beam, detector: of the still.
        bandwidth: relative standard deviation of the wavelength.
        q: scattering vectors of the spots, ``(n, 3)``, 1/angstrom.
        panel: their panels, ``(n,)``.
        position: their positions, ``(n, 2)``, pixels.
    """

    beam: Beam
    detector: Detector
    bandwidth: float
    q: FloatArray
    panel: IntArray
    position: FloatArray

    def select(self, rows: IntArray) -> SpotsOfStill:
        """Some of the spots."""
        return replace(self, q=self.q[rows], panel=self.panel[rows], position=self.position[rows])


def _chance(distance: FloatArray, basis: FloatArray, reach: float) -> float:
    """Expected number of orientations that bring so many spots so near the lattice by chance.

    Args:
        distance: of each spot from its lattice point, in index units.
        basis: cell vectors, whose length with `reach` tells how finely orientations differ.
        reach: largest scattering vector, 1/angstrom.
    """
    n = len(distance)
    longest = float(np.linalg.norm(basis, axis=1).max())
    best = np.inf
    for tolerance in TOLERANCES:
        inside = int((distance < tolerance).sum())
        by_chance = 4.0 / 3.0 * np.pi * tolerance**3
        orientations = 8.0 * np.pi**2 * max(reach * longest / tolerance, 1.0) ** 3
        # Cell and scale were adjusted too, which costs about as much as another factor of a hundred.
        best = min(best, 100.0 * len(TOLERANCES) * orientations * float(bdtrc(inside - 1, n, by_chance)))
    return best


def assign_spots(
    fit: OrientationFit, still: SpotsOfStill, settings: IndexingSettings
) -> tuple[IntArray, IntArray, FloatArray]:
    """Rows of the spots that a lattice explains, their indices, and every spot's distance in index units."""
    beam, detector, crystal = still.beam, still.detector, fit.crystal
    to_primitive = crystal.to_primitive
    fraction = still.q @ crystal.real_space_A.T @ to_primitive.T
    primitive = np.rint(fraction)
    apart = np.linalg.norm(fraction - primitive, axis=1)
    hkl = np.rint(primitive @ np.linalg.inv(to_primitive).T).astype(np.int64)
    predicted, distance, spread, _ = fit.predicted(beam, detector, hkl, still.panel, still.bandwidth)
    offset = np.linalg.norm(predicted - still.position, axis=1)
    limit = max(settings.max_offset_px, settings.max_offset_sigma * fit.sigma_px)
    if fit.excitation is not None:
        limit = max(LEARNED_PX, LEARNED_SIGMA * fit.sigma_px)
    # Which part of the spectrum a reflection takes is not known: it may lie anywhere along its streak.
    calculated = hkl @ crystal.A_reciprocal.T
    wavelengths = beam.wavelength_A * (1.0 + still.bandwidth * np.array([-STREAK, STREAK]))
    ends = detector.intersect(still.panel, beam.direction / wavelengths[:, None, None] + calculated)
    streak = np.linalg.norm(ends[1] - ends[0], axis=1) / 2.0
    near = (
        (np.abs(fraction - primitive).max(axis=1) < settings.hkl_tolerance)
        & hkl.any(axis=1)
        & (offset < limit + streak)
    )
    near &= np.abs(distance) < 6.0 * spread + 1e-4
    rows = np.flatnonzero(near)
    # Where two spots claim one reflection, the nearer one has it.
    rows = rows[np.argsort(offset[rows], kind="stable")]
    _, first = np.unique(hkl[rows], axis=0, return_index=True)
    rows = np.sort(rows[first])
    return rows, hkl[rows], apart


def _refined(
    rotation: FloatArray, reference: Crystal, still: SpotsOfStill, settings: IndexingSettings, thorough: bool
) -> Lattice | None:
    """A lattice from a start in reciprocal space: fits and assignments in turn."""
    start = reference.with_cell_and_orientation(reference.cell, rotation @ reference.U)
    to_primitive = reference.to_primitive
    fit = OrientationFit(start, 2.0, 2e-3)
    length = np.linalg.norm(still.q, axis=1)
    plan = ((0.5, True), (1.0, not settings.refine_cell)) + ((1.0, not settings.refine_cell),) * thorough
    rows, hkl, apart = np.empty(0, np.int64), np.empty((0, 3), np.int64), np.full(len(still.q), 1.0)
    for number, (part, fixed) in enumerate(plan):
        if number < 2:
            fraction = still.q @ fit.crystal.real_space_A.T @ to_primitive.T
            primitive = np.rint(fraction)
            near = (np.abs(fraction - primitive).max(axis=1) < settings.hkl_tolerance) & primitive.any(axis=1)
            rows = np.flatnonzero(near & (length <= np.quantile(length, part)))
            hkl = np.rint(primitive[rows] @ np.linalg.inv(to_primitive).T).astype(np.int64)
        if len(rows) < 4:
            continue
        fit = refine_orientation(
            fit.crystal,
            still.beam,
            still.detector,
            hkl,
            still.panel[rows],
            still.position[rows],
            bandwidth=still.bandwidth,
            fix_cell=fixed,
            cell_center=reference,
            rounds=8 if thorough else 4,
        )
        if number >= 1:
            rows, hkl, apart = assign_spots(fit, still, settings)
    if len(rows) < 4:
        return None
    basis = reduced_basis(to_primitive @ fit.crystal.real_space_A)[0]
    return Lattice(fit, rows, hkl, _chance(apart, basis, float(length.max())))


def find_lattice(reference: Crystal, still: SpotsOfStill, settings: IndexingSettings) -> Lattice | None:
    """The best lattice of these spots, or None if chance would do as well.

    Args:
        reference: cell and space group, in any orientation.
    """
    q = still.q
    low = np.argsort(np.linalg.norm(q, axis=1))[: settings.n_search]
    basis, _ = reduced_basis(reference.to_primitive @ reference.real_space_A)
    for scale, primary in product(settings.scales, (0, 1)):
        starts, _scores = search_orientations(q[low], basis * scale, primary=primary, keep=settings.candidates)
        rotations = sharpen(starts, q, basis * scale)
        fraction = q @ rotations @ basis.T * scale
        near = np.sum((fraction - np.rint(fraction)) ** 2, axis=2)
        score = np.sum(np.exp(-near / (2.0 * 0.15**2)), axis=1)
        # Few orientations are worth a fit: those that explain nearly as much as the best.
        order = np.argsort(-score, kind="stable")
        worth = _distinct(rotations[order[score[order] > 0.8 * score.max()]], basis)[:4]
        quick = [_refined(r, reference, still, settings, False) for r in worth]
        lattices = [x for x in quick if x is not None]
        if not lattices:
            continue
        best = max(lattices, key=lambda x: (len(x.rows), -x.chance))
        turn = best.fit.crystal.U @ reference.U.T
        final = _refined(turn, _with_cell_of(reference, best), still, settings, True)
        if final is not None and final.chance <= settings.max_chance and len(final.rows) >= settings.min_spots:
            return _settled(final, reference, still, settings)
    return None


def _settled(lattice: Lattice, reference: Crystal, still: SpotsOfStill, settings: IndexingSettings) -> Lattice:
    """The lattice with what excites its reflections learned, and the spots that agree with that."""
    best = lattice
    for _ in range(ROUNDS):
        if len(best.rows) < max(settings.min_spots, FEWEST):
            return lattice
        fit = with_excitation(
            best.fit,
            still.beam,
            still.detector,
            best.hkl,
            still.panel[best.rows],
            still.position[best.rows],
            bandwidth=still.bandwidth,
            fix_cell=not settings.refine_cell,
            cell_center=reference,
        )
        rows, hkl, _ = assign_spots(fit, still, settings)
        best = replace(best, fit=fit, rows=rows, hkl=hkl)
    return best if len(best.rows) >= max(settings.min_spots, FEWEST) else lattice


def _distinct(rotations: FloatArray, basis: FloatArray) -> list[FloatArray]:
    """Those rotations that give different lattices: cell vectors of one are no whole numbers of another's."""
    kept: list[FloatArray] = []
    for rotation in rotations:
        relative = (basis @ rotation.T @ np.linalg.inv(basis @ other.T) for other in kept)
        if all(np.abs(m - np.rint(m)).max() > 0.05 for m in relative):
            kept.append(rotation)
    return kept


def _with_cell_of(reference: Crystal, lattice: Lattice) -> Crystal:
    """The reference in its own orientation, with the cell that the lattice was refined to."""
    return reference.with_cell_and_orientation(lattice.fit.crystal.cell, reference.U)

"""Orientation and cell of a lattice from the positions of its spots and from the fact that they were excited.

Two kinds of residuals: observed against predicted position on the detector (pixels), and the distance of the
reflection from the Ewald sphere (1/angstrom). Positions hardly tell the rotation about the two axes across the beam;
the distances do. With k the unit vector of the beam, a reflection q has the distance

    eps = |k / lambda + q| - 1 / lambda,

whose spread is that of the crystal (found from the residuals themselves) and of the spectrum, lambda q^2 / 2 times
the relative bandwidth. The ray of a reflection goes along k / lambda' + q, with lambda' moved towards the wavelength
that excites it exactly by the share that the spectrum has in that spread. The fit is Gauss-Newton with weights that
fade for outliers; the cell keeps the symmetry of its crystal system and leans on its starting values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bayesbragg.model import Beam, Crystal, Detector
from bayesbragg.model.crystal import cell_matrix
from bayesbragg.stills.excitation import Excitation, excited_centroids
from bayesbragg.stills.excitation_fit import learn_excitation

__all__ = ["OrientationFit", "predicted_centroids", "refine_orientation", "with_excitation"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

CELL_SPREAD = 0.02
"""Standard deviation of the cell's relative lengths (and of its angles in radian) about the starting values."""
LEAST_PX = 0.1
LEAST_DISTANCE = 3e-5
"""Floors of the estimated spreads of the residuals, pixels and 1/angstrom."""
STEP = 1e-6
RIGHT_DEG = 1e-6
"""Angles nearer to 90 degrees than this are right ones."""


@dataclass(frozen=True, eq=False)
class OrientationFit:
    """A refined lattice and how well it fits.

    Attributes:
        crystal: refined.
        sigma_px: robust standard deviation of a position, pixels.
        sigma_distance: robust spread of the distances from the Ewald sphere beyond the spectrum's, 1/angstrom.
        excitation: what its reflections are excited by, once that was learned.
    """

    crystal: Crystal
    sigma_px: float
    sigma_distance: float
    excitation: Excitation | None = None

    def predicted(
        self, beam: Beam, detector: Detector, hkl: npt.ArrayLike, panel: IntArray, bandwidth: float
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Position, distance from the Ewald sphere and its standard deviation, and ray of reflections.

        Units and arguments are those of `predicted_centroids`.
        """
        if self.excitation is not None:
            return excited_centroids(self.crystal, beam, detector, hkl, panel, self.excitation)
        position, distance, ray = predicted_centroids(
            self.crystal, beam, detector, hkl, panel, bandwidth=bandwidth, sigma_distance=self.sigma_distance
        )
        q2 = np.sum((np.asarray(hkl) @ self.crystal.A_reciprocal.T) ** 2, axis=1)
        return position, distance, np.hypot(self.sigma_distance, bandwidth * beam.wavelength_A * q2 / 2.0), ray


def predicted_centroids(
    crystal: Crystal,
    beam: Beam,
    detector: Detector,
    hkl: npt.ArrayLike,
    panel: IntArray,
    *,
    bandwidth: float = 0.0,
    sigma_distance: float = 0.0,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Where reflections fall, if they are excited, and how far they are from that.

    Args:
        hkl: Miller indices, ``(n, 3)``.
        panel: panels whose planes are met, ``(n,)``.
        bandwidth: relative standard deviation of the wavelength.
        sigma_distance: spread of the crystal's reciprocal lattice points along the ray, 1/angstrom.

    Returns:
        position ``(n, 2)`` in pixels, distance from the Ewald sphere ``(n,)`` in 1/angstrom, and ray ``(n, 3)``,
        a vector of length 1 / wavelength.
    """
    q = np.asarray(hkl, dtype=float) @ crystal.A_reciprocal.T
    position, distance, ray = _placed(q, beam, detector, panel, bandwidth, sigma_distance)
    return position, distance, ray / np.linalg.norm(ray, axis=1, keepdims=True) / beam.wavelength_A


def _placed(
    q: FloatArray, beam: Beam, detector: Detector, panel: IntArray, bandwidth: float, sigma_distance: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Positions ``(..., n, 2)``, distances ``(..., n)`` and rays ``(..., n, 3)`` of scattering vectors, same shape."""
    ray = beam.direction / beam.wavelength_A + q
    distance = np.sqrt(np.einsum("...i,...i->...", ray, ray)) - 1.0 / beam.wavelength_A
    if bandwidth > 0.0:
        squared = np.einsum("...i,...i->...", q, q)
        along = q @ beam.direction
        with np.errstate(divide="ignore", invalid="ignore"):
            exact = np.where(along < 0.0, -2.0 * along / squared, beam.wavelength_A)
        spectral = (bandwidth * beam.wavelength_A * squared / 2.0) ** 2
        share = spectral / (spectral + sigma_distance**2 + 1e-20)
        moved = beam.wavelength_A + share * np.clip(exact - beam.wavelength_A, -0.05, 0.05)
        ray = beam.direction / moved[..., None] + q
    return detector.intersect(panel, ray), distance, ray


def _cell_freedom(crystal: Crystal) -> FloatArray:
    """Directions of free change of (log a, log b, log c, alpha, beta, gamma), ``(n_free, 6)``."""
    number, cell = crystal.space_group_number, crystal.cell
    identity: FloatArray = np.eye(6)
    lengths, angles = identity[:3], identity[3:]
    rhombohedral = np.ptp(cell[:3]) < 1e-3 * cell[0] and np.ptp(cell[3:]) < 0.1 and abs(cell[3] - 90.0) > 0.1
    if number <= 2:
        return np.eye(6)
    if number <= 15:
        oblique = np.abs(cell[3:] - 90.0)
        # The unique axis is b where all three angles are right, which rounding must not decide.
        return np.vstack([lengths, angles[np.argmax(oblique) if oblique.max() > RIGHT_DEG else 1]])
    if number <= 74:
        return lengths
    if number > 194:
        return np.asarray(lengths.sum(axis=0, keepdims=True))
    if number > 142 and rhombohedral:
        return np.vstack([lengths.sum(axis=0), angles.sum(axis=0)])
    return np.vstack([lengths[0] + lengths[1], lengths[2]])


def _changed(cell: FloatArray, change: FloatArray) -> FloatArray:
    """A cell after a change of its logarithmic lengths and its angles (radian)."""
    return np.concatenate([cell[:3] * np.exp(change[:3]), cell[3:] + np.degrees(change[3:])])


def _moved(crystal: Crystal, freedom: FloatArray, parameters: FloatArray) -> Crystal:
    cell = _changed(crystal.cell, parameters[3:] @ freedom)
    w = parameters[:3]
    angle = float(np.linalg.norm(w))
    turn = np.eye(3)
    if angle > 0.0:
        x, y, z = w / angle
        cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
        turn = turn + np.sin(angle) * cross + (1.0 - np.cos(angle)) * (cross @ cross)
    return crystal.with_cell_and_orientation(cell, turn @ crystal.U)


def _apart(crystal: Crystal, center: FloatArray) -> FloatArray:
    """Differences of a crystal's cell from another one, in standard deviations, ``(6,)``."""
    cell = crystal.cell
    return np.concatenate([np.log(cell[:3] / center[:3]), np.radians(cell[3:] - center[3:])]) / CELL_SPREAD


def _changes(crystal: Crystal, freedom: FloatArray, q: FloatArray) -> FloatArray:
    """Derivatives of scattering vectors, ``(1 + 3 + n_free, n, 3)``.

    The first is zero; then come those in rotations about the laboratory axes and in the free cell parameters.
    """
    changes = np.zeros((4 + len(freedom), *q.shape))
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        changes[1 + i, :, j], changes[1 + i, :, k] = -q[:, k], q[:, j]
    # With cell vectors U B in columns, q' = -A (U B')^T q.
    here = cell_matrix(crystal.cell)
    for i, direction in enumerate(freedom):
        slope = (cell_matrix(_changed(crystal.cell, STEP * direction)) - here) / STEP
        changes[4 + i] = -q @ crystal.U @ slope @ crystal.A_reciprocal.T
    return changes


def _spread(x: FloatArray, floor: float) -> float:
    return max(1.4826 * float(np.median(np.abs(x))), floor) if x.size else floor


def refine_orientation(
    crystal: Crystal,
    beam: Beam,
    detector: Detector,
    hkl: npt.ArrayLike,
    panel: IntArray,
    observed_px: FloatArray,
    *,
    bandwidth: float = 0.0,
    fix_cell: bool = False,
    cell_center: Crystal | None = None,
    rounds: int = 8,
) -> OrientationFit:
    """Gauss-Newton on centroids and Ewald distances.

    Args:
        hkl, panel, observed_px: indexed spots, ``(n, 3)``, ``(n,)``, ``(n, 2)``.
        bandwidth: relative standard deviation of the wavelength.
        fix_cell: only the orientation varies.
        cell_center: crystal whose cell the fit leans on; default `crystal`.
    """
    hkl = np.asarray(hkl)
    freedom = np.zeros((0, 6)) if fix_cell else _cell_freedom(crystal)
    q2 = np.sum((hkl @ crystal.A_reciprocal.T) ** 2, axis=1)
    spectral = bandwidth * beam.wavelength_A * q2 / 2.0
    center = (crystal if cell_center is None else cell_center).cell
    sigma_px, sigma_distance = 1.0, 1e-3

    def residuals(q: FloatArray) -> tuple[FloatArray, FloatArray]:
        position, distance, _ = _placed(q, beam, detector, panel, bandwidth, sigma_distance)
        return np.where(np.isfinite(position), position - observed_px, 1e3), distance

    # What the cell leans on changes with the cell alone.
    leaning = np.vstack([np.zeros((3, 6)), freedom]) / CELL_SPREAD
    n = len(hkl)
    for _ in range(rounds):
        q = hkl @ crystal.A_reciprocal.T
        offset, distance = residuals(q)
        radius = np.linalg.norm(offset, axis=1)
        # The median radius of a two-dimensional normal distribution is 1.1774 standard deviations.
        sigma_px = max(float(np.median(radius)) / 1.1774, LEAST_PX)
        excess = np.sqrt(max(_spread(distance, 0.0) ** 2 - float(np.median(spectral)) ** 2, 0.0))
        sigma_distance = max(excess, LEAST_DISTANCE)
        scale = np.hypot(sigma_distance, spectral)
        weight = 1.0 / (1.0 + ((radius / sigma_px) ** 2 + (distance / scale) ** 2) / 9.0)
        root = np.concatenate([np.repeat(weight, 2), weight, np.ones(6)])
        offset, distance = residuals(q + STEP * _changes(crystal, freedom, q))
        seen = np.concatenate([offset.reshape(len(offset), -1) / sigma_px, distance / scale], axis=1)
        here = np.concatenate([seen[0], _apart(crystal, center)])
        jacobian = np.concatenate([(seen[1:] - seen[0]) / STEP, leaning], axis=1).T
        step = np.linalg.lstsq(jacobian * root[:, None], -here * root, rcond=None)[0]
        turn = float(np.linalg.norm(step[:3]))
        step *= min(1.0, 0.02 / max(turn, 1e-12))
        crystal = _moved(crystal, freedom, step)
        if turn < 1e-7 and n:
            break
    return OrientationFit(crystal, sigma_px, sigma_distance)


def with_excitation(
    fit: OrientationFit,
    beam: Beam,
    detector: Detector,
    hkl: npt.ArrayLike,
    panel: IntArray,
    observed_px: FloatArray,
    *,
    bandwidth: float = 0.0,
    fix_cell: bool = False,
    cell_center: Crystal | None = None,
) -> OrientationFit:
    """The fit with what excites its reflections learned as well; arguments as for `refine_orientation`."""
    freedom = np.zeros((0, 6)) if fix_cell else _cell_freedom(fit.crystal)
    center = (fit.crystal if cell_center is None else cell_center).cell

    crystal, excitation = learn_excitation(
        fit.crystal,
        beam,
        detector,
        hkl,
        panel,
        observed_px,
        lambda c, step: _moved(c, freedom, step),
        len(freedom),
        lambda c: _apart(c, center),
        bandwidth=bandwidth,
    )
    position, distance, _, _ = excited_centroids(crystal, beam, detector, hkl, panel, excitation)
    radius = np.linalg.norm(position - observed_px, axis=1)
    sigma_px = max(float(np.median(radius)) / 1.1774, LEAST_PX)
    return OrientationFit(crystal, sigma_px, max(_spread(distance, 0.0), LEAST_DISTANCE), excitation)

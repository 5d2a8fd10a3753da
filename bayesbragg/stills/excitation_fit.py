"""Orientation, cell and covariances of what excites a lattice's reflections, learned together from its spots.

The likelihood is that of `bayesbragg.stills.excitation`: each reflection's distance from the Ewald sphere is normal,
and its spot lies where that distance moves it, with Student's distribution about it. Lengths are 1/angstrom,
positions pixels, rotations radian.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bayesbragg.model import Beam, Crystal, Detector
from bayesbragg.stills.excitation import Excitation
from bayesbragg.stills.excitation import observations as geometry

__all__ = ["learn_excitation"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

STUDENT = 8.0
"""Degrees of freedom of the weights."""
LEAST_PX = 0.05
TYPICAL = (1e-3, 1e-3, 1e-4)
"""Standard deviations that priors expect: rotation (radian), wavelength (relative), width of a point (1/angstrom)."""
LOOSE = 2.0
"""Standard deviation of the priors: of logarithms, and of what goes with another axis in units of the typical."""
STEPS = 20
SMALL = 0.02
"""A step that gains less in the log density is the last."""
_LOWER = ((0, 0), (1, 1), (2, 2), (1, 0), (2, 0), (2, 1))
"""Elements of the root of the rotations' covariance: the first three by their logarithms."""


def learn_excitation(
    start: Crystal,
    beam: Beam,
    detector: Detector,
    hkl: npt.ArrayLike,
    panel: IntArray,
    observed_px: FloatArray,
    moved: Callable[[Crystal, FloatArray], Crystal],
    n_cell: int,
    lean: Callable[[Crystal], FloatArray],
    *,
    bandwidth: float = 0.0,
) -> tuple[Crystal, Excitation]:
    """Orientation, cell and covariances of excitation, the most probable ones.

    Args:
        hkl, panel, observed_px: indexed spots, ``(n, 3)``, ``(n,)``, ``(n, 2)``.
        moved: a crystal turned by a rotation vector and with ``n_cell`` numbers added to its cell,
            ``(3 + n_cell,)``.
        lean: what a crystal's cell is from its prior, in standard deviations.
        bandwidth: relative standard deviation of the wavelength where the spectrum is known; 0 learns it.
    """
    hkl = np.asarray(hkl)
    free = np.array([i for i in range(8) if i != 6 or not bandwidth])
    shape = np.zeros(8)
    if bandwidth:
        shape[6] = np.log(bandwidth / TYPICAL[1])

    def seen(c: Crystal) -> tuple[FloatArray, FloatArray, FloatArray]:
        position, distance, derivative = geometry(c, beam, detector, hkl, panel)
        return position - observed_px, distance, derivative

    def density(terms: _Terms, squared: FloatArray, lean: FloatArray, shape: FloatArray, sigma: float) -> float:
        """Minus the log density."""
        value = (STUDENT + 2.0) / 2.0 * float(np.log1p(squared / (STUDENT * sigma**2)).sum())
        value += 2.0 * len(squared) * np.log(sigma)
        value += 0.5 * float(np.sum(terms.distance**2 / terms.variance + np.log(terms.variance)))
        return float(value + 0.5 * (lean @ lean + np.sum((shape[free] / LOOSE) ** 2)))

    crystal, sigma, damping = start, 0.5, 1e-2
    here, leaning = seen(crystal), lean(crystal)
    # How positions, distances and the prior change with the cell hardly depends on where the fit is.
    cell = []
    for i in range(n_cell):
        there = moved(crystal, np.eye(3 + n_cell)[3 + i] * 1e-6)
        offset, distance, _ = seen(there)
        cell.append(((offset - here[0]) / 1e-6, (distance - here[1]) / 1e-6, (lean(there) - leaning) / 1e-6))
    terms = _terms(*here, shape)
    squared = np.sum(terms.offset**2, axis=1)
    value = density(terms, squared, leaning, shape, sigma)
    for _ in range(STEPS):
        jacobian, target = _system(terms, _student(squared, sigma), sigma, shape, free, cell, leaning)
        normal, pull = jacobian.T @ jacobian, jacobian.T @ target
        step = -np.linalg.solve(normal + damping * np.diag(np.diag(normal)), pull)
        other = shape.copy()
        other[free] += np.clip(step[3 + n_cell :], -1.0, 1.0)
        shorter = min(1.0, 0.01 / max(float(np.linalg.norm(step[:3])), 1e-12))
        there = moved(crystal, np.asarray(shorter * step[: 3 + n_cell], dtype=np.float64))
        new, far_lean = _terms(*seen(there), other), lean(there)
        far = np.sum(new.offset**2, axis=1)
        trial = density(new, far, far_lean, other, sigma)
        if not trial < value:
            damping *= 10.0
            continue
        ended = value - trial < SMALL and damping < 0.1
        crystal, shape, terms, squared, leaning = there, other, new, far, far_lean
        damping = max(damping / 10.0, 1e-8)
        sigma = max(float(np.sqrt(_student(squared, sigma) @ squared / (2.0 * len(squared)))), LEAST_PX)
        value = density(terms, squared, leaning, shape, sigma)
        if ended:
            break
    root, wavelength, width = _spreads(shape)
    return crystal, Excitation(root @ root.T, wavelength, width, sigma)


def _student(squared: FloatArray, sigma: float) -> FloatArray:
    """Weights of spots with these squared offsets, ``(n,)``."""
    return np.asarray((STUDENT + 2.0) / (STUDENT + squared / sigma**2), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class _Terms:
    """What the likelihood is made of, and its derivatives in the eight numbers of the covariance.

    Attributes:
        offset: predicted less observed position, ``(n, 2)``; distance, variance: eps and g.C g, ``(n,)``.
        by_rotation: derivatives of position and distance in a rotation of the crystal, ``(n, 3, 3)``.
        pull: change of the position with eps, ``(n, 2)``.
        by_shape: of the position, ``(8, n, 2)``; widening: of ln(variance), ``(8, n)``.
    """

    offset: FloatArray
    distance: FloatArray
    variance: FloatArray
    by_rotation: FloatArray
    pull: FloatArray
    by_shape: FloatArray
    widening: FloatArray


def _spreads(shape: FloatArray) -> tuple[FloatArray, float, float]:
    """Root of the rotations' covariance (radian), spread of the wavelength and of a point, from their eight numbers."""
    root = np.zeros((3, 3))
    for number, (i, j) in enumerate(_LOWER):
        root[i, j] = TYPICAL[0] * (np.exp(shape[number]) if i == j else shape[number])
    return root, float(TYPICAL[1] * np.exp(shape[6])), float(TYPICAL[2] * np.exp(shape[7]))


def _terms(offset: FloatArray, distance: FloatArray, derivative: FloatArray, shape: FloatArray) -> _Terms:
    root, wavelength, width = _spreads(shape)
    C = Excitation(root @ root.T, wavelength, width, 0.0).covariance
    g, place = derivative[:, 0], derivative[:, 1:]
    toward = g @ C
    variance = np.sum(toward * g, axis=1)
    share = distance / variance
    dC = np.zeros((8, 7, 7))
    for number, (i, j) in enumerate(_LOWER):
        # The root changes in one element: L dL^T + dL L^T.
        row = root[:, j] * (root[i, j] if i == j else TYPICAL[0])
        dC[number, i, :3] += row
        dC[number, :3, i] += row
    dC[6, 3, 3] = 2.0 * wavelength**2
    dC[7, 4:, 4:] = 2.0 * width**2 * np.eye(3)
    turned = g @ dC
    widening = np.einsum("snj,nj->sn", turned, g) / variance
    moved = (toward * widening[:, :, None] - turned) * share[:, None]
    pull = -np.einsum("nij,nj->ni", place, toward / variance[:, None])
    return _Terms(
        offset + pull * distance[:, None],
        distance,
        variance,
        derivative[:, :, :3],
        pull,
        np.einsum("nij,snj->sni", place, moved),
        widening,
    )


def _system(
    terms: _Terms,
    weight: FloatArray,
    sigma: float,
    shape: FloatArray,
    free: IntArray,
    cell: Sequence[tuple[FloatArray, FloatArray, FloatArray]],
    lean: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Least squares whose normal equations are a scoring step: Jacobian and residuals.

    The rows of a variance v with score (1 - eps^2/v)/2 and information 1/2 in ln v are (1 - eps^2/v)/sqrt 2.
    """
    n, n_geometry = len(weight), 3 + len(cell)
    size = n_geometry + len(free)
    near, sd = np.sqrt(weight) / sigma, np.sqrt(terms.variance)
    place, apart = np.zeros((n, 2, size)), np.zeros((n, size))
    place[:, :, :3], apart[:, :3] = terms.by_rotation[:, 1:], terms.by_rotation[:, 0]
    leaning = np.zeros((len(lean), size))
    for i, (by_cell, distance_by_cell, lean_by_cell) in enumerate(cell):
        place[:, :, 3 + i], apart[:, 3 + i], leaning[:, 3 + i] = by_cell, distance_by_cell, lean_by_cell
    place += terms.pull[:, :, None] * apart[:, None, :]
    place[:, :, n_geometry:] = terms.by_shape[free].transpose(1, 2, 0)
    wider, prior = np.zeros((n, size)), np.zeros((len(free), size))
    wider[:, n_geometry:] = terms.widening[free].T / np.sqrt(2.0)
    prior[:, n_geometry:] = np.eye(len(free)) / LOOSE
    jacobian = np.vstack(
        [(place * near[:, None, None]).reshape(2 * n, size), apart / sd[:, None], wider, leaning, prior]
    )
    residual = [(terms.offset * near[:, None]).ravel(), terms.distance / sd]
    residual += [(1.0 - terms.distance**2 / terms.variance) / np.sqrt(2.0), lean, shape[free] / LOOSE]
    return jacobian, np.concatenate(residual)

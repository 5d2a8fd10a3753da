"""Orientations of a known lattice that explain the spots of a still: a search over directions, then about them.

A cell vector t of the crystal makes q.t an integer for every spot q of its lattice, so that the sum of cos(2 pi q.t)
over the spots is near their number, and near zero for any other direction. First the direction of one cell vector is
sought on a hemisphere, its length being known; then the rotation about the best directions, with the cosines of the
other two vectors added. Spots of other lattices and false spots add only noise of variance 1/2 each. The idea is that
of one-dimensional Fourier indexing (Steller, Bolotovsky & Rossmann 1997, J. Appl. Cryst. 30, 1036) with known cell
lengths (Gasparotto et al. 2024, J. Appl. Cryst. 57, 931). Lengths are angstrom and 1/angstrom without 2 pi.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["nearest_rotations", "reduced_basis", "search_orientations", "sharpen"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

PHASE_STEP = 0.4
"""Largest change of the phase, in cycles, between neighbouring points of the grids."""
MAX_DIRECTIONS = 400_000


@lru_cache(maxsize=8)
def _hemisphere(n: int) -> npt.NDArray[np.float32]:
    """`n` nearly evenly spaced unit vectors with z >= 0, ``(n, 3)`` (a Fibonacci spiral)."""
    i = np.arange(n)
    z = (i + 0.5) / n
    angle = i * np.pi * (3.0 - np.sqrt(5.0))
    r = np.sqrt(1.0 - z * z)
    return np.column_stack([r * np.cos(angle), r * np.sin(angle), z]).astype(np.float32)


def reduced_basis(vectors: FloatArray) -> tuple[FloatArray, IntArray]:
    """Short vectors of the same lattice, by length, and the integer matrix M with ``short = M @ vectors``."""
    basis, m = np.array(vectors, dtype=float), np.eye(3, dtype=np.int64)
    for _ in range(100):
        order = np.argsort(np.sum(basis**2, axis=1), kind="stable")
        basis, m = basis[order], m[order]
        # The longest is shortened by whole multiples of the others.
        shifts = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)])
        trial = basis[2] + shifts @ basis[:2]
        best = int(np.argmin(np.round(np.sum(trial**2, axis=1), 9) + 1e-6 * np.sum(shifts**2, axis=1)))
        step = int(np.rint(basis[0] @ basis[1] / (basis[0] @ basis[0]) - 1e-9 * np.sign(basis[0] @ basis[1])))
        if not shifts[best].any() and step == 0:
            break
        basis[2], m[2] = trial[best], m[2] + shifts[best] @ m[:2]
        if step:
            basis[1], m[1] = basis[1] - step * basis[0], m[1] - step * m[0]
    if np.linalg.det(basis) < 0:
        basis, m = -basis, -m
    return basis, m


def _cosines(phase: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Sum of cos(2 pi phase) over the last axis."""
    total: npt.NDArray[np.float32] = np.cos(np.float32(2.0 * np.pi) * (phase - np.rint(phase))).sum(axis=-1)
    return total


def _directions(q: FloatArray, length: float, count: int) -> FloatArray:
    """Unit vectors along which a cell vector of that length fits best, ``(<= count, 3)``."""
    reach = float(np.linalg.norm(q, axis=1).max())
    n = int(np.clip(2.0 * np.pi * (reach * length / PHASE_STEP) ** 2, 500, MAX_DIRECTIONS))
    grid = _hemisphere(n)
    spots = (length * q.T).astype(np.float32)
    score = np.concatenate([_cosines(block @ spots) for block in np.array_split(grid, max(1, n * len(q) // 2_000_000))])
    order = np.argsort(score)[: -(6 * count) - 1 : -1]
    apart = 1.0 - (1.5 * PHASE_STEP / (reach * length)) ** 2 / 2.0
    chosen: list[int] = []
    for i in order:
        if not chosen or np.abs(grid[chosen] @ grid[i]).max() < apart:
            chosen.append(int(i))
        if len(chosen) == count:
            break
    return grid[chosen].astype(np.float64)


def _sharpened(directions: FloatArray, q: FloatArray, length: float) -> FloatArray:
    """Directions, ``(n, 3)``, after least squares of the phases that are near whole numbers.

    One that has too few of them, or moves by more than a tenth, stays as it was.
    """
    unit, failed = directions, np.zeros(len(directions), dtype=bool)
    for tolerance in (0.3, 0.25, 0.2):
        phase = length * unit @ q.T
        index = np.rint(phase)
        near = (np.abs(phase - index) < tolerance) & (index != 0)
        near |= np.abs(phase) < 0.5 * tolerance
        failed |= near.sum(axis=1) < 4
        # The length is known: only steps across the vector are fitted.
        across = np.eye(3) - unit[:, :, None] * unit[:, None, :]
        normal = across @ ((near[:, None] * q.T) @ q) @ across
        pull = ((near * (index - phase)) @ q)[:, :, None]
        step = (np.linalg.pinv(normal, rcond=1e-9, hermitian=True) @ across @ pull)[:, :, 0]
        failed |= np.linalg.norm(step, axis=1) > 0.1 * length
        moved = length * unit + step
        unit = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return np.where(failed[:, None], directions, unit)


def search_orientations(
    q: FloatArray, basis: FloatArray, *, primary: int = 0, directions: int = 40, keep: int = 20
) -> tuple[FloatArray, FloatArray]:
    """The most promising orientations of a lattice.

    Args:
        q: scattering vectors of the spots, ``(n_spots, 3)``; the fewer and the lower in resolution, the faster.
        basis: rows are cell vectors of the lattice in its reference orientation, right handed, ``(3, 3)``.
        primary: which vector's direction is sought first.
        directions: how many directions go on to the second search.
        keep: how many orientations to return.

    Returns:
        rotations R with cell vectors ``basis @ R.T``, ``(n, 3, 3)``, best first, and their scores: sums of the
        cosines over spots and three vectors, ``(n,)``.
    """
    length = float(np.linalg.norm(basis[primary]))
    found = _sharpened(_directions(q, length, directions), q, length)
    others = np.delete(basis, primary, axis=0)
    reach = float(np.linalg.norm(q, axis=1).max())
    axis = basis[primary] / length
    arm = np.linalg.norm(others - np.outer(others @ axis, axis), axis=1).max()
    n = int(np.clip(np.ceil(2.0 * np.pi * reach * arm / PHASE_STEP), 36, 20_000))
    angle = 2.0 * np.pi * np.arange(n) / n
    cosine, sine = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    circle = np.column_stack([np.ones(n, np.float32), cosine, sine])
    starts, scores = [], []
    for direction in np.concatenate([found, -found]):
        turned = _rotation_between(axis, direction)
        total = np.full(n, np.cos(2.0 * np.pi * (q @ direction) * length).sum(), dtype=np.float32)
        for vector in others @ turned.T:
            parallel = (vector @ direction) * direction
            x = vector - parallel
            parts = np.stack([parallel, x, _cross_matrix(direction) @ x])
            total += _cosines(circle @ (parts @ q.T).astype(np.float32))
        # The best three angles that are not neighbours.
        for _ in range(3):
            i = int(np.argmax(total))
            starts.append((direction, angle[i], turned))
            scores.append(float(total[i]))
            total[np.arange(i - 2, i + 3) % n] = -np.inf
    order = np.argsort(scores)[: -keep - 1 : -1]
    rotations = [_about(direction, about) @ turned for direction, about, turned in (starts[i] for i in order)]
    return np.array(rotations), np.array(scores)[order]


def _cross_matrix(v: FloatArray) -> FloatArray:
    """The matrix X with X w = v x w."""
    x, y, z = v
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def _about(axis: FloatArray, angle: float) -> FloatArray:
    cross = _cross_matrix(axis)
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * (cross @ cross))


def _rotation_between(a: FloatArray, b: FloatArray) -> FloatArray:
    """A rotation that turns unit vector a into b."""
    axis = _cross_matrix(a) @ b
    length = np.linalg.norm(axis)
    if length < 1e-9:
        return np.eye(3) if a @ b > 0 else _about(np.linalg.svd(a[None])[2][1], np.pi)
    return _about(axis / length, float(np.arctan2(length, a @ b)))


def nearest_rotations(products: FloatArray) -> FloatArray:
    """Rotations R that bring ``reference @ R.T`` nearest to observed vectors (Kabsch), ``(n, 3, 3)``.

    Args:
        products: ``reference.T @ observed`` of each fit, ``(n, 3, 3)``.
    """
    u, _, vt = np.linalg.svd(np.swapaxes(products, 1, 2))
    u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]
    return np.asarray(u @ vt)


def sharpen(rotations: FloatArray, q: FloatArray, basis: FloatArray) -> FloatArray:
    """Orientations after fits to the spots that they index, from low resolution to all spots.

    Args:
        rotations: starts, ``(n, 3, 3)``.
        q: scattering vectors, ``(n_spots, 3)``.
        basis: cell vectors in the reference orientation, rows.
    """
    reciprocal = np.linalg.inv(basis)
    length = np.linalg.norm(q, axis=1)
    # High orders count as little as low ones: what is compared are directions weighted by their length's error.
    weighted = q / (0.02 + length)[:, None] ** 2
    for part, tolerance in ((0.4, 0.35), (0.6, 0.3), (0.8, 0.3), (1.0, 0.3), (1.0, 0.25), (1.0, 0.2)):
        low = length <= np.quantile(length, part)
        h = q @ rotations @ basis.T
        index = np.rint(h)
        near = low & (np.abs(h - index).max(axis=2) < tolerance) & index.any(axis=2)
        calculated = np.where(near[:, :, None], index @ reciprocal.T, 0.0)
        fitted = nearest_rotations(np.swapaxes(calculated, 1, 2) @ weighted)
        rotations = np.where((near.sum(axis=1) < 4)[:, None, None], rotations, fitted)
    return rotations

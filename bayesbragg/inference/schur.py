"""Arrow-shaped normal equations: many shots with parameters of their own, and a few shared by all.

With blocks H_i (own), C_i (own by shared) and D_i (shared) of every shot, and the prior precision P of the shared
numbers, the step (d_1, ..., d_n, d) of

    H_i d_i + C_i d = -g_i,        sum_i C_i^T d_i + (P + sum_i D_i) d = -g

follows from the Schur complement S = P + sum_i (D_i - C_i^T H_i^-1 C_i), to which every shot adds its part and can then
be forgotten: memory is that of the shared numbers. S^-1 is the marginal covariance of the shared numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

__all__ = ["Blocks", "Reduced", "back_substitute", "grouped_blocks", "own_covariance", "reduce_blocks", "solve_scaled"]

FloatArray = npt.NDArray[np.float64]
RIDGE = 1e-13
"""Added to the unit diagonal of a scaled block, so that a direction without any information does not stop a fit."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """Target, gradient and curvature of one shot.

    Attributes:
        target: -(log likelihood + log prior of its own numbers).
        gradient: in its own numbers, ``(n,)``.
        curvature: their expected information and prior curvature, ``(n, n)``.
        index: which shared numbers the shot sees, ``(k,)``.
        shared_gradient: in those, ``(k,)``.
        cross: own by shared, ``(n, k)``.
        shared_curvature: ``(k, k)``.
        z: number, sum and sum of squares of the normalised residuals, ``(3,)``.
    """

    target: float
    gradient: FloatArray
    curvature: FloatArray
    index: npt.NDArray[np.int64]
    shared_gradient: FloatArray
    cross: FloatArray
    shared_curvature: FloatArray
    z: FloatArray

    def without_shared_curvature(self) -> Blocks:
        """The same without its largest array, once that was added to the sum over shots."""
        return replace(self, shared_curvature=np.zeros((0, 0)))


@dataclass(frozen=True, eq=False)
class Reduced:
    """Sums over shots: Schur complement, its right-hand side, and the diagonal of the shared curvature.

    Attributes:
        matrix: sum of D - C^T H^-1 C, ``(p, p)``.
        right: sum of g - C^T H^-1 g_own, ``(p,)``.
        gradient: sum of the shared gradients, ``(p,)``.
        diagonal: diagonal of the sum of D, ``(p,)``.
        decrease: sum of g_own^T H^-1 g_own.
    """

    matrix: FloatArray
    right: FloatArray
    gradient: FloatArray
    diagonal: FloatArray
    decrease: float


def grouped_blocks(
    target: float,
    gram: FloatArray,
    score: FloatArray,
    groups: npt.NDArray[np.int64],
    n_groups: int,
    prior: tuple[FloatArray, FloatArray],
    z: FloatArray,
) -> Blocks:
    """The blocks of a shot each of whose pixels or spots sees the motion of one panel group alone.

    Args:
        gram, score: information and gradient of the data of each group in the shot's own numbers, the six motions of
            the group and the numbers that all panels share, ``(n_seen, size, size)`` and ``(n_seen, size)``.
        groups: which groups these are, ``(n_seen,)``, of ``n_groups``.
        prior: gradient and curvature of the own numbers' prior, ``(n,)`` each.
        target, z: as in `Blocks`.
    """
    n, k = len(prior[0]), 6 * len(groups)
    own, six, rest = slice(0, n), slice(n, n + 6), slice(n + 6, None)
    whole, whole_score = gram.sum(axis=0), score.sum(axis=0)
    size = k + len(whole_score[rest])
    shared = np.zeros((size, size))
    for i, part in enumerate(gram):
        place = slice(6 * i, 6 * i + 6)
        shared[place, place], shared[place, k:], shared[k:, place] = part[six, six], part[six, rest], part[rest, six]
    shared[k:, k:] = whole[rest, rest]
    return Blocks(
        target=target,
        gradient=whole_score[own] + prior[0],
        curvature=whole[own, own] + np.diag(prior[1]),
        index=np.concatenate([(6 * groups[:, None] + np.arange(6)).reshape(-1), np.arange(k, size) - k + 6 * n_groups]),
        shared_gradient=np.concatenate([score[:, six].reshape(-1), whole_score[rest]]),
        cross=np.concatenate([gram[:, own, six].transpose(1, 0, 2).reshape(n, k), whole[own, rest]], axis=1),
        shared_curvature=shared,
        z=z,
    )


def _damped(curvature: FloatArray, damping: float) -> tuple[tuple[FloatArray, bool], FloatArray]:
    """Cholesky factor of the scaled matrix, and the scale."""
    diagonal = np.diag(curvature)
    scale = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    scaled = curvature * np.outer(scale, scale)
    scaled[np.diag_indices_from(scaled)] += damping + RIDGE
    ridge = RIDGE
    while True:
        try:
            return cho_factor(scaled, lower=True), scale
        except np.linalg.LinAlgError:
            # Rounding has made a singular block indefinite: lift it until it is positive.
            ridge *= 100.0
            if ridge > 1.0:
                raise
            scaled[np.diag_indices_from(scaled)] += ridge


def solve_scaled(curvature: FloatArray, right: FloatArray, damping: float = 0.0) -> FloatArray:
    """(H + damping diag H)^-1 right for a symmetric positive H, ``(n,)`` or ``(n, k)``."""
    factor, scale = _damped(curvature, damping)
    side = right * (scale if right.ndim == 1 else scale[:, None])
    return np.asarray(cho_solve(factor, side) * (scale if right.ndim == 1 else scale[:, None]))


def reduce_blocks(
    blocks: Sequence[Blocks], n_shared: int, damping: float = 0.0, shared_curvature: FloatArray | None = None
) -> Reduced:
    """Eliminate the shots' own numbers.

    Args:
        shared_curvature: its sum over the blocks, ``(p, p)``, if they no longer hold theirs.
    """
    matrix = np.zeros((n_shared, n_shared))
    right, gradient, decrease = np.zeros(n_shared), np.zeros(n_shared), 0.0
    if shared_curvature is None:
        shared_curvature = np.zeros((n_shared, n_shared))
        for b in blocks:
            shared_curvature[np.ix_(b.index, b.index)] += b.shared_curvature
    for b in blocks:
        solved = solve_scaled(b.curvature, np.concatenate([b.cross, b.gradient[:, None]], axis=1), damping)
        matrix[np.ix_(b.index, b.index)] -= b.cross.T @ solved[:, :-1]
        right[b.index] += b.shared_gradient - b.cross.T @ solved[:, -1]
        gradient[b.index] += b.shared_gradient
        decrease += float(b.gradient @ solved[:, -1])
    return Reduced(matrix + shared_curvature, right, gradient, np.diag(shared_curvature).copy(), decrease)


def back_substitute(block: Blocks, step: FloatArray, damping: float = 0.0) -> FloatArray:
    """A shot's own step from the shared one, ``(n,)``."""
    return -solve_scaled(block.curvature, block.gradient + block.cross @ step[block.index], damping)


def own_covariance(block: Blocks, shared: FloatArray) -> FloatArray:
    """Marginal covariance of a shot's own numbers, given that of the shared ones, ``(n, n)``."""
    inverse = solve_scaled(block.curvature, np.eye(len(block.gradient)))
    carried = inverse @ block.cross
    return np.asarray(inverse + carried @ shared[np.ix_(block.index, block.index)] @ carried.T)

"""Second derivatives in the form of an arrow, and roots of their inverse whose application costs only as much.

In a joint density the own numbers of one shot meet those of another only through the shared ones. The second derivative
has a block H_i for each shot, columns C_i between it and the shared numbers, and a block D of these:

    S = D - sum_i C_i^T H_i^-1 C_i,     L L^T = S^-1,     R_i R_i^T = H_i^-1,
    y_i = R_i u_i - H_i^-1 C_i L u_s,   y_s = L u_s

is a linear map y = F u with F F^T equal to the inverse: the shared numbers have their marginal covariance, and given
them each shot has its conditional one. Nothing of size (all numbers)^2 is formed. Shots of one shape stand together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

__all__ = ["ArrowCurvature", "ArrowFactor", "inverse_root", "log_determinant", "sds", "through", "transposed"]

Array = Any
FloatArray = npt.NDArray[np.float64]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class ArrowFactor:
    """F of this module's docstring. Vectors hold the shots' own numbers, bucket after bucket, then the shared ones.

    Attributes:
        own: R_i of each bucket of shots, ``(n_shots, n, n)``.
        carry: -H_i^-1 C_i, ``(n_shots, n, p)``.
        shared: L, ``(p, p)``.
    """

    own: tuple[Array, ...]
    carry: tuple[Array, ...]
    shared: Array

    def __matmul__(self, u: Array) -> Array:
        """F u for a vector ``(n,)``, or for each row of ``(..., n)``."""
        parts, shared = self.split(u)
        y_s = jnp.einsum("ij,...j->...i", self.shared, shared)
        found = [self.conditional(b, part, y_s) for b, part in enumerate(parts)]
        return jnp.concatenate([y.reshape(*y.shape[:-2], -1) for y in found] + [y_s], axis=-1)

    def conditional(self, bucket: int, u: Array, y_s: Array) -> Array:
        """Own numbers ``(..., n_shots, n)`` of a bucket from their u, given the shared ones ``(..., p)``."""
        own = jnp.einsum("sij,...sj->...si", self.own[bucket], u)
        return own + jnp.einsum("sip,...p->...si", self.carry[bucket], y_s)

    def split(self, y: Array) -> tuple[list[Array], Array]:
        """The own numbers of each bucket ``(..., n_shots, n)``, and the shared ones ``(..., p)``."""
        parts, place = [], 0
        for own in self.own:
            size = own.shape[0] * own.shape[1]
            parts.append(y[..., place : place + size].reshape(*y.shape[:-1], *own.shape[:2]))
            place += size
        return parts, y[..., place:]


def through(factor: FloatArray | ArrowFactor, u: FloatArray) -> FloatArray:
    """F u for every row, ``(m, n)``."""
    return np.asarray(factor @ u) if isinstance(factor, ArrowFactor) else np.asarray(u @ factor.T)


def transposed(factor: FloatArray | ArrowFactor, g: FloatArray) -> FloatArray:
    """F^T g, ``(n,)``."""
    if not isinstance(factor, ArrowFactor):
        return np.asarray(factor.T @ g)
    parts, right = factor.split(g)
    own = [np.einsum("sij,si->sj", R, part).reshape(-1) for R, part in zip(factor.own, parts, strict=True)]
    for carry, part in zip(factor.carry, parts, strict=True):
        right = right + np.einsum("sip,si->p", carry, part)
    return np.concatenate([*own, np.asarray(factor.shared).T @ right])


def log_determinant(factor: FloatArray | ArrowFactor) -> float:
    """ln |det F|."""
    if not isinstance(factor, ArrowFactor):
        return float(np.linalg.slogdet(factor)[1])
    return float(sum(np.sum(np.linalg.slogdet(R)[1]) for R in (*factor.own, factor.shared)))


def sds(factor: FloatArray | ArrowFactor) -> FloatArray:
    """Square roots of the diagonal of F F^T, ``(n,)``."""
    if not isinstance(factor, ArrowFactor):
        return np.asarray(np.linalg.norm(factor, axis=1))
    found = []
    for own, carry in zip(factor.own, factor.carry, strict=True):
        variance = np.sum(np.asarray(own) ** 2, axis=2) + np.sum(np.asarray(carry @ factor.shared) ** 2, axis=2)
        found.append(np.sqrt(variance).reshape(-1))
    return np.concatenate([*found, np.linalg.norm(factor.shared, axis=1)])


def inverse_root(curvature: FloatArray) -> FloatArray:
    """F with F F^T = curvature^-1; directions without curvature get the smallest that is safe."""
    diagonal = np.abs(np.diag(curvature))
    positive = diagonal[diagonal > 0]
    scale = np.sqrt(np.where(diagonal > 0, diagonal, positive.min() if len(positive) else 1.0))
    values, vectors = np.linalg.eigh(curvature / np.outer(scale, scale))
    # The absolute value turns a saddle into a valley: a search leaves it downhill.
    return np.asarray(vectors / np.sqrt(np.maximum(np.abs(values), 1e-10)) / scale[:, None])


@dataclass(frozen=True, eq=False)
class ArrowCurvature:
    """A second derivative in the form of an arrow.

    Attributes:
        own: H_i of each bucket, ``(n_shots, n, n)``.
        cross: C_i, ``(n_shots, n, p)``.
        shared: D, ``(p, p)``.
    """

    own: Sequence[FloatArray]
    cross: Sequence[FloatArray]
    shared: FloatArray

    def factor(self) -> ArrowFactor:
        """The root of its inverse."""
        rest = self.shared.copy()
        roots, carries = [], []
        for own, cross in zip(self.own, self.cross, strict=True):
            root = np.stack([inverse_root(H) for H in own])
            half = np.einsum("sji,sjp->sip", root, cross)
            rest -= np.einsum("sip,siq->pq", half, half)
            roots.append(root)
            carries.append(-np.einsum("sij,sjp->sip", root, half))
        return ArrowFactor(tuple(roots), tuple(carries), inverse_root(0.5 * (rest + rest.T)))

    def dense(self) -> FloatArray:
        """All of it, ``(n, n)``: for small problems only."""
        sizes = [len(own) * own.shape[1] for own in self.own]
        p = len(self.shared)
        result = np.zeros((sum(sizes) + p,) * 2)
        result[-p:, -p:] = self.shared
        place = 0
        for own, cross in zip(self.own, self.cross, strict=True):
            for H, C in zip(own, cross, strict=True):
                rows = slice(place, place + len(H))
                result[rows, rows], result[rows, -p:], result[-p:, rows] = H, C, C.T
                place += len(H)
        return result

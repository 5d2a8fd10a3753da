"""What a joint fit is made of: terms, options, the state that a step starts from, and the optimum that is found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bayesbragg.inference.schur import Blocks
from bayesbragg.model.fit import FitStatus

__all__ = ["Iteration", "JointFit", "JointOptions", "JointState", "Term"]

FloatArray = npt.NDArray[np.float64]


class Term(Protocol):
    """The data of one shot or of several.

    Attributes:
        start: own numbers of its shots, ``(n_shots, n)``.
        step_limit: largest change of each own number in one step, ``(n,)``.
    """

    start: FloatArray
    step_limit: FloatArray

    def linearize(self, own: FloatArray, shared: FloatArray) -> list[Blocks]:
        """Target, gradient and curvature of every shot."""
        ...

    def target(self, own: FloatArray, shared: FloatArray) -> float:
        """Sum over its shots of -(log likelihood + log prior of their own numbers)."""
        ...

    def value_and_grad(self, own: FloatArray, shared: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """Target and its gradients in the own numbers (shape of `start`, or of one row) and in the shared ones."""
        ...

    def offsets(self, own: FloatArray, shared: FloatArray) -> FloatArray:
        """Lengths of the prediction offsets, ``(n_reflections,)``, pixel; used for progress only."""
        ...


@dataclass(frozen=True)
class JointOptions:
    """How to search.

    Attributes:
        max_iterations: steps, taken or not.
        tolerance: predicted decrease of the target below which the optimum counts as reached.
        damping: of the first step, relative to the diagonal of the curvature.
        max_damping: where the search gives up.
    """

    max_iterations: int = 60
    tolerance: float = 0.05
    damping: float = 1e-3
    max_damping: float = 1e8


@dataclass(frozen=True)
class Iteration:
    """Progress: number, target, sigma-Z, median offset (pixel), predicted decrease, damping, whether it was taken."""

    number: int
    target: float
    sigma_z: float
    median_offset_px: float
    predicted: float
    damping: float
    accepted: bool


@dataclass(eq=False)
class JointState:
    """Everything that the next step depends on; saved, a killed search goes on as if nothing had happened.

    Attributes:
        own: own numbers of every term of this process; shared: ``(p,)``.
        target, damping, growth: at these; iteration: how many steps were tried.
        trace: what was reported.
        widths: logarithms of the factors by which prior widths were multiplied, where these are learned; round: how
            often that was done.
    """

    own: list[FloatArray]
    shared: FloatArray
    target: float = np.inf
    damping: float = 1e-3
    growth: float = 2.0
    iteration: int = 0
    trace: list[Iteration] = field(default_factory=list)
    widths: FloatArray | None = None
    round: int = 0


@dataclass(frozen=True, eq=False)
class JointFit:
    """The joint optimum.

    Attributes:
        status, reason: how the search ended.
        target, start_target: -(log likelihood + log prior), and at the start.
        shots_target: the same without the prior of the shared numbers.
        own: own numbers by term (of this process); shared: ``(p,)``.
        covariance: marginal covariance of the shared numbers, ``(p, p)``, 0 for fixed ones.
        prior_covariance: before the data, ``(p, p)``.
        information: what the data alone say, the shots' own numbers eliminated (Schur complement), ``(p, p)``; score:
            gradient of their target there, ``(p,)``.
        diagonal: curvature of the shots' target along each shared number, their own numbers held fixed, ``(p,)``.
        predicted: decrease of the target that is left, as the last equations predict it.
        sigma_z: standard deviation of the normalised residuals.
        iterations, evaluations: steps tried; passes over the shots.
        trace: one entry per step.
        at_bound: names of shared numbers that ended at a bound.
        seconds: wall time.
        blocks: of every shot of this process at the optimum, without their shared curvature (for errors of their own
            numbers).
    """

    status: FitStatus
    reason: str
    target: float
    start_target: float
    shots_target: float
    own: list[FloatArray]
    shared: FloatArray
    covariance: FloatArray
    prior_covariance: FloatArray
    information: FloatArray
    score: FloatArray
    diagonal: FloatArray
    predicted: float
    sigma_z: float
    iterations: int
    evaluations: int
    trace: tuple[Iteration, ...]
    at_bound: tuple[str, ...]
    seconds: float
    blocks: list[list[Blocks]]

    @property
    def standard_errors(self) -> FloatArray:
        """Of the shared numbers, ``(p,)``."""
        return np.asarray(np.sqrt(np.maximum(np.diag(self.covariance), 0.0)))

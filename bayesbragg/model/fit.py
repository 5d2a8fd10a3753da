"""The result of a fit: what was found, and how far it can be trusted. A failed fit is a result too."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from bayesbragg.model.digits import to_digits_of

__all__ = ["Fit", "FitStatus"]

FloatArray = npt.NDArray[np.float64]


class FitStatus(StrEnum):
    """How a fit ended."""

    CONVERGED = "converged"
    ITERATION_LIMIT = "iteration limit"
    STALLED = "stalled"
    FAILED = "failed"


@dataclass(frozen=True, eq=False)
class Fit:
    """A maximum of a posterior density, or the best point that a search for it saw.

    Attributes:
        status: how the fit ended; only ``converged`` says that the optimum was reached.
        reason: one line that explains the status.
        target: -(log likelihood + log prior) at the result; not a number if it could not be computed.
        start_target: the same at the start.
        iterations: accepted steps.
        evaluations: evaluations of the forward model (values, gradients and Jacobians counted alike).
        trace: target at each accepted step, ``(iterations + 1,)``.
        names, units: of what varied.
        values: physical values, in these units, ``(n,)``.
        x: the same in the coordinates of the layout that the fit was given, ``(n,)``.
        information: Fisher information of the physical values with the restraints' curvature, ``(n, n)``.
        distance: length of the last Newton step in standard deviations: how far from the optimum the result is.
        sigma_z: standard deviation over trusted pixels of residual over its expected standard deviation.
        n_pixels: trusted pixels.
        at_bound: names of the values that ended at a bound.
        seconds: wall time, with compilation if this fit was the first of its shape.
    """

    status: FitStatus
    reason: str
    target: float
    start_target: float
    iterations: int
    evaluations: int
    trace: FloatArray
    names: tuple[str, ...]
    units: tuple[str, ...]
    values: FloatArray
    x: FloatArray
    information: FloatArray
    distance: float
    sigma_z: float
    n_pixels: int
    at_bound: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def converged(self) -> bool:
        return self.status is FitStatus.CONVERGED

    @property
    def parameters(self) -> dict[str, tuple[float, str]]:
        """Value and unit of each number, by name."""
        return {n: (float(v), u) for n, v, u in zip(self.names, self.values, self.units, strict=True)}

    @property
    def standard_errors(self) -> FloatArray:
        """Standard errors of the values from the information, ``(n,)``; not a number where it tells nothing."""
        try:
            variance = np.diag(np.linalg.inv(self.information))
        except np.linalg.LinAlgError:
            return np.full(len(self.values), np.nan)
        return np.sqrt(np.where(variance > 0, variance, np.nan))

    def summary(self) -> str:
        """The result as text: status, figures of merit, and every number with unit and standard error."""
        width = max([len(name) for name in self.names], default=4)
        head = (
            f"{self.status.value}: {self.reason}\n"
            f"target {self.target:.2f} from {self.start_target:.2f}; sigma-Z {self.sigma_z:.3f}; "
            f"{self.evaluations} evaluations, {self.seconds:.2f} s; {self.n_pixels} pixels"
        )
        lines = [head]
        for name, value, sd, unit in zip(self.names, self.values, self.standard_errors, self.units, strict=True):
            (shown,) = to_digits_of(sd, [value])
            lines.append(f"  {name:{width}}  {shown:>14} ± {sd:<9.2g} {'' if unit == '1' else unit}".rstrip())
        return "\n".join(lines)

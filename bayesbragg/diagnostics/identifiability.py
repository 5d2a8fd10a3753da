"""What the data say of the panels and what only the prior says: widths before and after, and the weakest directions.

With the prior precision P = L L^T and the posterior covariance C, the eigenvalues of L^T C L are the ratios of
posterior to prior variance along independent directions: near 0 the data decide, near 1 the prior does. The direction
with the largest ratio is the one that a gauge freedom, or a lack of reflections, leaves to the prior.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bayesbragg.inference.joint_types import JointFit
from bayesbragg.priors.panels import SharedPrior

__all__ = ["Direction", "ModeWidth", "identifiability_text", "mode_widths", "weakest_directions"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Direction:
    """A direction among the shared numbers.

    Attributes:
        ratio: posterior over prior standard deviation along it.
        name: the common motion that it resembles, with the cosine between them, or its largest components.
    """

    ratio: float
    name: str


@dataclass(frozen=True)
class ModeWidth:
    """A common motion, such as the shift of the whole detector along z, in radian or metre.

    Attributes:
        name: of the motion.
        value: its mean over the groups.
        prior_sd, posterior_sd: before and after the data.
    """

    name: str
    value: float
    prior_sd: float
    posterior_sd: float


def weakest_directions(fit: JointFit, prior: SharedPrior, n: int = 6) -> list[Direction]:
    """The n directions of which the data say least."""
    free = prior.free
    precision = prior.precision[np.ix_(free, free)]
    scale = 1.0 / np.sqrt(np.diag(precision))
    L = np.linalg.cholesky(precision * np.outer(scale, scale)) / scale[:, None]
    values, vectors = np.linalg.eigh(L.T @ fit.covariance[np.ix_(free, free)] @ L)
    modes = L.T @ prior.modes[free]
    length = np.linalg.norm(modes, axis=0)
    modes = modes / np.where(length > 0, length, 1.0)
    names = np.array(prior.names)[free]
    found = []
    for i in np.argsort(values)[::-1][:n]:
        direction = vectors[:, i]
        overlap = np.abs(modes.T @ direction) if modes.shape[1] else np.zeros(0)
        best = int(np.argmax(overlap)) if len(overlap) else -1
        if len(overlap) and overlap[best] > 0.7:
            name = f"{prior.mode_names[best]} (cosine {overlap[best]:.2f})"
        else:
            change = np.linalg.solve(L.T, direction) / np.sqrt(np.diag(np.linalg.inv(precision)))
            top = np.argsort(np.abs(change))[::-1][:3]
            name = ", ".join(f"{change[k]:+.2f} {names[k]}" for k in top)
        found.append(Direction(float(np.sqrt(max(values[i], 0.0))), name))
    return found


def mode_widths(fit: JointFit, prior: SharedPrior) -> list[ModeWidth]:
    """The six common motions of the whole detector: the rigid motion nearest to the groups' motions, in the metric of
    the prior's diagonal."""
    A = prior.modes[:, :6] * prior.free[:, None]
    if not A.shape[1]:
        return []
    width = np.sqrt(np.maximum(np.diag(fit.prior_covariance), 0.0))
    weight = np.where(width > 0, 1.0 / np.where(width > 0, width, 1.0), 0.0)
    # Angles of a panel are worth as much as the shifts that they cause: only shifts decide the common motion.
    weight[: 6 * prior.n_groups] *= np.tile([0, 0, 0, 1, 1, 1], prior.n_groups)
    scale = np.linalg.norm(A * weight[:, None], axis=0)
    keep = scale > 0
    to_modes = np.zeros((A.shape[1], len(A)))
    to_modes[keep] = np.linalg.pinv(A[:, keep] * weight[:, None]) * weight
    values = to_modes @ fit.shared
    before, after = (
        np.sqrt(np.maximum(np.diag(to_modes @ c @ to_modes.T), 0)) for c in (fit.prior_covariance, fit.covariance)
    )
    return [
        ModeWidth(prior.mode_names[i], float(values[i]), float(before[i]), float(after[i]))
        for i in np.flatnonzero(keep)
    ]


def identifiability_text(fit: JointFit, prior: SharedPrior) -> list[str]:
    """The report as lines of text: common motions with their widths, then the weakest directions."""
    lines = ["common motions of the whole detector: value, prior sd, posterior sd, ratio"]
    for mode in mode_widths(fit, prior):
        angle = "rotation" in mode.name
        factor, unit = (np.degrees(1.0), "degree") if angle else (1e6, "um")
        lines.append(
            f"  {mode.name:<46} {mode.value * factor:10.4f} {mode.prior_sd * factor:10.4f} "
            f"{mode.posterior_sd * factor:10.4f} {unit:<6} {mode.posterior_sd / mode.prior_sd:8.4f}"
        )
    lines.append("directions of which the data say least: posterior over prior sd")
    lines += [f"  {d.ratio:6.3f}  {d.name}" for d in weakest_directions(fit, prior)]
    return lines

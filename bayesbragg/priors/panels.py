"""What is believed of panel groups beforehand: whole detector, then quadrants, then groups, each with its own motion.

Every node of the hierarchy moves as a rigid body by a random motion with stated standard deviations; a group's motion
is the sum of its own and those of the nodes above it. To first order that sum is linear, m = sum_l A_l w_l, so the
prior of all group motions is one Gaussian with covariance sum_l A_l S_l A_l^T. A group that sees no reflection follows
its parents, and its error bar is that of its own level. Restraints in the classic manner (a center and a variance for
each group) multiply this density. Units: radian and metre, six numbers per group ordered as `MOTIONS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bayesbragg.forward.group_motion import MOTION_UNITS, MOTIONS
from bayesbragg.model.errors import InputError
from bayesbragg.model.panel_groups import PanelGrouping

__all__ = ["EXTRAS", "LevelWidths", "PanelPriors", "SharedPrior", "hierarchy_covariance", "rigid_modes", "shared_prior"]

FloatArray = npt.NDArray[np.float64]

EXTRAS = ("detz_shift", "lambda_offset", "lambda_scale")
"""Numbers that all shots may share beside the groups: metre, angstrom, relative change of the wavelengths."""
_EXTRA_UNITS = ("metre", "angstrom", "1")


@dataclass(frozen=True)
class LevelWidths:
    """Standard deviations of a node's own motion: about orthogonal, fast, slow axis (degree), along x, y, z (mm).

    For the nodes above the groups the axes of rotation are the laboratory's z, x and y.
    """

    rotation_deg: tuple[float, float, float]
    shift_mm: tuple[float, float, float]

    @property
    def sd(self) -> FloatArray:
        """Six standard deviations, radian and metre."""
        return np.array([*np.radians(self.rotation_deg), *(1e-3 * np.array(self.shift_mm))])


def _default_levels() -> dict[str, LevelWidths]:
    return {
        "whole": LevelWidths((1.0, 0.5, 0.5), (0.5, 0.5, 1.0)),
        "quadrant": LevelWidths((0.2, 0.1, 0.1), (0.2, 0.2, 0.1)),
        "group": LevelWidths((0.2, 0.1, 0.1), (0.1, 0.1, 0.05)),
    }


@dataclass(frozen=True)
class PanelPriors:
    """The prior of the panels and of what else all shots share.

    Attributes:
        levels: widths by level, ``whole``, ``quadrant``, ``group``; a level below the quadrants takes those of
            ``quadrant``. None for no hierarchy, which leaves the restraints and bounds alone.
        center: mean of each group's restraint, six numbers, radian and metre.
        beta: variance of each group's restraint, six numbers, radian^2 and metre^2; infinite for none.
        low, high: bounds of each group's motion, six numbers, radian and metre.
        fixed: which of the six motions stay at zero.
        close_distance_beta: variance of the spread of the groups' distances, metre^2, or None (``0.5 var(Z) / beta``).
        extras: standard deviation of each of `EXTRAS` that varies.
    """

    levels: Mapping[str, LevelWidths] | None = field(default_factory=_default_levels)
    center: tuple[float, ...] = (0.0,) * 6
    beta: tuple[float, ...] = (np.inf,) * 6
    low: tuple[float, ...] = (-np.inf,) * 6
    high: tuple[float, ...] = (np.inf,) * 6
    fixed: tuple[bool, ...] = (False,) * 6
    close_distance_beta: float | None = None
    extras: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SharedPrior:
    """The Gaussian prior of the vector that all shots share: six motions of every group, then `EXTRAS`.

    Attributes:
        names, units: of each number.
        mean: ``(n,)``.
        precision: ``(n, n)``; rows of fixed numbers are meaningless.
        free: which numbers vary, ``(n,)``.
        low, high: bounds, ``(n,)``.
        modes: named directions of common motion, columns ``(n, n_modes)``.
        mode_names: their names.
        text: the prior in words, one line per level.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    mean: FloatArray
    precision: FloatArray
    free: npt.NDArray[np.bool_]
    low: FloatArray
    high: FloatArray
    modes: FloatArray
    mode_names: tuple[str, ...]
    text: tuple[str, ...]

    @property
    def n(self) -> int:
        return len(self.mean)

    @property
    def n_groups(self) -> int:
        return (self.n - len(EXTRAS)) // 6

    def covariance(self) -> FloatArray:
        """Prior covariance, ``(n, n)``; zero for what is fixed, and in directions in which the prior is flat."""
        return inverse_on(self.precision, self.free)

    def minus_log(self, values: FloatArray) -> float:
        """1/2 (v - mean)^T precision (v - mean) over what varies."""
        d = (values - self.mean)[self.free]
        return float(0.5 * d @ self.precision[np.ix_(self.free, self.free)] @ d)


def inverse_on(matrix: FloatArray, free: npt.NDArray[np.bool_]) -> FloatArray:
    """Inverse of the block of a symmetric matrix, zero elsewhere; scaled, since radians and metres differ much."""
    block = matrix[np.ix_(free, free)]
    scale = np.sqrt(np.where(np.diag(block) > 0, np.diag(block), 1.0))
    full = np.zeros_like(matrix)
    full[np.ix_(free, free)] = np.linalg.pinv(block / np.outer(scale, scale), hermitian=True) / np.outer(scale, scale)
    return full


def rigid_modes(grouping: PanelGrouping, node: npt.NDArray[np.int64], centre_mm: FloatArray, k: int) -> FloatArray:
    """Group motions for unit motions of a node: rotations about lab z, x, y (radian), shifts x, y, z (metre).

    Args:
        node: node of every group; centre_mm: turning points of the nodes; k: which node.

    Returns:
        ``(6 n_groups, 6)``; to first order in the angles.
    """
    axes, lab = grouping.group_axes(), np.eye(3)[[2, 0, 1]]
    result = np.zeros((grouping.n_groups, 6, 6))
    members = np.flatnonzero(node == k)
    arm = 1e-3 * (grouping.reference_mm[members] - centre_mm[k])
    for i, omega in enumerate(lab):
        result[members, :3, i] = axes[members] @ omega
        result[members, 3:, i] = np.cross(omega, arm)
    result[members[:, None], np.arange(3, 6), np.arange(3, 6)] = 1.0
    return result.reshape(-1, 6)


def shared_prior(grouping: PanelGrouping, priors: PanelPriors | None = None) -> SharedPrior:
    """The prior of all group motions and extras.

    Raises:
        InputError: a width that is not positive, a variance that is not positive, bounds out of order.
    """
    priors = priors or PanelPriors()
    _check(priors)
    n_groups, n = grouping.n_groups, 6 * grouping.n_groups + len(EXTRAS)
    own = grouping.labels
    names = [f"group{label}_{motion}" for label in own for motion in MOTIONS] + list(EXTRAS)
    units = [*MOTION_UNITS] * n_groups + [*_EXTRA_UNITS]
    precision = np.zeros((n, n))
    m = 6 * n_groups
    free = np.array([not fixed for fixed in priors.fixed] * n_groups + [name in priors.extras for name in EXTRAS])
    text: list[str] = []
    if priors.levels is not None:
        covariance = hierarchy_covariance(grouping, priors.levels, text)
        inside = free[:m]
        block = covariance[np.ix_(inside, inside)]
        if len(block):
            scale = np.sqrt(np.diag(block))
            inverse = np.linalg.inv(block / np.outer(scale, scale)) / np.outer(scale, scale)
            precision[np.ix_(np.flatnonzero(inside), np.flatnonzero(inside))] = inverse
    right = np.zeros(n)
    classic = np.tile(1.0 / np.array(priors.beta, dtype=float), n_groups)
    if np.any(classic[free[:m]] > 0):
        shown = ", ".join(f"{motion} {beta:g}" for motion, beta in zip(MOTIONS, priors.beta, strict=True))
        text.append(f"each group: normal with variances (radian^2, metre^2): {shown}")
        center = np.tile(np.array(priors.center, dtype=float), n_groups)
        precision[np.arange(m), np.arange(m)] += classic
        right[:m] = classic * center
    if priors.close_distance_beta is not None:
        z = np.arange(n_groups) * 6 + 5
        spread = (np.eye(n_groups) - 1.0 / n_groups) / (n_groups * priors.close_distance_beta)
        precision[np.ix_(z, z)] += spread
        text.append(f"spread of the groups' distances: variance {priors.close_distance_beta:g} metre^2")
    # Of all that is said of the groups together: close distances pull at restraints and hierarchy alike.
    mean = inverse_on(precision, free) @ right
    for i, name in enumerate(EXTRAS):
        if name in priors.extras:
            sd = priors.extras[name]
            precision[m + i, m + i] = 1.0 / sd**2
            text.append(f"{name}, shared by all shots: normal about 0 with sd {sd:g} {_EXTRA_UNITS[i]}")
    low = np.concatenate([np.tile(priors.low, n_groups), np.full(len(EXTRAS), -np.inf)])
    high = np.concatenate([np.tile(priors.high, n_groups), np.full(len(EXTRAS), np.inf)])
    modes, mode_names = _modes(grouping, n)
    return SharedPrior(tuple(names), tuple(units), mean, precision, free, low, high, modes, mode_names, tuple(text))


def hierarchy_covariance(
    grouping: PanelGrouping, levels: Mapping[str, LevelWidths], text: list[str] | None = None
) -> FloatArray:
    """Covariance of all group motions under the hierarchy, ``(6 n_groups, 6 n_groups)``, radian and metre.

    Args:
        text: where a line in words for each level is added.
    """
    text = [] if text is None else text
    n_groups = grouping.n_groups
    covariance = np.zeros((6 * n_groups, 6 * n_groups))
    for level in grouping.levels:
        name = level.name if level.name in levels else "quadrant"
        if name not in levels:
            continue
        width = levels[name]
        variance = width.sd**2
        for k in range(level.n_nodes):
            A = rigid_modes(grouping, level.node, level.centre_mm, k)
            covariance += (A * variance) @ A.T
        text.append(_words(f"{level.name} ({level.n_nodes} node{'s' * (level.n_nodes > 1)})", width))
    last = "group" if n_groups > 1 or "whole" not in levels else "whole"
    width = levels[last]
    covariance += np.diag(np.tile(width.sd**2, n_groups))
    text.append(_words(f"group ({n_groups})", width))
    return covariance


def _words(name: str, width: LevelWidths) -> str:
    rotation = " ".join(f"{v:g}" for v in width.rotation_deg)
    shift = " ".join(f"{v:g}" for v in width.shift_mm)
    return f"{name}: own rotations (orthogonal fast slow) sd {rotation} degree, own shifts (x y z) sd {shift} mm"


def _modes(grouping: PanelGrouping, n: int) -> tuple[FloatArray, tuple[str, ...]]:
    """Named common motions: six of the whole detector, six of every quadrant."""
    labels = ("rotation about z (the beam)", "rotation about x", "rotation about y", "shift x", "shift y", "shift z")
    columns: list[FloatArray] = []
    names: list[str] = []
    for level in grouping.levels[:2]:
        for k in range(level.n_nodes):
            A = rigid_modes(grouping, level.node, level.centre_mm, k)
            columns.append(np.concatenate([A, np.zeros((n - len(A), 6))]))
            of = "whole detector" if level.name == "whole" else f"{level.name} {k}"
            names += [f"{of} {label}" for label in labels]
    return (np.concatenate(columns, axis=1) if columns else np.zeros((n, 0))), tuple(names)


def _check(priors: PanelPriors) -> None:
    for name, width in (priors.levels or {}).items():
        _positive(f"prior of panels, level {name}", width.sd)
    _positive("panel betas (variances)", priors.beta)
    _positive("standard deviations of shared numbers", list(priors.extras.values()))
    unknown = set(priors.extras) - set(EXTRAS)
    if unknown:
        raise InputError(f"shared number {sorted(unknown)[0]!r} is not known; choose among {', '.join(EXTRAS)}")
    for motion, low, high in zip(MOTIONS, priors.low, priors.high, strict=True):
        if not low < high:
            raise InputError(f"{motion}: minimum {low:g} is not below maximum {high:g}; exchange or widen them")


def _positive(what: str, values: Sequence[float] | FloatArray) -> None:
    for value in values:
        if not value > 0:
            raise InputError(f"{what}: expected numbers above 0, got {float(value):g}")

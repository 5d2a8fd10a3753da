"""How wide the prior of the panels should be: widths of a hierarchy that make the data most probable.

For widths w, the probability of the data given the widths alone (the evidence), with all motions and all of the shots'
own numbers integrated out in Laplace's approximation about the joint optimum, is

    ln Z(w) = 1/2 ln det P - 1/2 ln det(P + R) - 1/2 m^T P m + 1/2 (b + P m)^T (P + R)^-1 (b + P m) + constant,

where P and m are the prior's precision and mean, R the Schur complement of the shots (what the data say), and
b = R v - g with the score g at the optimum v. It is maximised over one factor for each kind of motion (rotation in the
plane, tilts, shifts in the plane, shift along the beam) of each level with several nodes; joint fits and widths take
turns. A weak prior holds what too few nodes tell: the logarithm of a factor is normal about 0. Source: MacKay, Neural
Computation 4, 415 (1992).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from bayesbragg.inference.communicator import Communicator
from bayesbragg.inference.joint_types import JointFit, JointOptions, JointState, Term
from bayesbragg.model.panel_groups import PanelGrouping
from bayesbragg.priors.panels import LevelWidths, PanelPriors, SharedPrior, hierarchy_covariance, shared_prior

__all__ = ["WidthOptions", "fit_with_widths", "learn_widths", "log_evidence", "scaled_priors"]

FloatArray = npt.NDArray[np.float64]
KINDS = ((0,), (1, 2), (3, 4), (5,))
"""Motions whose widths share a factor, as places in the six: orthogonal rotation; tilts; shifts x and y; shift z."""
ROUGH = 1.0
"""Predicted decrease of the target at which the fits before the last one stop."""


@dataclass(frozen=True)
class WidthOptions:
    """How to learn widths.

    Attributes:
        learn: off, the widths stay as they are given.
        spread: standard deviation of the logarithm of a factor, before the data.
        rounds: how often widths may change.
        least_gain: of ln Z, below which they stay.
        nodes: how many nodes a level must have.
    """

    learn: bool = True
    spread: float = float(np.log(3.0))
    rounds: int = 6
    least_gain: float = 0.1
    nodes: int = 4


def fit_with_widths(
    search: Callable[..., JointFit],
    terms: Sequence[Term],
    grouping: PanelGrouping,
    priors: PanelPriors,
    options: JointOptions | None = None,
    widths: WidthOptions | None = None,
    *,
    communicator: Communicator | None = None,
    state: JointState | None = None,
    on_step: Callable[[JointState], None] | None = None,
) -> tuple[JointFit, PanelPriors, SharedPrior]:
    """The joint optimum under the most probable widths; arguments as for the search (`bayesbragg.inference.joint`).

    Returns:
        the fit, the priors with the widths that it was made with, and the prior of its shared numbers.
    """
    options, widths = options or JointOptions(), widths or WidthOptions()
    places = _places(grouping, priors, widths)
    factors = np.zeros(len(places)) if state is None or state.widths is None else state.widths
    round_ = state.round if state is not None else 0
    last = widths.rounds if len(places) else 0

    def after(now: JointState) -> None:
        now.widths, now.round = factors, round_
        if on_step is not None:
            on_step(now)

    while True:
        now = scaled_priors(priors, places, factors)
        prior = shared_prior(grouping, now)
        rough = options if round_ >= last else replace(options, tolerance=max(ROUGH, options.tolerance))
        fit = search(terms, prior, rough, communicator=communicator, state=state, on_step=after)
        if round_ >= last:
            return fit, now, prior
        better, gain = learn_widths(fit, grouping, priors, places, factors, widths)
        round_ += 1
        if gain < widths.least_gain:
            round_ = last
        else:
            factors = better
        state = JointState(fit.own, fit.shared, damping=options.damping, iteration=fit.iterations, trace=[*fit.trace])
        state.widths, state.round = factors, round_


def learn_widths(
    fit: JointFit,
    grouping: PanelGrouping,
    priors: PanelPriors,
    places: Sequence[tuple[str, int]],
    factors: FloatArray,
    options: WidthOptions,
) -> tuple[FloatArray, float]:
    """The most probable logarithms of factors for the quadratic form of the likelihood at a joint optimum.

    Args:
        places: level and kind of motion of each factor; factors: where the search starts.

    Returns:
        logarithms of the factors, ``(n,)``, and by how much they raise the logarithm of the evidence.
    """

    if priors.levels is None:
        return factors, 0.0
    evidence = _Evidence(fit, grouping, priors, places)

    def minus(logs: FloatArray) -> tuple[float, FloatArray]:
        value, slope = evidence(logs)
        held = logs / options.spread
        return 0.5 * float(np.sum(held**2)) - value, held / options.spread - slope

    start, _ = minus(factors)
    reach = float(np.log(100.0))
    found = minimize(minus, factors, jac=True, method="L-BFGS-B", bounds=[(-reach, reach)] * len(places))
    return np.asarray(found.x), start - float(found.fun)


class _Evidence:
    """ln Z and its slope in the logarithms of the factors.

    With Sigma the covariance that the hierarchy gives and K_k the part of it that factor k scales by f_k^2,

        d ln Z / d ln f_k = f_k^2 tr(Sigma^-1 (C + v v^T - C0 - v0 v0^T) Sigma^-1 K_k),

    v and C being mean and covariance with the data, v0 and C0 without.
    """

    def __init__(
        self, fit: JointFit, grouping: PanelGrouping, priors: PanelPriors, places: Sequence[tuple[str, int]]
    ) -> None:
        assert priors.levels is not None
        prior = shared_prior(grouping, priors)
        free = prior.free.copy()
        inside = free[: 6 * grouping.n_groups]
        block, n = np.ix_(inside, inside), int(inside.sum())
        base = hierarchy_covariance(grouping, priors.levels)[block]
        # Radians and metres differ much: everything is in units of the prior's own widths.
        self.scale = np.concatenate([np.sqrt(np.diag(base)), np.ones(int(free.sum()) - n)])
        self.n, outer = n, np.outer(self.scale, self.scale)
        self.base, self.parts = base / outer[:n, :n], []
        for k in range(len(places)):
            doubled = scaled_priors(priors, places, 0.5 * np.log(2.0) * np.eye(len(places))[k])
            assert doubled.levels is not None
            self.parts.append(hierarchy_covariance(grouping, doubled.levels)[block] / outer[:n, :n] - self.base)
        whole = np.ix_(free, free)
        self.rest = prior.precision[whole] * outer
        self.rest[:n, :n] -= np.linalg.inv(self.base)
        self.pull = (prior.precision[whole] @ prior.mean[free]) * self.scale
        self.information = fit.information[whole] * outer
        self.told = (fit.information[whole] @ fit.shared[free] - fit.score[free]) * self.scale

    def __call__(self, logs: FloatArray) -> tuple[float, FloatArray]:
        squares = np.exp(2.0 * logs)
        sigma = self.base + sum((f - 1.0) * K for f, K in zip(squares, self.parts, strict=True))
        inverse = np.linalg.inv(sigma)
        P = self.rest.copy()
        P[: self.n, : self.n] += inverse
        value, change = 0.0, np.zeros_like(sigma)
        for matrix, right, sign in ((P + self.information, self.told + self.pull, 1.0), (P, self.pull, -1.0)):
            factor = cho_factor(matrix, lower=True)
            mean = cho_solve(factor, right)
            value += sign * (0.5 * float(right @ mean) - float(np.sum(np.log(np.diag(factor[0])))))
            covariance = cho_solve(factor, np.eye(len(matrix)))[: self.n, : self.n]
            change += sign * (covariance + np.outer(mean[: self.n], mean[: self.n]))
        weight = inverse @ change @ inverse
        return value, np.array([f * np.sum(weight * K) for f, K in zip(squares, self.parts, strict=True)])


def log_evidence(prior: SharedPrior, fit: JointFit) -> float:
    """ln Z, up to a constant that does not depend on the prior."""
    free = np.ix_(prior.free, prior.free)
    P, R, mean = prior.precision[free], fit.information[free], prior.mean[prior.free]
    pull = R @ fit.shared[prior.free] - fit.score[prior.free]
    scale = 1.0 / np.sqrt(np.diag(P))
    outer = np.outer(scale, scale)
    before, after = cho_factor(P * outer, lower=True), cho_factor((P + R) * outer, lower=True)
    right = scale * (pull + P @ mean)
    quadratic = right @ cho_solve(after, right) - mean @ P @ mean
    determinants = np.sum(np.log(np.diag(before[0]))) - np.sum(np.log(np.diag(after[0])))
    return float(determinants + 0.5 * quadratic)


def scaled_priors(priors: PanelPriors, places: Sequence[tuple[str, int]], logs: FloatArray) -> PanelPriors:
    """The priors with widths multiplied by the exponentials of `logs`."""
    if priors.levels is None or not len(places):
        return priors
    six = {name: np.array([*width.rotation_deg, *width.shift_mm]) for name, width in priors.levels.items()}
    for (level, kind), log in zip(places, logs, strict=True):
        six[level][list(KINDS[kind])] *= np.exp(log)
    levels: dict[str, Any] = {}
    for name, values in six.items():
        v = [float(x) for x in values]
        levels[name] = LevelWidths((v[0], v[1], v[2]), (v[3], v[4], v[5]))
    return replace(priors, levels=levels)


def _places(grouping: PanelGrouping, priors: PanelPriors, options: WidthOptions) -> list[tuple[str, int]]:
    """Level and kind of motion of every width that is learned."""
    if priors.levels is None or not options.learn:
        return []
    nodes = {"group": grouping.n_groups}
    for level in grouping.levels:
        name = level.name if level.name in priors.levels else "quadrant"
        nodes[name] = nodes.get(name, 0) + level.n_nodes
    moves = [any(not priors.fixed[i] for i in kind) for kind in KINDS]
    return [
        (name, k)
        for name in priors.levels
        if nodes.get(name, 0) >= options.nodes
        for k in range(len(KINDS))
        if moves[k]
    ]

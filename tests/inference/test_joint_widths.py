"""Widths of the panels' prior from the evidence, on problems where every motion is seen directly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from inference.test_centroid_joint import grid_detector

from bayesbragg.inference import joint_widths
from bayesbragg.inference.joint import fit_joint
from bayesbragg.inference.joint_types import JointFit
from bayesbragg.inference.joint_widths import KINDS, WidthOptions, fit_with_widths, log_evidence, scaled_priors
from bayesbragg.inference.schur import Blocks
from bayesbragg.model.panel_groups import PanelGrouping, group_panels
from bayesbragg.priors.panels import LevelWidths, PanelPriors, shared_prior

FloatArray = npt.NDArray[np.float64]
PRIORS = PanelPriors(
    levels={
        "whole": LevelWidths((0.1, 0.1, 0.1), (0.1, 0.1, 0.1)),
        "quadrant": LevelWidths((0.02, 0.02, 0.02), (0.02, 0.02, 0.02)),
        "group": LevelWidths((0.05, 0.05, 0.05), (0.05, 0.05, 0.05)),
    }
)


class Seen:
    """Every motion measured with a known error: a linear problem, whose evidence has a closed form."""

    def __init__(self, seen: FloatArray, sd: FloatArray, n_shared: int) -> None:
        self.start, self.step_limit = np.zeros((1, 1)), np.ones(1)
        self.seen, self.sd, self.n = seen, sd, n_shared

    def linearize(self, own: FloatArray, shared: FloatArray) -> list[Blocks]:
        m = len(self.seen)
        d = shared[:m] - self.seen
        z = np.array([m, np.sum(d / self.sd), np.sum((d / self.sd) ** 2)])
        return [
            Blocks(
                self.target(own, shared), own[0].copy(), np.eye(1), np.arange(m), d / self.sd**2, np.zeros((1, m)),
                np.diag(self.sd**-2.0), z,
            )
        ]  # fmt: skip

    def target(self, own: FloatArray, shared: FloatArray) -> float:
        d = (shared[: len(self.seen)] - self.seen) / self.sd
        return float(0.5 * np.sum(d**2) + 0.5 * np.sum(own**2))

    def value_and_grad(self, own: FloatArray, shared: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        gradient = np.zeros(self.n)
        gradient[: len(self.seen)] = (shared[: len(self.seen)] - self.seen) / self.sd**2
        return self.target(own, shared), own.copy(), gradient

    def offsets(self, own: FloatArray, shared: FloatArray) -> FloatArray:
        return np.zeros(0)


def drawn(factors: dict[tuple[str, int], float], seed: int) -> tuple[PanelGrouping, Seen, FloatArray]:
    """64 panels whose widths are those of `PRIORS` times the factors."""
    grouping = group_panels(grid_detector(), np.arange(64))
    true = scaled_priors(PRIORS, list(factors), np.log(list(factors.values())))
    prior = shared_prior(grouping, true)
    m = 6 * grouping.n_groups
    generator = np.random.default_rng(seed)
    covariance = prior.covariance()[:m, :m]
    width = np.sqrt(np.diag(covariance))
    truth = width * (np.linalg.cholesky(covariance / np.outer(width, width)) @ generator.standard_normal(m))
    sd = np.tile([1e-4] * 3 + [5e-6] * 3, grouping.n_groups)
    return grouping, Seen(truth + sd * generator.standard_normal(m), sd, prior.n), truth


FACTORS = {("group", 0): 3.0, ("group", 1): 0.3, ("group", 2): 1.0, ("group", 3): 0.2}


@pytest.fixture(scope="module")
def learned() -> tuple[PanelGrouping, Seen, FloatArray, tuple[JointFit, PanelPriors, Any]]:
    grouping, seen, truth = drawn(FACTORS, 3)
    return grouping, seen, truth, fit_with_widths(fit_joint, [seen], grouping, PRIORS)


def test_widths_of_the_panels_come_back(learned: Any) -> None:
    _, _, truth, (fit, priors, _) = learned
    before, after = PRIORS.levels["group"].sd, priors.levels["group"].sd  # type: ignore[index]
    for (_, kind), factor in FACTORS.items():
        # 64 or 128 draws tell a standard deviation to about a tenth.
        assert np.log(after[KINDS[kind][0]] / before[KINDS[kind][0]]) == pytest.approx(np.log(factor), abs=0.35)
    assert fit.status.value == "converged"
    inside = np.abs(fit.shared[: len(truth)] - truth) < 1.96 * fit.standard_errors[: len(truth)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.035)


def test_evidence_is_that_of_the_measurements(learned: Any) -> None:
    """Differences of ln Z against the Gaussian density of what was measured."""
    grouping, seen, _, (fit, priors, _) = learned

    def density(of: PanelPriors) -> float:
        m = len(seen.seen)
        C = shared_prior(grouping, of).covariance()[:m, :m] + np.diag(seen.sd**2)
        width = np.sqrt(np.diag(C))
        L = np.linalg.cholesky(C / np.outer(width, width))
        z = np.linalg.solve(L, seen.seen / width)
        return float(-0.5 * z @ z - np.sum(np.log(np.diag(L))) - np.sum(np.log(width)))

    found = log_evidence(shared_prior(grouping, priors), fit) - log_evidence(shared_prior(grouping, PRIORS), fit)
    assert found == pytest.approx(density(priors) - density(PRIORS), rel=1e-6)
    assert found > 10.0


def test_slope_of_the_evidence(learned: Any) -> None:
    grouping, _, _, (fit, _, _) = learned
    places = list(FACTORS)
    evidence = joint_widths._Evidence(fit, grouping, PRIORS, places)
    logs = np.array([0.3, -0.5, 0.1, -1.0])
    value, slope = evidence(logs)
    now = shared_prior(grouping, scaled_priors(PRIORS, places, logs))
    assert value - evidence(np.zeros(4))[0] == pytest.approx(
        log_evidence(now, fit) - log_evidence(shared_prior(grouping, PRIORS), fit), rel=1e-8
    )
    for k, unit in enumerate(1e-4 * np.eye(4)):
        assert slope[k] == pytest.approx((evidence(logs + unit)[0] - evidence(logs - unit)[0]) / 2e-4, rel=1e-5)


def test_widths_stay_where_they_are_fixed() -> None:
    grouping, seen, _ = drawn({}, 1)
    _, priors, _ = fit_with_widths(fit_joint, [seen], grouping, PRIORS, None, WidthOptions(learn=False))
    assert priors is PRIORS
    none = replace(PRIORS, levels=None, beta=(1e-6,) * 6)
    assert fit_with_widths(fit_joint, [seen], grouping, none)[1] is none

"""Smoothed importance weights against ArviZ's, and against integrals that are known."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats

from bayesbragg.inference.psis import fit_pareto, k_hat_limit, resample, smooth


@pytest.mark.parametrize("degrees", [2.0, 4.0, 30.0])
def test_agrees_with_arviz(degrees: float) -> None:
    z = np.random.default_rng(1).standard_normal(2000)
    log_ratio = stats.t(degrees).logpdf(z) - stats.norm.logpdf(z)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz

        if int(arviz.__version__.split(".")[0]) < 1:
            theirs, k = arviz.psislw(log_ratio)
        else:  # which takes the logarithm of the likelihood, as for cross-validation
            from arviz_stats.base import array_stats

            theirs, k = array_stats.psislw(-log_ratio)
    ours = smooth(log_ratio)
    assert ours.k_hat == pytest.approx(float(k), abs=0.02)
    assert ours.weights == pytest.approx(np.exp(theirs), rel=0.02, abs=1e-7)


def test_finds_the_shape_of_a_pareto_distribution() -> None:
    for shape in (-0.3, 0.2, 0.8):
        draws = np.sort(stats.genpareto(shape, scale=2.0).rvs(20_000, random_state=3))
        k, scale = fit_pareto(draws)
        assert k == pytest.approx(shape, abs=0.04)
        assert scale == pytest.approx(2.0, rel=0.05)


def test_weights_give_the_target_and_its_evidence() -> None:
    z = np.random.default_rng(2).standard_normal(20_000) * 1.3
    found = smooth(np.log(5.0) + stats.norm(0.2, 1).logpdf(z) - stats.norm(0, 1.3).logpdf(z))
    assert found.k_hat < 0.3
    assert found.weights.sum() == pytest.approx(1)
    assert found.weights @ z == pytest.approx(0.2, abs=4 / np.sqrt(found.effective))
    assert found.log_evidence == pytest.approx(np.log(5.0), abs=0.03)


def test_a_proposal_that_is_too_narrow_is_told() -> None:
    z = np.random.default_rng(3).standard_normal(2000) * 0.3
    assert smooth(stats.norm.logpdf(z) - stats.norm(0, 0.3).logpdf(z)).k_hat > k_hat_limit(2000)


def test_degenerate_ratios() -> None:
    same = smooth(np.full(500, -3.0))
    assert same.k_hat == -np.inf
    assert same.effective == pytest.approx(500)
    assert smooth(np.full(500, np.nan)).k_hat == np.inf
    broken = np.zeros(500)
    broken[:3] = np.nan, np.inf, -np.inf
    assert np.all(smooth(broken).weights[:3] == 0)


def test_resampled_rows_follow_the_weights() -> None:
    weights = np.array([0.5, 0.2, 0.2, 0.1])
    rows = resample(weights, 1000, np.random.default_rng(0))
    assert np.bincount(rows, minlength=4) == pytest.approx(1000 * weights, abs=1)

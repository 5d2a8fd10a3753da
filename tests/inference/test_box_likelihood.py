"""Likelihoods of whole boxes against integrals by scipy, dense normal distributions, and finite differences."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from bayesbragg.inference.box_likelihood import box_fisher, box_log_likelihood, check_model, fitted
from bayesbragg.inference.inferred_background import plane_prior
from bayesbragg.inference.pixels import IntensityPrior, Pixels
from bayesbragg.inference.robust import outliers
from bayesbragg.inference.wilson import SHAPE, log_prior
from bayesbragg.model.errors import InputError

SIDE = 6
N = SIDE * SIDE


def spots(photons: np.ndarray, rng: np.random.Generator, level: float = 2.0) -> tuple[np.ndarray, Pixels]:
    """Boxes with a round spot of given expected photons each, and their pixels."""
    s, f = np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij")
    shape = np.exp(-0.5 * ((s - 2.3) ** 2 + (f - 2.9) ** 2) / 0.8).ravel()
    bragg = photons[:, None] * shape / shape.sum()
    background = np.full(bragg.shape, level)
    counts = rng.poisson(bragg + background) + rng.normal(0, 0.3, bragg.shape)
    trusted = rng.uniform(size=bragg.shape) > 0.05
    return bragg, Pixels(counts, background, trusted, np.full(bragg.shape, 0.09))


value = partial(jax.jit, static_argnames=("name", "window"))(box_log_likelihood)


def prior_of_amplitude(E: np.ndarray, centric: bool) -> np.ndarray:
    """Log of Wilson's densities with a Gamma distributed rate: Student's t, and its counterpart for two dimensions."""
    if centric:
        return np.asarray(stats.t(2 * SHAPE).logpdf(E) + np.log(2))
    rate = stats.gamma(SHAPE, scale=1 / SHAPE)
    r = rate.ppf((np.arange(4000) + 0.5) / 4000)[:, None]
    return np.asarray(np.log(np.mean(2 * r * E[None, :200] * np.exp(-r * E[None, :200] ** 2), axis=0)))


def test_prior_is_wilsons_with_an_uncertain_mean() -> None:
    E = np.linspace(0.05, 4, 60)
    for centric in (False, True):
        found = np.asarray(log_prior(E, np.full(len(E), centric)))
        np.testing.assert_allclose(found, prior_of_amplitude(E, centric), atol=2e-3)
        total = integrate.quad(lambda e, c=centric: float(np.exp(log_prior(np.float64(e), np.asarray(c)))), 0, np.inf)[
            0
        ]
        assert total == pytest.approx(1.0, abs=1e-6)


def integrand(photons: np.ndarray, one: Pixels, centric: bool, name: str, E: np.ndarray) -> np.ndarray:
    """Log of likelihood times prior of one box at normalised amplitudes."""
    rows = jax.tree.map(lambda leaf: np.repeat(leaf, len(E), axis=0) if np.ndim(leaf) else leaf, one)
    return np.asarray(value(E[:, None] ** 2 * photons, rows, name)) + np.asarray(log_prior(E, np.full(len(E), centric)))


def with_priors(pixels: Pixels, centric: np.ndarray) -> Pixels:
    return replace(pixels, intensities=IntensityPrior(centric))


@pytest.mark.parametrize("name", ["gaussian", "poisson"])
def test_integral_over_the_intensity_equals_scipys(name: str) -> None:
    rng = np.random.default_rng(1)
    true = np.array([0.0, 0.5, 3.0, 30.0, 400.0, 20000.0] * 2)
    for mean in (0.1, 1.0, 50.0, 3000.0):
        bragg, pixels = spots(true, rng)
        shape = bragg / np.maximum(true, 1e-300)[:, None]
        shape[true == 0] = shape[2]
        expected = mean * shape
        centric = np.arange(len(true)) >= 6
        found = np.asarray(value(expected, with_priors(pixels, centric), name))
        for b in range(len(true)):
            one = Pixels(*(np.asarray(v)[b : b + 1] for v in (pixels.counts, pixels.background, pixels.trusted,
                                                              pixels.variance)))  # fmt: skip
            logp = partial(integrand, expected[b], one, bool(centric[b]), name)
            grid = np.linspace(1e-9, 6.0 + 4.0 * np.sqrt((true[b] + 60.0) / mean), 4001)
            table = logp(grid)
            inside = grid[table > table.max() - 45]
            E = np.linspace(max(inside[0] - grid[1], 1e-12), inside[-1] + grid[1], 4001)
            exact = table.max() + np.log(integrate.simpson(np.exp(logp(E) - table.max()), x=E))
            assert found[b] == pytest.approx(exact, abs=1e-4), (mean, true[b], centric[b])


def test_weighted_intensity_is_the_posterior_mean_and_known_in_closed_form_for_a_linear_model() -> None:
    # Where all the noise is readout, the integral is a Gaussian times a power.
    rng = np.random.default_rng(2)
    bragg, pixels = spots(np.full(4, 1.0), rng, level=0.0)
    shape, noise = 200.0 * bragg / bragg.max(), 100.0
    counts = np.array([0.0, 0.3, 1.0, 3.0])[:, None] * shape + rng.normal(0, noise, shape.shape)
    data = Pixels(counts, np.zeros_like(counts), pixels.trusted, np.full(counts.shape, noise**2))
    kept = np.where(data.trusted, shape, 0.0)
    information = np.sum(kept**2, axis=1) / noise**2
    sd = information**-0.5
    centre = np.sum(kept * counts, axis=1) / noise**2 / information
    E = np.linspace(0, 1, 20001)
    a = E * (centre + 12 * sd)[:, None]
    density = np.exp(-0.5 * ((a - centre[:, None]) / sd[:, None]) ** 2) * (1 + a / SHAPE) ** -(SHAPE + 1)
    mean = np.sum(a * density, axis=1) / np.sum(density, axis=1)
    spread = np.sqrt(np.sum((a - mean[:, None]) ** 2 * density, axis=1) / np.sum(density, axis=1))
    found = fitted(shape, with_priors(data, np.zeros(4, bool)), "gaussian")
    # The variance rises a little with the photons, which the closed form leaves out.
    np.testing.assert_allclose(found.intensity, mean, rtol=2e-2)
    np.testing.assert_allclose(found.intensity_sd, spread, rtol=2e-2)


@pytest.mark.parametrize("kind", ["wilson", "planes", "both", "robust", "reference"])
def test_derivative_in_the_photons_equals_finite_differences(kind: str) -> None:
    rng = np.random.default_rng(3)
    bragg, pixels = spots(np.array([0.3, 8.0, 90.0, 2500.0]), rng)
    if kind in ("wilson", "both"):
        pixels = with_priors(pixels, np.array([False, True, False, False]))
    if kind in ("planes", "both"):
        pixels = replace(pixels, planes=plane_prior((SIDE, SIDE), np.diag([0.01, 0.02, 0.1])[None].repeat(4, axis=0)))
    if kind == "reference":
        pixels = replace(pixels, intensity_sd=np.asarray(0.2))
    if kind == "robust":
        pixels = replace(pixels, outliers=outliers(0.02, pixels.background, pixels.variance))
    base = bragg + 0.01
    total = jax.jit(lambda s: jnp.sum(box_log_likelihood(s, pixels, "gaussian")))
    slope = np.asarray(jax.grad(total)(base))
    for _ in range(3):
        direction = rng.normal(size=base.shape) * base
        step = 1e-4
        difference = (float(total(base + step * direction)) - float(total(base - step * direction))) / (2 * step)
        assert np.sum(slope * direction) == pytest.approx(difference, rel=2e-5, abs=1e-5)


@pytest.mark.parametrize("error", [0.0, 0.1])
def test_unknowns_integrated_out_equal_the_dense_normal_distribution(error: float) -> None:
    rng = np.random.default_rng(4)
    bragg, pixels = spots(np.array([3.0, 60.0, 900.0]), rng)
    root = rng.normal(size=(3, 3, 3)) * np.array([0.05, 0.05, 0.5])
    covariance = root @ root.transpose(0, 2, 1)
    prior = plane_prior((SIDE, SIDE), covariance)
    pixels = replace(pixels, planes=prior, gain_sd=0.03, intensity_sd=np.asarray(error) if error else None)
    found = np.asarray(value(bragg, pixels, "gaussian"))
    jacobian = rng.normal(size=(3, 4, N)) * bragg[:, None, :]
    information = np.asarray(box_fisher(jacobian, bragg, replace(pixels, gain_sd=0.0), "gaussian"))
    for b in range(3):
        keep = pixels.trusted[b]
        mu = (bragg + pixels.background)[b][keep]
        V = mu + 0.09 + (0.03 * mu) ** 2
        A = prior.design[:, keep].T
        own = A @ covariance[b] @ A.T + error**2 * np.outer(bragg[b][keep], bragg[b][keep])
        cov = np.diag(V) + own
        assert found[b] == pytest.approx(stats.multivariate_normal.logpdf(pixels.counts[b][keep], mu, cov), rel=1e-10)
        # The expected information, with the weight that a pixel's own variance adds to its mean.
        V = mu + 0.09
        weight = 1 / V + 0.5 / V**2
        dense = np.linalg.inv(np.diag(1 / weight) + own)
        np.testing.assert_allclose(information[b], jacobian[b][:, keep] @ dense @ jacobian[b][:, keep].T, rtol=1e-8)
    shown = fitted(bragg, pixels, "gaussian")
    # Posterior means and the intensity's error from the dense covariance of unknowns and counts.
    for b in range(3):
        keep = pixels.trusted[b]
        mu = (bragg + pixels.background)[b][keep]
        D = np.concatenate([np.linalg.cholesky(covariance[b]).T @ prior.design[:, keep], error * bragg[b][None, keep]])
        cov = np.diag(mu + 0.09 + (0.03 * mu) ** 2) + D.T @ D
        pull = np.linalg.solve(cov, D.T).T
        z = pull @ (pixels.counts[b][keep] - mu)
        np.testing.assert_allclose(
            np.asarray(shown.background)[b][keep], pixels.background[b][keep] + D[:3].T @ z[:3], rtol=1e-8
        )
        assert float(shown.intensity[b]) == pytest.approx(1 + error * z[3], rel=1e-9)
        sd = error * np.sqrt(1 - pull[3] @ D[3])
        assert float(shown.intensity_sd[b]) == pytest.approx(sd, rel=1e-8, abs=1e-12)


def test_expected_information_of_unknown_intensities_is_the_spread_of_the_score() -> None:
    # Many boxes with the same spot, drawn from the model: scores in position and width have the stated covariance.
    rng = np.random.default_rng(5)
    n = 3000
    s, f = np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij")

    def photons(theta: jax.Array) -> jax.Array:
        r2 = (s - 2.4 - theta[0]) ** 2 + (f - 2.6) ** 2
        width = 0.9 * (1 + theta[1])
        return (theta[2] + 1.0) * 400.0 * jnp.exp(-0.5 * r2 / width**2).ravel() / (2 * jnp.pi * width**2)

    start = np.zeros(3)
    bragg = np.asarray(photons(start))[None].repeat(n, axis=0)
    intensity = rng.exponential(size=n) / rng.gamma(SHAPE, 1 / SHAPE, n)
    counts = rng.poisson(intensity[:, None] * bragg + 2.0) + rng.normal(0, 0.3, (n, N))
    pixels = Pixels(counts, np.full((n, N), 2.0), np.ones((n, N), bool), np.full((n, N), 0.09))
    pixels = with_priors(pixels, np.zeros(n, bool))
    slope = np.asarray(jax.jit(jax.grad(lambda b: jnp.sum(box_log_likelihood(b, pixels, "gaussian"))))(bragg))
    jacobian = np.asarray(jax.jacfwd(photons)(start)).T
    score = slope @ jacobian.T
    stated = np.asarray(box_fisher(jacobian[None].repeat(n, axis=0), bragg, pixels, "gaussian")).mean(axis=0)
    seen = score.T @ score / n
    assert np.all(np.abs(score.mean(axis=0)) < 4 * np.sqrt(np.diag(seen) / n))
    np.testing.assert_allclose(np.sqrt(np.diag(seen)), np.sqrt(np.diag(stated)), rtol=0.08)


def test_one_zinger_costs_a_robust_model_a_few_units_and_pulls_at_nothing() -> None:
    rng = np.random.default_rng(6)
    bragg, pixels = spots(np.array([500.0]), rng)
    pixels = replace(pixels, trusted=np.ones_like(pixels.trusted))
    robust = replace(pixels, outliers=outliers(0.01, pixels.background, pixels.variance))
    hit = pixels.counts.copy()
    hit[0, 5] += 4000.0
    slope = jax.jit(jax.grad(lambda s, p: jnp.sum(box_log_likelihood(s, p, "gaussian"))))
    assert float(value(bragg, replace(pixels, counts=hit), "gaussian")[0]) < -1e5
    lost = float(value(bragg, robust, "gaussian")[0] - value(bragg, replace(robust, counts=hit), "gaussian")[0])
    assert 5 < lost < 25
    assert abs(float(slope(bragg, replace(robust, counts=hit))[0, 5])) < 1e-6
    others = np.arange(N) != 5
    np.testing.assert_allclose(
        slope(bragg, replace(robust, counts=hit))[0, others], slope(bragg, robust)[0, others], rtol=1e-12
    )


def test_counting_statistics_do_not_pass_for_outliers() -> None:
    # Clean boxes, many: their scale is not pulled by more than its own error, which is far below that of one shot.
    rng = np.random.default_rng(8)
    bragg, pixels = spots(np.full(20_000, 30.0), rng)
    robust = replace(pixels, outliers=outliers(0.01, pixels.background, pixels.variance))
    slope = jax.jit(jax.grad(lambda s, p: jnp.sum(box_log_likelihood(s, p, "gaussian"))))
    score = np.sum(np.asarray(slope(bragg, robust)) * bragg, axis=1)
    assert abs(score.sum()) < 3 * np.sqrt(np.sum(score**2))
    stated = np.asarray(box_fisher(bragg[:, None, :], bragg, robust, "gaussian")).mean()
    assert np.mean(score**2) == pytest.approx(stated, rel=0.06)


def test_untrusted_boxes_count_nothing_and_parts_that_do_not_fit_are_refused() -> None:
    rng = np.random.default_rng(7)
    bragg, pixels = spots(np.array([50.0, 50.0]), rng)
    pixels = with_priors(replace(pixels, trusted=np.array([True, False])[:, None] & pixels.trusted), np.zeros(2, bool))
    # The rule's integral of the prior alone, whose tail it cuts at exp(-30) of the peak.
    assert abs(float(value(bragg, pixels, "gaussian")[1])) < 1e-8
    nothing = jax.grad(lambda s: jnp.sum(box_log_likelihood(s, pixels, "gaussian")))(0.0 * bragg)
    assert np.all(np.isfinite(nothing))
    planes = replace(pixels, planes=plane_prior((SIDE, SIDE), np.eye(3)[None].repeat(2, axis=0)))
    with pytest.raises(InputError, match="likelihood=gaussian"):
        check_model(planes, "poisson")
    with pytest.raises(InputError, match="do not go together"):
        check_model(replace(planes, outliers=outliers(0.1, 1.0, 1.0)), "gaussian")
    for other, name in ((pixels, "gaussian"), (replace(pixels, intensities=None), "poisson")):
        with pytest.raises(InputError, match="sigma_intensity"):
            check_model(replace(other, intensity_sd=np.asarray(0.03)), name)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="outlier_fraction"):
        outliers(0.7, 1.0, 1.0)

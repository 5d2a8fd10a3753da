"""Likelihoods against scipy's distributions, direct sums, normalisation and finite differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from bayesbragg.inference.box_likelihood import box_log_likelihood
from bayesbragg.inference.likelihood import (
    gaussian,
    half_window,
    information,
    log_likelihood,
    noise_variance,
    poisson,
    poisson_gaussian,
    shifted_poisson,
)
from bayesbragg.inference.pixels import Pixels


def total(name, counts, mu, variance, trusted, window=0, gain_sd=0.0):  # type: ignore[no-untyped-def]
    """Log likelihood of pixels that are all of one box, without background."""
    counts, mu, variance, trusted = (jnp.atleast_1d(jnp.asarray(v)) for v in (counts, mu, variance, trusted))
    pixels = Pixels(counts[None], jnp.zeros_like(counts)[None], trusted[None], variance[None], gain_sd)
    return box_log_likelihood(mu[None], pixels, name, window)[0]


def convolution(y: float, mu: float, sd: float) -> float:
    """ln sum_n Poisson(n) Normal(y; n, sd^2), summed over every term that could matter."""
    n = np.arange(0, int(mu + 40 * np.sqrt(mu) + abs(y) + 40 * sd) + 60)
    return float(np.logaddexp.reduce(stats.poisson.logpmf(n, mu) + stats.norm.logpdf(y, n, sd)))


def cases(sd: float) -> tuple[np.ndarray, np.ndarray]:
    """Expectations and measurements, likely and unlikely ones."""
    pairs = [
        (mu, y)
        for mu in (0.02, 0.7, 5.0, 33.0, 60.0, 3000.0)
        for y in (-0.6 * sd, 0.5, mu + 0.3, mu + 6 * np.hypot(sd, np.sqrt(mu)), 0.3 * mu)
    ]
    mu, y = np.array(pairs).T
    return mu, y


@pytest.mark.parametrize("sd", [0.107, 0.5, 3.0, 5.0, 6.0, 12.0, 90.0, 900.0])
def test_exact_convolution_and_its_derivative_equal_the_full_sum(sd: float) -> None:
    mu, y = cases(sd)
    window = half_window(sd**2)

    def summed(m: jax.Array) -> tuple[jax.Array, jax.Array]:
        value = poisson_gaussian(y, m, np.asarray(sd**2), half_window=window)
        return jnp.sum(value), value

    slope, value = jax.jit(jax.grad(summed, has_aux=True))(mu)
    expected = [convolution(b, a, sd) for a, b in zip(mu, y, strict=True)]
    np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-10)
    step = 1e-5 * mu
    up = [convolution(b, a, sd) for a, b in zip(mu + step, y, strict=True)]
    down = [convolution(b, a, sd) for a, b in zip(mu - step, y, strict=True)]
    np.testing.assert_allclose(slope, (np.array(up) - down) / (2 * step), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("mu", "sd"), [(0.3, 0.3), (4.0, 1.0), (50.0, 3.0)])
def test_exact_convolution_integrates_to_one(mu: float, sd: float) -> None:
    y = np.linspace(-9 * sd, mu + 12 * np.sqrt(mu) + 9 * sd + 12, 40001)
    density = np.exp(poisson_gaussian(y, np.full_like(y, mu), np.asarray(sd**2), half_window=half_window(sd**2)))
    assert integrate.simpson(density, x=y) == pytest.approx(1.0, abs=1e-9)
    mean = integrate.simpson(density * y, x=y)
    assert mean == pytest.approx(mu, abs=1e-8)
    assert integrate.simpson(density * (y - mean) ** 2, x=y) == pytest.approx(mu + sd**2, rel=1e-8)


def test_gaussian_and_poisson_equal_scipys() -> None:
    rng = np.random.default_rng(3)
    mu, variance, y = rng.uniform(0.1, 90, 200), rng.uniform(0, 9, 200), rng.normal(20, 30, 200)
    np.testing.assert_allclose(
        gaussian(y, mu, variance), stats.norm.logpdf(y, mu, np.sqrt(mu + variance)), rtol=1e-12, atol=1e-12
    )
    n = rng.poisson(mu).astype(float)
    np.testing.assert_allclose(poisson(n, mu, variance), stats.poisson.logpmf(n, mu), rtol=1e-10, atol=1e-11)


def test_shifted_poisson_is_close_where_counts_are_many() -> None:
    mu, variance = 400.0, 9.0
    y = np.linspace(330, 470, 29)
    exact = poisson_gaussian(y, np.full_like(y, mu), np.asarray(variance), half_window=half_window(variance))
    shifted = shifted_poisson(y, np.full_like(y, mu), np.asarray(variance))
    assert np.max(np.abs(exact - shifted)) < 0.02
    assert np.max(np.abs(exact - gaussian(y, mu, variance))) > np.max(np.abs(exact - shifted))


@pytest.mark.parametrize("name", ["gaussian", "poisson", "poisson_gaussian", "shifted_poisson"])
def test_untrusted_pixels_change_neither_value_nor_derivative(name: str) -> None:
    rng = np.random.default_rng(5)
    mu, variance = rng.uniform(1, 9, 20), np.full(20, 0.4)
    counts, trusted = rng.poisson(mu).astype(float), np.arange(20) < 12
    f = lambda m, c: total(name, c, m, variance, trusted, half_window(0.4))  # noqa: E731
    bad_counts, bad_mu = np.where(trusted, counts, np.nan), np.where(trusted, mu, -np.inf)
    expected = np.sum(log_likelihood(name, half_window(0.4))(counts[:12], mu[:12], variance[:12]))
    value, slope = jax.value_and_grad(f)(bad_mu, bad_counts)
    assert float(value) == pytest.approx(float(expected), rel=1e-12)
    assert np.all(np.isfinite(slope))
    assert np.all(slope[12:] == 0)


def test_half_window_has_few_sizes_and_needs_noise() -> None:
    assert half_window(0.107**2) == half_window(0.05**2)
    assert {half_window(s**2) for s in np.linspace(0.05, 6, 50)} <= {3, 6, 12, 24, 48}
    assert half_window(1e6) == 48  # photons far from counting statistics cost no more
    with pytest.raises(ValueError, match="poisson likelihood"):
        half_window(np.array([0.0, 1.0]))


@pytest.mark.parametrize("gain_sd", [0.0, 0.03, 0.2])
def test_information_of_the_gaussian_likelihood_is_the_mean_square_of_its_score(gain_sd: float) -> None:
    node, weight = np.polynomial.hermite_e.hermegauss(20)
    weight /= weight.sum()

    def density(mu: jax.Array, y: jax.Array) -> jax.Array:
        return total("gaussian", y, mu, np.asarray(0.3), np.asarray(True), gain_sd=gain_sd)

    for mu in (0.2, 4.0, 900.0):
        y = mu + node * np.sqrt(mu + noise_variance(mu, 0.3, gain_sd))
        score = jax.vmap(jax.grad(density), in_axes=(None, 0))(mu, y)
        np.testing.assert_allclose(weight @ score**2, information("gaussian", mu, 0.3, gain_sd), rtol=1e-9)
        np.testing.assert_allclose(
            density(mu, y[3]), stats.norm.logpdf(y[3], mu, np.sqrt(mu + 0.3 + (gain_sd * mu) ** 2)), rtol=1e-12
        )


def test_calibration_error_can_be_inferred_and_counting_alone_needs_none() -> None:
    rng = np.random.default_rng(11)
    mu = np.exp(rng.uniform(0, 8, 20_000))
    counts = rng.poisson(mu * (1 + 0.03 * rng.standard_normal(mu.size))) + rng.normal(0, 0.5, mu.size)
    n = mu.size

    def minus(g: jax.Array) -> jax.Array:
        return -total("gaussian", counts, mu, np.full(n, 0.25), np.ones(n, bool), gain_sd=g)

    slope, bend = jax.jit(jax.grad(minus)), jax.jit(jax.grad(jax.grad(minus)))
    g = 0.05
    for _ in range(30):
        g -= float(slope(g)) / abs(float(bend(g)))
    assert abs(g - 0.03) < 4 * float(bend(g)) ** -0.5 < 0.0025
    # The convolution with counting noise agrees with the Gaussian where counts are many.
    y, m = np.array([950.0, 1010.0]), np.array([1000.0, 1000.0])
    noise = noise_variance(m, 0.25, 0.03)
    exact = poisson_gaussian(y, m, noise, half_window=half_window(float(noise.max())))
    np.testing.assert_allclose(exact, gaussian(y, m, noise), atol=0.02)


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="poisson_gaussian"):
        log_likelihood("normal")  # type: ignore[arg-type]

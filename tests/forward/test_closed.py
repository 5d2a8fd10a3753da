"""Closed forms against the exact sum: golden inputs, random configurations, derivatives, sampled rotations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forward.closed_cases import small_scene
from forward.golden_scene import golden_setup
from golden import load_golden

from bayesbragg.forward import Options, expected_photons
from bayesbragg.forward.approximation import approximation_error
from bayesbragg.forward.candidates import closed_holds, prepare_closed
from bayesbragg.forward.closed import closed_photons
from bayesbragg.forward.closed_support import closed_unavailable
from bayesbragg.forward.window import merge_channels

CASES = ["01", "02a", "02d", "03", "04b", "05", "08", "09", "10c", "10f", "12a", "13b", "14", "20"]


@pytest.mark.parametrize("case", CASES)
def test_golden_photons(case: str) -> None:
    g = load_golden(case)
    parameters, scene, options, shot = golden_setup(g)
    # Channel by channel, and merged: more than a few are looked up in a table.
    for merge, limit in ((False, 1e-8), (True, 2e-6)):
        closed = prepare_closed(parameters, scene, options, merge=merge)
        photons = np.asarray(closed_photons(parameters, closed, options))[shot.valid]
        assert np.abs(photons - g["I"]).max() < limit * g["I"].max()
        assert closed_holds(parameters, closed, options)


@pytest.mark.parametrize(
    ("case", "merge", "limit"), [("03", False, 1e-6), ("05", False, 1e-6), ("09", True, 3e-4), ("14", False, 1e-6)]
)
def test_derivatives_of_everything(case: str, merge: bool, limit: float) -> None:
    """Forward and reverse mode against the exact sum, every parameter at once."""
    g = load_golden(case)
    parameters, scene, options, shot = golden_setup(g)
    parameters = jax.tree.map(jnp.asarray, parameters)
    closed = prepare_closed(parameters, scene, options, merge=merge)
    assert (closed.table is not None) == merge
    weight = jnp.asarray(np.random.default_rng(0).standard_normal(shot.counts.shape)) * shot.valid

    exact = jax.jit(jax.grad(lambda p: jnp.sum(weight * expected_photons(p, scene, options))))(parameters)
    ours = jax.jit(jax.grad(lambda p: jnp.sum(weight * closed_photons(p, closed, options))))(parameters)
    for name in ("crystal", "mosaic", "scale", "spectrum", "panels"):
        a, b = (np.concatenate([np.ravel(v) for v in jax.tree.leaves(getattr(t, name))]) for t in (exact, ours))
        if name == "scale":
            a, b = a[:-1], b[:-1]  # the exact sum skips the Debye-Waller factor unless it is asked for
        assert np.abs(a - b).max() <= limit * np.abs(a).max(), name

    tangent = jax.tree.map(lambda a: 1e-4 * jnp.ones_like(a), parameters)
    forward = jax.jvp(lambda p: jnp.sum(weight * closed_photons(p, closed, options)), (parameters,), (tangent,))[1]
    backward = sum(jnp.sum(a * b) for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(tangent), strict=True))
    assert np.isclose(forward, backward, rtol=1e-8)


def test_golden_isotropic_spread_converges() -> None:
    """The limit of many classic rotations, on the golden inputs with 4000 of them in place of 20."""
    g = load_golden("06")
    parameters, scene, options, shot = golden_setup(g)
    images = []
    for seed in range(4):
        generator = np.random.default_rng(seed)
        axes = generator.standard_normal((2000, 3))
        axes /= np.linalg.norm(axes, axis=1, keepdims=True)
        cdf = (generator.permutation(2000) + 0.5) / 2000
        many = replace(scene, mosaic=replace(scene.mosaic, axes=axes, cdf=cdf))
        images.append(np.asarray(expected_photons(parameters, many, options))[shot.valid])
    mean = np.mean(images, axis=0)
    error = np.std(images, axis=0, ddof=1) / 2
    closed = np.asarray(closed_photons(parameters, prepare_closed(parameters, scene, options), options))[shot.valid]
    assert np.sqrt(np.mean((closed - mean) ** 2)) < 1.5 * np.sqrt(np.mean(error**2)) + 1e-4 * mean.max()
    assert np.abs(closed.sum() / mean.sum() - 1) < 0.01


def test_merged_channels_keep_moments() -> None:
    generator = np.random.default_rng(1)
    wavelengths = np.sort(generator.uniform(1.29, 1.31, 1000))
    strength = generator.exponential(size=1000)
    width = 1e-3
    nodes, weights = merge_channels(wavelengths, strength, width)
    assert len(nodes) < 40
    for centre in np.linspace(1 / 1.31, 1 / 1.29, 23):
        sums = [
            np.sum(w * np.exp(-0.5 * ((1 / x - centre) / width) ** 2))
            for x, w in ((wavelengths, strength), (nodes, weights))
        ]
        assert abs(sums[0] - sums[1]) < 1e-4 * sums[0]


def test_a_spectrum_too_wide_for_a_table_keeps_its_channels() -> None:
    parameters, scene, options = small_scene(n_boxes=4, n_channels=60, bandwidth=0.03, blocks=(80.0, 70.0, 60.0))
    closed = prepare_closed(parameters, scene, options)
    assert closed.table is None
    assert closed.nodes.strength.shape == (60,)
    exact = np.asarray(expected_photons(parameters, scene, options))
    ours = np.asarray(closed_photons(parameters, closed, options))
    np.testing.assert_allclose(ours, exact, atol=1e-6 * exact.max())


def test_single_precision() -> None:
    g = load_golden("13b")
    parameters, scene, options, shot = golden_setup(g, precision="float32")
    closed = prepare_closed(parameters, scene, options)
    photons = np.asarray(closed_photons(parameters, closed, options), float)[shot.valid]
    assert np.linalg.norm(photons - g["I"]) < 3e-6 * np.linalg.norm(g["I"])


def test_error_estimate_and_refusal() -> None:
    g = load_golden("03")
    parameters, scene, options, _ = golden_setup(g)
    closed = prepare_closed(parameters, scene, options)
    assert approximation_error(parameters, closed, options, 1.0).small
    assert closed.table is not None
    coarse = replace(closed, table=replace(closed.table, middle=closed.table.middle * 1.001))
    assert not approximation_error(parameters, coarse, options, 1.0).small
    with pytest.raises(ValueError, match="gaussian_anisotropic"):
        closed_photons(parameters, closed, replace(options, spread="anisotropic"))


def test_list_that_no_longer_holds() -> None:
    g = load_golden("03")
    parameters, scene, options, _ = golden_setup(g)
    closed = prepare_closed(parameters, scene, options)
    finer = replace(parameters, mosaic=replace(parameters.mosaic, n_abc=4.0 * parameters.mosaic.n_abc))
    assert not closed_holds(finer, closed, options)


@pytest.mark.parametrize(
    ("switches", "word"),
    [
        ({}, None),
        ({"spread": "isotropic", "oversample": 2, "sensor_layers": 3, "b_factor": True, "point_spread": True}, None),
        ({"diffuse": True}, "diffuse"),
        ({"complex_factors": True}, "complex_factors"),
        ({"spread": "anisotropic"}, "gaussian_anisotropic"),
    ],
)
def test_reason_why_there_is_no_closed_form(switches: dict[str, Any], word: str | None) -> None:
    reason = closed_unavailable(Options(**switches))
    assert reason is None if word is None else word in str(reason)

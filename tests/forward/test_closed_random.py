"""Random configurations: closed form and derivatives against the converged sum, or the estimate says that it fails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forward.closed_cases import small_scene

from bayesbragg.forward import Options, Parameters, expected_photons
from bayesbragg.forward.approximation import approximation_error
from bayesbragg.forward.candidates import Margin, prepare_closed
from bayesbragg.forward.closed import closed_photons

BACKGROUND = 10.0
"""Photons per pixel."""

STEP = 0.05
"""Of the difference quotient, in units of the direction, which is a fraction of a block's width: good to 1e-6."""


def configuration(seed: int) -> dict[str, Any]:
    """N from 5 to 300, spread from 0 to 0.5 degree, bandwidth from 0 to 3 %, in three spreads."""
    generator = np.random.default_rng(seed)
    n = np.exp(generator.uniform(np.log(5.0), np.log(300.0)))
    spread = ("none", "isotropic", "gaussian_isotropic", "gaussian_anisotropic")[seed % 4]
    return {
        "blocks": n * np.exp(generator.uniform(-0.3, 0.3, 3)),
        "eta_deg": 0.0 if spread == "none" else generator.uniform(0.0, 0.5, 3),
        "spread": spread,
        "bandwidth": (0.0, generator.uniform(0.0, 0.03))[int(generator.random() > 0.1)],
        "oversample": int(generator.integers(1, 4)),
        "seed": seed,
        "n_boxes": 4,
        "n_channels": 60,
    }


def _differences(forward: Any, parameters: Parameters, scene: Any, direction: Parameters, options: Options) -> Any:
    """The derivative of a sum from five points: it knows nothing of the rules that JAX differentiates by."""

    def at(step: float) -> Any:
        moved = jax.tree.map(lambda p, d: p + step * d, parameters, direction)
        return np.asarray(forward(moved, scene, options))

    return (8.0 * (at(STEP) - at(-STEP)) - (at(2.0 * STEP) - at(-2.0 * STEP))) / (12.0 * STEP)


def compare(seed: int) -> tuple[bool, float, float, float, float]:
    """Whether the closed form was chosen; true error of value (of peak, of noise) and derivative; estimated error.

    The converged sum: without spread the exact sum; with one, the closed form with 40 nodes, every subpixel and channel
    and all reflections, which `test_closed_blur` holds against integrals over all rotations.
    """
    parameters, scene, options = small_scene(**configuration(seed))
    scene = jax.device_put(scene)
    # The brightest pixel holds 1000 photons.
    closed = prepare_closed(parameters, scene, options)
    # Nearly every configuration has shapes of its own: one operation after the other is sooner done than compiled.
    with jax.disable_jit():
        peak = float(np.max(closed_photons(parameters, closed, options)))
    G = parameters.scale.G * 1000.0 / peak
    parameters = jax.tree.map(jnp.asarray, replace(parameters, scale=replace(parameters.scale, G=G)))
    generator = np.random.default_rng(seed)
    step = lambda a: 1e-3 * jnp.asarray(a) * generator.standard_normal(np.shape(a))  # noqa: E731
    still = jax.tree.map(jnp.zeros_like, parameters)
    direction = replace(
        still,
        crystal=replace(
            still.crystal, rot_xyz=1e-5 * generator.standard_normal((1, 3)), cell=1e-2 * step(parameters.crystal.cell)
        ),
        mosaic=replace(
            still.mosaic, n_abc=10 * step(parameters.mosaic.n_abc), eta_deg=10 * step(parameters.mosaic.eta_deg)
        ),
        scale=replace(still.scale, G=step(parameters.scale.G)),
    )
    with jax.disable_jit():
        ours, slope = jax.jvp(lambda p: closed_photons(p, closed, options), (parameters,), (direction,))
        error = approximation_error(parameters, closed, options, BACKGROUND)
    if options.spread == "none":
        judge, forward, finer = scene, expected_photons, options
    else:
        finer = replace(options, mosaic_nodes=40) if options.spread == "isotropic" else options
        judge = prepare_closed(parameters, scene, finer, Margin(depth=14.0), merge=False, coarse_subpixels=False)
        forward = closed_photons
    reference = forward(parameters, judge, finer)
    true_slope = _differences(forward, parameters, judge, direction, finer)
    difference = np.abs(np.asarray(ours - reference))
    noise = np.sqrt(np.asarray(reference) + BACKGROUND)
    gradient = float(np.abs(slope - true_slope).max() / np.abs(true_slope).max())
    return error.small, difference.max() / 1000.0, float((difference / noise).max()), gradient, error.of_peak


def check(seed: int) -> bool:
    chosen, of_peak, of_noise, gradient, estimate = compare(seed)
    print(
        f"{seed:4d} chosen {chosen} peak {of_peak:.1e} noise {of_noise:.1e} gradient {gradient:.1e} est. {estimate:.1e}"
    )
    if chosen:
        assert of_peak < 1e-3
        assert of_noise < 1 / 20
        assert gradient < 1e-3
    return chosen


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 6])
def test_random_configuration(seed: int) -> None:
    check(seed)


@pytest.mark.slow
def test_hundred_random_configurations() -> None:
    chosen = [check(seed) for seed in range(100)]
    assert sum(chosen) >= 80

"""Gaussians of spots against the full quadratic form of a skew cell, and their mixture against an integral."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forward.skew_scene import (
    HKL,
    LATTICE,
    block_of,
    corrected_k,
    real_vectors,
    skew_parameters,
    skew_scene,
    spot,
)

from bayesbragg.forward import Options, Parameters
from bayesbragg.forward.beam_spread import BeamSpread, beam_axes, blur_covariance
from bayesbragg.forward.geometry import move_boxes
from bayesbragg.forward.quick_jit import understood_options
from bayesbragg.forward.resolution import covariance_of
from bayesbragg.forward.spread import (
    FALLBACK_NODES,
    Reflexes,
    Shapes,
    mixture_rule,
    mixture_size,
    shape_reflexes,
)

PARAMETERS, SCENE = skew_parameters(), skew_scene()
N_ROWS = len(HKL)
REFLEXES = Reflexes(np.arange(N_ROWS), LATTICE, HKL.astype(float), np.arange(N_ROWS), np.ones(N_ROWS))
GENERATOR = np.random.default_rng(11)
ROOTS = 2e-3 * GENERATOR.standard_normal((N_ROWS, 3, 3))
BLUR = ROOTS @ ROOTS.swapaxes(1, 2)
BEAM = BeamSpread(np.array([3e-4, 7e-4]), np.array([5e-5, 2e-5]))


def shaped(parameters: Parameters, options: Options, **given: Any) -> Shapes:
    """Shapes of the rows, as numpy arrays."""
    program = jax.jit(
        lambda p: shape_reflexes(p, SCENE, options, REFLEXES, **given), compiler_options=understood_options()
    )
    found: Shapes = jax.tree.map(np.asarray, program(parameters))
    return found


def exponent(shapes: Shapes, node: int, row: int, q: np.ndarray) -> np.ndarray:
    """t.K.t / 2 + rho^2 / 2v as the class says it."""
    frame = np.asarray(shapes.frame[row])
    along, *t = frame @ q.T
    lean, K = np.asarray(shapes.lean[node, row]), np.asarray(shapes.stiffness[node, row])
    bend = np.linalg.norm(q, axis=-1) - along
    rho = along + float(shapes.outward[node, row]) * bend - lean[0] * t[0] - lean[1] * t[1]
    rho = rho - float(shapes.length[node, row])
    quadratic = K[0] * t[0] ** 2 + 2.0 * K[1] * t[0] * t[1] + K[2] * t[1] ** 2
    return np.asarray(0.5 * quadratic + 0.5 * rho**2 / float(shapes.variance[node, row]))


def points(row: int, n: int = 40) -> np.ndarray:
    """Scattering vectors around a reflection, within a few widths of its block."""
    q0 = np.linalg.inv(real_vectors(PARAMETERS, SCENE)[LATTICE[row]]).T @ HKL[row]
    return np.asarray(q0 + 3e-3 * np.random.default_rng(row).standard_normal((n, 3)))


@pytest.mark.parametrize("spread", ["none", "gaussian_isotropic", "gaussian_anisotropic", "gaussian_general"])
@pytest.mark.parametrize("wider", [{}, {"angle": 0.01, "relative": 0.004}, {"all": True}])
def test_quadratic_form_and_height(spread: Any, wider: dict[str, Any]) -> None:
    given = {"blur": BLUR, "angle": 0.01, "relative": 0.004} if "all" in wider else wider
    options = Options(spread=spread)
    blur = given.get("blur")
    margins = {name: given.get(name, 0.0) for name in ("angle", "relative")}
    shapes = shaped(PARAMETERS, options, **margins, blur=None if blur is None else lambda: jnp.asarray(BLUR))
    assert shapes.length.shape == shapes.weight.shape == shapes.stiffness.shape[:2] == (1, N_ROWS)
    for row in range(N_ROWS):
        where = (PARAMETERS, SCENE, options, LATTICE[row], HKL[row])
        expected = spot(*where, **margins, blur=None if blur is None else BLUR[row])
        assert float(shapes.length[0, row]) == pytest.approx(expected.length, rel=1e-12)
        assert float(shapes.outward[0, row]) == pytest.approx(expected.share, rel=1e-9, abs=1e-13)
        q = points(row)
        np.testing.assert_allclose(exponent(shapes, 0, row, q), expected.exponent(q), rtol=1e-8)
        alone = spot(PARAMETERS, SCENE, Options(), LATTICE[row], HKL[row], **(margins if blur is None else {}))
        height = math.sqrt(np.linalg.det(alone.C) / np.linalg.det(expected.C))
        assert float(shapes.weight[0, row]) == pytest.approx(height, rel=1e-9)
        frame = np.asarray(shapes.frame[row])
        along, mixed, across = (np.asarray(a[row]) for a in covariance_of(shapes))
        inside = np.block([[np.array([[along]]), mixed[None]], [mixed[:, None], across]])
        np.testing.assert_allclose(frame.T @ inside @ frame, expected.C, rtol=1e-8, atol=1e-12 * expected.C.max())


def test_frames() -> None:
    """Right-handed, along q0, and the second vector across q0 and the lab axis that is least along it."""
    frame = np.asarray(shaped(PARAMETERS, Options()).frame)
    for row in range(N_ROWS):
        q0 = np.linalg.inv(real_vectors(PARAMETERS, SCENE)[LATTICE[row]]).T @ HKL[row]
        n = q0 / np.linalg.norm(q0)
        first = np.cross(n, np.eye(3)[np.argmin(np.abs(n))])
        first /= np.linalg.norm(first)
        np.testing.assert_allclose(frame[row], [n, first, np.cross(n, first)], atol=1e-12)


@pytest.mark.parametrize("blurred", [False, True])
def test_nodes_of_the_classic_spread(blurred: bool) -> None:
    """Each node is a Gaussian spread of sigma = beta/|q0| sinh(x), and all of them the average over sigma."""
    options, plain = Options(spread="isotropic"), Options()
    eta = math.radians(PARAMETERS.mosaic.eta_deg[0])
    rule = mixture_rule(3)
    blur = (lambda: jnp.asarray(BLUR)) if blurred else None
    shapes = shaped(PARAMETERS, options, rule=rule, blur=blur)
    many = shaped(PARAMETERS, options, rule=mixture_rule(20), blur=blur)
    assert shaped(PARAMETERS, options).length.shape == (FALLBACK_NODES, N_ROWS)
    assert FALLBACK_NODES == 6
    for row in range(N_ROWS):
        where = (PARAMETERS, SCENE, plain, LATTICE[row], HKL[row])
        also = {"blur": BLUR[row]} if blurred else {}
        still, own = spot(*where, **also), spot(*where)
        q0 = still.length
        frame = np.asarray(shapes.frame[row])
        beta = np.linalg.det((frame @ still.C @ frame.T)[1:, 1:]) ** 0.25
        limit = math.asinh(eta * q0 / beta)
        q = points(row)
        for node, (x, w) in enumerate(rule):
            sigma = beta / q0 * math.sinh(x * limit)
            turned = spot(*where, **also, rotations=sigma**2 * np.eye(3))
            height = math.sqrt(np.linalg.det(own.C) / np.linalg.det(turned.C))
            part = w * limit * beta / q0 / eta * math.cosh(x * limit)
            assert float(shapes.weight[node, row]) == pytest.approx(part * height, rel=1e-9)
            assert float(shapes.length[node, row]) == pytest.approx(turned.length, rel=1e-12)
            np.testing.assert_allclose(exponent(shapes, node, row, q), turned.exponent(q), rtol=1e-8)
        average: Any = 0.0
        for x, w in zip(*np.polynomial.legendre.leggauss(60), strict=True):
            turned = spot(*where, **also, rotations=(0.5 * eta * (x + 1.0)) ** 2 * np.eye(3))
            height = math.sqrt(np.linalg.det(own.C) / np.linalg.det(turned.C))
            average = average + 0.5 * w * height * np.exp(-turned.exponent(q))
        ours = sum(float(many.weight[i, row]) * np.exp(-exponent(many, i, row, q)) for i in range(20))
        np.testing.assert_allclose(ours, average, rtol=1e-6)


def test_a_spread_of_zero_is_none() -> None:
    still = skew_parameters(eta_deg=0.0)
    ours = shaped(still, Options(spread="isotropic"))
    plain = shaped(still, Options())
    np.testing.assert_allclose(np.sum(ours.weight, axis=0), plain.weight[0], rtol=1e-9)
    np.testing.assert_allclose(ours.stiffness, np.broadcast_to(plain.stiffness, ours.stiffness.shape), rtol=1e-9)


def test_rule_integrates_even_functions() -> None:
    rule = mixture_rule(5)
    assert rule.shape == (5, 2)
    assert np.all((rule[:, 0] > 0) & (rule[:, 0] < 1))
    for power in range(0, 20, 2):
        assert np.sum(rule[:, 1] * rule[:, 0] ** power) == pytest.approx(1.0 / (power + 1), rel=1e-12)


def test_sizes_of_rules() -> None:
    """Nodes go up where 0.1 + 2 r + r^2 / 50 passes them, r = asinh(ratio); 16 beyond the last."""
    sizes = (2, 3, 4, 5, 6, 8, 10, 12, 16)
    for n, following in itertools.pairwise(sizes):
        edge = math.sinh(50.0 * (math.sqrt(1.0 + 0.02 * (n - 0.1)) - 1.0))
        assert mixture_size(edge * (1 - 1e-9)) == n
        assert mixture_size(edge * (1 + 1e-9)) == following
    assert mixture_size(0.0) == 2
    assert mixture_size(1e9) == 16


def test_rows_that_only_fill_up() -> None:
    live = np.ones(N_ROWS)
    padded = Reflexes(np.arange(3, 8), LATTICE, HKL.astype(float), np.arange(10, 15), live).padded(N_ROWS + 3)
    np.testing.assert_array_equal(padded.box, [3, 4, 5, 6, 7, 3, 3, 3])
    np.testing.assert_array_equal(padded.lattice[N_ROWS:], LATTICE[[0, 0, 0]])
    np.testing.assert_array_equal(padded.hkl[:N_ROWS], HKL)
    np.testing.assert_array_equal(padded.hkl[N_ROWS:], HKL[[0, 0, 0]])
    np.testing.assert_array_equal(padded.position, [10, 11, 12, 13, 14, 10, 10, 10])
    np.testing.assert_array_equal(padded.live, [1, 1, 1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(live, 1)


@pytest.mark.parametrize("spread", [None, BEAM])
def test_blur_of_beam_and_pixel(spread: BeamSpread | None) -> None:
    """Sums of outer products of steps, at the mean 1/lambda' of the photons; two rows in the same box."""
    box = np.array([2, 0, 2, 4])
    reflexes = Reflexes(box, box % 2, np.ones((4, 3)), box, np.ones(4))
    lacking = 0.07
    ours = np.asarray(blur_covariance(PARAMETERS, SCENE, reflexes, spread, lacking))
    moved = move_boxes(SCENE.boxes, PARAMETERS.panels)
    strength = SCENE.channels.strength
    k = np.average(corrected_k(PARAMETERS, SCENE), weights=strength)
    beam, normal = SCENE.beam.k, SCENE.beam.polarization_normal
    first = np.cross(beam, normal) / np.linalg.norm(np.cross(beam, normal))
    axes = np.stack([first, np.cross(first, beam)])
    np.testing.assert_allclose(beam_axes(SCENE), axes, atol=1e-14)
    for row, b in enumerate(box):
        position = np.asarray(moved.position_m[b])
        r = np.linalg.norm(position)
        u = position / r
        P = np.eye(3) - np.outer(u, u)
        steps = [P @ np.asarray(side[b]) / r * math.sqrt(lacking) for side in (moved.fast_m, moved.slow_m)]
        if spread is not None:
            steps += [spread.divergence_rad[i] * axes[i] for i in range(2)]
            steps += [P @ axes[i] * spread.source_m[i] / r for i in range(2)]
        expected = k**2 * sum(np.outer(step, step) for step in steps)
        np.testing.assert_allclose(ours[row], expected, rtol=1e-10, atol=1e-14 * expected.max())


def test_blur_without_photons() -> None:
    dark = skew_scene(strength=np.zeros(6))
    assert np.all(np.asarray(blur_covariance(PARAMETERS, dark, REFLEXES, BEAM, 0.1)) == 0.0)


def test_blocks_are_uneven() -> None:
    """What the tests above rest on: off-diagonal elements everywhere in the covariances of blocks."""
    for row in range(N_ROWS):
        C = spot(PARAMETERS, SCENE, Options(), LATTICE[row], HKL[row]).C
        assert np.all(np.abs(C / np.sqrt(np.outer(np.diag(C), np.diag(C)))) > 1e-3)
        assert np.all(block_of(PARAMETERS, LATTICE[row]) != 0)

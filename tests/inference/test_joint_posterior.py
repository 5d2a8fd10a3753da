"""The joint density for samplers: value, gradient, curvature; a linear-Gaussian problem with a known answer; arrows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from inference.joint_simulation import PANELS, JointData, simulate

from bayesbragg.forward import Parameters
from bayesbragg.forward.geometry import BoxGeometry
from bayesbragg.inference.arrow import ArrowCurvature, log_determinant, sds, through, transposed
from bayesbragg.inference.density import LogDensity, Pixels
from bayesbragg.inference.joint import fit_joint
from bayesbragg.inference.joint_density import JointTarget, target_of_joint_fit
from bayesbragg.inference.joint_laplace import JointLaplaceOptions, joint_laplace
from bayesbragg.inference.joint_types import JointFit, JointOptions
from bayesbragg.inference.laplace import find_mode
from bayesbragg.inference.nuts import NutsOptions, nuts
from bayesbragg.inference.pixel_term import PixelTerm
from bayesbragg.inference.unbounded import hessian, value_and_grad
from bayesbragg.inference.verdict import convergence
from bayesbragg.model.errors import InputError
from bayesbragg.model.fit import FitStatus
from bayesbragg.model.panel_groups import group_panels
from bayesbragg.priors import CellConstraint, Normal, Priors, make_layout
from bayesbragg.priors.panels import LevelWidths, PanelPriors, shared_prior
from bayesbragg.stills.virtual import virtual_experiment

EXTRAS = replace(PANELS, extras={"detz_shift": 1e-4, "lambda_offset": 1e-4, "lambda_scale": 1e-3})


def test_arrow_factor_is_a_root_of_the_inverse() -> None:
    generator = np.random.default_rng(0)
    root = generator.normal(size=(11, 30))
    whole = root @ root.T
    # Two buckets: two shots of two numbers, one shot of three; four shared numbers.
    rows = [slice(0, 2), slice(2, 4), slice(4, 7)]
    for i in rows:
        for j in rows:
            if i != j:
                whole[i, j] = 0.0
    shared = slice(7, 11)
    curvature = ArrowCurvature(
        [np.stack([whole[i, i] for i in rows[:2]]), whole[rows[2], rows[2]][None]],
        [np.stack([whole[i, shared] for i in rows[:2]]), whole[rows[2], shared][None]],
        whole[shared, shared],
    )
    np.testing.assert_array_equal(curvature.dense(), whole)
    factor = curvature.factor()
    dense = through(factor, np.eye(11)).T
    inverse = np.linalg.inv(whole)
    np.testing.assert_allclose(dense @ dense.T, inverse, rtol=1e-8, atol=1e-9)
    g = generator.normal(size=11)
    np.testing.assert_allclose(transposed(factor, g), dense.T @ g, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(sds(factor), np.sqrt(np.diag(inverse)), rtol=1e-8)
    assert log_determinant(factor) == pytest.approx(-0.5 * np.linalg.slogdet(whole)[1], rel=1e-9)


@pytest.fixture(scope="module")
def data() -> JointData:
    return simulate(1, n_shots=2, n_boxes=8, panels=EXTRAS)


@pytest.fixture(scope="module")
def fit(data: JointData) -> JointFit:
    return fit_joint(data.terms, data.prior, JointOptions(tolerance=0.01))


@pytest.fixture(scope="module")
def target(data: JointData, fit: JointFit) -> JointTarget:
    return target_of_joint_fit(data.terms, ["first", "second"], data.prior, fit)


def test_density_is_that_which_the_joint_optimum_maximised(data: JointData, fit: JointFit, target: JointTarget) -> None:
    """Value and gradient against those of the fit's terms and prior, carried over by the bijections' slopes."""
    y = target.start + 0.3 * find_mode(target).sd * np.random.default_rng(0).standard_normal(len(target.start))
    value, gradient = (np.asarray(a) for a in value_and_grad(y, target.data, target.potential))
    assert target.bounds is not None
    values, log_jacobian = (np.asarray(a) for a in target.bounds.values_and_log_jacobian(jnp.asarray(y)))
    slope = np.exp(log_jacobian)
    p = int(data.prior.free.sum())
    shared = np.zeros(data.prior.n)
    shared[data.prior.free] = values[-p:]
    total, slopes = data.prior.minus_log(shared), np.zeros(len(y))
    slopes[-p:] = (data.prior.precision @ np.where(data.prior.free, shared - data.prior.mean, 0.0))[data.prior.free]
    for term, (_, at) in zip(data.terms, target.shots, strict=True):
        x = np.asarray(term.layout.coordinates(jnp.asarray(values[at])))
        part, g, g_shared = term.value_and_grad(x[None], shared)
        total += part
        slopes[at] = g / term.layout.values_and_slope(x)[1]
        slopes[-p:] += g_shared[data.prior.free]
    assert float(value) + np.sum(log_jacobian) == pytest.approx(total, rel=1e-12)
    bend = np.asarray(jax.grad(lambda z: jnp.sum(target.bounds.log_jacobian(z)))(jnp.asarray(y)))
    scale = find_mode(target).sd
    np.testing.assert_allclose(scale * (gradient + bend), scale * slopes * slope, rtol=1e-8, atol=1e-7)


@pytest.mark.slow
def test_curvature_is_the_second_derivative(target: JointTarget) -> None:
    assert target.curvature is not None
    arrow = target.curvature(target.start)
    assert isinstance(arrow, ArrowCurvature)
    exact = np.asarray(hessian(target.start, target.data, target.potential))
    sd = 1.0 / np.sqrt(np.diag(exact))
    np.testing.assert_allclose(arrow.dense() * np.outer(sd, sd), exact * np.outer(sd, sd), atol=1e-5)


def test_a_failed_fit_has_no_posterior(data: JointData, fit: JointFit) -> None:
    failed = replace(fit, status=FitStatus.FAILED, reason="the target is not a finite number")
    with pytest.raises(InputError, match="refine the geometry again"):
        target_of_joint_fit(data.terms, ["first", "second"], data.prior, failed)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Flat:
    """Boxes, and photons per unit of each of four own numbers and of three shifts, ``(7, n_boxes, n_pixels)``."""

    boxes: BoxGeometry
    patterns: Any


@jax.jit
def linear(parameters: Parameters, scene: Flat, options: Any) -> Any:
    """Photons that are linear in scale, blocks and the place of the box's panel."""
    own = jnp.concatenate([parameters.scale.G[:1], parameters.mosaic.n_abc[0]])
    photons = jnp.einsum("k,kbp->bp", own, scene.patterns[:4])
    return photons + jnp.einsum("bk,kbp->bp", scene.boxes.origin_m, scene.patterns[4:])


LINEAR_PANELS = PanelPriors(
    levels={"whole": LevelWidths((1.0,) * 3, (0.4, 0.3, 0.5)), "group": LevelWidths((1.0,) * 3, (0.2, 0.3, 0.1))},
    fixed=(True, True, True, False, False, False),
)


def linear_problem() -> tuple[list[PixelTerm], Any, np.ndarray, np.ndarray]:
    """Two shots on three groups, noise so wide that its variance is constant; mean and covariance in closed form."""
    generator = np.random.default_rng(3)
    world = virtual_experiment(0, n_channels=2)
    grouping = group_panels(world.detector, np.array([0, 1, 2, 2]))
    prior = shared_prior(grouping, LINEAR_PANELS)
    n_boxes, n_pixels, noise = 12, 9, 1e14
    free, own_sd = prior.free, np.array([30.0, 2.0, 2.0, 2.0])
    n_shared = int(free.sum())
    # Joint normal equations: own numbers of each shot, then the shifts.
    P = np.zeros((8 + n_shared, 8 + n_shared))
    right = np.zeros(len(P))
    P[8:, 8:] = prior.precision[np.ix_(free, free)]
    terms = []
    for k in range(2):
        panel = np.arange(n_boxes) % 4
        sizes = np.array([3e5, 5e6, 5e6, 5e6, 5e10, 5e10, 5e10])
        patterns = sizes[:, None, None] * generator.normal(size=(7, n_boxes, n_pixels))
        d = world.detector
        boxes = BoxGeometry(
            origin_m=1e-3 * d.origin_mm[panel], fast=d.fast[panel], slow=d.slow[panel], normal=d.normal[panel],
            normal_sign=np.array(1.0), pixel_m=1e-4 * np.ones((n_boxes, 2)), group=grouping.group[panel],
            reference_m=np.zeros((n_boxes, 3)), centre_px=np.zeros((n_boxes, 2)),
            fast_px=np.zeros((n_boxes, n_pixels)), slow_px=np.zeros((n_boxes, n_pixels)),
        )  # fmt: skip
        centre = np.array([100.0, 10.0, 12.0, 14.0])
        cell = np.array([79.0, 79.0, 38.4, *[np.pi / 2] * 3])
        start = Parameters.start(cell, n_abc=tuple(centre[1:]), G=centre[0])
        priors = Priors(G=Normal(centre[0], own_sd[0]), Nabc=Normal(None, own_sd[1]))
        layout, base = make_layout(priors, start, CellConstraint("tetragonal"))
        place = np.einsum("bk,kbp->bp", boxes.origin_m, patterns[4:])
        known = np.einsum("k,kbp->bp", centre, patterns[:4]) + place
        away = noise**0.5 * generator.standard_normal((n_boxes, n_pixels))
        pixels = Pixels(known + away, np.zeros_like(known), np.ones(known.shape, bool), np.full(known.shape, noise))
        density = LogDensity(linear, Flat(boxes, patterns), None, pixels, layout, base, "gaussian")
        terms.append(PixelTerm(density, panel, grouping))
        order = [layout.names.index(name) for name in ("G", "Na", "Nb", "Nc")]
        A = np.zeros((n_boxes * n_pixels, len(P)))
        for i, at in enumerate(order):
            A[:, 4 * k + at] = patterns[i].reshape(-1)
        for b in range(n_boxes):
            rows = slice(b * n_pixels, (b + 1) * n_pixels)
            at = 8 + 3 * grouping.group[panel[b]]
            A[rows, at : at + 3] = patterns[4:, b].T
        P += A.T @ A / noise
        right += A.T @ away.reshape(-1) / noise
        for i, at in enumerate(order):
            P[4 * k + at, 4 * k + at] += 1.0 / own_sd[i] ** 2
    covariance = np.linalg.inv(P)
    offset = np.zeros(len(P))
    for k, term in enumerate(terms):
        offset[4 * k : 4 * k + 4] = [
            {"G": 100.0, "Na": 10.0, "Nb": 12.0, "Nc": 14.0}[name] for name in term.layout.names
        ]
    return terms, prior, offset + covariance @ right, covariance


def test_linear_gaussian_joint_problem() -> None:
    """NUTS and Laplace give the normal distribution that it has in closed form; Laplace's weights are equal."""
    terms, prior, mean, covariance = linear_problem()
    fit = fit_joint(terms, prior, JointOptions(tolerance=1e-6))
    target = target_of_joint_fit(terms, ["first", "second"], prior, fit)
    sd = np.sqrt(np.diag(covariance))
    gaussian = find_mode(target)
    np.testing.assert_allclose((gaussian.centre - mean) / sd, 0.0, atol=0.05)
    np.testing.assert_allclose(gaussian.covariance / np.outer(sd, sd), covariance / np.outer(sd, sd), atol=2e-3)
    weighted = joint_laplace(target, JointLaplaceOptions(n_draws=2000), gaussian=gaussian)
    assert weighted.verdict.passed, str(weighted.verdict)
    assert float(weighted.settings["effective_draws"]) > 1900
    assert np.all(np.abs(weighted.mean - mean) < 5 * sd / np.sqrt(2000))
    np.testing.assert_allclose(weighted.sd, sd, rtol=0.08)
    found = nuts(target, NutsOptions(n_draws=500), gaussian=gaussian, seed=2)
    assert found.verdict.passed, str(found.verdict)
    effective = convergence(found.draws).ess_bulk
    assert np.all(np.abs(found.mean - mean) < 5 * sd / np.sqrt(effective))
    np.testing.assert_allclose(found.sd, sd, rtol=0.1)
    correlation = found.covariance / np.outer(sd, sd)
    np.testing.assert_allclose(correlation, covariance / np.outer(sd, sd), atol=0.12)

"""The joint density against finite differences, dense equations, its own prior, and other ways of running it."""

from __future__ import annotations

import threading
from dataclasses import replace
from multiprocessing import Pipe

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from inference.joint_simulation import PANELS, JointData, simulate

from bayesbragg.inference import pixel_term
from bayesbragg.inference.communicator import LocalProcesses
from bayesbragg.inference.joint import evaluate, fit_joint
from bayesbragg.inference.joint_lbfgs import fit_lbfgs
from bayesbragg.inference.joint_types import JointFit, JointOptions, JointState
from bayesbragg.inference.schur import back_substitute, own_covariance, reduce_blocks
from bayesbragg.model.errors import InputError
from bayesbragg.priors.panels import LevelWidths, PanelPriors, shared_prior

EXTRAS = replace(PANELS, extras={"detz_shift": 1e-4, "lambda_offset": 1e-4, "lambda_scale": 1e-3})


@pytest.fixture(scope="module")
def data() -> JointData:
    return simulate(1, n_shots=2, n_boxes=8, panels=EXTRAS)


@pytest.fixture(scope="module")
def fit(data: JointData) -> JointFit:
    return fit_joint(data.terms, data.prior, JointOptions(tolerance=1e-8, max_iterations=200))


def test_gradient_equals_finite_differences(data: JointData) -> None:
    term, own, shared = data.terms[0], data.own[0], 0.7 * data.truth
    (block,) = term.linearize(own, shared)
    value, g, gs = term.value_and_grad(own, shared)
    assert value == pytest.approx(block.target, rel=1e-12)
    np.testing.assert_allclose(block.gradient, g, rtol=1e-8, atol=1e-8 * np.abs(g).max())
    scattered = np.zeros_like(gs)
    scattered[block.index] = block.shared_gradient
    np.testing.assert_allclose(scattered, gs, rtol=1e-8, atol=1e-8 * np.abs(gs).max())
    sd = 1.0 / np.sqrt(np.diag(block.shared_curvature))
    for k, (j, width) in enumerate(zip(block.index, sd, strict=True)):
        # Fourth-order differences over a few hundredths of the width that the data give.
        steps = 0.02 * width * np.array([-2.0, -1.0, 1.0, 2.0])
        values = [term.target(own, shared + step * np.eye(len(shared))[j]) for step in steps]
        slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * 0.02 * width)
        assert slope * width == pytest.approx(block.shared_gradient[k] * width, abs=2e-6 * max(1.0, abs(slope * width)))


def test_curvature_equals_the_dense_information(data: JointData) -> None:
    term, own, shared = data.terms[0], data.own[0], data.truth
    (block,) = term.linearize(own, shared)
    n, groups = own.shape[1], term.n_groups

    def photons(v: jax.Array) -> jax.Array:
        motion = v[n : n + 6 * groups].reshape(-1, 6)[term.moving.group]
        return pixel_term._bragg(v[:n], motion, v[n + 6 * groups :], term.moving, term.recipe)

    v = jnp.concatenate([jnp.asarray(own[0]), jnp.asarray(shared)])
    J = np.asarray(jax.jacfwd(photons)(v)).reshape(-1, len(v))
    V = np.asarray(photons(v)).reshape(-1) + 10.0 + 0.01
    dense = (J.T * (1.0 / V + 0.5 / V**2)) @ J
    own_part = dense[:n, :n]
    prior_part = block.curvature - own_part
    assert np.abs(prior_part - np.diag(np.diag(prior_part))).max() < 1e-6 * np.abs(own_part).max()
    np.testing.assert_allclose(block.cross, dense[:n, n:][:, block.index], rtol=1e-6, atol=1e-8 * np.abs(dense).max())
    inside = dense[n:, n:][np.ix_(block.index, block.index)]
    width = np.sqrt(np.diag(inside))
    np.testing.assert_allclose(
        block.shared_curvature / np.outer(width, width), inside / np.outer(width, width), atol=1e-8
    )


def test_schur_complement_solves_the_dense_equations(data: JointData) -> None:
    blocks = [t.linearize(x, data.truth)[0] for t, x in zip(data.terms, data.own, strict=True)]
    prior, sizes = data.prior, [len(b.gradient) for b in blocks]
    n, p = sum(sizes), data.prior.n
    H, g = np.zeros((n + p, n + p)), np.zeros(n + p)
    H[n:, n:] = prior.precision
    g[n:] = prior.precision @ (data.truth - prior.mean)
    for b, first in zip(blocks, np.cumsum([0, *sizes[:-1]]), strict=True):
        rows, columns = np.arange(first, first + len(b.gradient)), n + b.index
        H[np.ix_(rows, rows)] += b.curvature
        H[np.ix_(rows, columns)] += b.cross
        H[np.ix_(columns, rows)] += b.cross.T
        H[np.ix_(columns, columns)] += b.shared_curvature
        g[rows] += b.gradient
        g[columns] += b.shared_gradient
    scale = 1.0 / np.sqrt(np.diag(H))
    inverse = np.linalg.inv(H * np.outer(scale, scale)) * np.outer(scale, scale)
    dense = -inverse @ g
    reduced = reduce_blocks(blocks, p)
    S = reduced.matrix + prior.precision
    width = 1.0 / np.sqrt(np.diag(S))
    covariance = np.linalg.inv(S * np.outer(width, width)) * np.outer(width, width)
    step = -covariance @ (reduced.right + prior.precision @ (data.truth - prior.mean))
    np.testing.assert_allclose(step, dense[n:], rtol=1e-8, atol=1e-8 * np.abs(dense[n:]).max())
    np.testing.assert_allclose(covariance, inverse[n:, n:], rtol=1e-7, atol=1e-8 * np.abs(inverse[n:, n:]).max())
    own = np.concatenate([back_substitute(b, step) for b in blocks])
    np.testing.assert_allclose(own, dense[:n], rtol=1e-7, atol=1e-8 * np.abs(dense[:n]).max())
    first = inverse[: sizes[0], : sizes[0]]
    np.testing.assert_allclose(own_covariance(blocks[0], covariance), first, rtol=1e-7, atol=1e-8 * np.abs(first).max())


def test_optimum_is_stationary_and_near_the_truth(data: JointData, fit: JointFit) -> None:
    assert fit.status.value == "converged"
    gradient = data.prior.precision @ (fit.shared - data.prior.mean)
    for term, x in zip(data.terms, fit.own, strict=True):
        gradient += term.value_and_grad(x, fit.shared)[2]
    assert np.abs(gradient * fit.standard_errors).max() < 1e-3
    assert fit.target == pytest.approx(evaluate(data.terms, fit.own, fit.shared, data.prior), rel=1e-12)
    d = (fit.shared - data.truth) / fit.standard_errors
    assert np.sqrt(np.mean(d**2)) < 2.0
    assert np.all(fit.standard_errors <= np.sqrt(np.diag(fit.prior_covariance)) * (1 + 1e-9))


@pytest.mark.slow
def test_lbfgs_finds_the_same_optimum(data: JointData, fit: JointFit) -> None:
    other = fit_lbfgs(data.terms, data.prior, JointOptions(max_iterations=400, tolerance=0.05))
    assert other.target == pytest.approx(fit.target, abs=0.1)
    assert np.abs((other.shared - fit.shared) / fit.standard_errors).max() < 0.3


def test_group_without_reflections_follows_its_parent() -> None:
    data = simulate(3, n_shots=2, n_boxes=8, avoid_group=2)
    fit = fit_joint(data.terms, data.prior, JointOptions(tolerance=1e-8, max_iterations=200))
    empty = np.arange(12, 18)
    others = np.setdiff1d(np.flatnonzero(data.prior.free), empty)
    P = data.prior.covariance()
    width = np.sqrt(np.diag(P))[others]
    inverse = np.linalg.inv(P[np.ix_(others, others)] / np.outer(width, width)) / np.outer(width, width)
    lead = P[np.ix_(empty, others)] @ inverse
    sd = fit.standard_errors[empty]
    assert np.abs((fit.shared[empty] - lead @ fit.shared[others]) / sd).max() < 1e-4
    left = P[np.ix_(empty, empty)] - lead @ P[np.ix_(others, empty)]
    carried = lead @ fit.covariance[np.ix_(others, others)] @ lead.T
    np.testing.assert_allclose(sd, np.sqrt(np.diag(left + carried)), rtol=1e-6)
    assert np.all(sd >= PANELS.levels["group"].sd)  # type: ignore[index]


@pytest.mark.slow
def test_one_group_for_the_whole_detector() -> None:
    data = simulate(4, n_shots=1, n_boxes=8, group=(7, 7, 7, 7))
    fit = fit_joint(data.terms, data.prior, JointOptions(max_iterations=200))
    assert data.prior.n_groups == 1
    assert fit.status.value == "converged"
    assert np.abs((fit.shared - data.truth)[:6] / fit.standard_errors[:6]).max() < 5.0


def test_interrupted_search_goes_on_to_the_same_bits(data: JointData) -> None:
    options = JointOptions(tolerance=1e-3)
    whole = fit_joint(data.terms, data.prior, options)
    saved: list[JointState] = []

    class Killed(Exception):
        pass

    def kill(state: JointState) -> None:
        saved[:] = [replace(state, own=[x.copy() for x in state.own], shared=state.shared.copy(), trace=[*state.trace])]
        if state.iteration == 3:
            raise Killed

    with pytest.raises(Killed):
        fit_joint(data.terms, data.prior, options, on_step=kill)
    resumed = fit_joint(data.terms, data.prior, options, state=saved[0])
    np.testing.assert_array_equal(resumed.shared, whole.shared)
    assert resumed.iterations == whole.iterations
    assert [s.target for s in resumed.trace] == [s.target for s in whole.trace]


def test_two_processes_find_what_one_finds(data: JointData) -> None:
    options = JointOptions(tolerance=1e-6, max_iterations=100)
    alone = fit_joint(data.terms, data.prior, options)
    ours, theirs = Pipe()
    found: dict[int, JointFit] = {}

    def work(rank: int) -> None:
        comm = LocalProcesses(rank, 2, [ours if rank == 0 else theirs])
        found[rank] = fit_joint(data.terms[rank::2], data.prior, options, communicator=comm)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(found[0].shared, found[1].shared)
    np.testing.assert_allclose(found[0].shared, alone.shared, rtol=1e-8, atol=1e-8 * alone.standard_errors.max())
    np.testing.assert_allclose(found[0].covariance, alone.covariance, rtol=1e-8, atol=1e-16)


def test_prior_widths_add_up_over_the_levels(data: JointData) -> None:
    levels = {
        "whole": LevelWidths((0.01, 0.01, 0.01), (0.3, 0.4, 0.5)),
        "group": LevelWidths((0.2, 0.1, 0.1), (0.4, 0.3, 1.2)),
    }
    prior = shared_prior(data.grouping, PanelPriors(levels=levels))
    sd = np.sqrt(np.diag(prior.covariance()))[: 6 * prior.n_groups].reshape(-1, 6)
    arm = 1e-3 * (data.grouping.reference_mm - data.grouping.levels[0].centre_mm[0])
    turned = np.radians(0.01) * np.linalg.norm(np.cross(np.eye(3)[None], arm[:, None]), axis=1)
    np.testing.assert_allclose(sd[:, 3:], np.sqrt(np.array([0.5, 0.5, 1.3]) ** 2 * 1e-6 + turned**2), rtol=1e-9)
    flat = shared_prior(data.grouping, PanelPriors(levels=None, beta=(1e-6,) * 6, center=(0, 0, 0, 1e-4, 0, 0)))
    np.testing.assert_allclose(np.diag(flat.covariance())[:6], 1e-6)
    np.testing.assert_allclose(flat.mean[3], 1e-4)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (PanelPriors(low=(0.0,) * 6, high=(0.0,) * 6), "not below"),
        (PanelPriors(beta=(-1.0,) * 6), "above 0"),
        (PanelPriors(extras={"distance": 1.0}), "not known"),
    ],
)
def test_bad_priors_are_refused(data: JointData, wrong: PanelPriors, words: str) -> None:
    with pytest.raises(InputError, match=words):
        shared_prior(data.grouping, wrong)

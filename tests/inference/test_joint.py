"""The joint density against finite differences, dense equations, its own prior, and other ways of running it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import Pipe
from typing import Any

import numpy as np
import pytest
from inference.joint_simulation import PANELS, JointData, simulate

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


def derivative(function: Callable[[float], Any], step: float = 0.04) -> Any:
    """f'(0) by central differences of three steps, extrapolated to none (Richardson): sixth order."""
    halves = [step / 2**k for k in range(3)]
    first = [(function(h) - function(-h)) / (2.0 * h) for h in halves]
    second = [(4.0 * first[k + 1] - first[k]) / 3.0 for k in range(2)]
    return (16.0 * second[1] - second[0]) / 15.0


def test_gradient_equals_finite_differences(data: JointData) -> None:
    term, own, shared = data.terms[0], data.own[0], 0.7 * data.truth
    (block,) = term.linearize(own, shared)
    value, g, gs = term.value_and_grad(own, shared)
    assert value == pytest.approx(block.target, rel=1e-12)
    np.testing.assert_allclose(block.gradient, g, rtol=1e-8, atol=1e-8 * np.abs(g).max())
    scattered = np.zeros_like(gs)
    scattered[block.index] = block.shared_gradient
    np.testing.assert_allclose(scattered, gs, rtol=1e-8, atol=1e-8 * np.abs(gs).max())
    widths = np.zeros((2, max(len(shared), own.shape[1])))
    widths[0, : own.shape[1]] = 1.0 / np.sqrt(np.diag(block.curvature))
    widths[1, block.index] = 1.0 / np.sqrt(np.diag(block.shared_curvature))
    for gradient, width, at in ((g, widths[0], 0), (gs, widths[1], 1)):
        for j in np.flatnonzero(width):

            def along(t: float, j: int = j, width: np.ndarray = width, at: int = at) -> float:
                moved = [own.copy(), shared[None].copy()]
                moved[at][0, j] += t * width[j]
                return term.target(moved[0], moved[1][0])

            slope = float(derivative(along))
            assert slope == pytest.approx(gradient[j] * width[j], abs=1e-6 * max(1.0, abs(slope)))


def test_information_equals_that_of_finite_differences(data: JointData) -> None:
    """Own, cross and shared blocks against the dense matrix that a Jacobian of differences gives, whitened."""
    term, own, shared = data.terms[0], data.own[0], data.truth
    (block,) = term.linearize(own, shared)
    sd = 1.0 / np.sqrt(np.concatenate([np.diag(block.curvature), np.diag(block.shared_curvature)]))
    n = own.shape[1]
    columns = []
    for j, width in enumerate(sd):

        def photons(t: float, j: int = j, width: float = width) -> np.ndarray:
            x, v = own.copy(), shared.copy()
            if j < n:
                x[0, j] += t * width
            else:
                v[block.index[j - n]] += t * width
            return term.bragg(x, v).reshape(-1)

        columns.append(derivative(photons))
    J = np.stack(columns, axis=-1)
    V = term.bragg(own, shared).reshape(-1) + 10.0 + 0.01
    dense = (J.T * (1.0 / V + 0.5 / V**2)) @ J
    found = np.block([[block.curvature, block.cross], [block.cross.T, block.shared_curvature]]) * np.outer(sd, sd)
    # The prior of a shot's own numbers is diagonal, and known.
    x = own[0]
    stretch = np.array(
        [float(derivative(lambda t, i=i: term.layout.values(x + t * np.eye(n)[i])[i])) for i in range(n)]
    )
    restrained = np.array([site.restrained for site in term.layout.sites])
    found[:n, :n] -= np.diag(np.where(restrained, stretch**2 / np.asarray(term.layout.beta), 0.0) * sd[:n] ** 2)
    np.testing.assert_allclose(found, dense, atol=1e-6)


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
    np.testing.assert_allclose(covariance, inverse[n:, n:], rtol=1e-8, atol=1e-8 * np.abs(inverse[n:, n:]).max())
    own = np.concatenate([back_substitute(b, step) for b in blocks])
    np.testing.assert_allclose(own, dense[:n], rtol=1e-8, atol=1e-8 * np.abs(dense[:n]).max())
    first = inverse[: sizes[0], : sizes[0]]
    np.testing.assert_allclose(own_covariance(blocks[0], covariance), first, rtol=1e-8, atol=1e-8 * np.abs(first).max())


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

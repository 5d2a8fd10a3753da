"""NUTS on posteriors that are known, its agreement with Laplace, and the verdict on chains."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from inference.small_posteriors import Known, at_a_bound, conjugate, linear_gaussian
from inference.test_map import TRUTH, problem

from bayesbragg.inference import fit_map
from bayesbragg.inference.laplace import laplace, target_of_fit
from bayesbragg.inference.nuts import NutsOptions, nuts
from bayesbragg.inference.quarter_paths import LONGEST_STEP, Place, travel
from bayesbragg.inference.verdict import convergence, energy_fraction, judge_chains
from bayesbragg.model.errors import InputError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("path", ["nuts", "hmc"])
@pytest.mark.parametrize("make", [conjugate, linear_gaussian, at_a_bound])
def test_known_posteriors(make: Callable[[], Known], path: Literal["nuts", "hmc"]) -> None:
    known = make()
    found = nuts(known.target, NutsOptions(n_draws=1000, path=path), seed=2)
    assert found.verdict.passed, str(found.verdict)
    assert found.method == path
    effective = convergence(found.draws).ess_bulk
    assert np.all(np.abs(found.mean - known.mean) < 5 * known.sd / np.sqrt(effective))
    assert found.sd == pytest.approx(known.sd, rel=0.08)


def _place(evaluate: Callable[[Any], Any], u: npt.ArrayLike, seed: int) -> Place:
    at = jnp.asarray(u)
    return Place.at(at, *evaluate(at), jax.random.PRNGKey(seed))


def test_one_gradient_makes_a_draw_of_a_normal_density() -> None:
    evaluate = jax.value_and_grad(lambda u: 0.5 * u @ u)
    place = _place(evaluate, [0.3, -2.0, 1.1], 0)
    for _ in range(20):
        place = travel(place, jnp.asarray(LONGEST_STEP), evaluate)
        assert int(place.n_steps) == 1
        assert float(place.acceptance) == pytest.approx(1.0, abs=1e-12)


def test_paths_of_a_quarter_turn_err_by_the_square_of_the_step() -> None:
    # What a path gains is that of a leap-frog of what is not normal, here a wall: four times less for half the step.
    evaluate = jax.value_and_grad(lambda u: 0.5 * u @ u + 0.3 * jnp.sum(jnp.exp(u)))

    def gain(step: float) -> float:
        places = [travel(_place(evaluate, [0.5, -0.4], seed), jnp.asarray(step), evaluate) for seed in range(40)]
        return float(np.mean([-np.log(float(p.acceptance)) for p in places]))

    assert gain(0.2) / gain(0.1) == pytest.approx(4.0, rel=0.3)


def test_a_path_that_leaves_the_density_stays_where_it_was() -> None:
    evaluate = jax.value_and_grad(lambda u: jnp.where(u[0] > 0.0, 0.5 * u @ u, jnp.inf))
    places = [travel(_place(evaluate, [0.1], seed), jnp.asarray(0.5), evaluate) for seed in range(20)]
    assert all(float(p.u[0]) > 0.0 for p in places)
    assert any(bool(p.diverging) for p in places)


def test_quarter_turns_do_not_adapt_their_covariance() -> None:
    with pytest.raises(InputError, match="path=nuts"):
        nuts(conjugate().target, NutsOptions(path="hmc", adapt_mass=True))


def test_a_block_of_draws_compiles_once() -> None:
    known = conjugate()
    nuts(known.target, NutsOptions(n_chains=2, n_draws=75))
    program = NutsOptions().program(known.target.potential, 0.6, "one")
    assert program.advance._cache_size() == 1  # type: ignore[attr-defined]


def test_agrees_with_laplace_whatever_the_chains_are() -> None:
    density, true = problem(0)
    target = target_of_fit(density, fit_map(density))
    first = laplace(target, seed=1)
    one, threads, many = (nuts(target, NutsOptions(chains=c), seed=1) for c in ("sequential", "parallel", "vectorised"))
    assert np.array_equal(one.draws, threads.draws)
    assert np.all(np.abs(one.mean - many.mean) < 0.12 * one.sd)
    assert many.sd == pytest.approx(one.sd, rel=0.1)
    assert one.verdict.passed
    assert np.all(np.abs(one.mean - first.mean) < 0.12 * first.sd)
    assert one.sd == pytest.approx(first.sd, rel=0.1)
    assert np.all(np.abs(one.mean - true)[:2] < 5 * one.sd[:2])
    assert one.draws.shape == (4, 500, 7)
    assert one.sample_stats["n_steps"].shape == (4, 500)
    assert "verdict passed" in one.summary()
    quarter = nuts(target, NutsOptions(path="hmc"), seed=1)
    assert quarter.verdict.passed
    assert np.all(np.abs(quarter.mean - first.mean) < 0.12 * first.sd)
    assert quarter.sd == pytest.approx(first.sd, rel=0.1)
    assert quarter.settings["gradients_per_draw"] < 0.7 * one.settings["gradients_per_draw"]


def test_work_is_reported_and_repeats_itself() -> None:
    target = conjugate().target
    seen: list[tuple[int, int]] = []
    options = NutsOptions(n_chains=2, n_draws=40, n_warmup=25)
    first = nuts(target, options, seed=4, report=lambda done, all_: seen.append((done, all_)))
    assert seen[-1] == (150, 150)
    assert np.array_equal(first.draws, nuts(target, options, seed=4).draws)
    assert not np.array_equal(first.draws, nuts(target, options, seed=5).draws)
    assert not first.verdict.passed
    assert first.verdict.advice


def test_convergence_agrees_with_arviz() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arviz = pytest.importorskip("arviz")
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((4, 600, 2))
    draws = noise.copy()
    for i in range(1, 600):
        draws[:, i] = 0.6 * draws[:, i - 1] + noise[:, i]
    draws[0, :, 1] += 1.0
    found = convergence(draws)
    for i in range(2):
        x = draws[:, :, i]
        assert found.r_hat[i] == pytest.approx(float(arviz.rhat(x)), abs=2e-3)
        assert found.ess_bulk[i] == pytest.approx(float(arviz.ess(x, method="bulk")), rel=0.05)
        assert found.ess_tail[i] == pytest.approx(float(arviz.ess(x, method="tail", prob=(0.05, 0.95))), rel=0.1)
    assert energy_fraction(draws[:, :, 0]) == pytest.approx(np.asarray(arviz.bfmi(draws[:, :, 0])), rel=0.01)


def test_verdicts() -> None:
    rng = np.random.default_rng(1)
    draws, energy = rng.standard_normal((4, 500, 1)), rng.standard_normal((4, 500))
    quiet = np.zeros((4, 500), bool)
    assert judge_chains(["x"], draws, quiet, energy)[0].passed
    apart = draws + np.array([0, 0, 0, 1.0])[:, None, None]
    verdict, _ = judge_chains(["x"], apart, quiet, energy)
    assert not verdict.passed
    assert "R-hat" in str(verdict)
    loud = quiet.copy()
    loud[1, 7] = True
    assert "divergences 1" in str(judge_chains(["x"], draws, loud, energy)[0])
    slow = np.cumsum(energy, axis=1)
    assert "E-BFMI" in str(judge_chains(["x"], draws, quiet, slow)[0])
    assert not judge_chains(["x"], np.full((4, 500, 1), np.nan), quiet, energy)[0].passed


@pytest.mark.parametrize("wrong", [{"n_chains": 0}, {"n_draws": 2}, {"target_accept": 1.0}])
def test_bad_input_is_one_line(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        nuts(conjugate().target, NutsOptions(**wrong))


@pytest.mark.slow
def test_ranks_of_the_truth_are_uniform() -> None:
    """Pulls and ranks of the toy's parameters over many data sets; its truth is fixed and its priors are flat."""
    n, ranks = 40, []
    for seed in range(100, 100 + n):
        density, true = problem(seed)
        found = nuts(target_of_fit(density, fit_map(density)), NutsOptions(n_chains=2, n_draws=200), seed=seed)
        ranks.append([np.mean(found.values(name) < true[found.names.index(name)]) for name in TRUTH])
    values = np.array(ranks)
    for probability in (0.68, 0.95):
        inside = np.mean(np.abs(values - 0.5) < probability / 2)
        assert inside == pytest.approx(probability, abs=3.5 * np.sqrt(probability * (1 - probability) / values.size))


@pytest.mark.slow
def test_agrees_with_laplace_on_a_simulated_shot() -> None:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        trials = importlib.import_module("trials")
    finally:
        sys.path.remove(str(BENCHMARKS))
    trial = trials.make_trial(1)
    density = trial.density(trials.perturbed_start(trial.truth, 1), "gaussian")
    target = target_of_fit(density, fit_map(density))
    gaussian, full = laplace(target), nuts(target, NutsOptions(n_draws=300, n_warmup=50))
    assert gaussian.verdict.passed
    assert full.verdict.passed, str(full.verdict)
    assert np.all(np.abs(full.mean - gaussian.mean) < 0.12 * gaussian.sd)
    assert full.sd == pytest.approx(gaussian.sd, rel=0.1)
    pulls = (full.mean - trial.values(density)) / full.sd
    assert np.abs(pulls).max() < 4.5

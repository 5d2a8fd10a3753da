"""Dealing and hiding of boxes, and populations over the pixels of several shots, on a model with one number."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density
from scipy import stats

from bayesbragg.forward import Parameters
from bayesbragg.inference.density import LogDensity
from bayesbragg.inference.pixels import Pixels
from bayesbragg.inference.population import population_model
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.held_out import deal, without
from bayesbragg.priors import CellConstraint, Positive, Priors, make_layout

CELL = np.array([50.0, 60.0, 70.0, *[np.pi / 2] * 3])


@jax.jit
def scaled(parameters: Parameters, shape: Any, options: Any) -> Any:
    return parameters.scale.G[0] * shape


def density(seed: int) -> LogDensity:
    rng = np.random.default_rng(seed)
    shape = rng.uniform(1, 5, (4, 6))
    layout, base = make_layout(
        Priors(G=Positive()), Parameters.start(CELL, G=3.0), CellConstraint.for_space_group(19, CELL)
    )
    pixels = Pixels(rng.poisson(3.0 * shape + 1.0) * 1.0, np.ones((4, 6)), np.ones((4, 6), bool), np.full((4, 6), 0.1))
    return LogDensity(scaled, shape, None, pixels, layout, base, "gaussian")


def test_every_box_is_left_out_once() -> None:
    fold = deal(23, 5, seed=1)
    assert sorted(np.bincount(fold)) == [4, 4, 5, 5, 5]
    assert not np.array_equal(fold, deal(23, 5, seed=2))
    with pytest.raises(InputError, match="folds"):
        deal(3, 5, 0)


def test_hidden_boxes_do_not_count() -> None:
    whole = density(0)
    x = whole.layout.initial()
    part = without(whole, [1, 3])
    pixels = whole.problem.pixels
    mu = np.asarray(whole.bragg(x)) + 1.0
    each = stats.norm.logpdf(np.asarray(pixels.counts), mu, np.sqrt(mu + 0.1)).sum(axis=1)
    assert part.log_likelihood(x) == pytest.approx(each[0] + each[2], rel=1e-10)
    assert part.n_trusted == 12
    assert whole.log_likelihood(x) == pytest.approx(each.sum(), rel=1e-10)


def test_population_model_is_the_sum_of_its_parts() -> None:
    shots = [density(1), density(2)]
    hyper = {"G": (dist.Normal(3.0, 1.0), dist.HalfNormal(0.5))}
    values = {"G_mean": 2.9, "G_spread": 0.2, "G_0": 3.1, "G_1": 2.8}
    found, _ = log_density(population_model(shots, hyper), (), {}, values)
    expected = stats.norm.logpdf(2.9, 3.0, 1.0) + stats.halfnorm.logpdf(0.2, scale=0.5)
    for shot, G in zip(shots, (3.1, 2.8), strict=True):
        expected += stats.norm.logpdf(G, 2.9, 0.2) + shot.log_likelihood(shot.layout.coordinates(np.array([G])))
    assert float(found) == pytest.approx(float(expected), rel=1e-10)
    with pytest.raises(InputError, match="Na"):
        population_model(shots, {"Na": hyper["G"]})

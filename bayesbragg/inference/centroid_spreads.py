"""What not knowing the spreads of spots exactly takes from what the spots tell.

Spreads learned from residuals follow them: a panel off its place makes the stills that hit it look worse, so that they
count less. Error bars for given spreads are therefore too small, by about 1/n for n spots of a still to a spread. Here
the logarithms of each still's spreads join its own numbers in the arrow-shaped equations, with the observed mixed
derivatives, and are eliminated with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bayesbragg.inference.centroid_likelihood import CentroidTerm
from bayesbragg.inference.centroid_noise import NoiseStatistics, Population, spread_curvature, spreads
from bayesbragg.inference.centroid_prediction import SpotData, linearize_spots
from bayesbragg.inference.schur import Blocks
from bayesbragg.priors.cell import CellConstraint

__all__ = ["with_spreads"]

Array = Any
FloatArray = npt.NDArray[np.float64]


def with_spreads(
    term: CentroidTerm, own: FloatArray, shared: FloatArray, blocks: Sequence[Blocks], population: Population
) -> list[Blocks]:
    """The blocks of every still with the five logarithms of its spreads among its own numbers.

    Args:
        term: its spreads are at their most probable values.
        own, shared, blocks: as `term.linearize` took and gave them.
        population: of the spreads of the run.
    """
    values = term.noise.matrix(len(own))
    statistics = term.statistics(own, shared)
    curvature = spread_curvature(jnp.log(jnp.asarray(values)), population, statistics) / term.dispersion
    arguments = term.arguments(own, shared)
    mixed = np.asarray(_mixed(*arguments, jnp.asarray(values), term.data, term.about, term.constraint))
    mixed = mixed / term.dispersion
    n, groups = own.shape[1], term.grouping.group[term.spots.panel]
    result = []
    for rows, block, bend in zip(term.rows, blocks, curvature, strict=True):
        cross = np.zeros((len(block.index), mixed.shape[2]))
        n_extra = mixed.shape[1] - n - 6
        # Groups stand in the block in the order of their numbers, six rows each, and what all spots share comes last.
        _, place = np.unique(groups[rows], return_inverse=True)
        np.add.at(cross[: len(block.index) - n_extra].reshape(-1, 6, mixed.shape[2]), place, mixed[rows, n : n + 6])
        cross[len(block.index) - n_extra :] = mixed[rows, n + 6 :].sum(axis=0)
        mine = mixed[rows, :n].sum(axis=0)
        result.append(
            replace(
                block,
                gradient=np.concatenate([block.gradient, np.zeros(mixed.shape[2])]),
                curvature=np.block([[block.curvature, mine], [mine.T, bend]]),
                cross=np.concatenate([block.cross, cross.T]),
            )
        )
    return result


@partial(jax.jit, static_argnames="constraint")
def _mixed(
    own: Array,
    groups: Array,
    extras: Array,
    values: Array,
    data: SpotData,
    about: NoiseStatistics,
    constraint: CellConstraint,
) -> Array:
    """Derivatives of each spot's score (its still's own numbers, its group's motion, extras) in the logarithms of the
    spreads, ``(n, n_own + 6 + n_extra, 5)``."""
    # Residual and derivatives are linear in the band's share of the angle.
    without, J0 = linearize_spots(own, groups, extras, replace(data, share=jnp.zeros_like(data.share)), constraint)
    whole, J1 = linearize_spots(own, groups, extras, replace(data, share=jnp.ones_like(data.share)), constraint)

    def score(theta: Array) -> Array:
        variance, share = spreads(jnp.exp(theta), about)
        r = without + share[:, None] * (whole - without)
        J = J0 + share[:, None, None] * (J1 - J0)
        return jnp.einsum("rai,ra->ri", J, r / variance)

    theta = jnp.log(values)[about.still]
    columns = [jax.jvp(score, (theta,), (jnp.broadcast_to(unit, theta.shape),))[1] for unit in jnp.eye(theta.shape[1])]
    return jnp.stack(columns, axis=-1)

"""Best fit: the mode of the one log density in the physical parameters.

One search, two rules for its steps: second-order ones (`bayesbragg.inference.lm`) and L-BFGS-B
(`bayesbragg.inference.lbfgs`). Start, coordinates, criterion and result are the same, and hence the optimum. Shots
whose arrays have the same shapes can be fitted together, in one compiled program.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesbragg.inference.density import LogDensity, Recipe
from bayesbragg.inference.lbfgs import lbfgs_steps
from bayesbragg.inference.lm import ENDINGS, MOST_ITERATIONS, Limits, LmState, lm_search
from bayesbragg.inference.search import Ending, MapOptions, Search, ending, result
from bayesbragg.inference.start import EVALUATIONS, start_values
from bayesbragg.model.fit import Fit, FitStatus

__all__ = ["MapOptions", "can_be_fitted_together", "fit_many", "fit_map"]


def fit_map(density: LogDensity, options: MapOptions | None = None) -> Fit:
    """The best fit of one shot.

    Args:
        density: the density, with the start in its layout.
        options: how to search.

    Returns:
        The best point seen, with its status; nothing is raised for a fit that fails.
    """
    return _fit([density], options or MapOptions(), together=False)[0]


def fit_many(
    densities: Sequence[LogDensity], options: MapOptions | None = None, *, size: int | None = None
) -> list[Fit]:
    """The best fits of shots, found together in one compiled program for each shape of arrays.

    Each shot has its own damping, end and status; the results are those of `fit_map`. It pays on a GPU, which one shot
    cannot fill; on a processor the shots of a batch wait for the slowest of them.

    Args:
        densities: of any shapes; those of equal shapes are fitted together.
        options: how to search. L-BFGS-B fits one after the other.
        size: shots in a program; the last ones of a shape are joined by copies of a shot to fill it, so that there is
            one program for each shape. By default all shots of a shape.
    """
    options = options or MapOptions()
    groups: dict[Any, list[int]] = {}
    for i, density in enumerate(densities):
        groups.setdefault(_shape(density), []).append(i)
    fits: dict[int, Fit] = {}
    together = options.method != "lbfgs"
    for group in groups.values():
        step = size if size and together else len(group)
        for first in range(0, len(group), step):
            part = group[first : first + step]
            filled = part + part[-1:] * (step - len(part))
            found = _fit([densities[i] for i in filled], options, together=together)
            fits |= dict(zip(part, found, strict=False))
    return [fits[i] for i in range(len(densities))]


def can_be_fitted_together(first: LogDensity, second: LogDensity) -> bool:
    """Whether `fit_many` fits two shots in one program."""
    return bool(_shape(first) == _shape(second))


def _shape(density: LogDensity) -> Any:
    arrays, structure = jax.tree.flatten((density.layout, density.problem))
    return density.recipe, structure, tuple((np.shape(a), np.result_type(a)) for a in arrays)


def _fit(densities: Sequence[LogDensity], options: MapOptions, *, together: bool) -> list[Fit]:
    """Fits of shots with equal shapes; ``together`` in one program, or one after the other."""
    clock = time.perf_counter()
    ready: list[tuple[LogDensity, float]] = []
    fits: dict[int, Fit] = {}
    for i, density in enumerate(densities):
        given = density.layout
        start_target = density.target(given.initial())
        ready.append((density, start_target))
        if given.n == 0 or not density.n_trusted:
            search = Search(density, given.initial(), start_target, evaluations=1)
            end = Ending(FitStatus.FAILED, "no trusted pixel")
            if given.n == 0:
                end = Ending(FitStatus.CONVERGED, "nothing varies", 0.0)
            fits[i] = result(search, given, end, start_target, clock)
    rest = [i for i in range(len(densities)) if i not in fits]
    searches = _started([densities[i] for i in rest], options, together=together)
    endings: Sequence[Ending | None] = [None] * len(rest)
    if options.method != "lbfgs":
        endings = _second_order(searches, options, together=together)
    for i, search, found in zip(rest, searches, endings, strict=True):
        density, start_target = ready[i]
        lost = found is None or (options.method == "auto" and found.status is FitStatus.STALLED)
        end = lbfgs_steps(search, options) if lost or found is None else found
        fits[i] = result(search, density.layout, end, start_target, clock)
    return [fits[i] for i in range(len(densities))]


def _started(densities: Sequence[LogDensity], options: MapOptions, *, together: bool) -> list[Search]:
    """Searches that stand at their starts."""
    tried = options.start_scale or options.start_blocks
    values = [np.asarray(density.layout.start, dtype=np.float64) for density in densities]
    if tried and densities:
        how = {"recipe": densities[0].recipe, "scale": options.start_scale, "blocks": options.start_blocks}
        problems = [density.problem for density in densities]
        if together:
            values = list(np.asarray(_start_many(_stacked(problems), **how)))
        else:
            values = [np.asarray(start_values(problem, **how)) for problem in problems]
    searches = []
    for density, start in zip(densities, values, strict=True):
        layout = density.layout.with_start(start).searchable()
        evaluations = 1 + (EVALUATIONS if tried else 0)
        searches.append(Search(density.with_layout(layout), layout.initial(), evaluations=evaluations))
    return searches


def _second_order(searches: Sequence[Search], options: MapOptions, *, together: bool) -> list[Ending]:
    """The steps of `lm_search`, to their end."""
    if not searches:
        return []
    recipe = searches[0].density.recipe
    most = min(options.max_iterations, MOST_ITERATIONS)
    limits = Limits(np.asarray(most), np.asarray(options.tolerance), np.asarray(options.change))
    arguments = [(s.density.layout, s.density.problem, s.x) for s in searches]
    if together:
        found = jax.tree.map(np.asarray, _search_many(*_stacked(arguments), limits, recipe=recipe))
        states = [jax.tree.map(lambda a, i=i: a[i], found) for i in range(len(searches))]
    else:
        states = [jax.tree.map(np.asarray, lm_search(a, b, recipe, x, limits)) for a, b, x in arguments]
    return [_taken(search, state) for search, state in zip(searches, states, strict=True)]


def _taken(search: Search, state: LmState) -> Ending:
    """What a finished loop leaves, in the search."""
    search.x, search.target = np.asarray(state.x), float(state.target)
    search.iterations, search.information = int(state.iterations), np.asarray(state.information)
    search.evaluations += int(state.evaluations)
    search.trace = np.asarray(state.trace)[: search.iterations + 1].tolist()
    return ending(ENDINGS[int(state.code)], float(state.distance), search.iterations)


def _stacked(items: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *items)


@partial(jax.jit, static_argnames=("recipe", "scale", "blocks"))
def _start_many(problems: Any, recipe: Recipe, scale: bool, blocks: bool) -> Any:
    return jax.vmap(lambda problem: start_values(problem, recipe, scale, blocks))(problems)


@partial(jax.jit, static_argnames="recipe")
def _search_many(layouts: Any, problems: Any, x: Any, limits: Limits, recipe: Recipe) -> Any:
    return jax.vmap(lambda layout, problem, x: lm_search(layout, problem, recipe, x, limits))(layouts, problems, x)

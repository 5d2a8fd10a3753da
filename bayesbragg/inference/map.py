"""Best fit: the mode of the one log density in the physical parameters.

One search, two rules for its steps: second-order ones (`bayesbragg.inference.lm`) and L-BFGS-B
(`bayesbragg.inference.lbfgs`). Start, coordinates, criterion and result are the same, and hence the optimum. Shots
whose arrays have the same shapes can be fitted together, in one compiled program.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from bayesbragg.forward.stored_jit import stored_jit
from bayesbragg.inference.density import LogDensity, Problem, Recipe, Summary, summarized
from bayesbragg.inference.lbfgs import lbfgs_steps
from bayesbragg.inference.lm import ENDINGS, MOST_ITERATIONS, Limits, LmState, lm_search
from bayesbragg.inference.search import Ending, MapOptions, Search, ending, result
from bayesbragg.inference.stacking import stack
from bayesbragg.inference.start import EVALUATIONS, start_values
from bayesbragg.model.fit import Fit, FitStatus
from bayesbragg.priors.flatten import Layout

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
    arrays, structure = jax.tree.flatten((density.layout, density.given))
    return density.recipe, structure, tuple((a.shape, a.dtype) for a in map(_array, arrays))


def _array(a: Any) -> Any:
    return a if isinstance(a, (np.ndarray, jax.Array)) else np.asarray(a)


def _fit(densities: Sequence[LogDensity], options: MapOptions, *, together: bool) -> list[Fit]:
    """Fits of shots with equal shapes; ``together`` in one program, or one after the other."""
    clock = time.perf_counter()
    # The arrays of shots that are fitted together go to the device together, once.
    stacked = stack([density.given for density in densities]) if together else None
    begun = _summaries(densities, [density.layout.start for density in densities], stacked)
    fits: dict[int, Fit] = {}
    for i, density in enumerate(densities):
        given = density.layout
        if given.n == 0 or not density.n_trusted:
            search = Search(density, given.initial(), begun[i].target, evaluations=1)
            end = Ending(FitStatus.FAILED, "no trusted pixel")
            if given.n == 0:
                end = Ending(FitStatus.CONVERGED, "nothing varies", 0.0)
            fits[i] = result(search, given, end, begun[i], (np.asarray(given.start), search.x), clock, begun[i].target)
    rest = [i for i in range(len(densities)) if i not in fits]
    if fits and together and rest:
        stacked = stack([densities[i].given for i in rest])
    searches = _started([densities[i] for i in rest], options, stacked)
    endings: Sequence[Ending | None] = [None] * len(rest)
    if options.method != "lbfgs":
        endings = _second_order(searches, options, stacked)
    ends = []
    for search, found in zip(searches, endings, strict=True):
        lost = found is None or (options.method == "auto" and found.status is FitStatus.STALLED)
        ends.append(lbfgs_steps(search, options) if lost or found is None else found)
    places = _places(searches, [densities[i].layout for i in rest], together=together)
    shown = _summaries([search.density for search in searches], [values for values, _ in places], stacked)
    for i, search, end, summary, place in zip(rest, searches, ends, shown, places, strict=True):
        fits[i] = result(search, densities[i].layout, end, summary, place, clock, begun[i].target)
    return [fits[i] for i in range(len(densities))]


def _places(searches: Sequence[Search], given: Sequence[Layout], *, together: bool) -> Sequence[tuple[Any, Any]]:
    """Physical values where searches stand, and their coordinates in the layouts that were given."""
    if not together or not searches:
        values = [search.density.layout.values_and_slope(search.x)[0] for search in searches]
        return [(v, np.asarray(layout.coordinates(v))) for v, layout in zip(values, given, strict=True)]
    layouts = stack([search.density.layout for search in searches])
    found = _values_many(layouts, np.stack([search.x for search in searches]))
    coordinates = _coordinates_many(stack(list(given)), found)
    return list(zip(np.asarray(found), np.asarray(coordinates), strict=True))


def _summaries(densities: Sequence[LogDensity], values: Sequence[Any], stacked: Problem | None) -> list[Summary]:
    """Of each density at physical values ``(n,)``."""
    if stacked is None or not densities:
        return [density.summary_of_values(v) for density, v in zip(densities, values, strict=True)]
    found = jax.tree.map(np.asarray, _summarize_many(np.stack(values), stacked, recipe=densities[0].recipe))
    return [Summary(*row) for row in np.stack(found, axis=1).tolist()]


def _started(densities: Sequence[LogDensity], options: MapOptions, stacked: Problem | None) -> list[Search]:
    """Searches that stand at their starts."""
    tried = options.start_scale or options.start_blocks
    values = [np.asarray(density.layout.start, dtype=np.float64) for density in densities]
    if tried and densities:
        how = {"recipe": densities[0].recipe, "scale": options.start_scale, "blocks": options.start_blocks}
        if stacked is not None:
            values = list(np.asarray(_start_many(stacked, **how)))
        else:
            values = [np.asarray(start_values(density.problem, **how)) for density in densities]
    searches = []
    for density, start in zip(densities, values, strict=True):
        layout = density.layout.with_start(start).searchable()
        evaluations = 1 + (EVALUATIONS if tried else 0)
        searches.append(Search(density.with_layout(layout), layout.initial(), evaluations=evaluations))
    return searches


def _second_order(searches: Sequence[Search], options: MapOptions, stacked: Problem | None) -> list[Ending]:
    """The steps of `lm_search`, to their end."""
    if not searches:
        return []
    recipe = searches[0].density.recipe
    most = min(options.max_iterations, MOST_ITERATIONS)
    limits = Limits(np.asarray(most), np.asarray(options.tolerance), np.asarray(options.change))
    if stacked is not None:
        layouts = [s.density.layout for s in searches]
        problems = replace(stacked, layout=stack([layout.physical() for layout in layouts]))
        begin = stack(layouts), problems, np.stack([s.x for s in searches])
        found = jax.tree.map(np.asarray, _search_many(*begin, limits, recipe=recipe))
        states = [jax.tree.map(lambda a, i=i: a[i], found) for i in range(len(searches))]
    else:
        states = [
            jax.tree.map(np.asarray, lm_search(s.density.layout, s.density.problem, recipe, s.x, limits))
            for s in searches
        ]
    return [_taken(search, state) for search, state in zip(searches, states, strict=True)]


def _taken(search: Search, state: LmState) -> Ending:
    """What a finished loop leaves, in the search."""
    search.x, search.target = np.asarray(state.x), float(state.target)
    search.iterations, search.information = int(state.iterations), np.asarray(state.information)
    search.evaluations += int(state.evaluations)
    search.trace = np.asarray(state.trace)[: search.iterations + 1].tolist()
    return ending(ENDINGS[int(state.code)], float(state.distance), search.iterations)


@stored_jit()
def _values_many(layouts: Any, x: Any) -> Any:
    return jax.vmap(lambda layout, x: layout.values(x))(layouts, x)


@stored_jit()
def _coordinates_many(layouts: Any, values: Any) -> Any:
    return jax.vmap(lambda layout, values: layout.coordinates(values))(layouts, values)


@stored_jit("recipe", returns=(Summary,))
def _summarize_many(values: Any, problems: Any, recipe: Recipe) -> Any:
    return jax.vmap(lambda values, problem: summarized(values, problem, recipe))(values, problems)


@stored_jit(("recipe", "scale", "blocks"))
def _start_many(problems: Any, recipe: Recipe, scale: bool, blocks: bool) -> Any:
    return jax.vmap(lambda problem: start_values(problem, recipe, scale, blocks))(problems)


@stored_jit("recipe", returns=(LmState,))
def _search_many(layouts: Any, problems: Any, x: Any, limits: Limits, recipe: Recipe) -> Any:
    return jax.vmap(lambda layout, problem, x: lm_search(layout, problem, recipe, x, limits))(layouts, problems, x)

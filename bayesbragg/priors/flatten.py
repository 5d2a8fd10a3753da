"""The vector of a fit: its numbers, their names, where each goes among the parameters, and their log prior.

A `Layout` is a pytree. Its structure (names, where each number goes, its transform) is static and hashable; its
numbers (starts, bounds, restraints) are arrays. Shots with the same structure therefore share compiled programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bayesbragg.forward.mosaic import block_matrix
from bayesbragg.forward.parameters import Parameters
from bayesbragg.forward.stored_jit import stored_jit
from bayesbragg.priors.cell import CellConstraint
from bayesbragg.priors.parameter import Kind, Parameter, coordinate, log_restraint, physical_value

__all__ = ["CELL", "Layout", "Site", "columns"]

Array = Any
FloatArray = npt.NDArray[np.float64]

CELL = ("crystal", "cell")
"""Concept and field of `Parameters` that hold the cell, whose free numbers only vary."""


@dataclass(frozen=True)
class Site:
    """Where one number of the vector goes.

    Attributes:
        name, unit: as in every report.
        prior: field of `Priors` that it comes from.
        place: concept and field of `Parameters`.
        targets: positions in that field, flattened, that it fills.
        kind: transform of its coordinate.
        restrained: whether it has a normal restraint.
    """

    name: str
    unit: str
    prior: str
    place: tuple[str, str]
    targets: tuple[int, ...]
    kind: Kind
    restrained: bool


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Layout:
    """The vector of a fit: n numbers, their names, transforms and priors. Made by `priors.sites.make_layout`.

    Attributes:
        sites: one per number (static).
        constraint: how the cell follows from its free numbers (static).
        per_lattice_blocks: whether the volume restraint counts once per lattice (static).
        start, low, high, sigma: physical start and bounds, sensitivity, each ``(n,)``.
        center, beta: restraint mean and variance, ``(n,)``; meaningless where there is none.
        volume: center and variance of the block-volume restraint, ``(2,)``, or ``(0,)`` without one.
    """

    sites: tuple[Site, ...] = field(metadata={"static": True})
    constraint: CellConstraint = field(metadata={"static": True})
    per_lattice_blocks: bool = field(metadata={"static": True})
    start: Array
    low: Array
    high: Array
    sigma: Array
    center: Array
    beta: Array
    volume: Array

    @property
    def n(self) -> int:
        """How many numbers vary."""
        return len(self.sites)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(site.name for site in self.sites)

    @property
    def units(self) -> tuple[str, ...]:
        return tuple(site.unit for site in self.sites)

    def bounds(self) -> FloatArray:
        """Physical bounds, ``(n, 2)``."""
        return np.stack([np.asarray(self.low), np.asarray(self.high)], axis=-1)

    def initial(self) -> FloatArray:
        """Coordinates of the start, ``(n,)``."""
        return np.array([self.parameter(i).start_x for i in range(self.n)])

    def parameter(self, i: int) -> Parameter:
        """The i-th number as a `Parameter`."""
        site = self.sites[i]
        center, beta = (float(self.center[i]), float(self.beta[i])) if site.restrained else (None, None)
        start, low, high, sigma = (float(a[i]) for a in (self.start, self.low, self.high, self.sigma))
        return Parameter(start, site.kind, low, high, sigma, center, beta)

    def values(self, x: Array) -> Array:
        """Physical values ``(n,)`` at the coordinates x ``(n,)``."""
        return self._by_kind(physical_value, x)

    def values_and_slope(self, x: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Physical values at x and their derivatives in x, each ``(n,)``, as numpy arrays."""
        values, slope = _values_and_slope(self, np.asarray(x, dtype=np.float64))
        return np.asarray(values), np.asarray(slope)

    def physical(self) -> Layout:
        """The same numbers and priors in coordinates that are the physical values themselves."""
        return replace(self, sites=_physical(self.sites))

    def coordinates(self, values: Array) -> Array:
        """Coordinates ``(n,)`` of physical values ``(n,)``: the inverse of `values`."""
        return _coordinates(self, jnp.asarray(values))

    def _by_kind(self, transform: Any, numbers: Array) -> Array:
        numbers = jnp.asarray(numbers)
        result = numbers
        for kind in dict.fromkeys(site.kind for site in self.sites):
            rows = np.array([i for i, site in enumerate(self.sites) if site.kind == kind])
            columns = (jnp.asarray(a)[rows] for a in (self.start, self.low, self.high, self.sigma))
            result = result.at[rows].set(transform(kind, numbers[rows], *columns))
        return result

    def to_parameters(self, x: Array, base: Parameters) -> Parameters:
        """Parameters at the coordinates x; what does not vary is taken from ``base``."""
        return self.place(self.values(x), base)

    def place(self, values: Array, base: Parameters) -> Parameters:
        """Parameters with the physical values ``(n,)`` in their places."""
        concepts: dict[str, dict[str, Array]] = {}
        for concept, name in dict.fromkeys(site.place for site in self.sites):
            old = jnp.asarray(getattr(getattr(base, concept), name))
            is_cell = (concept, name) == CELL
            flat = self.constraint_free(old) if is_cell else old.reshape(-1)
            pairs = [(t, i) for i, site in enumerate(self.sites) if site.place == (concept, name) for t in site.targets]
            targets, sources = (np.array(column) for column in zip(*pairs, strict=True))
            flat = flat.at[targets].set(values[sources])
            new = self.constraint.expand(flat) if is_cell else flat.reshape(old.shape)
            concepts.setdefault(concept, {})[name] = new
        return replace(base, **{c: replace(getattr(base, c), **new) for c, new in concepts.items()})

    def constraint_free(self, cell: Array) -> Array:
        """Free cell numbers of a cell that obeys the constraint."""
        return jnp.asarray(cell)[np.array(self.constraint.positions)]

    def from_parameters(self, parameters: Parameters) -> Array:
        """Coordinates ``(n,)`` of parameters."""
        return self.coordinates(self.values_of(parameters))

    def values_of(self, parameters: Parameters) -> Array:
        """Physical values ``(n,)`` of parameters."""
        found = []
        for site in self.sites:
            array = jnp.asarray(getattr(getattr(parameters, site.place[0]), site.place[1]))
            flat = self.constraint_free(array) if site.place == CELL else array.reshape(-1)
            found.append(flat[site.targets[0]])
        return jnp.stack(found) if found else jnp.zeros(0)

    def log_prior(self, values: Array, parameters: Parameters) -> Array:
        """Log prior at physical values ``(n,)``: restraints of what varies, and of the block volume if asked for."""
        rows = np.array([i for i, site in enumerate(self.sites) if site.restrained], dtype=int)
        total = jnp.sum(log_restraint(values[rows], jnp.asarray(self.center)[rows], jnp.asarray(self.beta)[rows]))
        if self.volume.shape[0]:
            lattices = slice(None) if self.per_lattice_blocks else slice(1)
            blocks = block_matrix(parameters.mosaic.n_abc[lattices], parameters.mosaic.n_def[lattices])
            total = total - jnp.sum(0.5 * (self.volume[0] - jnp.linalg.det(blocks)) ** 2 / self.volume[1])
        return total

    def with_start(self, values: npt.ArrayLike) -> Layout:
        """The same priors from another start (physical values, clipped to the bounds)."""
        clipped = np.clip(np.asarray(values, dtype=np.float64), np.asarray(self.low), np.asarray(self.high))
        return replace(self, start=clipped)

    def searchable(self) -> Layout:
        """The same priors in coordinates that suit an optimiser (see `Parameter.searchable`).

        Scales and block sizes are searched on a logarithmic scale whatever their transform: over bounds such as 0 to
        1e12 a sine would be useless, and the coordinates do not move the optimum.
        """
        parts = [self.parameter(i) for i in range(self.n)]
        for i, (site, part) in enumerate(zip(self.sites, parts, strict=True)):
            scale_like = site.prior in ("G", "Nabc") and part.start > 0 and part.low >= 0
            parts[i] = (replace(part, kind="positive") if scale_like else part).searchable()
        sites = tuple(replace(site, kind=part.kind) for site, part in zip(self.sites, parts, strict=True))
        c = columns(parts)
        return replace(
            self,
            sites=sites,
            start=c["start"],
            low=c["low"],
            high=c["high"],
            sigma=c["sigma"],
            center=c["center"],
            beta=c["beta"],
        )


@lru_cache
def _physical(sites: tuple[Site, ...]) -> tuple[Site, ...]:
    """The same for every shot of a run, and asked for several times in each of its fits."""
    return tuple(replace(site, kind="normal") for site in sites)


@stored_jit()
def _coordinates(layout: Layout, values: Array) -> Array:
    return layout._by_kind(coordinate, values)


@stored_jit()
def _values_and_slope(layout: Layout, x: Array) -> tuple[Array, Array]:
    values, slope = jax.jvp(layout.values, (x,), (jnp.ones_like(x),))
    return values, slope


def columns(parts: Sequence[Parameter]) -> dict[str, FloatArray]:
    """Arrays of a `Layout` from its parameters, each ``(n,)``; center 0 and beta 1 where nothing is restrained."""
    found = {name: np.array([getattr(p, name) for p in parts], float) for name in ("start", "low", "high", "sigma")}
    found["center"] = np.array([0.0 if p.center is None else p.center for p in parts], float)
    found["beta"] = np.array([1.0 if p.beta is None else p.beta for p in parts], float)
    return found

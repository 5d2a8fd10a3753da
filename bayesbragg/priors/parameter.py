"""One number that a fit varies: its coordinate x, its physical value, its bounds and its restraint.

A coordinate is mapped to a physical value by one of four transforms (PHYSICS 9; the last is ours):

* ``ranged``      theta = min + (max - min)/2 (1 + sin(sigma (x - 1) + asin(2 (start - min)/(max - min) - 1)))
* ``positive``    theta = start exp(sigma (x - 1)); knows no bounds, as in the classic program (a search keeps them)
* ``normal``      theta = x; likewise
* ``log_ranged``  the logarithm of theta is ``ranged`` between the logarithms of the bounds

x = 1 gives the start (``normal``: x = start). A transform changes the coordinates of the search, never the density:
the restraint -1/2 [ln(2 pi beta) + (center - theta)^2/beta] is that of the physical value, and no change-of-variables
term is added, so the mode is the mode of the physical parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax.numpy as jnp

from bayesbragg.model.errors import InputError

__all__ = ["Kind", "Parameter", "coordinate", "log_restraint", "physical_value"]

Array = Any
Kind = Literal["ranged", "positive", "normal", "log_ranged"]

OUTSIDE_SDS = 8.0
"""A restraint whose center is so many standard deviations beyond a bound is a mistake: it leaves nothing inside."""


def physical_value(kind: Kind, x: Array, start: Array, low: Array, high: Array, sigma: Array) -> Array:
    """Physical values at the coordinates x (all arguments broadcast)."""
    return _VALUE[kind](x, start, low, high, sigma)


def coordinate(kind: Kind, value: Array, start: Array, low: Array, high: Array, sigma: Array) -> Array:
    """Coordinates at physical values: the inverse of `physical_value` (values outside the bounds are clipped)."""
    return _COORDINATE[kind](value, start, low, high, sigma)


def log_restraint(value: Array, center: Array, beta: Array) -> Array:
    """Log of a normal density with mean ``center`` and **variance** ``beta``."""
    return -0.5 * (jnp.log(2.0 * jnp.pi * beta) + (center - value) ** 2 / beta)


def _phase(value: Array, low: Array, high: Array) -> Array:
    return jnp.arcsin(jnp.clip(2.0 * (value - low) / (high - low) - 1.0, -1.0, 1.0))


def _ranged(x: Array, start: Array, low: Array, high: Array, sigma: Array) -> Array:
    return low + 0.5 * (high - low) * (1.0 + jnp.sin(sigma * (x - 1.0) + _phase(start, low, high)))


def _ranged_coordinate(value: Array, start: Array, low: Array, high: Array, sigma: Array) -> Array:
    return 1.0 + (_phase(value, low, high) - _phase(start, low, high)) / sigma


_VALUE: dict[Kind, Callable[[Array, Array, Array, Array, Array], Array]] = {
    "ranged": _ranged,
    "positive": lambda x, start, low, high, sigma: start * jnp.exp(sigma * (x - 1.0)),
    "normal": lambda x, start, low, high, sigma: x,
    "log_ranged": lambda x, start, low, high, sigma: jnp.exp(
        _ranged(x, jnp.log(start), jnp.log(low), jnp.log(high), sigma)
    ),
}
_COORDINATE: dict[Kind, Callable[[Array, Array, Array, Array, Array], Array]] = {
    "ranged": _ranged_coordinate,
    "positive": lambda value, start, low, high, sigma: 1.0 + jnp.log(value / start) / sigma,
    "normal": lambda value, start, low, high, sigma: value,
    "log_ranged": lambda value, start, low, high, sigma: _ranged_coordinate(
        jnp.log(value), jnp.log(start), jnp.log(low), jnp.log(high), sigma
    ),
}


@dataclass(frozen=True)
class Parameter:
    """A number that may vary.

    Attributes:
        start: physical starting value.
        kind: transform from coordinate to physical value.
        low, high: bounds of the physical value.
        sigma: sensitivity of the coordinate (the classic ``sigmas``); not a prior width.
        center, beta: mean and variance of the normal restraint, or None both for a flat prior.
        fixed: the value stays at the start.
    """

    start: float
    kind: Kind = "normal"
    low: float = -math.inf
    high: float = math.inf
    sigma: float = 1.0
    center: float | None = None
    beta: float | None = None
    fixed: bool = False

    def check(self, name: str) -> Parameter:
        """The parameter itself, if its numbers make sense.

        Raises:
            InputError: naming the parameter and the number that is wrong.
        """
        if self.fixed:
            if not math.isfinite(self.start):
                raise InputError(f"{name}: start value {self.start} is not a finite number")
            return self
        if not self.low < self.high:
            raise InputError(f"{name}: minimum {self.low:g} is not below maximum {self.high:g}; exchange or widen them")
        if not math.isfinite(self.start):
            raise InputError(f"{name}: start value {self.start} is not a finite number")
        slack = 1e-9 * max(abs(self.start), 1e-30)
        bounded = self.kind in ("ranged", "log_ranged")
        if not self.low - slack <= self.start <= self.high + slack:
            raise InputError(
                f"{name}: start value {self.start:g} lies outside its bounds {self.low:g} to {self.high:g}; "
                "change the start or the bounds"
            )
        if bounded and not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise InputError(f"{name}: a ranged parameter needs a finite minimum and maximum")
        if (self.kind == "positive" and self.start <= 0) or (self.kind == "log_ranged" and self.low <= 0):
            raise InputError(f"{name}: a positive parameter needs a start value above 0, got {self.start:g}")
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise InputError(f"{name}: sigma must be a positive number, got {self.sigma}")
        if (self.center is None) != (self.beta is None):
            given, missing = ("beta", "center") if self.center is None else ("center", "beta")
            raise InputError(f"{name}: a restraint needs a center and a beta; {given} is given, {missing} is missing")
        if self.beta is not None and not self.beta > 0:
            raise InputError(f"{name}: beta is a variance and must be positive, got {self.beta:g}")
        if self.center is not None and self.beta is not None:
            beyond = max(self.low - self.center, self.center - self.high) / math.sqrt(self.beta)
            if beyond > OUTSIDE_SDS:
                raise InputError(
                    f"{name}: its prior, center {self.center:g} and standard deviation {math.sqrt(self.beta):g}, lies "
                    f"outside its bounds {self.low:g} to {self.high:g}; change the center, the beta or the bounds"
                )
        return self

    @property
    def start_x(self) -> float:
        """Coordinate of the start: 1, or the start itself for ``normal``."""
        return self.start if self.kind == "normal" else 1.0

    def value(self, x: Array) -> Array:
        """Physical value at coordinate x."""
        low, high = (self.start - 1.0, self.start + 1.0) if self.fixed else (self.low, self.high)
        return physical_value(self.kind, x, self.start, low, high, self.sigma)

    def x_of(self, value: Array) -> Array:
        """Coordinate of a physical value."""
        return coordinate(self.kind, value, self.start, self.low, self.high, self.sigma)

    def log_prior(self, value: Array) -> Array:
        """Log prior of a physical value: the restraint, or 0 inside the bounds without one."""
        if self.center is None or self.beta is None:
            return jnp.zeros_like(jnp.asarray(value, dtype=float))
        return log_restraint(value, self.center, self.beta)

    def searchable(self) -> Parameter:
        """The same prior in coordinates that suit an optimiser.

        Bounds are kept by a transform that cannot leave them; scale-like numbers (``positive`` or ``log_ranged``) are
        searched on a logarithmic scale, where their bounds hold as well. At its very bound such a coordinate has no
        slope: the search starts beside it.
        """
        if self.kind in ("positive", "log_ranged"):
            high = self.high if math.isfinite(self.high) else self.start * 1e8
            low = self.low if self.low > 0 else min(self.start**2 / high, self.start * 1e-6)
            inside = (high / low) ** 1e-6
            start = min(max(self.start, low * inside), high / inside)
            return replace(self, kind="log_ranged", low=low, high=high, start=start, sigma=1.0)
        if not (math.isfinite(self.low) or math.isfinite(self.high)):
            return replace(self, kind="normal")
        # A missing bound is put so far away that it does not matter.
        far = 1e6 * max(1.0, abs(self.start))
        low = self.low if math.isfinite(self.low) else self.high - far
        high = self.high if math.isfinite(self.high) else self.low + far
        inside = 1e-6 * (high - low)
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            inside = 1e-3 * (math.sqrt(self.beta) if self.beta is not None else abs(self.start) or self.sigma)
        start = min(max(self.start, low + inside), high - inside)
        return replace(self, kind="ranged", low=low, high=high, start=start, sigma=1.0)

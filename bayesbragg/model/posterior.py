"""A posterior as it was found: draws, what made them, and a verdict on whether they can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bayesbragg.model.digits import to_digits_of
from bayesbragg.model.errors import InputError

__all__ = ["Check", "Posterior", "Verdict"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Check:
    """One test of a posterior.

    Attributes:
        name: what is tested, such as ``R-hat``.
        value: its worst value.
        limit: the value that it is held against.
        passed: the outcome; a value that is not a number fails.
        of: the parameter with the worst value, where there is one.
    """

    name: str
    value: float
    limit: float
    passed: bool
    of: str = ""

    def __str__(self) -> str:
        where = f" ({self.of})" if self.of else ""
        value, limit = (
            f"{v:.0f}" if abs(v) >= 100 else f"{round(v, 3) + 0.0:.3f}".rstrip("0").rstrip(".")
            for v in (self.value, self.limit)
        )
        return f"{self.name} {value}{where}, limit {limit}: {'passed' if self.passed else 'FAILED'}"


@dataclass(frozen=True)
class Verdict:
    """Whether a posterior can be trusted: all checks together.

    Attributes:
        checks: every test that was made.
        advice: what to do where a test failed, or an empty text.
    """

    checks: tuple[Check, ...]
    advice: str = ""

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def __str__(self) -> str:
        head = "passed" if self.passed else "FAILED"
        failed = "; ".join(str(check) for check in self.checks if not check.passed)
        return head + (f": {failed}" if failed else "") + (f" ({self.advice})" if self.advice else "")


@dataclass(frozen=True, eq=False)
class Posterior:
    """Draws of one posterior density.

    Attributes:
        method: ``laplace`` or ``nuts``.
        names, units: of the parameters.
        draws: equally weighted physical values, ``(n_chains, n_draws, n)``.
        log_density: log likelihood + log prior of the physical values up to a constant, with the change of variables
            of the unbounded coordinates, ``(n_chains, n_draws)``.
        sample_stats: further numbers of each draw, each ``(n_chains, n_draws)``.
        verdict: whether the draws can be trusted.
        mode: the best fit, physical values, ``(n,)``.
        mean, sd: of the posterior, physical values, ``(n,)``; from all weighted draws where there are weights.
        covariance: of the posterior, ``(n, n)``.
        evaluations: of the density or of its gradient.
        seed: of all randomness.
        seconds: wall time, with compilation.
        settings: of the method, as they were used.
    """

    method: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    draws: FloatArray
    log_density: FloatArray
    sample_stats: Mapping[str, FloatArray]
    verdict: Verdict
    mode: FloatArray
    mean: FloatArray
    sd: FloatArray
    covariance: FloatArray
    evaluations: int
    seed: int
    seconds: float
    settings: Mapping[str, float | int | str | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.names)
        if self.draws.ndim != 3 or self.draws.shape[2] != n or len(self.units) != n:
            raise ValueError(f"draws {self.draws.shape}: expected (n_chains, n_draws, {n}) for {n} names and units")

    def values(self, name: str) -> FloatArray:
        """Draws of one parameter, ``(n_chains, n_draws)``.

        Raises:
            InputError: there is no parameter of this name.
        """
        if name not in self.names:
            raise InputError(f"parameter {name!r} is not in this posterior; choose among {', '.join(self.names)}")
        return self.draws[:, :, self.names.index(name)]

    def interval(self, probability: float = 0.95) -> FloatArray:
        """Central intervals, ``(n, 2)``."""
        tail = 0.5 * (1.0 - probability)
        flat = self.draws.reshape(-1, len(self.names))
        return np.asarray(np.quantile(flat, [tail, 1.0 - tail], axis=0).T)

    def summary(self) -> str:
        """The result as text: verdict, then every parameter with unit, best fit, mean, sd and central 95 % interval."""
        width = max([len(name) for name in self.names], default=4)
        n_chains, n_draws, _ = self.draws.shape
        lines = [
            f"{self.method}: verdict {self.verdict}",
            f"{n_chains} x {n_draws} draws, {self.evaluations} evaluations, {self.seconds:.1f} s",
            f"  {'':{width}}  {'best fit':>14} {'mean':>14} {'sd':>9}   95 % interval",
        ]
        columns = zip(self.names, self.units, self.mode, self.mean, self.sd, self.interval(), strict=True)
        for name, unit, mode, mean, sd, (low, high) in columns:
            shown = "" if unit == "1" else f" {unit}"
            best, middle, low_text, high_text = to_digits_of(sd, [mode, mean, low, high])
            lines.append(f"  {name:{width}}  {best:>14} {middle:>14} {sd:9.2g}   {low_text} to {high_text}{shown}")
        return "\n".join(lines)

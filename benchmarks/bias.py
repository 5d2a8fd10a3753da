"""Are fits unbiased, and are their error bars right? Many simulated shots, fitted with the model that made them.

    python benchmarks/bias.py [n_shots]

For every parameter the mean of the error over shots, in units of its own standard error, must lie within 3 of zero;
the pull, error over standard error of the fit, must have a standard deviation of 1. Writes results/bias.md.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parent))
from trials import make_trial, perturbed_start

from bayesbragg.inference.likelihood import LikelihoodName
from bayesbragg.inference.map import fit_map

FloatArray = npt.NDArray[np.float64]
LIKELIHOODS: tuple[LikelihoodName, ...] = ("poisson_gaussian", "shifted_poisson", "gaussian")
SERIES = {"1 photon of background, G = 600": (1.0, 600.0), "0.1 photon of background, G = 150": (0.1, 150.0)}


@dataclass(frozen=True)
class Errors:
    """Errors of many fits with one likelihood.

    Attributes:
        names, units: of the parameters.
        errors: fit less truth, ``(n_shots, n_parameters)``.
        stated: standard errors that the fits state, same shape.
        evaluations, seconds: of each fit, ``(n_shots,)``.
        unconverged: number of fits that did not converge; they are counted all the same.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    errors: FloatArray
    stated: FloatArray
    evaluations: FloatArray
    seconds: FloatArray
    unconverged: int

    @property
    def mean_in_standard_errors(self) -> FloatArray:
        """Mean error of each parameter over the standard error of that mean, ``(n_parameters,)``.

        Shots differ in what they tell; errors are taken in units of the stated ones so that each counts alike.
        """
        return np.asarray(self.pulls.mean(axis=0) / (self.pulls.std(axis=0, ddof=1) / np.sqrt(len(self.pulls))))

    @property
    def plain_mean_in_standard_errors(self) -> FloatArray:
        """The same of the errors in their own units, ``(n_parameters,)``."""
        return np.asarray(self.errors.mean(axis=0) / (self.errors.std(axis=0, ddof=1) / np.sqrt(len(self.errors))))

    @property
    def pulls(self) -> FloatArray:
        """Errors over stated standard errors, ``(n_shots, n_parameters)``."""
        return np.asarray(self.errors / self.stated)


def measure(
    n_shots: int, likelihoods: tuple[LikelihoodName, ...], *, background: float = 1.0, G: float = 600.0, first: int = 0
) -> dict[str, Errors]:
    """Fit shots ``first``, ``first`` + 1, ... with each likelihood, from the same perturbed starts."""
    collected: dict[str, list[tuple[FloatArray, FloatArray, int, float, bool]]] = {name: [] for name in likelihoods}
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    for seed in range(first, first + n_shots):
        trial = make_trial(seed, background=background, G=G)
        start = perturbed_start(trial.truth, seed)
        for likelihood in likelihoods:
            density = trial.density(start, likelihood)
            names, units = density.layout.names, density.layout.units
            fit = fit_map(density)
            row = (
                fit.values - trial.values(density),
                fit.standard_errors,
                fit.evaluations,
                fit.seconds,
                fit.converged,
            )
            collected[likelihood].append(row)
    result = {}
    for name, rows in collected.items():
        errors, stated, evaluations, seconds, converged = (np.array(column) for column in zip(*rows, strict=True))
        result[name] = Errors(names, units, errors, stated, evaluations, seconds, int(np.sum(~converged)))
    return result


def table(errors: dict[str, Errors]) -> str:
    """Markdown: one row per parameter and likelihood."""
    lines = [
        "| likelihood | parameter | mean error | in its standard errors | pull: mean / its standard error | pull: sd |",
        "|---|---|---|---|---|---|",
    ]
    for likelihood, e in errors.items():
        sd = e.pulls.std(axis=0, ddof=1)
        for i, name in enumerate(e.names):
            lines.append(
                f"| {likelihood} | {name} | {e.errors[:, i].mean():.3g} {e.units[i]} | "
                f"{e.plain_mean_in_standard_errors[i]:+.2f} | {e.mean_in_standard_errors[i]:+.2f} | {sd[i]:.3f} |"
            )
    return "\n".join(lines)


def main(n_shots: int) -> None:
    """Measure, print and write the tables."""
    text = [
        "# Bias of fits to simulated shots",
        "",
        f"{n_shots} shots of the virtual experiment (random orientations, up to 56 boxes of 12 x 12 pixels chosen "
        "before the noise, 8 channels, Poisson noise, readout noise 3/28 photon, known background), fitted from starts "
        "off by 0.1 degree, up to 0.3 % in cell and a factor up to 2 in block size. A mean is compatible with zero "
        f"within 3 of its standard errors; the sd of pulls is 1 within {3 / np.sqrt(2 * n_shots):.2f} if error "
        "bars are right. Made by `python benchmarks/bias.py`.",
    ]
    for title, (background, G) in SERIES.items():
        clock = time.perf_counter()
        errors = measure(n_shots, LIKELIHOODS, background=background, G=G)
        text += ["", f"## {title}", "", table(errors), ""]
        for name, e in errors.items():
            text.append(
                f"- {name}: {e.unconverged} of {n_shots} did not converge; {np.median(e.evaluations):.0f} evaluations "
                f"and {1e3 * np.median(e.seconds):.0f} ms per fit (medians); largest mean "
                f"{np.max(np.abs(e.mean_in_standard_errors)):.2f} standard errors; sd of all pulls {e.pulls.std():.3f}"
            )
        print("\n".join(text[-40:]), f"\n{time.perf_counter() - clock:.0f} s", flush=True)
    (Path(__file__).parent / "results" / "bias.md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)

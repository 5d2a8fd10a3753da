"""Populations of shots: known truths, their PHIL read back by refine, and the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesbragg.cli.main import main
from bayesbragg.inference.population import fit_population
from bayesbragg.io.phil import load_phil
from bayesbragg.io.tables import write_table
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.from_phil import settings_from_phil
from bayesbragg.pipeline.summary import phil_of, summarize
from bayesbragg.priors import Normal


def test_errors_of_single_shots_are_taken_out_of_the_spread() -> None:
    rng = np.random.default_rng(1)
    runs, n, mean, spread = 400, 30, 79.1, 0.05
    inside, pulls, further = [], [], []
    for _ in range(runs):
        errors = 0.05 * rng.uniform(0.5, 2.0, n)
        found = fit_population(rng.normal(mean, spread, n) + errors * rng.standard_normal(n), errors)
        inside.append(found.spread_low < spread < found.spread_high)
        pulls.append((found.mean - mean) / found.mean_error)
        further.append((rng.normal(mean, spread) - found.mean) ** 2 / found.variance)
    assert abs(np.mean(inside) - 0.68) < 4 * np.sqrt(0.68 * 0.32 / runs)
    assert abs(np.mean(pulls)) < 4 / np.sqrt(runs)
    assert abs(np.std(pulls) - 1.0) < 4 / np.sqrt(2 * runs)
    # A flat prior of the spread leans to the wide side: a prior for the next run may be too wide, not too narrow.
    assert 0.7 < np.mean(further) < 1.0 + 4 * np.sqrt(2 / runs)


def test_a_population_without_spread_is_told_from_one_with_exact_values() -> None:
    rng = np.random.default_rng(2)
    errors = np.full(60, 0.2)
    none = fit_population(5.0 + errors * rng.standard_normal(60), errors)
    assert none.spread < 0.08
    y = rng.normal(5.0, 0.2, 60)
    exact = fit_population(y, np.zeros(60))
    assert exact.spread == pytest.approx(np.std(y, ddof=1), rel=0.03)
    assert exact.mean == pytest.approx(np.mean(y), abs=1e-6)
    with pytest.raises(InputError, match="at least 4"):
        fit_population([1.0, 2.0, np.nan, 3.0], [0.1, 0.1, 0.1, 0.1])


def table(n: int = 40) -> list[dict[str, object]]:
    rng = np.random.default_rng(3)
    rows = []
    for i in range(n):
        a, c = rng.normal([79.1, 38.4], [0.1, 0.05])
        blocks = rng.normal([10.0, 11.0, 12.0], 1.0)
        rows.append({
            "tag": f"shot_{i}", "status": "converged" if i else "failed",
            "a": a, "b": a, "c": c, "al": 90.0, "be": 90.0, "ga": 90.0, "a_sd": 0.02, "b_sd": 0.02, "c_sd": 0.01,
            "ncells": tuple(blocks), "ncells_sd": (0.1, 0.1, 0.1), "eta_abc": (0.0, 0.0, 0.0),
            "spot_scales": float(rng.lognormal(7, 0.5)), "B": 0.0, "detz_shift_mm": 0.0,
        })  # fmt: skip
    return rows


def test_suggested_priors_are_read_by_refine(tmp_path: Path) -> None:
    found = summarize(table())
    assert (found.n_rows, found.n_used) == (40, 39)
    assert [line.name for line in found.lines] == ["a", "c", "ncells[0]", "ncells[1]", "ncells[2]", "spot_scales"]
    a = found.lines[0].population
    assert abs(a.mean - 79.1) < 4 * a.mean_error
    assert a.spread_low - 0.02 < 0.1 < a.spread_high + 0.02
    path = tmp_path / "priors.phil"
    path.write_text(phil_of(found))
    settings = settings_from_phil(load_phil([path]), ("ucell_a", "ucell_c"))
    center, beta = settings.priors.cell.restraints["ucell_a"]  # type: ignore[union-attr]
    assert (center, beta) == pytest.approx((a.mean, a.variance), rel=1e-3)
    blocks = settings.priors.Nabc
    assert isinstance(blocks, tuple)
    assert isinstance(blocks[1], Normal)
    assert blocks[1].center == pytest.approx(found.lines[3].population.mean)
    assert "G" not in phil_of(found)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_table(pd.DataFrame(table()), tmp_path)
    assert main(["summary", str(tmp_path), "--phil", str(tmp_path / "priors.phil")]) == 0
    printed = capsys.readouterr().out
    assert "40 rows, 39 of them converged" in printed
    assert (tmp_path / "priors.phil").read_text() in printed
    few = tmp_path / "few"
    few.mkdir()
    write_table(pd.DataFrame(table(3)), few)
    assert main(["summary", str(few)]) == 2
    assert "at least 4" in capsys.readouterr().err
    assert main(["summary", str(tmp_path / "nothing")]) == 2

"""The table of posteriors: one shot's leaves the others' alone; a posterior belongs to the fit that it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from bayesbragg.io.tables import read_table
from bayesbragg.pipeline.posterior_table import rows_of, with_posteriors, write_posteriors


def table(**targets: float) -> pd.DataFrame:
    return pd.DataFrame([{"tag": tag, "exp_idx": 0, "target": target, "a": 79.0} for tag, target in targets.items()])


def sds(folder: Path) -> dict[str, Any]:
    return {row["tag"]: row["a_sd"] for row in rows_of(read_table(folder / "posterior_summary.parquet"))}


def test_the_posterior_of_one_shot_leaves_the_others_in_the_table(tmp_path: Path) -> None:
    run = table(x=1.5, y=2.5, z=3.5)
    write_posteriors(run, {tag: [{"a_sd": sd}] for tag, sd in zip("xyz", (0.1, 0.2, 0.3), strict=True)}, tmp_path)
    path = write_posteriors(run, {"y": [{"a_sd": 0.7}]}, tmp_path)
    assert sds(tmp_path) == {"x": 0.1, "y": 0.7, "z": 0.3}
    assert read_table(path.with_suffix(".pkl"))["tag"].tolist() == ["x", "y", "z"]


def test_a_posterior_of_an_earlier_fit_is_not_that_of_a_new_one(tmp_path: Path) -> None:
    write_posteriors(table(x=1.5, y=2.5), {"x": [{"a_sd": 0.1}], "y": [{"a_sd": 0.2}]}, tmp_path)
    again = table(x=1.25, y=2.5)
    assert [row.get("a_sd") for row in with_posteriors(rows_of(again), tmp_path)] == [None, 0.2]
    write_posteriors(again, {"y": [{"a_sd": 0.3}]}, tmp_path)
    assert sds(tmp_path) == {"y": 0.3}


def test_shots_without_a_posterior_stay_in_the_population(tmp_path: Path) -> None:
    """`bayesbragg summary` reads all shots of a run, whichever of them have a posterior."""
    run = table(x=1.5, y=2.5, z=3.5)
    write_posteriors(run, {"y": [{"a_sd": 0.2}]}, tmp_path)
    found = with_posteriors(rows_of(run), tmp_path)
    assert [row["tag"] for row in found] == ["x", "y", "z"]
    assert [row.get("a_sd") for row in found] == [None, 0.2, None]

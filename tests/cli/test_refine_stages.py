"""Fitting in stages with best_pickle: the second stage starts at the first one's optimum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bayesbragg.cli.main import main
from bayesbragg.io.tables import read_table

pytestmark = pytest.mark.slow


def refine(*words: object) -> int:
    return main(["refine", *map(str, words)])


STAGES = {
    "restraints": ["use_restraints=True", "centers.Nabc=8 8 8", "betas.Nabc=4 4 4", "betas.RotXYZ=1e-6"],
    "off-diagonal blocks": ["fix.Ndef=False"],
    "mosaic spread": ["fix.eta_abc=False", "simulator.crystal.num_mosaicity_samples=6"],
}


def prior_target(stage: str, row: dict[str, object]) -> float:
    """Minus the log of the restraints at the first stage's optimum, by hand."""
    if stage != "restraints":
        return 0.0
    blocks = np.array(row["ncells"], dtype=float)
    angles = np.array([row[name] for name in ("rotX", "rotY", "rotZ")], dtype=float)
    z = np.concatenate([(8 - blocks) ** 2 / 4, angles**2 / 1e-6])
    return float(0.5 * np.sum(z + np.log(2 * np.pi * np.repeat([4.0, 1e-6], 3))))


@pytest.mark.parametrize("stage", list(STAGES))
@pytest.mark.parametrize("start", ["input", "refined"])
def test_a_second_stage_starts_where_the_first_ended(
    stage: str, start: str, first_run: Path, data: Path, tmp_path: Path
) -> None:
    first = read_table(first_run).iloc[0].to_dict()
    assert first["tag"] == "shot_1"
    if start == "input":
        shot = [data / "shot_1.expt", data / "shot_1.refl"]
    else:
        shot = [first_run / "shot_1_refined.expt", data / "shot_1.refl"]
    table = first_run / "hopper_process_summary.pkl"
    out = tmp_path / "out"
    assert refine(data / "run.phil", *shot, f"best_pickle={table}", f"outdir={out}", *STAGES[stage]) == 0
    second = read_table(out).iloc[0].to_dict()
    if start == "refined":
        # The rotation is counted from this run's input.
        first |= {"rotX": 0.0, "rotY": 0.0, "rotZ": 0.0}
    expected = first["target"] + prior_target(stage, first)
    assert abs(second["target_init"] - expected) < 1e-6 * abs(expected)
    assert second["target"] <= second["target_init"]
    # The crystals have no mosaic spread: a fit of one ends at its bound, where there is no slope.
    assert second["status"] == "converged" or stage == "mosaic spread"
    if stage != "restraints":
        np.testing.assert_allclose(second["Amats"], first["Amats"], atol=2e-6)
    if start == "refined":
        assert max(abs(second[name]) for name in ("rotX", "rotY", "rotZ")) < 1e-3


def test_a_shot_that_the_table_lacks_starts_from_init(
    first_run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = first_run / "pandas" / "shot_1.parquet"
    shot = data / "shot_2.expt", data / "shot_2.refl"
    assert refine(data / "run.phil", *shot, f"best_pickle={row}", f"outdir={tmp_path / 'out'}") == 0
    assert "shot_2: not in" in capsys.readouterr().err
    found, whole = (read_table(f).set_index("tag").loc["shot_2"] for f in (tmp_path / "out", first_run))
    assert found["target"] == whole["target"]


def test_a_classic_table(shared: Path, tmp_path: Path) -> None:
    """From the classic optimum, with the classic planes and model, the fit starts at the classic final target."""
    tutorial = shared / "tutorial"
    shot = tutorial / "indexed/shot_003_refined.expt", tutorial / "indexed/shot_003_indexed.refl"
    table = tutorial / "classic/procPoly/hopper_process_summary.pkl"
    mtz = tutorial / "structure_factors/iobs_all.mtz"
    words = [f"simulator.structure_factors.mtz_name={mtz}", "background=classic", "kahn_factor=classic"]
    assert refine(tutorial / "phil/process.phil", *shot, f"best_pickle={table}", f"outdir={tmp_path}", *words) == 0
    row = read_table(tmp_path).iloc[0]
    assert abs(row["target_init"] - 55684.4) < 1.0
    assert row["target"] < 55553.2 + 0.5

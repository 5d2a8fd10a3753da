"""A run: its results, several processes, interruptions, going on, and the table of a run that crashed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_run import BLOCKS, SCALE

from bayesbragg.cli.main import main
from bayesbragg.io.experiments import read_experiments
from bayesbragg.io.phil import load_phil
from bayesbragg.io.reflections import read_reflections
from bayesbragg.io.tables import read_table
from bayesbragg.pipeline import run as run_module
from bayesbragg.pipeline.columns import COLUMNS
from bayesbragg.pipeline.from_phil import settings_from_phil
from bayesbragg.pipeline.outcomes import Outcome
from bayesbragg.pipeline.run import Job, prepare_worker
from bayesbragg.pipeline.shot_files import ShotFiles, pair_files
from bayesbragg.pipeline.workers import share_out

pytestmark = pytest.mark.slow

NOT_RESULTS = ("seconds", "exp_name", "opt_exp_name", "stage1_refls", "stage1_output_img")


def refine(*words: object) -> int:
    return main(["refine", *map(str, words)])


def shots(data: Path, *numbers: int) -> list[Path]:
    return [data / f"shot_{n}{ending}" for n in numbers for ending in (".expt", ".refl")]


def same(left: Path, right: Path) -> None:
    """Two tables agree to the last digit in all that is a result."""
    a, b = (read_table(folder).sort_values("tag").reset_index(drop=True) for folder in (left, right))
    for name in a.columns:
        if name not in NOT_RESULTS:
            np.testing.assert_array_equal(np.array(a[name].tolist()), np.array(b[name].tolist()), err_msg=name)


def test_truth_is_found_and_the_files_agree(first_run: Path) -> None:
    table = read_table(first_run)
    # Draws decide on that verdict, and none are taken by default.
    assert set(table.columns) == set(COLUMNS) - {"verdict_passed"}
    for _, row in table.iterrows():
        assert row["status"] == "converged"
        assert abs(row["a"] - 79.1) < 0.01
        assert abs(row["c"] - 38.4) < 0.01
        np.testing.assert_allclose(row["ncells"], BLOCKS, rtol=0.02)
        assert abs(row["spot_scales"] / SCALE - 1) < 0.1
        (experiment,) = read_experiments(row["exp_name"])
        assert experiment.crystal is not None
        np.testing.assert_allclose(experiment.crystal.A_reciprocal.ravel(), row["Amats"], rtol=1e-12)
        table_of_spots = read_reflections(row["stage1_refls"])
        assert {"xyzcal.px", "xyzcal.mm", "dials.xyzcal.px"} <= set(table_of_spots.columns)
        offset = table_of_spots["xyzcal.px"] - table_of_spots["xyzobs.px.value"]
        assert np.median(np.linalg.norm(offset[:, :2], axis=1)) < 0.2
        with np.load(row["stage1_output_img"], allow_pickle=False) as modeler:
            model = modeler["model_bragg_photons"] + modeler["background_photons"]
            variance = model + modeler["sigma_readout_photons"] ** 2
            z = ((modeler["data_photons"] - model) / np.sqrt(variance))[modeler["trusted"]]
            assert abs(z.std() / row["sigmaZ"] - 1) < 0.02
    record = json.loads((first_run / "run.json").read_text())
    assert [shot["status"] for shot in record["shots"]] == ["converged"] * 3
    assert "simulator" in record["configuration"]["phil"]


def test_two_processes_give_the_same_to_the_last_digit(
    first_run: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert refine(data / "run.phil", *shots(data, 1, 2, 3), f"outdir={out}", "nproc=2", "debug_mode=True") == 0
    same(first_run, out)
    said = capfd.readouterr()
    assert "3 of 3 shots refined" in said.out
    assert said.err == ""
    # What workers say arrives in the log of the run.
    log = (out / "bayesbragg.log").read_text()
    for n in (1, 2, 3):
        assert f"shot_{n}: converged" in log


def prepare_to_die(setting: tuple[Job, str]) -> Callable[[ShotFiles], Iterator[Outcome]]:
    job, victim = setting
    return partial(_refine_or_die, prepare_worker(job), victim)


def _refine_or_die(work: Callable[[ShotFiles], Iterator[Outcome]], victim: str, files: ShotFiles) -> Iterator[Outcome]:
    if files.name == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    yield from work(files)


def test_a_killed_worker_loses_only_its_shot(first_run: Path, data: Path, tmp_path: Path) -> None:
    settings = settings_from_phil(load_phil([data / "run.phil"]))
    job = Job(settings, tmp_path, device="cpu")
    files = pair_files(shots(data, 1, 2, 3))
    outcomes = list(share_out(files, prepare_to_die, (job, "shot_2"), 2, run_module._lost))
    assert {o.tag: o.status for o in outcomes} == {"shot_1": "converged", "shot_2": "error", "shot_3": "converged"}
    (lost,) = (o for o in outcomes if o.failed)
    assert "SIGKILL" in lost.reason
    assert "ignore_existing" in lost.reason
    assert main(["rebuild-table", str(tmp_path)]) == 0
    table = read_table(tmp_path)
    assert table["tag"].tolist() == ["shot_1", "shot_3"]
    whole = read_table(first_run)
    assert table["target"].tolist() == whole["target"][[0, 2]].tolist()


def test_an_interrupted_run_goes_on(
    first_run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    words = data / "run.phil", *shots(data, 1, 2, 3), f"outdir={out}"
    whole = run_module.refine_prepared

    def interrupted(prepared: Any, *args: Any, **more: Any) -> Any:
        if prepared.still.tag == "shot_2":
            raise KeyboardInterrupt
        return whole(prepared, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "refine_prepared", interrupted)
        assert refine(*words) == 130
    said = capsys.readouterr()
    assert "1 of 3 shots refined" in said.out
    assert said.err.count("\n") == 1
    assert "ignore_existing=True" in said.err
    assert read_table(out)["tag"].tolist() == ["shot_1"]
    assert json.loads((out / "run.json").read_text())["shots"][0]["tag"] == "shot_1"

    before = (out / "shot_1_refined.expt").stat().st_mtime_ns
    assert refine(*words, "ignore_existing=True") == 0
    assert "1 were there before" in capsys.readouterr().out
    assert (out / "shot_1_refined.expt").stat().st_mtime_ns == before
    same(first_run, out)


def test_a_shot_that_fails_again_leaves_no_old_row(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = copied / "run.phil", *(copied / f"{n}{e}" for n in ("good", "bad") for e in (".expt", ".refl"))
    assert refine(*words, f"outdir={out}") == 0
    assert len(read_table(out)) == 2
    (copied / "bad.h5").write_bytes(b"")
    assert refine(*words, f"outdir={out}") == 0
    assert read_table(out)["tag"].tolist() == ["good"]


def test_the_table_of_a_crashed_run(first_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "pandas"
    rows.mkdir()
    for n in (1, 2):
        (rows / f"shot_{n}.parquet").write_bytes((first_run / "pandas" / f"shot_{n}.parquet").read_bytes())
    (rows / "shot_3.parquet").write_bytes((first_run / "pandas" / "shot_3.parquet").read_bytes()[:1000])
    assert main(["rebuild-table", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "2 rows" in said.out
    assert "a row is left out" in said.err
    for ending in ("pkl", "parquet"):
        table = read_table(tmp_path / f"hopper_process_summary.{ending}")
        assert table["tag"].tolist() == ["shot_1", "shot_2"]
        assert list(table.columns) == [name for name in COLUMNS if name != "verdict_passed"]  # no draws were taken
    assert main(["rebuild-table", str(tmp_path / "nowhere")]) == 2
    assert "no rows of finished shots" in capsys.readouterr().err

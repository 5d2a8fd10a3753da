"""`bayesbragg posterior` and the error bars of `refine`; input that cannot be used: one line, exit code 2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import bayesbragg.cli.posterior as posterior_module
from bayesbragg.cli.main import main
from bayesbragg.io.tables import read_table, write_table


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{folder}"], "run.json: no such file"),
        (["{folder}/none"], "no such file or folder"),
        (["{folder}", "inference=mcmc"], "choose laplace or nuts or hmc"),
        (["{folder}", "drws=3"], "did you mean draws"),
        (["{folder}", "draws=0"], "whole number above 0"),
        (["{folder}", "target_accept=2"], "between 0 and 1"),
        (["draws=10"], "no shots"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["posterior", *(word.format(folder=tmp_path) for word in words)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_a_record_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text('{"shots": []}')
    assert main(["posterior", str(tmp_path)]) == 2
    assert "not the record of bayesbragg refine" in capsys.readouterr().err


def test_refined_shots_have_error_bars(first_run: Path) -> None:
    table = read_table(first_run)
    assert set(table["inference"]) == {"laplace"}
    assert all(verdict.startswith("not checked") for verdict in table["verdict"])
    for name in ("a_sd", "c_sd", "rotX_sd", "rotZ_sd", "spot_scales_sd"):
        assert (table[name] > 0).all()
    assert (table["a_sd"] == table["b_sd"]).all()
    assert (table["al_sd"] == 0).all()
    assert all(np.all(np.array(row) > 0) for row in table["ncells_sd"])
    # The simulated cell is known: the error bars must be of the size of the errors.
    pulls = (table["c"] - 38.4) / table["c_sd"]
    assert np.abs(pulls).max() < 5
    assert np.abs(pulls).max() > 0.02


@pytest.fixture
def run(first_run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run's folder, to be written to; the run's own names count from the folder of its input."""
    monkeypatch.chdir(data)
    folder = tmp_path / "run"
    shutil.copytree(first_run, folder)
    return folder


def test_a_run_of_relative_paths_looked_at_from_elsewhere(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(data)
    assert main(["refine", "run.phil", "shot_1.expt", "shot_1.refl", f"outdir={tmp_path / 'out'}", "--quiet"]) == 0
    monkeypatch.chdir(tmp_path)
    assert main(["posterior", "out", "draws=100", "--quiet"]) == 0
    assert "1 of 1 posteriors" in capsys.readouterr().out


def test_posteriors_of_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shot = run / "shot_1_refined.expt"
    assert main(["posterior", str(shot), "draws=300", "plots=True", "parameters=ucell_a,Na", "--quiet"]) == 0
    assert "1 of 1 posteriors" in capsys.readouterr().out
    pictures = {f"shot_1_{name}.png" for name in ("trace", "pairs", "prior", "predicted", "residuals")}
    assert pictures <= {path.name for path in run.iterdir()}
    summary = read_table(run / "posterior_summary.parquet").iloc[0]
    refined = read_table(run).set_index("tag").loc["shot_1"]
    assert summary["inference"] == "laplace"
    assert "passed" in summary["verdict"] or "FAILED" in summary["verdict"]
    # Weighted draws change the sds of the Gaussian little where it passes.
    if summary["verdict_passed"]:
        assert summary["a_sd"] == pytest.approx(refined["a_sd"], rel=0.3)
    from bayesbragg.diagnostics.arviz_container import groups_of, read_netcdf

    groups = groups_of(read_netcdf(run / "shot_1_posterior.nc"))
    assert {"posterior", "prior", "posterior_predictive", "log_likelihood", "observed_data", "constant_data"} <= set(
        groups
    )
    assert groups["constant_data"]["resolution"].attrs["units"] == "angstrom"
    assert json.loads(groups["posterior"].attrs["provenance"])["inputs_sha256"]


def _mark_failed(run: Path) -> None:
    table = read_table(run)
    table.loc[table["tag"] == "shot_2", ["status", "reason"]] = ["failed", "no finite density"]
    for ending in (".pkl", ".parquet"):
        write_table(table, run / f"hopper_process_summary{ending}")


def _forget(run: Path) -> None:
    for path in run.glob("hopper_process_summary.*"):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "words", "message"),
    [
        (_mark_failed, ["{run}/shot_2_refined.expt"], "its fit failed (no finite density); refine it again"),
        (lambda run: None, ["{run}/shot_2_refined.expt", "parameters=Nz"], "parameters=Nz: not a parameter of shot"),
        (_forget, ["{run}"], "no shot was refined there"),
        (lambda run: shutil.copy(run / "shot_1_refined.expt", run / "other_refined.expt"), ["{run}/other_refined.expt"],
         "shot other is not in its table of shots"),
    ],
)  # fmt: skip
def test_a_run_that_has_no_posterior(
    spoil: Any, words: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(run)
    assert main(["posterior", *(word.format(run=run) for word in words), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_a_prior_outside_its_bounds(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["use_restraints=True", "centers.Nabc=900,900,900", "betas.Nabc=1,1,1", "maxs.Nabc=300,300,300"]
    shot = [str(data / f"shot_1{ending}") for ending in (".expt", ".refl")]
    code = main(["refine", str(data / "run.phil"), *shot, f"outdir={tmp_path / 'out'}", *words])
    assert code == 2
    assert "lies outside its bounds 3 to 300" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["laplace", pytest.param("nuts", marks=pytest.mark.slow), "map"])
def test_posteriors_within_a_refinement(how: str, data: Path, tmp_path: Path) -> None:
    shot = [str(data / f"shot_1{ending}") for ending in (".expt", ".refl")]
    words = [f"inference={how}", "posterior.draws=250", "posterior.chains=2", f"outdir={tmp_path}", "--strict"]
    code = main(["refine", str(data / "run.phil"), *shot, *words])
    row = read_table(tmp_path).iloc[0]
    assert row["inference"] == how
    assert code == int(row["verdict"].startswith("FAILED"))
    assert (tmp_path / "shot_1_posterior.nc").is_file() == (how != "map")
    assert np.isfinite(row["a_sd"]) == (how != "map")
    if how != "map":
        assert row["verdict_passed"] == (code == 0)


class Found:
    """Stands for a posterior."""

    verdict = SimpleNamespace(passed=True)

    def summary(self) -> str:
        return "found"


def test_what_was_sampled_before_an_interrupt_or_beside_a_crash_is_in_the_table(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tags = read_table(run)["tag"].tolist()
    assert len(tags) >= 3

    def one(_: Any, source: Any, *args: Any, **more: Any) -> Any:
        if source.tag == tags[0]:
            raise FloatingPointError("a singular matrix")
        if source.tag == tags[2]:
            raise KeyboardInterrupt
        return Found(), [{"a_sd": 0.25}]

    monkeypatch.setattr(posterior_module, "_one", one)
    assert main(["posterior", str(run)]) == 130
    said = capsys.readouterr()
    assert "FloatingPointError: a singular matrix" in said.err
    assert "interrupted" in said.err
    assert "1 of" in said.out
    table = read_table(run / "posterior_summary.parquet")
    assert table["tag"].tolist() == [tags[1]]
    assert table["a_sd"].tolist() == [0.25]

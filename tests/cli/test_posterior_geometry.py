"""`bayesbragg posterior` on a joint geometry, `inference=` inside `geometry-refine`, and input that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import arviz
import numpy as np
import pytest
from small_run import make_shot, run_folder, write_factors

from bayesbragg.cli.main import main
from bayesbragg.diagnostics.arviz_container import groups_of, read_netcdf
from bayesbragg.io.tables import read_table

GROUPS = "joint.groups=pairs"
# Two groups and flat priors of the crystals leave the rotation about the beam to the prior of the detector: a wide one
# would bend the posterior.
HELD = ("joint.whole_rotation_sd=0.02,0.02,0.02", "joint.group_rotation_sd=0.02,0.1,0.1")


@pytest.fixture(scope="module")
def refined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small joint fit: two shots, panels in pairs."""
    folder = tmp_path_factory.mktemp("joint")
    write_factors(folder / "factors.mtz")
    run_folder(folder, {f"shot_{n}": make_shot(n, folder / "factors.mtz") for n in (1, 2)})
    assert main(refine_words(folder, folder / "geom")) == 0
    return folder


@pytest.fixture
def fitted(refined: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same; names of the record count from its folder."""
    monkeypatch.chdir(refined)
    return refined


def refine_words(folder: Path, out: Path) -> list[str]:
    given = [
        "geometry.optimize=True",
        f"input_pkl={folder / 'table.pkl'}",
        f"outdir={out}",
        "forward=exact",
        GROUPS,
        *HELD,
    ]
    return ["geometry-refine", "-q", str(folder / "run.phil"), *given]


@pytest.mark.slow
def test_laplace_then_nuts(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    geometry = fitted / "geom"
    table = read_table(geometry)
    assert set(table["verdict"]) == {"not checked"}
    assert (table["a_sd"] > 0).all()
    words = ["posterior", "-q", str(geometry)]
    assert main([*words, "draws=400", "parameters=group0_ShiftZ,shot_1_ucell_a", "plots=True"]) == 0
    assert "laplace: verdict" in capsys.readouterr().out
    for name in ("forest", "trace", "pairs", "prior", "predicted", "residuals"):
        assert (geometry / f"panels_posterior_{name}.png").stat().st_size > 1000
    first = groups_of(read_netcdf(geometry / "panels_posterior.nc"))
    assert main([*words, "inference=nuts", "draws=250", "chains=4", "--strict"]) in (0, 1)
    said = capsys.readouterr().out
    second = groups_of(arviz.from_netcdf(geometry / "panels_posterior.nc"))
    posterior = second["posterior"]
    assert posterior["rotation"].dims == ("chain", "draw", "panel_group", "axis")
    assert posterior["shift"].dims == ("chain", "draw", "panel_group", "direction")
    assert list(posterior["shot"].values) == ["shot_1", "shot_2"]
    assert posterior["shift"].attrs["units"] == "metre"
    assert second["observed_data"]["photons"].shape == second["posterior_predictive"]["photons"].shape[2:]
    assert json.loads(posterior.attrs["provenance"])["inputs_sha256"]
    # Two ways to look at one density.
    for name in ("rotation", "shift", "ucell_a", "Na"):
        a, b = (np.asarray(g["posterior"][name]).reshape(-1, *g["posterior"][name].shape[2:]) for g in (first, second))
        np.testing.assert_allclose(b.std(axis=0) / a.std(axis=0), 1.0, atol=0.3)
        assert np.all(np.abs(a.mean(axis=0) - b.mean(axis=0)) < 0.35 * b.std(axis=0))
    # Panels that are free to move have not been seen before: their prior is wider than the posterior.
    assert np.all(np.asarray(second["prior"]["shift"]).std(axis=(0, 1)) > posterior["shift"].std(("chain", "draw")))
    summary = read_table(geometry / "posterior_summary.parquet")
    assert set(summary["inference"]) == {"nuts"}
    assert f"verdict {'passed' if summary['verdict_passed'].all() else 'FAILED'}" in said
    lines = (geometry / "panels_posterior.csv").read_text().splitlines()
    assert len(lines) == 2 + posterior.sizes["panel_group"]


@pytest.mark.slow
def test_inside_geometry_refine(fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "geom"
    assert main([*refine_words(fitted, out), "posterior.draws=200", "nproc=2"]) == 0
    assert "laplace: verdict" in capsys.readouterr().out
    assert (out / "panels_posterior_forest.png").is_file()
    assert main([*refine_words(fitted, tmp_path / "map"), "inference=map"]) == 0
    assert read_table(tmp_path / "map")["a_sd"].isna().all()
    assert not (tmp_path / "map" / "panels_posterior.nc").exists()


def _spoil(folder: Path, **changes: Any) -> Path:
    (folder / "geom").mkdir()
    record = {"configuration": {"phil": ""}, "inputs_sha256": {}, "prior": []}
    record["fit"] = {"status": "converged", "reason": "", "trace": []} | changes
    (folder / "geom" / "run.json").write_text(json.dumps(record))
    return folder / "geom"


def test_a_joint_fit_that_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _spoil(tmp_path, status="failed", reason="the target is not a finite number")
    assert main(["posterior", str(folder), "-q"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "the joint fit failed (the target is not a finite number); refine the geometry again" in error


def test_a_joint_fit_that_has_not_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "geometry_state.npz").write_bytes(b"")
    assert main(["posterior", str(tmp_path), "-q"]) == 2
    assert "the joint fit has not ended" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("word", ["group7", "group0_ShiftQ", "shot_9"])
def test_parameters_that_do_not_exist(fitted: Path, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["posterior", "-q", str(fitted / "geom"), f"parameters={word}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"parameters={word}: not a parameter of" in error
    assert "group0_RotOrth" in error


def test_shots_of_a_joint_geometry_have_one_posterior(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _spoil(tmp_path)
    (folder / "shot_1_refined.expt").write_text("{}")
    assert main(["posterior", str(folder / "shot_1_refined.expt"), "-q"]) == 2
    assert "have one posterior; give the folder" in capsys.readouterr().err

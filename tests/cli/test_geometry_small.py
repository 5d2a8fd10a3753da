"""The command geometry-refine on small simulated shots: detectors of one and of 64 panels, shots on disk, a geometry
that is off by several pixels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from inference.test_centroid_joint import grid_detector
from small_run import make_shot, run_folder, write_factors

from bayesbragg.cli.main import main
from bayesbragg.io.experiments import read_detector
from bayesbragg.model import Detector
from bayesbragg.model.panel_groups import panel_centres_mm


def refine_geometry(folder: Path, out: str, *words: str) -> dict[str, Any]:
    """Run the command; its record and the posterior of the panels."""
    given = ["geometry.optimize=True", f"input_pkl={folder / 'table.pkl'}", f"outdir={folder / out}", "forward=exact"]
    assert main(["geometry-refine", "-q", str(folder / "run.phil"), *given, *words]) == 0
    record: dict[str, Any] = json.loads((folder / out / "run.json").read_text())
    with h5py.File(folder / out / "panels.h5") as file:
        record |= {name: file[name][()] for name in ("mean", "covariance", "prior_covariance", "reflections_of_group")}
    return record


@pytest.mark.slow
@pytest.mark.parametrize(("n_across", "side", "groups"), [(1, 200, "whole"), (8, 40, "single")])
def test_detectors_of_one_panel_and_of_64(tmp_path: Path, n_across: int, side: int, groups: str) -> None:
    write_factors(tmp_path / "factors.mtz")
    detector = grid_detector(n_across, side=side, distance_mm=30.0)
    run_folder(tmp_path, {f"shot_{n}": make_shot(n, tmp_path / "factors.mtz", detector=detector) for n in (1, 2)})
    found = refine_geometry(tmp_path, "kept", f"joint.groups={groups}")
    assert found["fit"]["status"] == "converged"
    assert len(found["reflections_of_group"]) == n_across**2
    moved = np.diag(found["prior_covariance"]) > 0
    assert moved.sum() == 6 * n_across**2
    assert np.all(np.diag(found["covariance"]) <= np.diag(found["prior_covariance"]) * (1 + 1e-6))
    # The geometry was right: nothing should have moved by much more than its error bar.
    d = found["mean"][moved] / np.sqrt(np.diag(found["covariance"])[moved])
    assert np.sqrt(np.mean(d**2)) < 2.0


@pytest.fixture
def four(tmp_path: Path) -> Path:
    """Two shots whose files state a detector that is off by 0.4 and 0.3 mm, four and three pixels."""
    write_factors(tmp_path / "factors.mtz")
    shots = {}
    for n in (1, 2):
        shot = make_shot(n, tmp_path / "factors.mtz")
        shots[f"shot_{n}"] = replace(shot, world=replace(shot.world, detector=shifted(shot.world.detector)))
    run_folder(tmp_path, shots)
    return tmp_path


def shifted(detector: Detector) -> Detector:
    return detector.with_panels(detector.origin_mm + np.array([0.4, -0.3, 0.0]), detector.fast, detector.slow)


@pytest.mark.slow
def test_positions_first_where_the_geometry_is_far_off_and_shots_on_disk(four: Path) -> None:
    found = refine_geometry(four, "kept", "joint.groups=single")
    assert any("positions of spots fitted first" in note for note in found["notes"])
    assert found["fit"]["status"] == "converged"
    true = panel_centres_mm(make_shot(1, four / "factors.mtz").world.detector)
    fitted = panel_centres_mm(read_detector(four / "kept" / "diffBragg_detector.expt"))
    assert np.abs((fitted - true)[:, :2].mean(axis=0)).max() < 0.02
    on_disk = refine_geometry(four, "read", "joint.groups=single", "joint.keep_in_memory=False")
    np.testing.assert_allclose(on_disk["mean"], found["mean"], rtol=1e-10, atol=1e-14)
    assert on_disk["fit"]["target"] == pytest.approx(found["fit"]["target"], rel=1e-12)
    near = refine_geometry(four, "pixels", "joint.groups=single", "joint.positions_first=no", "joint.max_iterations=1")
    assert any("pixels from the start" in note for note in near["notes"])

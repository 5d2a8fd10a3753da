"""The command geometry-refine: its inputs, what it refuses, and on the tutorial's shots what it finds."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from bayesbragg.cli.main import main
from bayesbragg.io.experiments import read_detector, read_experiments
from bayesbragg.io.panel_groups import read_panel_groups
from bayesbragg.io.tables import write_table
from bayesbragg.model.errors import InputError
from bayesbragg.model.panel_groups import group_panels, hierarchy_groups, shorthand_groups
from bayesbragg.pipeline.geometry import check_detector, moved_detector
from bayesbragg.stills.virtual import four_panels

PHIL = "geometry { optimize = True }\nuse_restraints = True\n"


@pytest.fixture
def phil(tmp_path: Path) -> Path:
    path = tmp_path / "geom.phil"
    path.write_text(PHIL)
    return path


def refuse(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """The one line with which the command refuses its input."""
    assert main(["geometry-refine", *map(str, words)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "WARNING" not in line]
    assert len(lines) == 1, lines
    return lines[0]


def test_no_table(capsys: pytest.CaptureFixture[str], phil: Path) -> None:
    assert "input_pkl" in refuse(capsys, "--phil", phil)
    assert "no such file" in refuse(capsys, "--phil", phil, "--cmdlinePhil", "input_pkl=none.pkl")


def test_geometry_that_is_not_to_be_fitted(capsys: pytest.CaptureFixture[str], phil: Path) -> None:
    assert "optimize" in refuse(capsys, phil, "geometry.optimize=False", "input_pkl=none.pkl")


def test_a_pickle_of_something_else_runs_nothing(
    capsys: pytest.CaptureFixture[str], phil: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "executed"

    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (mark,))  # type: ignore[return-value]

    path = tmp_path / "table.pkl"
    path.write_bytes(pickle.dumps(Harm()))
    refuse(capsys, phil, f"input_pkl={path}")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ncells": "many"}, "unreadable"),
        ({"spot_scales": float("nan")}, "finite"),
        ({"exp_name": None}, "no file in column"),
        ({"exp_name": "nowhere.expt"}, "no such file"),
    ],
)
def test_unreadable_rows(
    capsys: pytest.CaptureFixture[str], phil: Path, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    import pandas as pd

    (tmp_path / "a.expt").write_text("{}")
    (tmp_path / "a.refl").write_bytes(b"")
    row = {
        "exp_name": str(tmp_path / "a.expt"), "stage1_refls": str(tmp_path / "a.refl"), "ncells": [10.0, 10.0, 10.0],
        "spot_scales": 1.0, "lam0": 0.0, "lam1": 1.0,
    }  # fmt: skip
    write_table(pd.DataFrame([row | change]), tmp_path / "table.pkl")
    line = refuse(capsys, phil, f"input_pkl={tmp_path / 'table.pkl'}")
    assert words in line
    assert "row 0" in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 0\n1 0\n2 1\n", "no group"),
        ("0 0\n1 0\n2 1\n3 1\n4 1\n", "panel 4"),
        ("0 0\n1 0\n1 1\n2 1\n3 1\n", "second time"),
        ("0 zero\n", "two whole numbers"),
    ],
)
def test_group_files_that_do_not_fit(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "groups.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_panel_groups(path, 4)


def test_detectors_that_differ() -> None:
    one = four_panels()
    other = one.with_panels(one.origin_mm + 0.01, one.fast, one.slow)
    with pytest.raises(InputError, match="its detector differs"):
        check_detector(one, other, "first", "second")


def test_shorthands_and_rigid_motion() -> None:
    detector = four_panels()
    assert len(set(shorthand_groups(detector, "quadrants"))) == 4
    assert list(shorthand_groups(detector, "pairs")) == [0, 0, 1, 1]
    with pytest.raises(InputError, match="hierarchy"):
        hierarchy_groups(detector, 0)
    grouping = group_panels(detector, shorthand_groups(detector, "whole"))
    moved = moved_detector(detector, grouping, [0.01, -0.02, 0.03, 1e-4, 2e-4, 3e-4])
    # A rigid motion keeps all distances between corners, and moves the reference by the shift alone.
    corner = [d.lab_mm(np.arange(4), np.array([0, 300, 0, 300]), np.array([0, 0, 300, 300])) for d in (detector, moved)]
    distance = [np.linalg.norm(c[:, None] - c[None], axis=-1) for c in corner]
    np.testing.assert_allclose(distance[1], distance[0], atol=1e-12)
    middle = [d.lab_mm(np.arange(4), np.full(4, 150), np.full(4, 150)).mean(axis=0) for d in (detector, moved)]
    np.testing.assert_allclose(middle[1] - middle[0], [0.1, 0.2, 0.3], atol=1e-12)
    classic = grouping.classic_reference(detector)
    np.testing.assert_array_equal(classic.reference_mm[0], detector.origin_mm[0])


@pytest.fixture(scope="module")
def table(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tutorial's first three shots, refined one by one in the faulty geometry."""
    folder, tutorial = tmp_path_factory.mktemp("procBad"), shared / "tutorial"
    shots = folder / "shots.txt"
    indexed = tutorial / "indexed_badGeo"
    shots.write_text(
        "".join(f"{indexed}/shot_{i:03d}_refined.expt {indexed}/shot_{i:03d}_indexed.refl\n" for i in range(3))
    )
    mtz = tutorial / "structure_factors" / "iobs_all.mtz"
    words = [f"exp_ref_spec_file={shots}", f"outdir={folder}", f"simulator.structure_factors.mtz_name={mtz}"]
    assert main(["refine", "-q", str(tutorial / "phil" / "process.phil"), *words]) == 0
    return folder


def words_of(shared: Path, table: Path, out: Path) -> list[str]:
    tutorial = shared / "tutorial"
    return [
        "geometry-refine", "--phil", str(tutorial / "phil" / "geom.phil"), "--cmdlinePhil",
        f"input_pkl={table / 'hopper_process_summary.pkl'}", "optimized_detector_name=optGeo.expt", f"outdir={out}",
        f"simulator.structure_factors.mtz_name={tutorial / 'structure_factors' / 'iobs_all.mtz'}",
        f"refiner.panel_group_file={tutorial / 'geometry' / 'cspad_32panel.txt'}", "max_process=20",
    ]  # fmt: skip


@pytest.mark.slow
def test_three_shots_killed_and_resumed(shared: Path, table: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def command_of(out: Path) -> list[str]:
        # Processes of their own: in this one numpy's algebra may use more threads, and round differently.
        return [sys.executable, "-m", "bayesbragg.cli.main", *words_of(shared, table, out)]

    assert subprocess.run(command_of(whole), capture_output=True).returncode == 0
    command = command_of(killed)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    state = killed / "geometry_state.npz"
    while process.poll() is None and not state.exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "panels.h5").exists()
    assert subprocess.run(command, capture_output=True).returncode == 0
    with h5py.File(whole / "panels.h5") as a, h5py.File(killed / "panels.h5") as b:
        np.testing.assert_array_equal(a["mean"][()], b["mean"][()])
        sd = np.sqrt(np.diag(a["covariance"][()]))
        before = np.sqrt(np.diag(a["prior_covariance"][()]))
        assert np.all(sd <= before * (1 + 1e-6))
    record = json.loads((whole / "run.json").read_text())
    assert record["fit"]["status"] == "converged"
    assert record["fit"]["iterations"] <= 30
    assert json.loads((killed / "run.json").read_text())["resumed_at_step"] >= 1

    true = read_experiments(shared / "tutorial" / "indexed" / "shot_000_refined.expt")[0].detector
    faulty, fitted = (
        read_detector(shared / "tutorial" / "geometry" / "badGeo.expt"),
        read_detector(whole / "optGeo.expt"),
    )
    for detector, low, high in ((faulty, 0.47, 0.48), (fitted, 0.0, 0.06)):
        assert low <= np.abs(np.mean(detector.origin_mm[:, 2] - true.origin_mm[:, 2])) <= high
    refined = read_experiments(whole / "shot_000_refined.expt")[0].detector
    np.testing.assert_allclose(refined.origin_mm, fitted.origin_mm)
    for name in ("shifts.png", "error_bars.png", "progress.png", "identifiability.txt", "panels.csv"):
        assert (whole / name).stat().st_size > 100

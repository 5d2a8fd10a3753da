"""`residuals` and `pred-offsets` on small files of our own, and on the tutorial where it is there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from bayesbragg.cli.main import main
from bayesbragg.cli.runs import find_pairs, load_run, one_table, run_names
from bayesbragg.diagnostics.offsets import summary
from bayesbragg.io.experiments import read_experiments, write_experiments
from bayesbragg.io.reflections import read_reflections, write_reflections
from bayesbragg.model import Beam, Crystal, Detector, Experiment, Reflections
from bayesbragg.model.errors import InputError

N_SPOTS = 40


def write_shot(folder: Path, number: int, scale: float = 1.0, rows: int = N_SPOTS, suffix: bool = True) -> None:
    """A shot whose calculated spots lie `scale` pixels left of the observed ones; one spot has none."""
    rng = np.random.default_rng(number)
    detector = Detector(
        origin_mm=np.array([[-10.0, 10.0, -100.0], [0.5, 10.0, -100.0]]),
        fast=np.tile([1.0, 0.0, 0.0], (2, 1)),
        slow=np.tile([0.0, -1.0, 0.0], (2, 1)),
        pixel_size_mm=np.full((2, 2), 0.1),
        image_size=np.tile([100, 200], (2, 1)),
        trusted_range=np.tile([-1.0, 1e6], (2, 1)),
        thickness_mm=np.zeros(2),
        attenuation_per_mm=np.zeros(2),
        gain=np.ones(2),
        names=("left", "right"),
    )
    crystal = Crystal.from_cell(
        [79.1, 79.1, 38.4, 90, 90, 90],
        np.eye(3),
        space_group="P 43 21 2",
        space_group_number=96,
        hall_symbol=" P 4nw 2abw",
    )
    beam = Beam(np.array([0.0, 0.0, -1.0]), 1.37, np.array([0.0, 1.0, 0.0]))
    experiment = Experiment(f"shot-{number}", beam, detector, crystal)
    obs = np.column_stack([rng.uniform(5, 95, rows), rng.uniform(5, 195, rows), np.zeros(rows)])
    cal = obs - [scale, 0.0, 0.0]
    if rows:
        cal[-1] = np.nan
    table = Reflections(
        {
            "id": np.zeros(rows, dtype=np.int32),
            "panel": rng.integers(0, 2, rows).astype(np.uint64),
            "miller_index": rng.integers(1, 20, (rows, 3)).astype(np.int32),
            "xyzobs.px.value": obs,
            "xyzcal.px": cal,
        },
        {0: f"shot-{number}"},
    )
    folder.mkdir(parents=True, exist_ok=True)
    name = f"shot_{number:03d}"
    write_experiments([experiment], folder / (f"{name}_refined.expt" if suffix else f"{name}.expt"))
    write_reflections(table, folder / (f"{name}_indexed.refl" if suffix else f"{name}.refl"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    for number in range(3):
        write_shot(folder, number, scale=1.0 + number)
    return folder


def test_residuals_prints_micrometres_and_writes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["residuals", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "micrometre" in shown
    n, rmsd, _, _, median = re.search(r"^run +3 +(\d+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)$", shown, re.M).groups()
    assert int(n) == 3 * (N_SPOTS - 1)
    assert float(rmsd) == pytest.approx(100 * np.sqrt((1 + 4 + 9) / 3), abs=0.1)
    assert float(median) == pytest.approx(200.0, abs=0.1)
    assert (run / "residuals.png").read_bytes().startswith(b"\x89PNG")
    experiments, table = read_experiments(run / "comb.expt"), read_reflections(run / "comb.refl")
    assert [e.identifier for e in experiments] == ["shot-0", "shot-1", "shot-2"]
    assert experiments[0].detector is experiments[2].detector
    assert list(np.bincount(np.asarray(table["id"], int))) == [N_SPOTS - 1] * 3
    assert table.identifiers == {0: "shot-0", 1: "shot-1", 2: "shot-2"}
    assert np.all(np.isfinite(table["xyzcal.px"]))
    assert main(["residuals", str(run), "--no-picture", "--no-combined"]) == 0  # its own output is not a shot
    assert capsys.readouterr().out.splitlines()[-1] == shown.splitlines()[2]


def test_several_runs_go_to_folders_of_their_own(run: Path, tmp_path: Path) -> None:
    write_shot(tmp_path / "other", 7)
    assert main(["residuals", str(run), str(tmp_path / "other"), "-o", str(tmp_path / "out"), "-q"]) == 0
    for name in ("run", "other"):
        assert {p.name for p in (tmp_path / "out" / name).iterdir()} == {"residuals.png", "comb.expt", "comb.refl"}


def test_pred_offsets_prints_bins(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    png = tmp_path / "offsets.png"
    assert main(["pred-offsets", str(run), "--nbins", "4", "-o", str(png)]) == 0
    lines = capsys.readouterr().out.splitlines()
    bins = [[float(x) for x in line.split()] for line in lines if re.match(r"^ +\d", line)]
    assert len(bins) == 4
    assert sum(row[3] for row in bins) == 3 * (N_SPOTS - 1)
    spacing = [row[0] for row in bins]
    assert spacing == sorted(spacing, reverse=True)
    assert png.read_bytes().startswith(b"\x89PNG")


def test_predicted_column_can_be_chosen(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["residuals", str(run), "--predicted", "xyzobs.px.value", "--no-picture", "--no-combined"]) == 0
    assert re.search(rf"^run +3 +{3 * N_SPOTS} +0\.0 +0\.0 +0\.0 +0\.0$", capsys.readouterr().out, re.M)


def test_plain_names_are_found_too(tmp_path: Path) -> None:
    write_shot(tmp_path / "plain", 1, suffix=False)
    ((expt, refl),) = find_pairs(tmp_path / "plain")
    assert (expt.name, refl.name) == ("shot_001.expt", "shot_001.refl")


def test_one_damaged_file_does_not_stop_the_rest(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "shot_001_indexed.refl").write_bytes((run / "shot_001_indexed.refl").read_bytes()[:100])
    assert main(["residuals", str(run), "--no-picture", "--no-combined"]) == 0
    captured = capsys.readouterr()
    assert "shot_001_indexed.refl" in captured.err
    assert "left out" in captured.err
    assert re.search(r"^run +2 +78 ", captured.out, re.M)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["residuals", "{tmp}/nowhere"], "no such folder"),
        (["residuals", "{tmp}"], "no pair of"),
        (["residuals", "{run}", "--predicted", "nonsense"], "nonsense"),
        (["pred-offsets", "{run}", "--nbins", "1000"], "1000 bins"),
        (["pred-offsets", "{run}", "-o", "{tmp}/x.nonsense"], "png"),
        (["pred-offsets", "{run}", "--nbins", "0"], "above zero"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], complaint: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([a.format(tmp=tmp_path, run=run) for a in arguments]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert complaint in last
    assert "Traceback" not in last


def test_shots_without_reflections_and_with_other_columns(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    write_shot(folder, 0)
    write_shot(folder, 1, rows=0)
    write_shot(folder, 2)
    table = read_reflections(folder / "shot_002_indexed.refl")
    write_reflections(table.with_columns(extra=np.ones(len(table))), folder / "shot_002_indexed.refl")
    results = load_run(folder)
    experiments, combined = one_table(results)
    assert len(experiments) == 3
    assert "extra" not in combined
    assert np.array_equal(np.unique(combined["id"]), [0, 2])
    assert summary(results.all_offsets).n_reflections == len(combined) == 2 * (N_SPOTS - 1)


def test_nothing_usable_says_why(run: Path) -> None:
    for path in run.glob("*.refl"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="none of its 3 pairs"):
        load_run(run)


def test_names_are_as_short_as_they_can_be() -> None:
    assert run_names([Path("/a/b"), Path("/a/c")]) == ["b", "c"]
    assert run_names([Path("/a/x"), Path("/b/x")]) == ["a/x", "b/x"]


def test_tutorial_table(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classic = shared / "tutorial" / "classic"
    arguments = ["residuals", str(classic / "procPoly"), str(classic / "procBad"), "--max-shots", "8"]
    assert main([*arguments, "-o", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "procPoly 8 1776 73.9 58.0 45.8 24.9" in shown
    assert "procBad 8 1773 135.3 102.4 88.5 92.7" in shown
    assert len(read_experiments(tmp_path / "procPoly" / "comb.expt")) == 8
    assert len(read_reflections(tmp_path / "procPoly" / "comb.refl")) == 1776

"""Rows and records of shots on disk: one for each name, none for a shot that failed, found from anywhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bayesbragg.io.experiments import write_experiments
from bayesbragg.io.reflections import read_reflections, write_reflections
from bayesbragg.io.table_rows import row_path, write_row
from bayesbragg.io.tables import rebuild_table
from bayesbragg.model import Beam, Experiment, Reflections
from bayesbragg.pipeline.run import Job, run_shots
from bayesbragg.pipeline.settings import RefineSettings
from bayesbragg.pipeline.shot_files import ShotFiles
from bayesbragg.pipeline.stills_outputs import write_composite
from bayesbragg.pipeline.stills_run import StillsJob, StillTask, without_finished
from bayesbragg.pipeline.stills_settings import StillsSettings
from bayesbragg.pipeline.write import forget, is_written, write_rows
from bayesbragg.stills.virtual import four_panels


def test_shots_whose_names_differ_in_other_scripts_or_blanks_have_rows_of_their_own(tmp_path: Path) -> None:
    tags = ["样品一", "样品二", "Probe ä", "Probe ö", "Probe_ö", "plain"]
    for tag in tags:
        write_rows([{"tag": tag}], tmp_path, tag)
    assert sorted(rebuild_table(tmp_path)["tag"]) == sorted(tags)
    forget(tmp_path, "样品一")
    assert not is_written(tmp_path, "样品一")
    assert is_written(tmp_path, "样品二")


@pytest.mark.parametrize("left", [(1,), (1, 2), (0, 1, 2), (2, 1, 0)])
def test_nothing_is_left_of_a_shot_that_was_killed_between_its_rows(tmp_path: Path, left: tuple[int, ...]) -> None:
    """Rows are written from the second lattice on, the first one's last."""
    for number in left:
        write_row({"tag": "shot"}, tmp_path, f"shot_lattice{number}")
    assert is_written(tmp_path, "shot") is (0 in left)
    forget(tmp_path, "shot")
    assert list(row_path(tmp_path, "shot").parent.iterdir()) == []


@pytest.mark.parametrize("keep", [False, True])
def test_files_that_cannot_be_read_any_more_leave_no_old_row(tmp_path: Path, keep: bool) -> None:
    write_rows([{"tag": "shot"}], tmp_path, "shot")
    job = Job(RefineSettings(), tmp_path, keep_existing=keep)
    (outcome,) = run_shots(job, [ShotFiles(tmp_path / "shot.expt", tmp_path / "shot.refl")])
    assert outcome.failed
    assert is_written(tmp_path, "shot") is keep


@pytest.mark.parametrize("composite", [False, True])
def test_a_run_that_goes_on_from_another_directory_finds_its_files(tmp_path: Path, composite: bool) -> None:
    (tmp_path / "records").mkdir()
    inside = "stills/" if composite else ""
    record = {"tag": "a", "files": {"integrated": f"out/{inside}idx-a_integrated.refl"}, "status": "integrated"}
    (tmp_path / "records" / "a.json").write_text(json.dumps(record))
    job = StillsJob(StillsSettings(RefineSettings(), composite=composite), tmp_path)
    left, (found,) = without_finished([StillTask("a", Path("a.h5")), StillTask("b", Path("b.h5"))], job)
    assert [task.tag for task in left] == ["b"]
    assert found["files"] == {"integrated": str(tmp_path / inside / "idx-a_integrated.refl")}


def test_composite_files_without_a_still_whose_files_are_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging

    monkeypatch.setattr(logging.getLogger("bayesbragg"), "propagate", True)
    beam = Beam(np.array([0.0, 0.0, -1.0]), 1.3, np.array([0.0, 1.0, 0.0]))
    records = []
    for tag in ("a", "gone"):
        files = {kind: str(tmp_path / f"{tag}{end}") for kind, end in (("refined", ".expt"), ("indexed", ".refl"))}
        records.append({"tag": tag, "files": files | {"strong": files["indexed"]}})
    write_experiments([Experiment("", beam, four_panels())], tmp_path / "a.expt")
    write_reflections(Reflections({"id": np.zeros(3, np.int64)}), tmp_path / "a.refl")
    written = write_composite(records, tmp_path)
    assert len(written) == 3
    assert len(read_reflections(tmp_path / "idx-0000_indexed.refl")) == 3
    assert sum("gone" in record.getMessage() for record in caplog.records) == 2


def test_a_resumed_run_may_do_more_stills_and_has_the_same_settings(tmp_path: Path) -> None:
    from bayesbragg.cli.stills_process import _start
    from bayesbragg.io.phil import load_phil

    job = StillsJob(StillsSettings(RefineSettings()), tmp_path)

    def start(*words: str, resume: bool = True) -> str:
        return _start(load_phil([], words, program="stills_process"), job, [], resume)

    assert start("max_process=2", "indexing.stills.rmsd_min_px=3", resume=False) == ""
    assert start("indexing.stills.rmsd_min_px=3") == ""
    assert start("skip=1", "indexing.stills.rmsd_min_px=3", "nproc=2") == ""
    assert "--resume with indexing.stills.rmsd_min_px=4" in start("indexing.stills.rmsd_min_px=4")

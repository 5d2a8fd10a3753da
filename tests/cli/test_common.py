"""Logs, provenance and arguments that all commands share."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import logging
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesbragg.cli.common import positive_integer, progress, provenance, set_up_logging, write_json
from bayesbragg.cli.main import main
from bayesbragg.cli.words import sort_words
from bayesbragg.model.errors import InputError


def test_provenance_determines_the_result(tmp_path: Path) -> None:
    data = tmp_path / "input.txt"
    data.write_bytes(b"photons")
    made = provenance(
        configuration={"N": np.array([1.0, 2.0]), "folder": tmp_path, "n": np.int64(3)},
        inputs=[data, tmp_path / "missing"],
        seed=7,
    )
    path = write_json(tmp_path / "out" / "run.json", made)
    record = json.loads(path.read_text())
    assert record["inputs_sha256"] == {str(data): hashlib.sha256(b"photons").hexdigest()}
    assert record["configuration"] == {"N": [1.0, 2.0], "folder": str(tmp_path), "n": 3}
    assert record["seed"] == 7
    assert {"python", "numpy", "jax"} <= set(record["versions"])
    assert [p.name for p in path.parent.iterdir()] == ["run.json"]


def test_provenance_tells_no_machine_name() -> None:
    import platform

    assert platform.node() == "" or platform.node() not in json.dumps(provenance(command=["bayesbragg"]))


def test_a_log_holds_what_the_terminal_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = set_up_logging(tmp_path, quiet=True)
    try:
        logging.getLogger("bayesbragg.anything").warning("a detail")
    finally:
        set_up_logging()
    assert log is not None
    assert "a detail" in log.read_text()
    assert "a detail" not in capsys.readouterr().err


def test_no_progress_bar_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(3, "working") as bar:
        bar.advance("one")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("text", ["0", "-3", "two", "1.5"])
def test_counts_must_be_positive(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="above zero"):
        positive_integer(text)


def test_a_count() -> None:
    assert positive_integer("12") == 12


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_results_go_where_the_user_sends_them_while_a_bar_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """`bayesbragg simulate ... > list.txt` in a terminal: the bar is drawn on it, what is printed goes to the file."""
    shown, results = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr(sys, "stdout", results)
    with progress(2, "working") as bar:
        print("a result")
        bar.advance("shot[bold]_1")
    assert results.getvalue() == "a result\n"
    assert "a result" not in shown.getvalue()
    assert "shot[bold]_1" in shown.getvalue()


@pytest.mark.parametrize("command", ["simulate", "geometry-refine", "refine", "stills-process"])
def test_a_folder_that_cannot_be_written_to(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bayesbragg.pipeline.api import demo_folder, demo_shots

    file, (expt, refl) = tmp_path / "a file", demo_shots()[0]
    file.touch()
    words = [f"simulator.structure_factors.mtz_name={demo_folder() / 'structure_factors.mtz'}", f"outdir={file}"]
    if command == "geometry-refine":
        from bayesbragg.io.tables import write_table

        row = {"exp_name": str(expt), "stage1_refls": str(refl), "ncells": [9.0, 9.0, 9.0], "spot_scales": 1.0}
        write_table(pd.DataFrame([row]), tmp_path / "table.pkl")
        words += [f"input_pkl={tmp_path / 'table.pkl'}", "geometry.optimize=True"]
    elif command != "simulate":
        words += [str(expt), str(refl)]
    assert main([command, "-q", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"bayesbragg: error: {file}: cannot be written to (File exists)")
    assert said.count("\n") == 1


def test_a_long_value_is_no_name_of_a_file() -> None:
    word = "roi.panels=" + ",".join(map(str, range(300)))
    assert sort_words([word]) == ([], [], [word])
    with pytest.raises(InputError, match="no such file"):
        sort_words(["x" * 300])


def test_words_with_blanks_brackets_and_other_scripts(tmp_path: Path) -> None:
    names = ["a shot[1].expt", "прогон=2.refl", "настройки.eff"]
    for name in names:
        (tmp_path / name).touch()
    phil, files, parameters = sort_words([*(str(tmp_path / name) for name in names), "a=b"])
    assert [path.name for path in phil] == ["настройки.eff"]
    assert [path.name for path in files] == names[:2]
    assert parameters == ["a=b"]


def test_help_of_a_command_by_either_word_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "show"]) == 0
    one = capsys.readouterr().out
    assert main(["show", "--help"]) == 0
    assert capsys.readouterr().out == one
    assert "bayesbragg show shot_refined.expt" in one

"""`bayesbragg posterior` with input that cannot be used: one line, exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from bayesbragg.cli.main import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{folder}"], "run.json: no such file"),
        (["{folder}/none"], "no such file or folder"),
        (["{folder}", "inference=mcmc"], "choose laplace or nuts"),
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

"""Logs, provenance and arguments that all commands share."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from bayesbragg.cli.common import positive_integer, progress, provenance, set_up_logging, write_provenance


def test_provenance_determines_the_result(tmp_path: Path) -> None:
    data = tmp_path / "input.txt"
    data.write_bytes(b"photons")
    path = write_provenance(
        tmp_path / "out",
        configuration={"N": np.array([1.0, 2.0]), "folder": tmp_path, "n": np.int64(3)},
        inputs=[data, tmp_path / "missing"],
        seed=7,
    )
    record = json.loads(path.read_text())
    assert path.name == "provenance.json"
    assert record["inputs_sha256"] == {str(data): hashlib.sha256(b"photons").hexdigest()}
    assert record["configuration"] == {"N": [1.0, 2.0], "folder": str(tmp_path), "n": 3}
    assert record["seed"] == 7
    assert {"python", "numpy", "jax"} <= set(record["versions"])
    assert [p.name for p in path.parent.iterdir()] == ["provenance.json"]


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

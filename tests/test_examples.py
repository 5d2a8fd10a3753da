"""The examples run as they stand, and the README shows one of them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(
    path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr().out
    assert "converged" in said or "verdict passed" in said


def test_readme_shows_the_shortest_example() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split("```python\n", 1)[1].split("```", 1)[0]
    compile(shown, "README.md", "exec")
    example = (ROOT / "examples" / "refine_one_shot.py").read_text(encoding="utf-8")
    for line in shown.splitlines():
        if "bb." in line and "print" not in line:
            assert line.split("#")[0].strip() in example

"""The command's front door: help at once, bad input in one line, the table of commands is true."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from bayesbragg.cli import main as front
from bayesbragg.model.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, command in front.COMMANDS.items():
        assert name in shown
        assert command.summary in shown


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
from bayesbragg.cli.main import main
main(["--help"])
heavy = {"jax", "numpy", "scipy", "pandas", "matplotlib", "numpyro", "h5py"}
sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"imported by --help: {done.stderr}"


@pytest.mark.parametrize("name", ["residuals", "pred-offsets"])
def test_help_of_a_command_teaches_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "example:" in shown
    assert f"  bayesbragg {name} " in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("bayesbragg ")


@pytest.mark.parametrize(("typed", "meant"), [("refin", "refine"), ("pred_offsets", "pred-offsets")])
def test_an_unknown_command_names_the_nearest(typed: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main([typed]) == 2
    complaint = capsys.readouterr().err
    assert f"did you mean '{meant}'?" in complaint
    assert complaint.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["residuals", "--nonsense", "x"], "--nonsense: no such option; bayesbragg residuals --help lists them"),
        (["report", "x", "--wacth", "3"], "--wacth: no such option; did you mean --watch?"),
        (["refine", "x", "--outdir=y"], "--outdir=y: no such option; parameters are written without dashes: outdir=y"),
        (["report", "x", "y"], "'y': one word too many; bayesbragg report --help explains the command"),
        (["report"], "the following arguments are required: DIR; bayesbragg report --help explains the command"),
        (["report", "x", "--watch", "0"], "'0' is not a whole number above zero; bayesbragg report --help"),
    ],
)
def test_words_that_do_not_fit_are_told_in_a_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert front.main(words) == 2
    complaint = capsys.readouterr().err
    assert said in complaint
    assert complaint.startswith("bayesbragg: error: ")
    assert complaint.count("\n") == 1


@pytest.mark.parametrize(("error", "code"), [(InputError("a.expt: bad\n value"), 2), (KeyboardInterrupt(), 130)])
def test_errors_become_exit_codes(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: object) -> int:
        raise error

    fake = SimpleNamespace(__doc__="fake", add_arguments=lambda parser: None, run=run)
    monkeypatch.setitem(sys.modules, "bayesbragg.cli.fake", fake)
    monkeypatch.setitem(front.COMMANDS, "fake", front.Command("bayesbragg.cli.fake", "fails"))
    assert front.main(["fake"]) == code
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    if code == 2:
        assert complaint == "bayesbragg: error: a.expt: bad value\n"


def test_an_unexpected_failure_leaves_its_traceback_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bayesbragg.cli.common import set_up_logging

    def run(_: object) -> int:
        set_up_logging(tmp_path)
        raise RuntimeError("out of cheese")

    fake = SimpleNamespace(__doc__="fake", add_arguments=lambda parser: None, run=run)
    monkeypatch.setitem(sys.modules, "bayesbragg.cli.fake", fake)
    monkeypatch.setitem(front.COMMANDS, "fake", front.Command("bayesbragg.cli.fake", "fails"))
    try:
        assert front.main(["fake"]) == 1
    finally:
        set_up_logging()
    complaint = capsys.readouterr().err
    assert "out of cheese" in complaint
    assert "Traceback" not in complaint
    assert "Traceback" in (tmp_path / "bayesbragg.log").read_text()


@pytest.mark.parametrize("name", list(front.COMMANDS))
def test_every_command_can_be_asked_for_help(name: str) -> None:
    module = front.COMMANDS[name].module
    if not (REPOSITORY / "cli" / f"{module.rsplit('.', 1)[1]}.py").exists():
        pytest.skip(f"{module} is not there")
    loaded = import_module(module)
    assert callable(loaded.add_arguments)
    assert callable(loaded.run)
    assert loaded.__doc__


def test_completion_script_completes_commands_and_options() -> None:
    """The script is run in a real bash: first word, then an option of a command."""
    import shutil

    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    script = subprocess.run(
        [sys.executable, "-m", "bayesbragg.cli.main", "completion", "bash"], capture_output=True, text=True, timeout=60
    )
    assert script.returncode == 0, script.stderr
    ask = """
COMP_WORDS=({words}); COMP_CWORD={at}; COMPREPLY=(); COMP_LINE="{words}"
_shtab_bayesbragg bayesbragg "{last}" "{before}"; echo "${{COMPREPLY[@]}}"
"""
    code = script.stdout
    code += ask.format(words="bayesbragg geom", at=1, last="geom", before="bayesbragg")
    code += ask.format(words="bayesbragg refine --show", at=2, last="--show", before="refine")
    done = subprocess.run([bash, "--norc"], input=code, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["geometry-refine", "--show-phil"], done.stderr

"""The documentation says what is so: its commands and parameters exist, its code runs, its pages are found."""

from __future__ import annotations

import ast
import json
import re
import shlex
import sys
import textwrap
import tomllib
from argparse import ArgumentParser
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from bayesbragg.cli.main import COMMANDS, main
from bayesbragg.io.experiments import read_experiments
from bayesbragg.io.phil import load_phil
from bayesbragg.io.phil.sources import read_override
from bayesbragg.io.tables import read_table

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
SHELL = ("sh", "bash", "console", "text", "")
PROGRAMS = {"refine": "refine", "simulate": "refine", "stills-process": "stills_process", "geometry-refine": "geometry"}
PYTHON_ONLY = (
    "howto/restrain_cell",
    "howto/spectrum",
    "howto/without_mtz",
    "howto/cluster",
    "howto/geometry",
    "questions",
)
WHOLE = ("getting_started", "tutorial")
SLOW_PYTHON = ("howto/arviz", "howto/own_model")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and its line."""

    language: str
    text: str
    line: int


def blocks(path: Path) -> list[Block]:
    """Fenced blocks of a page, those in tabs too."""
    found = []
    lines = path.read_text(encoding="utf-8").splitlines()
    start, indent, language = -1, "", ""
    for number, line in enumerate(lines):
        fence = re.match(r"^(\s*)```\s*([a-z]*)", line)
        if fence and start < 0:
            start, indent, language = number + 1, fence[1], fence[2]
        elif start >= 0 and line.startswith(f"{indent}```"):
            text = textwrap.dedent("\n".join(lines[start:number]))
            found.append(Block(language, text, start))
            start = -1
    return found


def commands(path: Path) -> list[str]:
    """Lines of a page that run the program, with their continuations, from its name on."""
    found = []
    for block in blocks(path):
        if block.language in SHELL:
            for line in block.text.replace("\\\n", " ").splitlines():
                started = re.match(r"^\s*(?:\$ )?(?:(?:srun|mpirun)(?: -\w+ \S+)* )?bayesbragg (?=[a-z])(.*)$", line)
                if started:
                    found.append(started[1])
    return found


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def words_of(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        pytest.fail(f"not a command line: bayesbragg {line}")


@pytest.mark.parametrize("path", [p for p in PAGES if commands(p)], ids=ids)
def test_commands_options_and_parameters_exist(path: Path) -> None:
    for line in commands(path):
        name, *words = words_of(line)
        assert name in COMMANDS, f"{line}: no such command"
        module = import_module(COMMANDS[name].module)
        parser = ArgumentParser(add_help=True)
        module.add_arguments(parser)
        options = set(parser._option_string_actions)
        for word in words:
            if word.startswith("-"):
                assert word.split("=")[0] in options, f"{line}: no option {word}"
            elif "=" in word and name in PROGRAMS and not word.startswith("$"):
                key, value = word.split("=", 1)
                read_override(f"{key}={1 if '$' in value else value}", PROGRAMS[name])  # 1 for what a shell works out
            elif "=" in word and name == "posterior":
                assert word.split("=")[0] in vars(module.Settings()), f"{line}: no setting {word}"


@pytest.mark.parametrize("path", [p for p in PAGES if any(b.language == "phil" for b in blocks(p))], ids=ids)
def test_parameter_files_are_understood(path: Path, tmp_path: Path) -> None:
    for number, block in enumerate(b for b in blocks(path) if b.language == "phil"):
        file = tmp_path / f"{number}.phil"
        file.write_text(block.text)
        load_phil([file], program="refine", warn=False)


@pytest.mark.parametrize("path", [p for p in PAGES if any(b.language == "python" for b in blocks(p))], ids=ids)
def test_python_is_python_and_imports_exist(path: Path) -> None:
    for block in (b for b in blocks(path) if b.language == "python"):
        for node in ast.walk(ast.parse(block.text, f"{path.name}:{block.line}")):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bayesbragg"):
                module = import_module(str(node.module))
                for name in node.names:
                    assert hasattr(module, name.name), f"{path.name}:{block.line}: {node.module} has no {name.name}"


def typed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """A command as it is typed: the records of runs keep its words, which later commands read."""
    monkeypatch.setattr(sys, "argv", ["bayesbragg", *words])
    return main()


def run_page(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, shell: bool
) -> None:
    """Run the blocks of a page in order; a text block behind commands must be what they print."""
    monkeypatch.chdir(folder)
    namespace: dict[str, object] = {"__name__": "docs"}
    path = DOCS / f"{name}.md"
    said = ""
    for block in blocks(path):
        if block.language == "python":
            exec(compile(block.text, f"{path.name}:{block.line}", "exec"), namespace)
        elif block.language == "sh" and shell:
            capsys.readouterr()
            for line in block.text.replace("\\\n", " ").splitlines():
                program, *words = words_of(line)
                assert program == "bayesbragg", f"{line}: only the program itself runs here"
                assert typed(words, monkeypatch) == 0, line
            said = capsys.readouterr().out
        elif block.language == "text" and said:
            hold_against(block.text, said, f"{path.name}:{block.line}")


NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def hold_against(stated: str, said: str, where: str) -> None:
    """Every line that a page states is printed, in this order, with the figures that it promises.

    Whole numbers are the same, others differ by two in the last place at most; in rows of a posterior (best fit, mean,
    sd, interval) by a fifth of the standard deviation, since means and quantiles come from draws.
    """
    printed = iter(said.splitlines())
    for line in filter(str.strip, stated.splitlines()):
        words = [word for word in line.split() if not NUMBER.fullmatch(word)]
        figures = [word for word in line.split() if NUMBER.fullmatch(word)]
        for other in printed:
            if [word for word in other.split() if not NUMBER.fullmatch(word)] == words:
                break
        else:
            pytest.fail(f"{where}: not printed: {line}")
        found = [float(word) for word in other.split() if NUMBER.fullmatch(word)]
        assert len(found) == len(figures), f"{where}: {line}: printed {other}"
        for place, (text, value) in enumerate(zip(figures, found, strict=True)):
            allowed = 2.01 * 10.0 ** -len(text.partition(".")[2]) if "." in text else 0.0
            if len(figures) == 5 and words[1:2] == ["to"] and place != 2:
                allowed = 0.2 * float(figures[2])
            assert abs(float(text) - value) <= allowed, f"{where}: {line}: printed {other}"


def test_figures_are_held_against_what_is_printed() -> None:
    stated = "shot   a (A)   n\n\nshot_0   79.10   12\n  Na   7.01  7.02  0.05   6.9 to 7.1 cells"
    hold_against(stated, "first\nshot   a (A)   n\nshot_0   79.12   12\nNa 7.005 7.02 0.06 6.905 to 7.1 cells", "page")
    for wrong in ("79.13   12", "79.10   13", "79.10"):
        with pytest.raises(AssertionError):
            hold_against("shot_0   79.10   12", f"shot_0   {wrong}", "page")
    for wrong in ("7.03 7.02 0.05 6.9 to 7.1", "7.01 7.02 0.09 6.9 to 7.1", "7.01 7.02 0.05 6.9 to 7.2"):
        with pytest.raises(AssertionError):
            hold_against("Na   7.01  7.02  0.05   6.9 to 7.1 cells", f"Na {wrong} cells", "page")
    with pytest.raises(pytest.fail.Exception):
        hold_against("b 1\na 1", "a 1\nb 1", "page")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*PYTHON_ONLY, *SLOW_PYTHON])
def test_python_of_a_page_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_page(name, tmp_path, monkeypatch, capsys, shell=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_page_runs_and_prints_what_it_states(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_page(name, tmp_path, monkeypatch, capsys, shell=True)


def stated_in_readme(row: str) -> list[float]:
    """Numbers in the last cell of a row of README's comparison."""
    line = next(x for x in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if x.startswith(f"| {row}"))
    return [float(x) for x in re.findall(r"\d+\.?\d*", line.strip("| ").split("|")[-1])]


@pytest.mark.slow
def test_readme_commands_on_the_classic_tutorial(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a user of the classic tutorial would: its own parameter file, images and indexed shots, README's words."""
    tutorial, folder = shared / "tutorial", tmp_path / "work"
    (folder / "images").mkdir(parents=True)
    # The experiment lists name ../images.
    (tmp_path / "images").symlink_to(tutorial / "images")
    (folder / "images" / "shot_000.h5").symlink_to(tutorial / "images" / "shot_000.h5")
    (folder / "process.phil").write_text((tutorial / "phil" / "process_verbatim.phil").read_text())
    (folder / "iobs_all.mtz").symlink_to(tutorial / "structure_factors" / "iobs_all.mtz")
    lines = []
    for shot in (0, 3, 5, 9):  # the small ones; a summary needs four
        names = [f"shot_{shot:03d}_refined.expt", f"shot_{shot:03d}_indexed.refl"]
        for name in names:
            (folder / name).write_bytes((tutorial / "indexed" / name).read_bytes())
        lines.append(" ".join(names))
    (folder / "shots.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from wilson import misorientation

    run = [line for line in commands(ROOT / "README.md") if "--help" not in line]
    assert {words_of(line)[0] for line in run} >= {"stills-process", "refine", "residuals", "report", "summary"}
    for line in run:
        assert typed(words_of(line), monkeypatch) == 0, f"{line}: {capsys.readouterr().err}"
    blocks_low, blocks_high, sigma_low, sigma_high = stated_in_readme("with its own background planes")
    *_, angle_high = stated_in_readme("orientation error")
    for name, n in (("refined", 4), ("one_shot", 1), ("processed", 1)):
        table = read_table(folder / name)
        assert list(table["status"]) == ["converged"] * n
        for _, row in table.iterrows():
            tag = str(row["tag"])[:8]
            (found,) = read_experiments(next((folder / name).glob(f"*{tag}_refined.expt")))
            assert found.crystal is not None
            truth = json.loads((tutorial / "truth" / f"{tag}.json").read_text())
            angle = np.degrees(np.linalg.norm(misorientation(found.crystal, np.array(truth["U"]))))
            assert angle < angle_high + 0.0005, (name, tag)
            # To half a unit in the last place that README states.
            assert np.all(np.array(row["ncells"]) > blocks_low - 0.05), (name, tag)
            assert np.all(np.array(row["ncells"]) < blocks_high + 0.005), (name, tag)
            assert sigma_low - 0.005 < row["sigmaZ"] < sigma_high + 0.005, (name, tag)


def test_every_page_of_the_contents_exists() -> None:
    contents = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    named = re.findall(r": ([\w/]+\.md)$", contents, flags=re.MULTILINE)
    assert len(named) > 20
    assert not [name for name in named if not (DOCS / name).is_file()]


def distribution(requirement: str) -> str:
    """The name in a requirement such as ``jax[cuda12]>=0.4.36``."""
    found = re.match(r"[A-Za-z0-9][\w.-]*", requirement)
    assert found, requirement
    return found[0].lower()


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {("", distribution(text)) for text in project["dependencies"]}
    for extra, texts in project["optional-dependencies"].items():
        required |= {(extra, distribution(text)) for text in texts}
    stated = set()
    for line in (DOCS / "dependencies.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            extra = cells[0].strip("`") if len(cells) == 3 else ""
            assert len(cells[-1].split()) >= 1, f"{line}: no reason"
            # Only the first name of a cell may have an extra of its own behind it.
            names = re.split(r", ", cells[-2].split(" with ")[0])
            stated |= {(extra, name.strip("`").lower()) for name in names}
    assert not required - stated, "in pyproject.toml, without a reason in docs/dependencies.md"
    assert not stated - required, "in docs/dependencies.md, but not in pyproject.toml"


def test_every_dependency_is_imported() -> None:
    """None that could be dropped. setuptools is there for freephil, which does not name the version it can do with,
    jaxlib is what jax runs on, flatbuffers what jax.export writes with, h5netcdf what xarray writes with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    imported = set()
    for path in [*(ROOT / "bayesbragg").rglob("*.py"), *(ROOT / "cli").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [n.name for n in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            imported |= {name.split(".")[0] for name in names}
    required = {distribution(text) for text in project["dependencies"]}
    assert required - imported == {"setuptools", "jaxlib", "flatbuffers", "h5netcdf"}
    # And nothing is imported that comes only as a dependency of a dependency: the next version may not bring it.
    assert imported - required - set(sys.stdlib_module_names) == {"bayesbragg", "mpi4py"}

"""The wheel holds the commands as `bayesbragg.cli`, and works where only the wheel is installed."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[1]


def run(*command: object, cwd: Path | None = None) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command[1:4]}: {done.stdout[-1500:]} {done.stderr[-1500:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by way of the source distribution, as a package index would."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, REPOSITORY)
    (found,) = folder.glob("*.whl")
    return found


def test_wheel_has_every_module_and_no_package_called_cli(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "bayesbragg").rglob("*.py")}
    commands = {f"bayesbragg/cli/{path.name}" for path in (REPOSITORY / "cli").glob("*.py")}
    assert sources | commands <= names
    assert "bayesbragg/py.typed" in names
    assert not [name for name in names if name.startswith(("cli/", "tests/"))]


def test_installed_wheel_runs_its_command(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "env"
    venv.EnvBuilder(system_site_packages=True, with_pip=True).create(environment)
    python = environment / "bin" / "python"
    # Dependencies come from the environment of the tests; the package itself must come from the wheel.
    dependencies = next(Path(p) for p in sys.path if p.endswith("site-packages") and (Path(p) / "numpy").is_dir())
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    (site / "dependencies.pth").write_text(f"import sys; sys.path.append({str(dependencies)!r})\n")
    where = run(python, "-c", "import bayesbragg.cli.main as m, numpy; print(m.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(environment)
    shown = run(environment / "bin" / "bayesbragg", "--help", cwd=tmp_path)
    assert "residuals" in shown
    assert "usage: bayesbragg residuals" in run(environment / "bin" / "bayesbragg", "residuals", "--help", cwd=tmp_path)


@pytest.mark.parametrize("tool", [("mypy", "bayesbragg/cli"), ("lint-imports",)])
def test_tools_see_the_commands_in_the_checkout(tool: tuple[str, ...]) -> None:
    program = Path(sys.executable).with_name(tool[0])
    if not program.exists():
        pytest.skip(f"{tool[0]} is not installed")
    run(program, *tool[1:], cwd=REPOSITORY)


def test_import_rules_cover_the_commands() -> None:
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph("bayesbragg", cache_dir=None)
    assert "bayesbragg.cli.main" in graph.modules
    assert "bayesbragg.io.reflections" in graph.find_modules_directly_imported_by("bayesbragg.cli.runs")

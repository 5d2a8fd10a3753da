"""One folder of simulated shots and one run over it, for all tests of `bayesbragg refine`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_run import make_shot, write_factors, write_run

from bayesbragg.cli.main import main


def refine(*words: object) -> int:
    return main(["refine", *map(str, words)])


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``shot_1`` to ``shot_3``, ``factors.mtz`` and ``run.phil``. Not to be changed."""
    folder = tmp_path_factory.mktemp("shots")
    write_factors(folder / "factors.mtz")
    write_run(folder, {f"shot_{n}": make_shot(n, folder / "factors.mtz") for n in (1, 2, 3)})
    return folder


@pytest.fixture(scope="session")
def first_run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run over the three shots, with modeler files. Not to be changed."""
    out = tmp_path_factory.mktemp("first") / "out"
    shots = [data / f"shot_{n}{ending}" for n in (1, 2, 3) for ending in (".expt", ".refl")]
    assert refine(data / "run.phil", *shots, f"outdir={out}", "debug_mode=True") == 0
    return out


@pytest.fixture
def copied(data: Path, tmp_path: Path) -> Path:
    """``good`` and ``bad``: two shots to damage one of, and what a run needs beside them."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("factors.mtz", "run.phil"):
        shutil.copy(data / name, folder)
    for name, shot in (("bad", "shot_1"), ("good", "shot_2")):
        for ending in (".expt", ".refl", ".h5"):
            shutil.copy(data / f"{shot}{ending}", folder / f"{name}{ending}")
        expt = folder / f"{name}.expt"
        expt.write_text(expt.read_text().replace(str(data / f"{shot}.h5"), str(folder / f"{name}.h5")))
    return folder

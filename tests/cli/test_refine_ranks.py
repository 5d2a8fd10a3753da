"""Ranks of MPI, and batches, find what one process finds shot by shot."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bayesbragg.cli.main import main
from bayesbragg.io.tables import read_table

pytestmark = pytest.mark.slow

NUMBERS = ("target", "rotX", "rotY", "rotZ", "a", "c", "spot_scales", "ncells", "sigmaZ", "Amats")


def agree(left: Path, right: Path) -> None:
    a, b = (read_table(folder).sort_values("tag").reset_index(drop=True) for folder in (left, right))
    assert a["tag"].tolist() == b["tag"].tolist()
    assert a["status"].tolist() == b["status"].tolist()
    for name in NUMBERS:
        np.testing.assert_allclose(np.array(a[name].tolist()), np.array(b[name].tolist()), rtol=1e-8, atol=1e-9)


def words(data: Path, out: Path) -> list[str]:
    shots = [data / f"shot_{n}{ending}" for n in (1, 2, 3) for ending in (".expt", ".refl")]
    return ["refine", *map(str, [data / "run.phil", *shots, f"outdir={out}"])]


def test_two_ranks(data: Path, first_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("mpi4py")
    mpirun = shutil.which("mpirun")
    if mpirun is None:
        pytest.skip("no mpirun")
    command = [mpirun, "--allow-run-as-root", "--oversubscribe", "-n", "2", sys.executable, "-m", "bayesbragg.cli.main"]
    out = tmp_path / "ranks"
    done = subprocess.run([*command, *words(data, out), "mp.method=mpi"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 of 3 shots refined") == 1
    assert len(json.loads((out / "run.json").read_text())["shots"]) == 3
    agree(out, first_run)


def test_a_batch(data: Path, first_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "batch"
    assert main([*words(data, out), "batch=2"]) == 0
    agree(out, first_run)

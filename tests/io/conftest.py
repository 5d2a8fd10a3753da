"""DIALS, where it is installed, as a separate process; and a small experiment list with a deep detector hierarchy."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

RunDials = Callable[[str], Any]


@pytest.fixture(scope="session")
def run_dials() -> RunDials:
    """Runs a script with DIALS' Python; the script prints one JSON value, which is returned."""
    candidates = [shutil.which("dials.python"), "/usr/bin/python3"]
    python = None
    for name in candidates:
        if name and Path(name).exists():
            test = subprocess.run([name, "-c", "import dials, dxtbx"], capture_output=True, check=False)
            if test.returncode == 0:
                python = name
                break
    if python is None:
        pytest.skip("DIALS is not installed here")

    def run(script: str) -> Any:
        done = subprocess.run([python, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


def _axes(rng: np.random.Generator, angle: float) -> tuple[list[float], list[float]]:
    turn, _ = np.linalg.qr(np.eye(3) + angle * rng.normal(size=(3, 3)))
    turn = turn * np.sign(np.diag(turn))
    return turn[:, 0].tolist(), turn[:, 1].tolist()


@pytest.fixture
def expt_document() -> dict[str, Any]:
    """Two lattices on one image and one on another, a detector of four panels in groups of groups."""
    rng = np.random.default_rng(3)

    def node(name: str, origin: list[float], angle: float, **more: Any) -> dict[str, Any]:
        fast, slow = _axes(rng, angle)
        return {"name": name, "type": "", "origin": origin, "fast_axis": fast, "slow_axis": slow, **more}

    def panel(i: int) -> dict[str, Any]:
        size = {"image_size": [20 + i, 30], "pixel_size": [0.1, 0.11], "trusted_range": [-10.0, 6e4]}
        rest: dict[str, Any] = {"thickness": 0.32, "material": "Si", "mu": 3.5, "gain": 1.5, "mask": [[1, 2, 3, 4]]}
        rest |= {"raw_image_offset": [i, 2], "identifier": "", "pedestal": 0.5, "from_the_future": {"x": i}}
        rest |= {"px_mm_strategy": {"type": "ParallaxCorrectedPxMmStrategy"}}
        return node(f"p{i}", [-1.0 + i, 2.5, 0.1 * i], 0.02, **size, **rest)

    def pair(i: int) -> dict[str, Any]:
        return node(f"g{i}", [10.0 * i, -3.0, 0.4], 0.1, children=[{"panel": 2 * i}, {"panel": 2 * i + 1}])

    def crystal(turn: float) -> dict[str, Any]:
        vectors, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        a, b, c = vectors * np.array([79.1, 79.1, 38.4])[:, None] * np.linalg.det(vectors)
        return {
            "__id__": "crystal",
            "real_space_a": a.tolist(),
            "real_space_b": b.tolist(),
            "real_space_c": c.tolist(),
            "space_group_hall_symbol": " P 4nw 2abw",
            "ML_half_mosaicity_deg": 0.1 * turn,
            "ML_domain_size_ang": 1000.0,
            "B_covariance": [0.5] * 81,
        }

    def experiment(name: str, crystal: int, imageset: int) -> dict[str, Any]:
        models = {"beam": 0, "detector": 0, "crystal": crystal, "imageset": imageset, "profile": 0}
        return {"__id__": "Experiment", "identifier": name, **models, "note": f"about {name}"}

    hierarchy = node("root", [1.0, -2.0, -120.0], 0.05, children=[pair(0), pair(1)])
    beam = {"direction": [0.01, -0.02, 0.999], "wavelength": 1.3, "divergence": 0.0, "sigma_divergence": 0.0}
    beam |= {"polarization_normal": [0.0, 1.0, 0.0], "polarization_fraction": 0.999, "flux": 0.0, "transmission": 1.0}
    imageset = {"__id__": "ImageSet", "images": ["../data/a.h5"], "single_file_indices": [4], "mask": "m.pickle"}
    imageset |= {"gain": None, "pedestal": None, "dx": None, "dy": None, "params": {"dynamic_shadowing": True}}
    other = {**imageset, "images": ["sub/b.cbf"], "mask": None}
    del other["single_file_indices"]
    return {
        "__id__": "ExperimentList",
        "experiment": [experiment("one", 0, 0), experiment("two", 1, 0), experiment("three", 2, 1)],
        "imageset": [imageset, other],
        "beam": [beam],
        "detector": [{"panels": [panel(i) for i in range(4)], "hierarchy": hierarchy}],
        "goniometer": [],
        "scan": [],
        "crystal": [crystal(i) for i in range(3)],
        "profile": [],
        "scaling_model": [],
        "history": ["2024-01-01|dials.import|v3.18"],
    } | {"profile": [{"__id__": "gaussian_rs", "sigma_b": 0.02, "sigma_m": 0.1, "n_sigma": 3}]}


@pytest.fixture
def expt_path(tmp_path: Path, expt_document: dict[str, Any]) -> Path:
    path = tmp_path / "in" / "list.expt"
    path.parent.mkdir()
    path.write_text(json.dumps(expt_document))
    return path

"""Files that are changed at random end in an answer or in one line for the user, never in a traceback."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cbf_files import write_cbf
from nexus_files import eiger, jungfrau

from bayesbragg.cli.main import main
from bayesbragg.io.panel_groups import read_panel_groups
from bayesbragg.io.spectra import write_lam
from bayesbragg.model.errors import InputError
from bayesbragg.model.spectra import gaussian_spectrum

DEMO = Path(str(resources.files("bayesbragg") / "data" / "demo"))
WORDS = ("nan", "-1", "1e999", "0", "null", "999999999999", '"x"', "[]", "", "-0.0001", "None", "inf")


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One small whole file of every kind, by the name that it is written under."""
    folder = tmp_path_factory.mktemp("originals")
    rng = np.random.default_rng(0)
    made = {
        "a.cbf": write_cbf(folder / "a.cbf", rng.poisson(20, (2, 4, 10)).astype(np.int32)),
        "eiger_master.h5": eiger(folder, rng.integers(0, 99, (3, 12, 16)).astype(np.uint16), virtual=True),
        "jf.nxs": jungfrau(folder / "jf.h5", rng.normal(0, 5, (2, 48, 16)), (12, 16)),
        "shot.h5": DEMO / "shot_000.h5",
        "shot.expt": DEMO / "shot_000_indexed.expt",
        "shot.refl": DEMO / "shot_000_indexed.refl",
        "F.mtz": DEMO / "structure_factors.mtz",
        "refine.phil": DEMO / "refine.phil",
    }
    write_lam(gaussian_spectrum(1.3), folder / "s.lam")
    groups = "\n".join(f"{i} {i // 2}" for i in range(8)).encode()
    return {name: path.read_bytes() for name, path in made.items()} | {
        "s.lam": (folder / "s.lam").read_bytes(),
        "groups.txt": groups,
    }


def bytes_changed(data: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes of noise, a part cut away, doubled or blanked, or the end missing."""
    array = np.frombuffer(data, np.uint8).copy()
    n = len(array)
    kind = rng.integers(5)
    if kind == 0:
        at = rng.integers(0, n, rng.integers(1, 30))
        array[at] = rng.integers(0, 256, len(at))
        return array.tobytes()
    first, length = int(rng.integers(0, n)), int(rng.integers(1, max(2, n // 8)))
    if kind == 1:
        return data[:first] + data[first + length :]
    if kind == 2:
        return data[:first] + data[first : first + length] * 2 + data[first + length :]
    if kind == 3:
        array[first : first + length] = 0
        return array.tobytes()
    return data[:first]


def text_changed(data: bytes, rng: np.random.Generator) -> bytes:
    """Some numbers or words replaced by others that are odd."""
    parts = re.split(rb"(\s+|[,=\[\]{}:])", data)
    words = [i for i, part in enumerate(parts) if part.strip() and len(part) > 0]
    for i in rng.choice(words, min(len(words), int(rng.integers(1, 5))), replace=False):
        parts[i] = str(rng.choice(WORDS)).encode()
    return b"".join(parts)


def json_changed(data: bytes, rng: np.random.Generator) -> bytes:
    """A leaf or a branch of the tree replaced, or left out."""
    document = json.loads(data)
    for _ in range(int(rng.integers(1, 4))):
        node: Any = document
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = keys[rng.integers(len(keys))]
            child = node[key]
            if isinstance(child, dict | list) and child and rng.random() < 0.8:
                node = child
                continue
            if rng.random() < 0.3:
                del node[key]
            else:
                odd = [None, "x", -1, 1e308, [], {}, True, [[]], float("nan"), 10**30, 0, [1, 2], "\x00", 2**63]
                node[key] = odd[rng.integers(len(odd))]
            break
    return json.dumps(document).encode()


CHANGES: dict[str, list[Callable[[bytes, np.random.Generator], bytes]]] = {
    "shot.expt": [json_changed, json_changed, text_changed, bytes_changed],
    "refine.phil": [text_changed, bytes_changed],
    "s.lam": [text_changed, bytes_changed],
    "groups.txt": [text_changed, bytes_changed],
    "a.cbf": [text_changed, bytes_changed],
}


def answered(name: str, seed: int, originals: dict[str, bytes], folder: Path, capfd: Any) -> int:
    """Change a file, hand it to a command, and return its exit code."""
    rng = np.random.default_rng([seed, len(name)])
    changes = CHANGES.get(name, [bytes_changed])
    path = folder / name
    path.write_bytes(changes[rng.integers(len(changes))](originals[name], rng))
    if name == "groups.txt":
        try:
            return 0 if len(read_panel_groups(path, 8)) == 8 else 1
        except InputError as error:
            return 2 if "\n" not in str(error) else 1
    code = main(["show", str(path), "-q"])
    said = capfd.readouterr()
    assert "Traceback" not in said.err + said.out
    if code:
        lines = [line for line in said.err.splitlines() if line.startswith("bayesbragg: error:")]
        assert len(lines) == 1
        assert name.split(".")[0] in lines[0] or "PHIL" in lines[0]
    return code


def run(n: int, originals: dict[str, bytes], folder: Path, capfd: Any, first: int = 0) -> dict[int, int]:
    codes: dict[int, int] = {}
    for seed in range(first, first + n):
        name = list(originals)[seed % len(originals)]
        try:
            code = answered(name, seed, originals, folder, capfd)
        except BaseException as error:
            raise AssertionError(f"{name}, seed {seed}: {type(error).__name__} {error}") from error
        codes[code] = codes.get(code, 0) + 1
    return codes


@pytest.mark.filterwarnings("ignore")
def test_some_mutated_files(originals: dict[str, bytes], tmp_path: Path, capfd: Any) -> None:
    codes = run(50, originals, tmp_path, capfd)
    assert set(codes) <= {0, 2}
    assert codes[2] > 15


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_500_mutated_files(originals: dict[str, bytes], tmp_path: Path, capfd: Any) -> None:
    codes = run(500, originals, tmp_path, capfd, first=1000)
    assert set(codes) <= {0, 2}
    assert codes[2] > 150

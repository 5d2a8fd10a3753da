"""`bayesbragg show`: the numbers of files against the readers and DIALS; pictures are drawn."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from nexus_files import jungfrau

from bayesbragg.cli.main import main
from bayesbragg.cli.show import _spots
from bayesbragg.io.experiments import read_experiments, write_experiments
from bayesbragg.io.reflections import read_reflections, write_reflections
from bayesbragg.io.spectra import write_lam
from bayesbragg.model import Experiment, ImageReference, Reflections
from bayesbragg.model.spectra import gaussian_spectrum
from bayesbragg.pipeline.show import describe_file

DEMO = Path(str(resources.files("bayesbragg") / "data" / "demo"))
EXPT, REFL = DEMO / "shot_000_indexed.expt", DEMO / "shot_000_indexed.refl"


def numbers(text: str) -> list[float]:
    return [float(x) for x in re.findall(r"-?\d+\.?\d*(?:e[+-]?\d+)?", text)]


def test_experiments_and_reflections(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(EXPT), str(REFL)]) == 0
    said = capsys.readouterr().out
    (experiment,), table = read_experiments(EXPT), read_reflections(REFL)
    assert experiment.crystal is not None
    cell = next(line for line in said.splitlines() if "unit cell" in line)
    np.testing.assert_allclose(numbers(cell), experiment.crystal.cell, atol=5e-4)
    assert "space group: P 43 21 2 (number 96)" in said
    assert f"{len(table)} reflections" in said
    origins = [numbers(x)[:3] for x in re.findall(r"origin: (\{.*?\})", said)]
    np.testing.assert_allclose(origins, experiment.detector.origin_mm, rtol=1e-5)
    assert f"{len(table)} indexed" in said


def test_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lam(gaussian_spectrum(1.3, 10.0, 20), tmp_path / "s.lam")
    jungfrau(tmp_path / "jf.h5", np.zeros((3, 48, 16)), (12, 16))
    files = ["s.lam", "jf.h5"]
    words = [str(tmp_path / name) for name in files] + [str(DEMO / "structure_factors.mtz"), str(DEMO / "refine.phil")]
    assert main(["show", *words, str(DEMO / "shot_000.h5"), "--index", "0"]) == 0
    said = capsys.readouterr().out
    for text in (
        "20 channels",
        "3 images; number 0 is shown",
        "Detector: 4 panels",
        "79.100, 79.100, 38.400, 90.000, 90.000, 90.000",
        "I(+) (K)",
        "adu_per_photon = 28",
        "360000 of 360000 trusted",
        "12 channels",
    ):
        assert text in said
    assert main(["show", str(tmp_path / "jf.h5"), "--index", "7"]) == 2
    assert "image 7 was asked for, the file has 3" in capsys.readouterr().err
    assert main(["show", str(tmp_path / "nothing.expt")]) == 2


def test_spots_are_sorted_into_observed_predicted_rejected() -> None:
    (experiment,) = read_experiments(EXPT)
    table = Reflections(
        {
            "id": np.array([0, 0, -1]),
            "panel": np.array([0, 1, 2]),
            "flags": np.array([4, 4 | 1 << 17, 32]),
            "miller_index": np.array([[1, 2, 3], [2, 0, 0], [0, 0, 0]]),
            "xyzobs.px.value": np.arange(9.0).reshape(3, 3),
            "xyzcal.px": np.arange(9.0).reshape(3, 3) + 0.5,
        },
        {0: experiment.identifier},
    )
    spots = _spots(table, [experiment], 4)
    assert spots["observed"][0].tolist() == [0]
    assert spots["rejected"][0].tolist() == [1, 2]
    np.testing.assert_array_equal(spots["predicted"][1], [[0.5, 1.5]])


def test_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The bundled list names its image by a relative path, which counts from its own folder.
    for words in (["--plot", str(tmp_path / "a.png")], ["--panel", "1", "--plot", str(tmp_path / "b.png")]):
        assert main(["show", str(EXPT), str(REFL), *words]) == 0
        assert Path(words[-1]).read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert main(["show", str(REFL), "--plot", str(tmp_path / "c.png")]) == 2
    assert "nothing to draw" in capsys.readouterr().err
    assert main(["show", str(EXPT), "--panel", "9", "--plot", str(tmp_path / "c.png")]) == 2
    assert "panels 0 to 3" in capsys.readouterr().err


def dials_show(folder: Path, *files: Path) -> str:
    command = ["dials.show", *map(str, files)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which("dials.show") is None, reason="needs DIALS")
def test_same_as_dials_show(tmp_path: Path) -> None:
    (experiment,) = read_experiments(EXPT)
    described = Experiment(
        experiment.identifier,
        experiment.beam,
        experiment.detector,
        experiment.crystal,
        ImageReference(tmp_path / "x.h5"),
    )
    expt, refl = tmp_path / "shot.expt", tmp_path / "shot.refl"
    write_experiments([described], expt)
    write_reflections(read_reflections(REFL), refl)
    theirs = dials_show(tmp_path, expt, refl)
    ours = "\n".join([*describe_file(expt, every=True), *describe_file(refl)])

    def found(pattern: str, text: str) -> list[list[float]]:
        return [numbers(x) for x in re.findall(pattern, text)]

    for name, mine, other in (
        ("cell", r"unit cell: (.*) \(", r"Unit cell: (.*)"),
        ("origin", r"origin: \{(.*?)\}", r"origin: \{(.*?)\}"),
        ("fast", r"fast: \{(.*?)\}", r"fast_axis: \{(.*?)\}"),
        ("slow", r"slow: \{(.*?)\}", r"slow_axis: \{(.*?)\}"),
        ("distance", r"distance: (\S+)", r"distance: (\S+)"),
        ("wavelength", r"wavelength: (\S+)", r"wavelength: (\S+)"),
        ("source", r"sample to source direction: \{(.*?)\}", r"sample to source direction : \{(.*?)\}"),
        ("count", r"shot.refl: (\d+) reflections", r"Reflection list contains (\d+) reflections"),
    ):
        a, b = found(mine, ours), found(other, theirs)
        assert a, name
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-9, err_msg=name)
    assert re.search(r"space group: (.*) \(number", ours)[1] == re.search(r"Space group: (.*)", theirs)[1]

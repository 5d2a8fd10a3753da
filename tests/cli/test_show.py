"""`bayesbragg show`: the numbers of files against the readers and DIALS; pictures are drawn."""

from __future__ import annotations

import json
import pickle
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


def test_an_image_that_moved_is_given_beside_its_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (experiment,) = read_experiments(EXPT)
    for image in (ImageReference(tmp_path / "gone.h5"), None):
        moved = Experiment(experiment.identifier, experiment.beam, experiment.detector, experiment.crystal, image)
        write_experiments([moved], tmp_path / "moved.expt")
        words = ["show", str(tmp_path / "moved.expt"), str(REFL), "--plot", str(tmp_path / "a.png")]
        assert main(words) == 2
        assert main([*words[:3], str(DEMO / "shot_000.h5"), *words[3:]]) == 0
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
        (tmp_path / "a.png").unlink()
    capsys.readouterr()


def test_pixels_of_a_classic_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One lattice and one readout noise for all pixels are enough; boxes may differ in size."""
    generator = np.random.default_rng(0)
    bounds = np.array([[2, 6, 3, 8], [10, 13, 0, 4]])
    pixels = [(b, f, s) for b, (f1, f2, s1, s2) in enumerate(bounds) for s in range(s1, s2) for f in range(f1, f2)]
    box, fast, slow = np.array(pixels).T
    bragg, background = generator.uniform(1, 50, len(box)), generator.uniform(1, 5, len(box))
    counts = generator.poisson(bragg + background).astype(np.float32)
    trusted = np.arange(len(box)) % 5 > 0
    path = tmp_path / "shot_pixels.npz"
    np.savez_compressed(
        path,
        panel_fast_slow=np.stack([box, fast, slow], axis=-1).astype(np.int32),
        roi_id=box.astype(np.int32),
        data_photons=counts,
        background_photons=background,
        model_bragg_photons=bragg,
        trusted=trusted,
        sigma_readout_photons=np.array(0.5),
        roi_f1_f2_s1_s2=bounds.astype(np.int32),
        roi_panel=np.array([0, 1], dtype=np.int32),
        roi_reflection_row=np.array([0, 1], dtype=np.int32),
        roi_miller_index=np.array([[1, 2, 3], [0, 0, 4]], dtype=np.int32),
        tilt_abc=np.zeros((2, 3)),
    )
    assert main(["show", str(path), "--plot", str(tmp_path / "boxes.png")]) == 0
    said = capsys.readouterr().out
    assert f"2 boxes of up to 4 x 5 pixels, {trusted.sum()} of them used" in said
    residual = ((counts - bragg - background) / np.sqrt(bragg + background + 0.25))[trusted].std()
    (line,) = re.findall(r"residuals over their standard deviation: (\S+)", said)
    assert float(line) == pytest.approx(residual, rel=5e-4)
    assert (tmp_path / "boxes.png").is_file()


@pytest.mark.parametrize("shot", [0, 4])
def test_pixels_of_the_classic_tutorial(shared: Path, shot: int) -> None:
    """The classic program's own sigma-Z comes out of its pixels."""
    run = shared / "tutorial" / "classic" / "procPoly"
    said = describe_file(run / f"shot_{shot:03d}_pixels.npz")
    record = json.loads((run / "fits.json").read_text())
    rows = record if isinstance(record, list) else list(record.values())
    (row,) = (r for r in rows if int(r["shot"]) == shot)
    assert numbers(said[0].split(": ")[1]) == [row["nroi"], 12, 12, row["npix_trusted"]]
    assert numbers(said[-1])[0] == pytest.approx(row["sigmaZ_final"], rel=1e-3)


class Hostile:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_pixel_files_are_never_unpickled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trap = tmp_path / "trap"
    np.savez(tmp_path / "a_modeler.npz", roi_f1_f2_s1_s2=np.array([Hostile(trap)], dtype=object))
    (tmp_path / "b_modeler.npy").write_bytes(pickle.dumps(Hostile(trap)))
    for name in ("a_modeler.npz", "b_modeler.npy"):
        trap.unlink(missing_ok=True)
        assert main(["show", str(tmp_path / name)]) == 2
        assert "expected a" in capsys.readouterr().err
        assert not trap.exists()


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

"""Bad input: one line that names file, value and remedy, exit code 2, and the other shots are refined all the same."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bayesbragg.cli.main import main
from bayesbragg.io.reflections import read_reflections, write_reflections
from bayesbragg.io.tables import read_table

Damage = Callable[[Path], None]


def refine(*words: object) -> int:
    return main(["refine", *map(str, words)])


def complaint(captured: Any) -> str:
    """The one error line."""
    lines = [line for line in captured.err.splitlines() if "WARNING" not in line]
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("bayesbragg: error: ")
    return lines[0]


def halve(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def edit(change: Callable[[dict[str, Any]], None]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "bad.expt"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    return damage


def without_crystal(document: dict[str, Any]) -> None:
    document["experiment"][0].pop("crystal")
    document["crystal"] = []


def skewed(document: dict[str, Any]) -> None:
    crystal = document["crystal"][0]
    crystal["real_space_a"] = (np.array(crystal["real_space_a"]) * 1.05).tolist()


def without_image(document: dict[str, Any]) -> None:
    document["experiment"][0].pop("imageset")
    document["imageset"] = []


def other_identifier(document: dict[str, Any]) -> None:
    document["experiment"][0]["identifier"] = "somebody else"


def few_reflections(folder: Path) -> None:
    table = read_reflections(folder / "bad.refl")
    write_reflections(table.select(np.arange(3)), folder / "bad.refl")


def no_position(folder: Path) -> None:
    table = read_reflections(folder / "bad.refl")
    write_reflections(table.with_columns(**{"xyzobs.px.value": np.full((len(table), 3), np.nan)}), folder / "bad.refl")


def no_column(folder: Path) -> None:
    table = read_reflections(folder / "bad.refl")
    columns = {name: column for name, column in table.columns.items() if name != "miller_index"}
    write_reflections(type(table)(columns, table.identifiers), folder / "bad.refl")


def all_nan(folder: Path) -> None:
    with h5py.File(folder / "bad.h5", "r+") as file:
        shape = file["images"].shape
        del file["images"]
        file["images"] = np.full(shape, np.nan)


def no_spectrum(folder: Path) -> None:
    with h5py.File(folder / "bad.h5", "r+") as file:
        del file["spectrum"]


DAMAGES: dict[str, tuple[Damage, tuple[str, ...]]] = {
    "no expt": (lambda f: (f / "bad.expt").unlink(), ("bad.expt", "no such file")),
    "no refl": (lambda f: (f / "bad.refl").unlink(), ("bad.refl", "no such file")),
    "no image": (lambda f: (f / "bad.h5").unlink(), ("bad.h5", "no such file")),
    "half an expt": (lambda f: halve(f / "bad.expt"), ("bad.expt", "write it again")),
    "half a refl": (lambda f: halve(f / "bad.refl"), ("bad.refl", "write it again")),
    "half an image": (lambda f: halve(f / "bad.h5"), ("bad.h5", "copy it again")),
    "no crystal": (edit(without_crystal), ("bad.expt", "experiment 0", "no crystal", "index")),
    "a cell that does not fit": (edit(skewed), ("bad.expt", "tetragonal", "a = b")),
    "no image named": (edit(without_image), ("bad.expt", "load_data_from_refls")),
    "another run's refl": (edit(other_identifier), ("bad.expt", "somebody else", "one run")),
    "few reflections": (few_reflections, ("bad.expt", "2 usable boxes", "min_spot = 5")),
    "no usable box": (no_position, ("bad.expt", "no usable box", "centroid is not a number")),
    "no indices": (no_column, ("bad.expt", "miller_index", "index the shot")),
    "no numbers": (all_nan, ("bad.h5", "all NaN", "leave this shot out")),
    "no spectrum": (no_spectrum, ("bad.h5", "spectrum_from_imageset=True", "set it to False")),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(DAMAGES))
def test_a_bad_shot(kind: str, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage, words = DAMAGES[kind]
    damage(copied)
    # A list of shots, because a file that is missing cannot be named on the command line.
    shots = tmp_path / "shots.txt"
    shots.write_text("".join(f"{copied / name}.expt {copied / name}.refl\n" for name in ("bad", "good")))
    out = tmp_path / "out"
    assert refine(copied / "run.phil", f"exp_ref_spec_file={shots}", f"outdir={out}") == 0
    line = complaint(capsys.readouterr())
    for word in words:
        assert word in line
    assert (out / "good_refined.expt").is_file()
    assert not (out / "bad_refined.expt").exists()
    assert read_table(out)["tag"].tolist() == ["good"]
    outcomes = json.loads((out / "run.json").read_text())["shots"]
    assert {o["tag"]: o["status"] for o in outcomes} == {"bad": "bad input", "good": "converged"}
    assert "Traceback" in (out / "bayesbragg.log").read_text()

    shots.write_text(f"{copied / 'bad'}.expt {copied / 'bad'}.refl\n")
    assert refine(copied / "run.phil", f"exp_ref_spec_file={shots}", f"outdir={tmp_path / 'alone'}") == 2
    assert complaint(capsys.readouterr()) == line


@pytest.mark.slow
def test_pixels_without_a_number_are_left_out(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File(copied / "bad.h5", "r+") as file:
        image = file["images"][()].astype(float)
        del file["images"]
        image[0, 0, :40] = np.nan
        file["images"] = image
    words = copied / "run.phil", copied / "bad.expt", copied / "bad.refl", f"outdir={tmp_path / 'out'}"
    assert refine(*words, "roi.reject_roi_with_hotpix=False") == 0
    assert "pixels without a number are masked" in capsys.readouterr().err
    row = read_table(tmp_path / "out").iloc[0]
    assert row["status"] == "converged"
    assert abs(row["a"] - 79.1) < 0.02


@pytest.mark.slow
def test_equal_names_in_several_folders(data: Path, tmp_path: Path) -> None:
    words: list[object] = []
    for folder in ("run_1", "run_2"):
        (tmp_path / folder).mkdir()
        for ending in (".expt", ".refl"):
            words.append(Path(shutil.copy(data / f"shot_1{ending}", tmp_path / folder / f"x{ending}")))
    out = tmp_path / "out"
    assert refine(data / "run.phil", *words, f"outdir={out}") == 0
    assert sorted(path.name for path in out.glob("*.expt")) == ["run_1_x_refined.expt", "run_2_x_refined.expt"]
    assert sorted(read_table(out)["tag"]) == ["run_1_x", "run_2_x"]


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


FACTORS = "simulator.structure_factors"
# Words that no shot can be refined with, and what the complaint must say.
FAULTS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "wrong column": ([f"{FACTORS}.mtz_column=Iobs,SIGIobs"], ("factors.mtz", "Iobs", "I(+)", "SIGI(-)")),
    "no MTZ": ([f"{FACTORS}.mtz_name=nowhere.mtz"], ("nowhere.mtz", "no such")),
    "half an MTZ": ([f"{FACTORS}.mtz_name=FOLDER/half.mtz"], ("half.mtz", "write it again")),
    "unknown key": (["roi.shoebox_sise=12"], ("roi.shoebox_sise", "did you mean roi.shoebox_size")),
    "unknown key in a file": (["FOLDER/unknown.phil"], ("unknown.phil", "line 1", "roi.shoebox_size")),
    "a word for a number": (["init.G=much"], ("init.G", "much", "a number")),
    "min above max": (["mins.Nabc=30 3 3", "maxs.Nabc=20 20 20"], ("mins.Nabc", "maxs.Nabc", "exchange")),
    "beta without center": (["betas.G=1"], ("betas.G", "centers.G")),
    "two spectra": (["gen_gauss_spec=True"], ("gen_gauss_spec", "spectrum_from_imageset", "keep one")),
    "no such device": (["device=gpu"], ("device=gpu", "bayesbragg[cuda]", "device=cpu")),
    "no table": (["best_pickle=nowhere.pkl"], ("nowhere.pkl", "no such file")),
    "no pickle": (["best_pickle=FOLDER/junk.pkl"], ("junk.pkl",)),
    "a malicious pickle": (["best_pickle=FOLDER/evil.pkl"], ("evil.pkl",)),
    "no geometry": (["reference_geometry=nowhere.expt"], ("nowhere.expt", "no such file")),
    "half a geometry": (["opt_det=FOLDER/half.mtz"], ("half.mtz", "write it again")),
    "two geometries": (["opt_det=a.expt", "reference_geometry=b.expt"], ("opt_det", "reference_geometry")),
    "no beam": (["opt_beam=nowhere.expt"], ("nowhere.expt", "no such file")),
    "no mask": (["refiner.mask=nowhere.npy"], ("nowhere.npy", "no such file")),
    "a variable": (["outdir=$HOME/out"], ("outdir", "$HOME", "single quotes")),
    "gamma in cells": (["gamma_miller_units=True"], ("gamma_miller_units", "angstrom")),
    "hopping": (["niter=3"], ("niter=3", "niter=0")),
    "no shots left": (["skip=5"], ("skip",)),
    "no space group": (["space_group=P43212x"], ("P43212x",)),
    "spectra for other shots": (
        ["simulator.spectrum.filename_list=FOLDER/run.phil"],
        ("run.phil", "spectra for 1 shots"),
    ),
}


@pytest.mark.parametrize("kind", list(FAULTS))
def test_what_no_shot_can_be_refined_with(
    kind: str, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(copied / "factors.mtz", copied / "half.mtz")
    halve(copied / "half.mtz")
    (copied / "evil.pkl").write_bytes(pickle.dumps(Malicious(copied / "pwned")))
    (copied / "junk.pkl").write_bytes(b"not a pickle")
    (copied / "unknown.phil").write_text("roi.shoebox_sise = 10\n")
    words, said = FAULTS[kind]
    words = [word.replace("FOLDER", str(copied)) for word in words]
    monkeypatch.chdir(tmp_path)
    out = [] if any(word.startswith("outdir") for word in words) else ["outdir=out"]
    assert refine(copied / "run.phil", copied / "good.expt", copied / "good.refl", *words, *out) == 2
    line = complaint(capsys.readouterr())
    for word in said:
        assert word in line
    assert not (copied / "pwned").exists()
    assert not (tmp_path / "out").exists()


def test_no_structure_factors(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refine(copied / "good.expt", copied / "good.refl", f"outdir={tmp_path / 'out'}") == 2
    assert "simulator.structure_factors.mtz_name" in complaint(capsys.readouterr())


def test_an_output_folder_that_cannot_be(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    assert refine(copied / "run.phil", copied / "good.expt", copied / "good.refl", f"outdir={out}") == 2
    assert "set outdir" in complaint(capsys.readouterr())

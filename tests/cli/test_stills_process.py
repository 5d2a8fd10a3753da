"""`bayesbragg stills-process`: raw images to integrated reflections, bad ones among them, in a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import gemmi
import h5py
import numpy as np
import pandas as pd
import pytest
from small_run import GAIN, SmallShot, make_shot, write_image
from small_stills import write_geometry, write_inputs, write_raw

from bayesbragg.cli.main import main
from bayesbragg.io.experiments import read_experiments
from bayesbragg.io.reflections import read_reflections
from bayesbragg.model import Beam
from bayesbragg.pipeline.integrate_still import APPLIED, correct_partiality

FAST = ("skip_hopper=True", "dispatch.integrate=False")


def process(*words: object) -> int:
    return main(["stills-process", *map(str, words)])


def records(out: Path) -> dict[str, dict[str, object]]:
    return {r["tag"]: r for r in map(json.loads, (out / "stills.jsonl").read_text().splitlines())}


def blank(shot: SmallShot, adu: int) -> SmallShot:
    return replace(shot, still=replace(shot.still, adu=np.full_like(shot.still.adu, adu)))


def pack_with_a_filter_of_nobody(path: Path) -> None:
    """As a file looks whose compression plugin is not installed."""
    with h5py.File(path, "r+") as file:
        shape, attributes = file["images"].shape, dict(file["images"].attrs)
        del file["images"]
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk(shape)
        properties.set_filter(32999, h5py.h5z.FLAG_OPTIONAL, ())
        made = h5py.h5d.create(file.id, b"images", h5py.h5t.STD_I32LE, h5py.h5s.create_simple(shape), properties)
        made.write_direct_chunk((0,) * len(shape), b"packed", 0)
        file["images"].attrs.update(attributes)


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``a/shot.h5`` and ``b/shot.h5`` (two images, the second blank), bad ones in ``bad``, and the parameters."""
    folder = tmp_path_factory.mktemp("raw")
    write_inputs(folder)
    shots = [make_shot(n, folder / "factors.mtz") for n in (2, 3)]
    write_raw([shots[0]], folder / "a" / "shot.h5")
    write_raw([shots[1], blank(shots[1], 28)], folder / "b" / "shot.h5")
    write_raw([blank(shots[0], 2_000_000_000)], folder / "bad" / "saturated.h5")
    whole = (folder / "a" / "shot.h5").read_bytes()
    (folder / "bad" / "half.h5").write_bytes(whole[: len(whole) // 2])
    for name in ("packed", "negative"):
        (folder / "bad" / f"{name}.h5").write_bytes(whole)
    with h5py.File(folder / "bad" / "negative.h5", "r+") as file:
        file["spectrum"][...] = -np.abs(file["spectrum"][...])
    pack_with_a_filter_of_nobody(folder / "bad" / "packed.h5")
    (folder / "bad" / "half.cbf").write_bytes(b"###CBF: VERSION 1.5\ndata_x\n" + whole[:3000])
    (folder / "bad" / "notes.txt").write_text("no image")
    away = folder / "bad" / "away.h5"
    write_image([shots[0]], away)
    beam = shots[0].world.beam
    write_geometry(away, shots[0].world.detector, Beam(-beam.direction, beam.wavelength_A, beam.polarization_normal))
    return folder


@pytest.fixture(scope="session")
def run(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SmallShot]:
    """Output folder of a run with every step, and the truth of ``a/shot.h5``. Not to be changed."""
    out = tmp_path_factory.mktemp("processed") / "out"
    assert process(raw / "process.phil", f"{raw}/[ab]/*.h5", f"output.output_dir={out}") == 0
    return out, make_shot(2, raw / "factors.mtz")


def test_every_image_has_its_status(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Good and bad images of all kinds in one run: a status and a line each, and the run goes on."""
    out = tmp_path / "out"
    bad = [raw / "bad" / "half.cbf", raw / "bad" / "notes.txt"]
    assert process(raw / "process.phil", f"{raw}/*/*.h5", *bad, *FAST, f"output.output_dir={out}") == 0
    expected = {
        "a_shot": "indexed",
        "b_shot_00000": "indexed",
        "b_shot_00001": "no spots",
        "saturated": "saturated",
        "bad_half_0": "bad input",
        "bad_half_1": "bad input",
        "packed": "bad input",
        "negative": "bad input",
        "notes": "bad input",
        "away": "bad geometry",
    }
    found = records(out)
    assert {tag: r["status"] for tag, r in found.items()} == expected
    lines = capsys.readouterr().err.splitlines()
    for tag, record in found.items():
        if record["status"] == "indexed":
            assert record["reason"] == ""
            continue
        # Cause and remedy in one line that names the file.
        own = [line for line in lines if f"bayesbragg: {tag}: {record['status']}: " in line]
        assert len(own) == 1
        assert Path(str(record["image"]).split("#")[0]).name in own[0]
        assert str(record["reason"]) in own[0]
    assert not any("Traceback" in line for line in lines)


@pytest.mark.slow
def test_models_and_intensities(run: tuple[Path, SmallShot]) -> None:
    """Orientation and cell as they were made, and intensities as the photons that were expected."""
    out, truth = run
    refined = read_experiments(out / "idx-a_shot_refined.expt")[0].crystal
    assert refined is not None
    from bayesbragg.io.symmetry import lookup_space_group

    turns = lookup_space_group("P43212").rotations
    angles = []
    for turn in turns:
        other = (turn.T @ truth.crystals[0].real_space_A) if np.linalg.det(turn) > 0 else truth.crystals[0].real_space_A
        relative = np.linalg.lstsq(other, refined.real_space_A, rcond=None)[0]
        angles.append(
            np.degrees(np.arccos(np.clip((np.trace(relative) / np.cbrt(np.linalg.det(relative)) - 1) / 2, -1, 1)))
        )
    assert min(angles) < 0.05
    np.testing.assert_allclose(refined.cell[:3], [79.1, 79.1, 38.4], rtol=1e-3)
    table = read_reflections(out / "idx-a_shot_integrated.refl")
    assert table.identifiers == {0: read_experiments(out / "idx-a_shot_integrated.expt")[0].identifier}
    known = _by_place(truth, table)
    rows = np.flatnonzero(known >= 0)
    assert len(rows) > 60
    expected = truth.still.photons[known[rows]]
    for name in ("sum", "prf", "posterior"):
        value = table[f"intensity.{name}.value"][rows] / GAIN
        sd = np.sqrt(table[f"intensity.{name}.variance"][rows]) / GAIN
        good = sd > 0
        z = ((value - expected) / np.hypot(sd, 0.03 * expected))[good]
        assert np.corrcoef(value[good], expected[good])[0, 1] > 0.99, name
        assert abs(np.median(z)) < 0.4, name
        assert 0.6 < 1.4826 * np.median(np.abs(z - np.median(z))) < 1.5, name


def _by_place(truth: SmallShot, table: object) -> np.ndarray:
    """Prediction of the simulation that each integrated reflection is: the same place within two pixels, or -1."""
    predictions = truth.still.predictions
    place = np.asarray(table["xyzcal.px"])[:, :2]
    apart = np.linalg.norm(place[:, None] - truth.still.centroid[None], axis=2)
    apart += 1e6 * (np.asarray(table["panel"])[:, None] != predictions.panel[None])
    nearest = apart.argmin(axis=1)
    return np.where(apart.min(axis=1) < 2.0, nearest, -1)


@pytest.mark.slow
def test_unmerged_outputs(run: tuple[Path, SmallShot]) -> None:
    """MTZ and stream hold the reflections of the tables, in the file's own conventions."""
    out, _ = run
    tables = {tag: read_reflections(out / f"idx-{tag}_integrated.refl") for tag in ("a_shot", "b_shot_00000")}
    good = {tag: t.select(t["intensity.posterior.variance"] > 0) for tag, t in tables.items()}
    mtz = gemmi.read_mtz_file(str(out / "integrated.mtz"))
    assert mtz.nreflections == sum(map(len, good.values()))
    assert len(mtz.batches) == 2
    assert mtz.switch_to_original_hkl()
    data = {
        label: np.asarray(mtz.column_with_label(label))
        for label in ("H", "K", "L", "BATCH", "I", "SIGI", "FRACTIONCALC")
    }
    first = data["BATCH"] == 1
    table = good["a_shot"]
    np.testing.assert_array_equal(np.column_stack([data[x][first] for x in "HKL"]), table["miller_index"])
    np.testing.assert_allclose(data["I"][first], table["intensity.posterior.value"], rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(data["SIGI"][first] ** 2, table["intensity.posterior.variance"], rtol=1e-5)
    np.testing.assert_allclose(data["FRACTIONCALC"][first], table["partiality"], rtol=1e-5)
    text = (out / "integrated.stream").read_text()
    assert text.startswith("CrystFEL stream format 2.3\n")
    assert text.count("--- Begin crystal") == text.count("--- End crystal") == 2
    # A star of the stream, turned back, is the crystal's; a reflection's q ends at the Ewald sphere of its beam.
    block = text.split("--- Begin crystal")[1]
    stars = [[float(x) for x in line.split()[2:5]] for line in block.splitlines() if "star = " in line]
    experiment = read_experiments(out / "idx-a_shot_integrated.expt")[0]
    lengths = np.linalg.norm(stars, axis=1)
    np.testing.assert_allclose(lengths, 10.0 / experiment.crystal.cell[:3], rtol=1e-4)
    rows = block.split("panel\n")[1].split("End of")[0].splitlines()
    assert len(rows) == len(table)
    hkl = np.array([[int(x) for x in row.split()[:3]] for row in rows])
    np.testing.assert_array_equal(hkl, table["miller_index"])
    q = hkl @ np.array(stars) / 10.0
    s1 = q + np.array([0.0, 0.0, 1.0 / experiment.beam.wavelength_A])
    assert np.median(np.abs(np.linalg.norm(s1, axis=1) * experiment.beam.wavelength_A - 1.0)) < 0.01
    table_of_shots = pd.read_parquet(out / "hopper_process_summary.parquet")
    assert sorted(table_of_shots["tag"]) == ["a_shot", "b_shot_00000"]


@pytest.mark.slow
def test_partiality_is_applied_once(run: tuple[Path, SmallShot]) -> None:
    table = read_reflections(run[0] / "idx-a_shot_integrated.refl")
    assert np.all(table[APPLIED] == 1.0)
    once = correct_partiality(table)
    assert len(once) == np.sum(table["partiality"] >= 0.05)
    kept = table.select(table["partiality"] >= 0.05)
    np.testing.assert_allclose(
        once["intensity.prf.value"], kept["intensity.prf.value"] / kept["partiality"], rtol=1e-12
    )
    assert np.all(once["partiality"] == 1.0)
    np.testing.assert_array_equal(once[APPLIED], kept["partiality"])
    twice = correct_partiality(once)
    for name in once.columns:
        np.testing.assert_array_equal(twice[name], once[name])


@pytest.mark.slow
def test_existing_indexing(run: tuple[Path, SmallShot], raw: Path, tmp_path: Path) -> None:
    """Indexed files go on where indexing left them, with composite output and partialities applied."""
    out, _ = run
    source = tmp_path / "indexed"
    source.mkdir()
    for name in ("a_shot", "b_shot_00000"):
        shutil.copy(out / f"idx-{name}_refined.expt", source)
        shutil.copy(out / f"idx-{name}_indexed.refl", source)
    files = sorted(source.glob("*.expt")) + sorted(source.glob("*.refl"))
    target = tmp_path / "out"
    words = ["skip_hopper=True", "output.composite_output=True", "partial_correct=True", f"outdir={target}"]
    assert process(raw / "process.phil", *files, *words) == 0
    assert {r["status"] for r in records(target).values()} == {"integrated"}
    experiments = read_experiments(target / "idx-0000_integrated.expt")
    table = read_reflections(target / "idx-0000_integrated.refl")
    assert len(experiments) == 2
    assert {table.identifiers[n] for n in (0, 1)} == {e.identifier for e in experiments}
    assert np.all(table["partiality"] == 1.0)
    assert table[APPLIED].min() >= 0.05
    own = [read_reflections(p) for p in sorted((target / "stills").glob("*_integrated.refl"))]
    assert len(table) == sum(map(len, own))
    assert "bayesbragg/partiality = applied" in (target / "integrated.stream").read_text()


def test_wrong_cell(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["indexing.known_symmetry.unit_cell=57,57,150,90,90,90", *FAST, f"outdir={out}"]
    assert process(raw / "process.phil", raw / "a" / "shot.h5", *words) == 0
    record = records(out)["shot"]
    assert record["status"] == "no lattice"
    assert "check unit cell" in capsys.readouterr().err
    assert len(read_reflections(out / "idx-shot_strong.refl")) == record["n_strong"]
    assert not (out / "idx-shot_refined.expt").exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["indexing.known_symmetry.unit_cell=None"], "unit_cell"),
        (["indexing.known_symmetry.unit_cell=79,70,38,90,90,90"], "tetragonal"),
        (["spotfinder.threshold.algorithm=radial_profile"], "radial_profile"),
        (["dispatch.find_spots=False"], "find_spots"),
        (["mp.method=sge"], "mp.method"),
        (["input.max_images=0"], "no images are left"),
        (["input.file_list=nowhere.txt"], "nowhere.txt"),
        (["input.glob=nothing*.h5"], "nothing*.h5"),
    ],
)
def test_parameters_that_cannot_work(
    raw: Path, tmp_path: Path, words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert process(raw / "process.phil", raw / "a" / "shot.h5", *words, f"outdir={tmp_path / 'out'}") == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in error if "error" in line]) == 1
    assert complaint in error[-1]


def test_hits_and_selection(raw: Path, tmp_path: Path) -> None:
    """Limits of the hit finder, image tags, and a list of images in a file."""
    listed = tmp_path / "images.txt"
    listed.write_text(f"# images\n{raw / 'a' / 'shot.h5'}\n{raw / 'b' / 'shot.h5'}\n")
    out = tmp_path / "out"
    hits = ["dispatch.hit_finder.enable=True", "dispatch.hit_finder.minimum_number_of_reflections=5000"]
    words = [f"input.file_list={listed}", "input.image_tag=b_shot", *hits, *FAST, f"outdir={out}"]
    assert process(raw / "process.phil", *words) == 0
    assert {tag: r["status"] for tag, r in records(out).items()} == {
        "b_shot_00000": "not a hit",
        "b_shot_00001": "no spots",
    }


def test_reindexing_finds_more(raw: Path, tmp_path: Path) -> None:
    """Indexed at low resolution, then all spots with the lattice that gave."""
    out = tmp_path / "out"
    low = ["indexing.refinement_protocol.d_min_start=4.2", *FAST]
    assert process(raw / "process.phil", raw / "a" / "shot.h5", *low, f"outdir={out / 'low'}") == 0
    assert process(raw / "process.phil", raw / "a" / "shot.h5", *low, "reidx_obs=True", f"outdir={out / 'all'}") == 0
    few, many = (records(out / name)["shot"]["n_indexed"] for name in ("low", "all"))
    assert many > 1.2 * few
    table = read_reflections(out / "all" / "idx-shot_indexed.refl")
    assert np.linalg.norm(table["rlp"], axis=1).max() > 1 / 4.0


def _many(raw: Path, folder: Path, n: int) -> list[str]:
    images = folder / "images"
    images.mkdir(parents=True)
    for number in range(n):
        shutil.copy(raw / "a" / "shot.h5", images / f"image_{number:02d}.h5")
    return ["process.phil", f"{images}/*.h5", *FAST]


@pytest.mark.slow
def test_killed_runs_resume(raw: Path, tmp_path: Path) -> None:
    """A run that is killed outright goes on: no shot is lost, none that was finished is done again."""
    n = 12
    words, out = _many(raw, tmp_path, n), tmp_path / "out"
    command = [sys.executable, "-m", "bayesbragg.cli.main", "stills-process", *words, f"outdir={out}", "mp.nproc=2"]
    started = subprocess.Popen(command, cwd=raw, start_new_session=True, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 300
    while len(list((out / "records").glob("image*.json"))) < 3 and time.monotonic() < limit:
        time.sleep(0.02)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    before = {p.name: p.stat().st_mtime_ns for p in (out / "records").glob("image*.json")}
    assert 3 <= len(before) < n
    assert not (out / "stills.jsonl").exists()
    # The same parameters or none.
    other = subprocess.run(
        [*command, "--resume", "indexing.stills.rmsd_min_px=3"], cwd=raw, capture_output=True, text=True
    )
    assert other.returncode == 2
    assert "rmsd_min_px" in other.stderr
    done = subprocess.run([*command, "--resume"], cwd=raw, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{n} stills ({len(before)} of them were there before)" in done.stdout
    after = {p.name: p.stat().st_mtime_ns for p in (out / "records").glob("image*.json")}
    assert len(after) == n
    assert {name: after[name] for name in before} == before
    found = records(out)
    assert sorted(found) == [f"image_{i:02d}" for i in range(n)]
    assert {r["status"] for r in found.values()} == {"indexed"}
    assert len({r["n_indexed"] for r in found.values()}) == 1
    # Without the flag everything is done again.
    assert subprocess.run([*command, "first_n=1"], cwd=raw, capture_output=True, check=False).returncode == 0
    assert (out / "records" / "image_00.json").stat().st_mtime_ns != after["image_00.json"]


@pytest.mark.slow
def test_ranks_share_the_images(raw: Path, tmp_path: Path) -> None:
    """Two MPI ranks process every image once, and leave one log."""
    launcher = shutil.which("mpirun")
    if launcher is None:
        pytest.skip("there is no mpirun")
    words, out = _many(raw, tmp_path, 5), tmp_path / "out"
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    command = [launcher, "-n", "2", "--oversubscribe", sys.executable, "-m", "bayesbragg.cli.main", "stills-process"]
    done = subprocess.run(
        [*command, *words, f"outdir={out}", "mp.method=mpi"],
        cwd=raw, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "mpi4py" in done.stderr or "libmpi" in done.stderr:
        pytest.skip(f"MPI does not work here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    assert sorted(records(out)) == [f"image_{i:02d}" for i in range(5)]
    assert "5 tasks, 2 ranks" in (out / "bayesbragg.log").read_text()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("dials.show") is None, reason="needs DIALS")
def test_dials_reads_every_file(run: tuple[Path, SmallShot]) -> None:
    """The same cell, geometry and numbers of reflections as we wrote."""
    out, _ = run
    record = records(out)["a_shot"]
    files = record["files"]
    experiment = read_experiments(files["refined"])[0]
    for name, n in (
        ("strong", record["n_strong"]),
        ("indexed", record["n_modelled"]),
        ("integrated", record["n_integrated"]),
    ):
        lists = [files["refined" if name == "indexed" else "integrated_expt"]] if name != "strong" else []
        done = subprocess.run(["dials.show", *lists, files[name]], capture_output=True, text=True, check=False)
        text = done.stdout + done.stderr
        assert "Error" not in text
        assert "Sorry" not in text
        assert f"Reflection list contains {n} reflections" in text
        if lists:
            cell = next(line for line in text.splitlines() if "Unit cell:" in line).split(":")[1]
            np.testing.assert_allclose([float(x) for x in cell.split(",")], experiment.crystal.cell, atol=6e-4)
            assert "Space group: P 43 21 2" in text
            shown = [line for line in text.splitlines() if "origin:" in line]
            origins = [[float(x) for x in line.split("{")[1].rstrip("}").split(",")] for line in shown]
            expected = experiment.detector.origin_mm
            np.testing.assert_allclose(origins[: len(expected)], expected, rtol=1e-4, atol=1e-3)
            wavelength = next(line for line in text.splitlines() if "wavelength:" in line).split(":")[1]
            # DIALS prints six digits and no zeros behind them.
            assert float(wavelength) == pytest.approx(experiment.beam.wavelength_A, rel=1e-5)

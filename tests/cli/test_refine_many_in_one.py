"""Several images in one file, several lattices on one image, pixels from shoeboxes; and DIALS reads the output."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_run import BLOCKS, SmallShot, make_shot, with_shoeboxes, write_factors, write_image, write_run

from bayesbragg.cli.main import main
from bayesbragg.io.experiments import read_experiments, write_experiments
from bayesbragg.io.reflections import read_reflections, write_reflections
from bayesbragg.io.tables import read_table
from bayesbragg.model import Crystal, Reflections

pytestmark = pytest.mark.slow


def refine(*words: object) -> int:
    return main(["refine", *map(str, words)])


def misorientation_deg(left: Crystal, right: Crystal) -> float:
    turn = left.U @ right.U.T
    return float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[SmallShot]]:
    """Two images in one file, and the two shots on their own; the reflections are shuffled."""
    folder = tmp_path_factory.mktemp("pair")
    write_factors(folder / "factors.mtz")
    shots = [make_shot(n, folder / "factors.mtz") for n in (1, 2)]
    write_run(folder, {f"single_{n}": shot for n, shot in enumerate(shots)})
    write_image(shots, folder / "both.h5")
    experiments = [e for n, shot in enumerate(shots) for e in shot.experiments(folder / "both.h5", n)]
    write_experiments(experiments, folder / "both.expt")
    tables = [shot.reflections() for shot in shots]
    columns = {
        name: np.concatenate(
            [np.asarray(t[name]) if name != "id" else np.full(len(t), n) for n, t in enumerate(tables)]
        )
        for name in tables[0].columns
    }
    # Numbers in `id` that are not places in the list: only the identifiers tell.
    columns["id"] = np.where(columns["id"] == 0, 7, 3)
    names = {7: experiments[0].identifier, 3: experiments[1].identifier}
    order = np.random.default_rng(0).permutation(len(columns["id"]))
    # Boxes are taken in the table's order, so that each image's rows must keep theirs.
    order = np.concatenate([np.sort(order[columns["id"][order] == n]) for n in (3, 7)])
    write_reflections(Reflections({k: v[order] for k, v in columns.items()}, names), folder / "both.refl")
    return folder, shots


def test_two_images_in_one_file(pair: tuple[Path, list[SmallShot]], tmp_path: Path) -> None:
    folder, _ = pair
    files = [folder / f"single_{n}{e}" for n in (0, 1) for e in (".expt", ".refl")]
    assert refine(folder / "run.phil", *files, f"outdir={tmp_path / 'single'}") == 0
    words = folder / "run.phil", folder / "both.expt", folder / "both.refl"
    assert refine(*words, f"outdir={tmp_path / 'both'}") == 0
    single, both = (read_table(tmp_path / name) for name in ("single", "both"))
    assert both["tag"].tolist() == ["both_00000", "both_00001"]
    np.testing.assert_array_equal(both["target"], single["target"])
    np.testing.assert_array_equal(np.array(both["Amats"].tolist()), np.array(single["Amats"].tolist()))
    (refined,) = read_experiments(tmp_path / "both" / "both_00001_refined.expt")
    assert refined.image is not None
    assert (refined.image.path, refined.image.index) == (folder / "both.h5", 1)

    # One of them by its number in a list of shots, and one that has lost its crystal.
    (tmp_path / "list.txt").write_text(f"{folder / 'both.expt'} {folder / 'both.refl'} 1\n")
    words = folder / "run.phil", f"exp_ref_spec_file={tmp_path / 'list.txt'}", f"outdir={tmp_path / 'one'}"
    assert refine(*words) == 0
    assert read_table(tmp_path / "one")["target"].tolist() == [single["target"][1]]


def test_a_bad_image_among_many(pair: tuple[Path, list[SmallShot]], tmp_path: Path, capsys: Any) -> None:
    folder, _ = pair
    document = json.loads((folder / "both.expt").read_text())
    document["experiment"][0].pop("crystal")
    (tmp_path / "both.expt").write_text(json.dumps(document))
    shutil.copy(folder / "both.refl", tmp_path)
    out = tmp_path / "out"
    assert refine(folder / "run.phil", tmp_path / "both.expt", tmp_path / "both.refl", f"outdir={out}") == 0
    assert "experiment 0 has no crystal" in capsys.readouterr().err
    assert read_table(out)["tag"].tolist() == ["both_00001"]


def test_shoeboxes_with_the_same_pixels_give_the_same_fit(pair: tuple[Path, list[SmallShot]], tmp_path: Path) -> None:
    folder, shots = pair
    shot = shots[0]
    # Boxes of 10 pixels and a margin of 4 lie within 12 of the centroid; nothing else of the image counts.
    table = with_shoeboxes(shot, shot.reflections(), 13)
    (tmp_path / "in").mkdir()
    write_reflections(table, tmp_path / "in" / "boxes.refl")
    photons = table["shoebox"]
    experiments = [type(e)(e.identifier, e.beam, e.detector, e.crystal, None) for e in shot.experiments(Path("x.h5"))]
    write_experiments(experiments, tmp_path / "in" / "boxes.expt")
    assert len(photons) == len(table)
    # Without the image there is no spectrum: one in a file, the same for both.
    lam = tmp_path / "in" / "x.lam"
    spectrum = shot.world.spectrum
    lines = [f"{w!r} {p!r}" for w, p in zip(spectrum.wavelengths_A.tolist(), spectrum.photons.tolist(), strict=True)]
    lam.write_text("\n".join(lines))
    common = "spectrum_from_imageset=False", f"simulator.spectrum.filename={lam}"
    image = folder / "single_0.expt", folder / "single_0.refl"
    boxes = tmp_path / "in" / "boxes.expt", tmp_path / "in" / "boxes.refl"
    assert refine(folder / "run.phil", *image, *common, f"outdir={tmp_path / 'image'}") == 0
    more = "load_data_from_refls=True", "refldata_to_photons=True"
    assert refine(folder / "run.phil", *boxes, *common, *more, f"outdir={tmp_path / 'boxes'}") == 0
    left, right = (read_table(tmp_path / name).iloc[0] for name in ("image", "boxes"))
    assert left["n_pixels"] == right["n_pixels"]
    assert abs(left["target"] - right["target"]) < 1e-6
    np.testing.assert_allclose(left["Amats"], right["Amats"], rtol=1e-9)


@pytest.fixture(scope="module")
def two_lattices(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, SmallShot]:
    """A run over an image with two lattices: its input, its output, the truth."""
    folder = tmp_path_factory.mktemp("lattices")
    write_factors(folder / "factors.mtz")
    shot = make_shot(4, folder / "factors.mtz", 2)
    write_run(folder, {"two": shot})
    out = folder / "out"
    assert refine(folder / "run.phil", folder / "two.expt", folder / "two.refl", f"outdir={out}") == 0
    return folder, out, shot


def test_two_lattices_recover_both_orientations(two_lattices: tuple[Path, Path, SmallShot]) -> None:
    _, out, shot = two_lattices
    refined = read_experiments(out / "two_refined.expt")
    assert len(refined) == 2
    for experiment, truth, start in zip(refined, shot.crystals, shot.started, strict=True):
        assert experiment.crystal is not None
        assert misorientation_deg(start, truth) > 0.09
        assert misorientation_deg(experiment.crystal, truth) < 0.005
        assert abs(experiment.crystal.cell[0] - 79.1) < 0.02
    table = read_table(out)
    assert table["exp_idx"].tolist() == [0, 1]
    np.testing.assert_allclose(np.array(table["ncells"].tolist()), [BLOCKS, BLOCKS], rtol=0.03)
    spots = read_reflections(out / "two_indexed.refl")
    assert set(np.asarray(spots["id"])) == {0, 1}
    assert spots.identifiers == dict(enumerate(shot.identifiers))


def test_a_second_stage_takes_both_lattices(two_lattices: tuple[Path, Path, SmallShot], tmp_path: Path) -> None:
    folder, out, _ = two_lattices
    words = folder / "run.phil", folder / "two.expt", folder / "two.refl", f"best_pickle={out}"
    assert refine(*words, f"outdir={tmp_path}") == 0
    first, second = read_table(out), read_table(tmp_path)
    assert abs(second["target_init"][0] - first["target"][0]) < 1e-6 * first["target"][0]
    # Going on finds the rows of both as existing.
    assert refine(*words, f"outdir={tmp_path}", "ignore_existing=True") == 0
    assert len(read_table(tmp_path)) == 2


DIALS = """
import json, sys
from dxtbx.model.experiment_list import ExperimentListFactory
from dials.array_family import flex
expts = ExperimentListFactory.from_json_file(sys.argv[1], check_format=False)
refl = flex.reflection_table.from_file(sys.argv[2])
expts_again, out = expts, []
for e in expts:
    out.append({
        "cell": e.crystal.get_unit_cell().parameters(), "group": e.crystal.get_space_group().type().number(),
        "A": list(e.crystal.get_A()), "wavelength": e.beam.get_wavelength(), "s0": list(e.beam.get_unit_s0()),
        "origins": [list(p.get_origin()) for p in e.detector], "fast": [list(p.get_fast_axis()) for p in e.detector],
        "identifier": e.identifier,
    })
refl.assert_experiment_identifiers_are_consistent(expts)
print(json.dumps({
    "experiments": out, "rows": len(refl), "ids": list(refl["id"]), "columns": sorted(refl.keys()),
    "cal": [list(x) for x in refl["xyzcal.px"]], "old": [list(x) for x in refl["dials.xyzcal.px"]],
    "hkl": [list(x) for x in refl["miller_index"]],
}))
"""


def test_dials_reads_the_same(two_lattices: tuple[Path, Path, SmallShot]) -> None:
    python = shutil.which("dials.python") or "/usr/bin/python3"
    if subprocess.run([python, "-c", "import dials, dxtbx"], capture_output=True, check=False).returncode:
        pytest.skip("DIALS is not installed here")
    _, out, _ = two_lattices
    expt, refl = out / "two_refined.expt", out / "two_indexed.refl"
    command = [python, "-W", "ignore", "-c", DIALS, str(expt), str(refl)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    table, rows = read_reflections(refl), read_table(out).to_dict("records")
    assert said["rows"] == len(table)
    assert said["columns"] == sorted(table.columns)
    np.testing.assert_array_equal(said["ids"], table["id"])
    np.testing.assert_array_equal(said["hkl"], table["miller_index"])
    np.testing.assert_array_equal(said["cal"], table["xyzcal.px"])
    np.testing.assert_array_equal(said["old"], table["dials.xyzcal.px"])
    for theirs, ours, row in zip(said["experiments"], read_experiments(expt), rows, strict=True):
        assert ours.crystal is not None
        np.testing.assert_allclose(theirs["cell"], ours.crystal.cell, rtol=1e-9)
        np.testing.assert_allclose(theirs["cell"], [row[name] for name in ("a", "b", "c", "al", "be", "ga")], rtol=1e-9)
        np.testing.assert_allclose(theirs["A"], row["Amats"], rtol=0, atol=1e-12)
        assert (theirs["group"], theirs["identifier"]) == (96, ours.identifier)
        np.testing.assert_allclose(theirs["wavelength"], ours.beam.wavelength_A)
        np.testing.assert_allclose(theirs["s0"], ours.beam.direction)
        np.testing.assert_allclose(theirs["origins"], ours.detector.origin_mm, atol=1e-12)
        np.testing.assert_allclose(theirs["fast"], ours.detector.fast, atol=1e-12)

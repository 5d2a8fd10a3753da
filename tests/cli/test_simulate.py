"""`bayesbragg simulate`: its files read back, by DIALS too; the same words make the same files."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import h5py
import numpy as np
import pytest

from bayesbragg.cli.main import main
from bayesbragg.io.experiments import read_detector, read_experiments, write_experiments
from bayesbragg.io.images import count_images, read_image, read_image_experiment
from bayesbragg.io.reflections import read_reflections
from bayesbragg.model import Experiment, ImageReference
from bayesbragg.stills.virtual import four_panels, virtual_experiment

MTZ = Path(str(resources.files("bayesbragg") / "data" / "demo" / "structure_factors.mtz"))
WORDS = [
    f"simulator.structure_factors.mtz_name={MTZ}",
    "simulator.structure_factors.mtz_column=I(+),SIGI(+),I(-),SIGI(-)",
    "simulator.beam.size_mm=0.001",
    "simulator.oversample=1",
    "init.Nabc=7,8,14",
    "init.G=3000",
    "refiner.adu_per_photon=28",
    "refiner.sigma_r=3",
    "simulate.background.ring=1",
    "simulate.d_min=2.5",
    "simulate.spectrum=sase",
    "simulator.spectrum.gauss_spec.nchannels=4",
    "simulator.spectrum.gauss_spec.res=10",
    "simulator.spectrum.gauss_spec.fwhm=20",
]


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small detector as an experiment list."""
    path = tmp_path_factory.mktemp("camera") / "camera.expt"
    beam = virtual_experiment(0).beam
    write_experiments([Experiment("", beam, four_panels(side=120, distance_mm=40.0))], path)
    return path


def simulate(folder: Path, camera: Path, *words: str) -> int:
    return main(["simulate", *WORDS, f"simulate.experiment={camera}", f"outdir={folder}", *words, "-q"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, camera: Path) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    jitter = ["simulate.cell_sd=0.003", "simulate.block_sd=0.2", "simulate.scale_sd=0.1"]
    assert simulate(folder, camera, "simulate.n_shots=3", "simulate.images_per_file=2", *jitter) == 0
    return folder


def test_files_and_truth(made: Path, camera: Path) -> None:
    assert sorted(p.name for p in made.glob("*.h5")) == ["shot_00000.h5", "shot_00002.h5"]
    assert count_images(made / "shot_00000.h5") == 2
    truth = [json.loads((made / "truth" / f"shot_{n:05d}.json").read_text()) for n in range(3)]
    assert len({t["G"][0] for t in truth}) == 3
    assert all(t["cell_A_deg"][0] == pytest.approx(t["cell_A_deg"][1]) for t in truth)
    assert len({t["cell_A_deg"][0] for t in truth}) == 3
    for n, t in enumerate(truth):
        image_path = made / t["image"]
        experiment = read_image_experiment(image_path, t["index"])
        image = read_image(experiment.image, experiment.detector)
        np.testing.assert_array_equal(image.spectrum.photons, t["photons"])
        np.testing.assert_allclose(experiment.detector.origin_mm, read_detector(camera).origin_mm)
        (true,) = read_experiments(made / "truth" / f"shot_{n:05d}.expt")
        np.testing.assert_allclose(true.crystal.real_space_A, t["real_space_A"][0])
        assert (true.image.path, true.image.index) == (image_path, t["index"])
        table = read_reflections(made / "truth" / f"shot_{n:05d}.refl")
        assert len(table) > 10
        assert table.identifiers == {0: true.identifier}
        # The noisy image is bright where the truth says that a spot is.
        place = table["xyzcal.px"][:, :2].astype(int)
        bright = [image.raw[p][s, f] for p, (f, s) in zip(table["panel"], place, strict=True)]
        assert np.median(bright) > 5 * 28
        offset = np.linalg.norm(table["xyzobs.px.value"] - table["xyzcal.px"], axis=1)
        assert np.median(offset) < 0.3
    with h5py.File(made / "shot_00000.h5") as file:
        np.testing.assert_array_equal(file["truth/G"][:, 0], [t["G"][0] for t in truth[:2]])


def test_same_words_same_files_in_parallel(made: Path, camera: Path, tmp_path: Path) -> None:
    jitter = ["simulate.cell_sd=0.003", "simulate.block_sd=0.2", "simulate.scale_sd=0.1"]
    words = ["simulate.n_shots=1", "simulate.first=2", *jitter]
    assert simulate(tmp_path, camera, *words) == 0
    with h5py.File(made / "shot_00002.h5") as a, h5py.File(tmp_path / "shot_00002.h5") as b:
        np.testing.assert_array_equal(a["images"], b["images"])
    assert simulate(tmp_path / "other", camera, *words, "seed=5") == 0
    with h5py.File(made / "shot_00002.h5") as a, h5py.File(tmp_path / "other" / "shot_00002.h5") as b:
        assert not np.array_equal(a["images"], b["images"])


def test_faulty_geometry_noise_off_and_reused_background(camera: Path, tmp_path: Path) -> None:
    words = ["simulate.n_shots=1", "simulate.errors.detector_shift=0.1,0,0.4", "simulate.noise=False"]
    words += ["simulate.errors.group_rotation_sd=0.1,0,0", "joint.groups=single", "simulate.saturation=5000"]
    plain = [w for w in WORDS if "ring" not in w]
    thin = ["simulate.background.water=0.0002", "simulate.background.air=0.01"]
    common = ["simulate", *plain, *words, f"simulate.experiment={camera}"]
    assert main([*common, *thin, f"outdir={tmp_path / 'a'}", "-q"]) == 0
    stated = read_image_experiment(tmp_path / "a" / "shot_00000.h5").detector
    true = read_detector(tmp_path / "a" / "geometry_true.expt")
    shift = (stated.origin_mm - true.origin_mm).mean(axis=0)
    np.testing.assert_allclose(shift[2], 0.4, atol=1e-6)
    assert not np.allclose(stated.fast, true.fast, atol=1e-4)
    np.testing.assert_allclose(stated.origin_mm, read_detector(tmp_path / "a" / "geometry_stated.expt").origin_mm)
    assert np.all(stated.trusted_range[:, 1] == 4999)
    again = f"simulate.background.file={tmp_path / 'a' / 'background.npz'}"
    assert main([*common, again, f"outdir={tmp_path / 'b'}", "-q"]) == 0
    with h5py.File(tmp_path / "a" / "shot_00000.h5") as a, h5py.File(tmp_path / "b" / "shot_00000.h5") as b:
        assert np.abs(a["images"][()] - b["images"][()]).max() <= 1
        assert 0 < np.median(a["images"]) < a["images"][()].max() == 5000


def test_bad_words_end_in_one_line(camera: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["simulate.unit_cell=79,80,38,90,90,90"], "simulate.unit_cell"),
        (["simulate.n_lattices=2", "simulate.lattice_scales=1"], "give one for each lattice"),
        (["simulate.orientation=1,0,0,0,1,0,0,0,-1"], "not a rotation"),
        (["simulate.spectrum=file"], "needs simulator.spectrum.filename"),
        ([f"simulate.background.file={MTZ}"], "expected a background"),
        (["simulate.energy=1"], "reach below 0 eV"),
    ):
        assert simulate(tmp_path, camera, *words) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


@pytest.mark.skipif(shutil.which("dials.import") is None, reason="needs DIALS")
def test_dials_reads_the_images(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "imported.expt"
    options = [f"output.experiments={out}", "output.log=None", "convert_stills_to_sequences=False"]
    command = ["dials.import", str(made / "shot_00000.h5"), *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert out.is_file(), done.stdout + done.stderr
    theirs = read_experiments(out)
    ours = read_image_experiment(made / "shot_00000.h5")
    assert len(theirs) == 2
    np.testing.assert_allclose(theirs[0].detector.origin_mm, ours.detector.origin_mm, atol=1e-9)
    assert theirs[1].beam.wavelength_A == pytest.approx(
        read_image_experiment(made / "shot_00000.h5", 1).beam.wavelength_A, rel=0.01
    )
    assert isinstance(theirs[1].image, ImageReference)
    assert theirs[1].image.index == 1
    spots = tmp_path / "strong.refl"
    find = ["dials.find_spots", str(out), f"output.reflections={spots}", "output.log=None", "gain=28", "nproc=1"]
    done = subprocess.run(find, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert spots.is_file(), done.stdout + done.stderr
    assert len(read_reflections(spots)) > 20

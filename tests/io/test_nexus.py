"""NeXus files of Eiger and Jungfrau kind: pixels, masks, beams, and geometry against hand work and DIALS."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from nexus_files import eiger, eiger_panels, jungfrau, jungfrau_panels

from bayesbragg.io.experiments import read_experiments, write_experiments
from bayesbragg.io.hdf5_files import heaps_end
from bayesbragg.io.images import count_images, read_image, read_image_experiment
from bayesbragg.io.nexus_geometry import attenuation_per_mm
from bayesbragg.model import ImageReference
from bayesbragg.model.errors import InputError

SHAPE = (12, 16)


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 5000, (5, *SHAPE)).astype(np.uint16)


def same_place(detector: Any, expected: tuple[Any, Any, Any], rtol: float = 1e-12) -> None:
    for name, values in zip(("origin_mm", "fast", "slow"), expected, strict=True):
        np.testing.assert_allclose(getattr(detector, name), values, rtol=rtol, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("virtual", [False, True])
def test_eiger_master(tmp_path: Path, frames: np.ndarray, virtual: bool) -> None:
    frames[3, 0, :2] = 65535, 9001
    path = eiger(tmp_path, frames, virtual=virtual)
    assert count_images(path) == 5
    experiment = read_image_experiment(path, 3)
    assert experiment.beam.wavelength_A == 1.25
    np.testing.assert_array_equal(experiment.beam.direction, [0, 0, -1])
    detector = experiment.detector
    same_place(detector, eiger_panels())
    np.testing.assert_allclose(detector.pixel_size_mm, [[0.075, 0.075]])
    assert detector.image_size.tolist() == [[16, 12]]
    assert detector.thickness_mm[0] == pytest.approx(0.32)
    assert detector.trusted_range[0, 1] == 9000
    image = read_image(experiment.image, detector)
    np.testing.assert_array_equal(image.raw[0], frames[3])
    bad = np.zeros(SHAPE, bool)
    # Gap, user mask, no reading, saturated; a bit of the upper bytes only describes its pixel.
    bad[3, 4] = bad[7, 8] = bad[0, 0] = bad[0, 1] = True
    np.testing.assert_array_equal(~image.mask[0], bad)
    with pytest.raises(InputError, match="image 5 was asked for, the file has 5"):
        read_image_experiment(path, 5)
    (tmp_path / "eiger_data_000002.h5").unlink()
    with pytest.raises(InputError, match=r"image 3 was asked for, the file has 2|eiger_data_000002.h5, which is not"):
        read_image(experiment.image, detector)


@pytest.mark.parametrize("flat", [True, False])
def test_jungfrau_hierarchy(tmp_path: Path, flat: bool) -> None:
    rng = np.random.default_rng(2)
    data = rng.normal(0, 5, (4, 4, *SHAPE))
    stored = data.reshape(4, 4 * SHAPE[0], SHAPE[1]) if flat else data
    waves, weights = np.linspace(1.29, 1.32, 6), rng.uniform(1, 2, (4, 6)) * 1e9
    path = jungfrau(tmp_path / "jf.h5", stored, SHAPE, spectrum=(waves, weights), flat=flat)
    for index, z in ((0, 100.0), (2, 102.0)):
        experiment = read_image_experiment(path, index)
        same_place(experiment.detector, jungfrau_panels(z))
        image = read_image(experiment.image, experiment.detector)
        np.testing.assert_array_equal(image.raw, np.where(data[index] < -10, data[index], data[index]))
        np.testing.assert_array_equal(image.mask, data[index] >= -10)
        np.testing.assert_allclose(image.spectrum.wavelengths_A, waves)
        np.testing.assert_array_equal(image.spectrum.photons, weights[index])
        assert experiment.beam.wavelength_A == pytest.approx(np.average(waves, weights=weights[index]))
    tree = experiment.detector.document["hierarchy"]
    quadrants = tree["children"][0]["children"]
    assert [[c["panel"] for c in q["children"]] for q in quadrants] == [[0, 1], [2, 3]]
    write_experiments([experiment], tmp_path / "jf.expt")
    same_place(read_experiments(tmp_path / "jf.expt")[0].detector, jungfrau_panels(102.0))


def test_wavelength_of_each_image(tmp_path: Path, frames: np.ndarray) -> None:
    path = jungfrau(tmp_path / "jf.h5", np.zeros((3, 4 * SHAPE[0], SHAPE[1])), SHAPE)
    assert [read_image_experiment(path, i).beam.wavelength_A for i in range(3)] == pytest.approx([1.3, 1.305, 1.31])
    assert read_image(ImageReference(path, 1), read_image_experiment(path).detector).spectrum is None
    eiger(tmp_path, frames, wavelength=np.array([1.0, 1.1]))
    with pytest.raises(InputError, match="wavelength is not known: 2 wavelengths for 5 images"):
        read_image_experiment(tmp_path / "eiger_master.h5")


def test_offset_and_scale(tmp_path: Path) -> None:
    data = np.arange(4 * 12 * 16, dtype=np.int32).reshape(1, 48, 16)
    path = jungfrau(tmp_path / "jf.h5", data, SHAPE)
    with h5py.File(path, "r+") as file:
        file["entry/data/data_offset"], file["entry/data/data_scale_factor"] = -400.0, np.full((48, 16), 0.1)
    experiment = read_image_experiment(path)
    image = read_image(experiment.image, experiment.detector)
    np.testing.assert_allclose(np.concatenate(image.raw), (data[0] - 400.0) * 0.1)


@pytest.mark.parametrize("virtual", [False, True])
def test_offset_and_scale_of_pixels_in_other_files(tmp_path: Path, frames: np.ndarray, virtual: bool) -> None:
    path = eiger(tmp_path, frames, virtual=virtual)
    offset = np.full((5, *SHAPE), 65000, np.uint16)
    offset[3] += 7
    with h5py.File(path, "r+") as file:
        file["entry/data/data_offset"], file["entry/data/data_scale_factor"] = offset, np.uint16(2)
    image = read_image(ImageReference(path, 3), read_image_experiment(path).detector)
    np.testing.assert_array_equal(image.raw[0], (frames[3] + 65007.0) * 2.0)
    with h5py.File(path, "r+") as file:
        del file["entry/data/data_offset"]
        file["entry/data/data_offset"] = offset[:2]
    with pytest.raises(InputError, match="copy it again"):
        read_image(ImageReference(path, 3), read_image_experiment(path).detector)


@pytest.mark.parametrize(
    ("name", "value", "unit"),
    [
        ("incident_energy", 10.0, "keV"),
        ("incident_energy", 1e4, None),
        ("incident_wavelength", 1.239841984, "Angstrom"),
        ("incident_wavelength", 0.1239841984, "nm"),
    ],
)
def test_units_of_the_beam(tmp_path: Path, frames: np.ndarray, name: str, value: float, unit: str | None) -> None:
    path = eiger(tmp_path, frames)
    with h5py.File(path, "r+") as file:
        beam = file["entry/instrument/beam"]
        del beam["incident_wavelength"]
        beam[name] = value
        if unit is not None:
            beam[name].attrs["units"] = unit
    assert read_image_experiment(path).beam.wavelength_A == pytest.approx(1.239841984)


def test_detector_without_axes(tmp_path: Path, frames: np.ndarray) -> None:
    """Older masters have a distance and a beam centre only."""
    path = eiger(tmp_path, frames)
    with h5py.File(path, "r+") as file:
        detector = file["entry/instrument/detector"]
        del detector["module"], detector["transformations"], detector["depends_on"]
    with pytest.raises(InputError, match=r"not known.*no x_pixel_size, y_pixel_size, detector_distance, beam_center_x"):
        read_image_experiment(path)
    with h5py.File(path, "r+") as file:
        detector = file["entry/instrument/detector"]
        for name, value, unit in (
            ("x_pixel_size", 7.5e-5, "m"),
            ("y_pixel_size", 7.5e-5, "m"),
            ("detector_distance", 0.2, "m"),
            ("beam_center_x", 7.0, "pixel"),
            ("beam_center_y", 5.0, "pixel"),
        ):
            detector[name] = value
            detector[name].attrs["units"] = unit
    detector = read_image_experiment(path).detector
    np.testing.assert_allclose(detector.lab_mm([0], [7.0], [5.0]), [[0, 0, -200.0]], atol=1e-12)
    assert detector.normal[0, 2] == pytest.approx(-1.0)


def test_what_is_missing_is_named(tmp_path: Path, frames: np.ndarray) -> None:
    def broken(change: Any) -> str:
        folder = tmp_path / change.__name__
        folder.mkdir()
        path = eiger(folder, frames)
        with h5py.File(path, "r+") as file:
            change(file["entry/instrument"])
        with pytest.raises(InputError) as caught:
            read_image_experiment(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def loop(instrument: Any) -> None:
        instrument["detector/transformations/two_theta"].attrs["depends_on"] = "det_z"

    def nowhere(instrument: Any) -> None:
        instrument["detector/transformations/det_z"].attrs["depends_on"] = "gone"

    def unit(instrument: Any) -> None:
        instrument["detector/transformations/det_z"].attrs["units"] = "parsnip"

    def no_wave(instrument: Any) -> None:
        del instrument["beam/incident_wavelength"]

    def too_large(instrument: Any) -> None:
        del instrument["detector/module/data_size"]
        instrument["detector/module/data_size"] = [20, 20]

    assert "depends on itself" in broken(loop)
    assert "gone" in broken(nowhere)
    assert "parsnip" in broken(unit)
    assert "incident_wavelength" in broken(no_wave)
    path = eiger(tmp_path, frames)
    with h5py.File(path, "r+") as file:
        too_large(file["entry/instrument"])
    experiment = read_image_experiment(path)
    with pytest.raises(InputError, match=r"begins at \[0, 0\] with \[20, 20\] pixels; the images are \(12, 16\)"):
        read_image(experiment.image, experiment.detector)


def test_missing_filter_names_hdf5plugin(tmp_path: Path) -> None:
    path = jungfrau(tmp_path / "jf.h5", np.zeros((1, 48, 16), np.int32), SHAPE)
    with h5py.File(path, "r+") as file:
        del file["entry/data/data"]
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((1, 48, 16))
        # A filter with a number of nobody's, left out when writing where it is not installed.
        properties.set_filter(32999, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((1, 48, 16))
        made = h5py.h5d.create(file["entry/data"].id, b"data", h5py.h5t.STD_I32LE, space, properties)
        made.write_direct_chunk((0, 0, 0), b"packed", 0)
    experiment = read_image_experiment(path)
    with pytest.raises(InputError, match=r"compressed with a filter that is not installed.*hdf5plugin") as caught:
        read_image(experiment.image, experiment.detector)
    assert "\n" not in str(caught.value)


def test_attenuation_of_sensors() -> None:
    """Tables of the total attenuation (as cctbx has them, 1/mm) hold scattering, too: ours is a little less."""
    table = {"Si": (7.896, 2.190, 16.506), "GaAs": (20.110, 44.931, 40.386), "CdTe": (85.622, 26.439, 167.929)}
    for material, values in table.items():
        ours = np.array([attenuation_per_mm(material, w) for w in (1.23984, 0.8, 1.6)])
        assert np.all((ours < values) & (ours > 0.88 * np.array(values)))
    assert attenuation_per_mm("unobtainium", 1.0) == 0.0


@pytest.mark.skipif(shutil.which("dials.import") is None, reason="needs DIALS")
def test_geometry_is_that_of_dials(tmp_path: Path, frames: np.ndarray) -> None:
    eiger_path = eiger(tmp_path, frames.astype(np.int32), virtual=True)
    jungfrau_path = jungfrau(tmp_path / "jf.h5", np.zeros((2, 48, 16)), SHAPE)
    for path in (eiger_path, jungfrau_path):
        out = tmp_path / f"{path.stem}.expt"
        command = [
            "dials.import",
            str(path),
            f"output.experiments={out}",
            "output.log=None",
            "convert_stills_to_sequences=False",
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert out.is_file(), done.stdout + done.stderr
        theirs, ours = read_experiments(out)[0], read_image_experiment(path)
        same_place(ours.detector, (theirs.detector.origin_mm, theirs.detector.fast, theirs.detector.slow), rtol=1e-9)
        np.testing.assert_array_equal(ours.detector.image_size, theirs.detector.image_size)
        np.testing.assert_allclose(ours.detector.pixel_size_mm, theirs.detector.pixel_size_mm)
        np.testing.assert_allclose(ours.detector.thickness_mm, theirs.detector.thickness_mm)
        ratio = ours.detector.attenuation_per_mm / theirs.detector.attenuation_per_mm
        assert np.all((ratio > 0.9) & (ratio < 1.0))
        np.testing.assert_allclose(ours.beam.direction, theirs.beam.direction)
        assert ours.beam.wavelength_A == pytest.approx(theirs.beam.wavelength_A)


def test_blanked_heap_does_not_hang(tmp_path: Path, frames: np.ndarray) -> None:
    """The HDF5 library walks a heap of zeros for ever; such a file is refused before it is opened."""
    path = eiger(tmp_path, frames)
    assert heaps_end(path)
    data = bytearray(path.read_bytes())
    start = data.index(b"GCOL")
    data[start + 64 : start + 4096] = bytes(4032)
    path.write_bytes(data)
    assert not heaps_end(path)
    with pytest.raises(InputError, match="a heap of the HDF5 file is damaged"):
        read_image_experiment(path)

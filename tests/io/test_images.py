"""Images out of HDF5, fabio formats and shoeboxes, and what is wrong with some of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import fabio
import h5py
import numpy as np
import pytest

from bayesbragg.io import images as images_module
from bayesbragg.io.images import image_from_shoeboxes, image_readers, read_image, read_image_experiment
from bayesbragg.model import Detector, ImageReference, Reflections, Shoebox
from bayesbragg.model.errors import InputError

BEAM = {"direction": (0.0, 0.0, 1.0), "wavelength": 1.3, "polarization_normal": (0.0, 1.0, 0.0)}


def panel(i: int) -> dict[str, Any]:
    axes = {"fast_axis": (1.0, 0.0, 0.0), "slow_axis": (0.0, -1.0, 0.0), "origin": (float(i), 2.0, -100.0)}
    return {"name": f"p{i}", "image_size": (5, 4), "pixel_size": (0.1, 0.1), "raw_image_offset": (5 * i, 0), **axes}


@pytest.fixture
def numbers() -> np.ndarray:
    return np.random.default_rng(0).normal(100, 10, size=(2, 3, 4, 5))


@pytest.fixture
def path(tmp_path: Path, numbers: np.ndarray) -> Path:
    path = tmp_path / "shots.h5"
    with h5py.File(path, "w") as file:
        images = file.create_dataset("images", data=numbers, compression="gzip", chunks=(1, 1, 4, 5))
        images.attrs["dxtbx_detector_string"] = repr({"panels": [panel(i) for i in range(3)]})
        images.attrs["dxtbx_beam_string"] = repr(BEAM)
        file["wavelengths"] = np.array([1.3, 1.31])
        file["spectrum"] = np.array([[1e10, 2e10], [3e10, 4e10]])
    return path


@pytest.fixture
def detector(path: Path) -> Detector:
    return read_image_experiment(path).detector


def test_hdf5(path: Path, numbers: np.ndarray, detector: Detector) -> None:
    image = read_image(ImageReference(path, 1), detector)
    np.testing.assert_array_equal(image.raw, numbers[1])
    assert image.mask is None
    assert image.spectrum is not None
    np.testing.assert_array_equal(image.spectrum.photons, [3e10, 4e10])
    np.testing.assert_array_equal(image.spectrum.wavelengths_A, [1.3, 1.31])


def test_experiment_of_the_file(path: Path) -> None:
    experiment = read_image_experiment(path, 1)
    np.testing.assert_array_equal(experiment.detector.origin_mm[2], [2, 2, -100])
    np.testing.assert_array_equal(experiment.beam.direction, [0, 0, -1])
    assert experiment.beam.wavelength_A == 1.3
    assert experiment.crystal is None
    assert experiment.image is not None
    assert (experiment.image.path, experiment.image.index) == (path, 1)


def test_single_panel_and_one_spectrum(tmp_path: Path, detector: Detector) -> None:
    vectors = ("origin_mm", "fast", "slow", "pixel_size_mm", "image_size", "trusted_range")
    scalars = ("thickness_mm", "attenuation_per_mm", "gain", "names")
    one = replace(detector, **{name: getattr(detector, name)[:1] for name in (*vectors, *scalars)})
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["images"] = np.arange(40, dtype=np.int32).reshape(2, 4, 5)
        file["wavelengths"], file["spectrum"] = [1.0, 1.1], [5.0, 6.0]
    image = read_image(ImageReference(tmp_path / "flat.h5", 1), one)
    np.testing.assert_array_equal(image.raw[0], np.arange(20, 40).reshape(4, 5))
    assert image.spectrum is not None
    assert image.spectrum.flux == 11.0


def test_pixels_without_a_number(path: Path, numbers: np.ndarray, detector: Detector, tmp_path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["images"][0, 1, 2, 3] = np.nan
        file["images"][0, 2, 0, 0] = np.inf
        file["images"][1] = np.nan
    image = read_image(ImageReference(path, 0), detector)
    assert image.mask is not None
    assert [(~m).sum() for m in image.mask] == [0, 1, 1]
    assert image.raw[1][2, 3] == 0
    assert np.all(np.isfinite(image.raw))
    with pytest.raises(InputError, match="all NaN"):
        read_image(ImageReference(path, 1), detector)
    mask = np.ones((3, 4, 5), bool)
    mask[0, 0, 0] = False
    np.save(tmp_path / "mask.npy", mask)
    image = read_image(ImageReference(path, 0, tmp_path / "mask.npy"), detector)
    assert image.mask is not None
    assert [(~m).sum() for m in image.mask] == [1, 1, 1]


def test_bad_files(path: Path, tmp_path: Path, detector: Detector) -> None:
    with pytest.raises(InputError, match="image 2 was asked for, the file has 2"):
        read_image(ImageReference(path, 2), detector)
    with pytest.raises(InputError, match="no such file"):
        read_image(ImageReference(tmp_path / "none.h5"), detector)
    with pytest.raises(InputError, match="no such file"):
        read_image_experiment(tmp_path / "none.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = 1
    with pytest.raises(InputError, match=r"no data set 'images' \(there are: data\)"):
        read_image(ImageReference(tmp_path / "other.h5"), detector)
    (tmp_path / "what.xyz").write_text("?")
    with pytest.raises(InputError, match="no reader knows"):
        read_image(ImageReference(tmp_path / "what.xyz"), detector)
    with h5py.File(path, "r+") as file:
        file["images"].attrs["dxtbx_beam_string"] = "__import__('os').getcwd()"
        del file["images"].attrs["dxtbx_detector_string"]
        file["spectrum"][0] = -1
    with pytest.raises(InputError, match="dxtbx_detector_string"):
        read_image_experiment(path)
    with pytest.raises(InputError, match="not negative"):
        read_image(ImageReference(path, 0), detector)
    with h5py.File(path, "r+") as file:
        file["images"].attrs["dxtbx_detector_string"] = "{}"
    with pytest.raises(InputError, match="no Python literal"):
        read_image_experiment(path)
    with h5py.File(path, "r+") as file:
        file["images"].attrs["dxtbx_beam_string"] = "{'direction': (0, 0, 1), 'wavelength': 1}"
        panel = {"origin": [0, 0, -9], "fast_axis": [1, 0, 0], "slow_axis": [0, 1, 0], "pixel_size": [1, 1]}
        file["images"].attrs["dxtbx_detector_string"] = repr([{**panel, "image_size": [10**30, 4]}])
    with pytest.raises(InputError, match="geometry in the attributes"):
        read_image_experiment(path)


def test_panels_of_another_detector(path: Path, detector: Detector) -> None:
    other = replace(detector, image_size=np.array([[5, 4], [5, 4], [6, 4]]))
    with pytest.raises(InputError, match=r"panel 2 of shape \(4, 5\).*that one of \(4, 6\)"):
        read_image(ImageReference(path), other)


def test_truncated_hdf5(path: Path, tmp_path: Path, detector: Detector) -> None:
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    cut = tmp_path / "cut.h5"
    for length in [0, 1, 100, *rng.integers(8, len(data) - 1, 60)]:
        cut.write_bytes(data[:length])
        for read in (lambda: read_image(ImageReference(cut), detector), lambda: read_image_experiment(cut)):
            with pytest.raises(InputError, match=r"cut\.h5") as caught:
                read()
            assert "\n" not in str(caught.value)


def test_fabio_formats(tmp_path: Path, detector: Detector) -> None:
    """One large frame, cut into the panels by their offsets."""
    frame = np.random.default_rng(0).poisson(20, size=(4, 15)).astype(np.int32)
    for suffix, kind in (("cbf", fabio.cbfimage.CbfImage), ("edf", fabio.edfimage.EdfImage)):
        path = tmp_path / f"image.{suffix}"
        kind(data=frame).write(str(path))
        image = read_image(ImageReference(path), detector)
        for i in range(3):
            np.testing.assert_array_equal(image.raw[i], frame[:, 5 * i : 5 * i + 5])
        with pytest.raises(InputError, match="image 3 was asked for"):
            read_image(ImageReference(path, 3), detector)
        data = path.read_bytes()
        for length in np.random.default_rng(1).integers(0, len(data) - 1, 20):
            path.write_bytes(data[:length])
            with suppress(InputError):
                # The formats end with padding, without which an image is still whole.
                np.testing.assert_array_equal(read_image(ImageReference(path), detector).raw[0], frame[:, :5])


def test_one_frame_for_panels_without_places(tmp_path: Path, detector: Detector) -> None:
    """A stack of panels with offsets of zero, as NeXus geometries have them, is not the first panel three times."""
    path = tmp_path / "stack.edf"
    fabio.edfimage.EdfImage(data=np.arange(60, dtype=np.int32).reshape(12, 5)).write(str(path))
    document = json.loads(json.dumps(detector.document))
    for panel in document["panels"]:
        panel["raw_image_offset"] = [0, 0]
    with pytest.raises(InputError, match="raw_image_offset"):
        read_image(ImageReference(path), replace(detector, document=document))


@pytest.fixture
def fresh_readers() -> Iterator[None]:
    image_readers.cache_clear()
    yield
    image_readers.cache_clear()


def test_readers_of_other_packages(monkeypatch: Any, detector: Detector, fresh_readers: None, tmp_path: Path) -> None:
    class Mine:
        def accepts(self, path: Path) -> bool:
            return path.suffix == ".mine"

        def read(self, path: Path, index: int) -> Any:
            return [np.full((4, 5), index + i) for i in range(3)], None

    class Entry:
        name = "mine"

        def load(self) -> Any:
            return Mine

    class Broken(Entry):
        def load(self) -> Any:
            raise ImportError("not there")

    monkeypatch.setattr(images_module, "entry_points", lambda group: [Broken(), Entry()])
    image = read_image(ImageReference(tmp_path / "x.mine", 7), detector)
    assert [p[0, 0] for p in image.raw] == [7, 8, 9]


def shoebox(panel: int, x0: int, y0: int, data: np.ndarray, mask: np.ndarray | None = None) -> Shoebox:
    nz, ny, nx = data.shape
    mask = np.full(data.shape, 5, np.int32) if mask is None else mask
    return Shoebox(panel, (x0, x0 + nx, y0, y0 + ny, 0, nz), data.astype(np.float32), mask, np.zeros_like(data))


def table(*boxes: Shoebox) -> Reflections:
    column = np.empty(len(boxes), dtype=object)
    column[:] = boxes
    return Reflections({"shoebox": column})


def test_image_from_shoeboxes(detector: Detector) -> None:
    """A box over the corner of a panel, one with an untrusted pixel, one of two frames."""
    data = np.arange(1.0, 7.0).reshape(1, 2, 3)
    mask = np.full((1, 2, 3), 5, np.int32)
    mask[0, 1, 1] = 2
    frames = np.ones((2, 1, 1))
    image = image_from_shoeboxes(
        table(shoebox(0, -1, -1, data), shoebox(1, 1, 1, data, mask), shoebox(2, 4, 3, frames)), detector
    )
    assert image.mask is not None
    expected = np.zeros((4, 5))
    expected[0, :2] = [5, 6]
    np.testing.assert_array_equal(image.raw[0], expected)
    np.testing.assert_array_equal(image.mask[0], expected > 0)
    expected = np.zeros((4, 5))
    expected[1:3, 1:4] = [[1, 2, 3], [4, 0, 6]]
    np.testing.assert_array_equal(image.raw[1], expected)
    np.testing.assert_array_equal(image.mask[1], expected > 0)
    assert image.raw[2][3, 4] == 2
    for bad, message in (
        (Reflections({"id": np.zeros(1)}), "no shoeboxes"),
        (table(shoebox(0, 0, 0, np.zeros((0, 0, 0)))), "are empty"),
        (table(shoebox(3, 0, 0, data)), "panel 3"),
    ):
        with pytest.raises(InputError, match=message):
            image_from_shoeboxes(bad, detector)


def test_tutorial_shoeboxes_are_the_image(shared: Path) -> None:
    from bayesbragg.io.experiments import read_experiments
    from bayesbragg.io.reflections import read_reflections

    folder = shared / "tutorial" / "indexed"
    (experiment,) = read_experiments(folder / "shot_000_refined.expt")
    assert experiment.image is not None
    whole = read_image(experiment.image, experiment.detector)
    parts = image_from_shoeboxes(read_reflections(folder / "shot_000_indexed.refl"), experiment.detector)
    assert parts.mask is not None
    assert sum(m.sum() for m in parts.mask) > 1000
    for a, b, m in zip(whole.raw, parts.raw, parts.mask, strict=True):
        np.testing.assert_array_equal(a[m], b[m])
    own = read_image_experiment(experiment.image.path)
    np.testing.assert_allclose(own.detector.origin_mm, experiment.detector.origin_mm, atol=1e-12)
    assert whole.spectrum is not None
    assert whole.spectrum.n_channels == 30

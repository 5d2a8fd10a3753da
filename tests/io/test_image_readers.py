"""Readers that others add: the one of the manual, installed as an entry point, and dxtbx where there is one."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bayesbragg.io import dxtbx_images
from bayesbragg.io.images import count_images, image_readers, read_image, read_image_experiment
from bayesbragg.model.errors import InputError

MANUAL = Path(__file__).parents[2] / "docs" / "images.md"


@pytest.fixture(autouse=True)
def fresh_readers() -> Iterator[None]:
    image_readers.cache_clear()
    yield
    image_readers.cache_clear()


def test_the_reader_of_the_manual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.findall(r"```python\n(.*?)```", MANUAL.read_text(), re.DOTALL)[-1]
    assert len([line for line in code.splitlines() if line]) <= 50
    (tmp_path / "ourlab_images.py").write_text(code)
    described = tmp_path / "ourlab-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: ourlab\nVersion: 1.0\n")
    entry = "[bayesbragg.image_readers]\nourlab = ourlab_images:OurLabReader\n"
    (described / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(str(tmp_path))
    rng = np.random.default_rng(0)
    frames, dark = rng.normal(100, 10, (3, 6, 8)), rng.uniform(1, 2, (6, 8))
    bad = np.zeros((6, 8), int)
    bad[1, 2] = 1
    path = tmp_path / "run.ourlab.npz"
    photons = np.array([[1.0, 1], [1, 3], [2, 0]])
    known = {"pixel_mm": 0.1, "distance_mm": 90.0, "adu_per_photon": 28.0, "dark_rms": dark, "bad_pixels": bad}
    known |= {"wavelengths_A": np.array([1.2, 1.4]), "photons": photons, "beam_centre_px": np.array([4.0, 3.0])}
    np.savez(path, frames=frames, **known)
    assert count_images(path) == 3
    experiment = read_image_experiment(path, 1)
    assert experiment.beam.wavelength_A == pytest.approx(1.35)
    np.testing.assert_allclose(experiment.detector.lab_mm([0], [4.0], [3.0]), [[0, 0, -90]], atol=1e-12)
    image = read_image(experiment.image, experiment.detector)
    np.testing.assert_array_equal(image.raw[0], frames[1])
    np.testing.assert_array_equal(~image.mask[0], bad == 1)
    np.testing.assert_array_equal(image.gain, [28.0])
    np.testing.assert_array_equal(image.readout_sd[0], dark)
    np.testing.assert_array_equal(image.spectrum.photons, [1, 3])
    with pytest.raises(InputError, match="image 3 was asked for"):
        read_image_experiment(path, 3)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"run\.ourlab\.npz"):
        read_image_experiment(path)


PANEL = {"fast_axis": (1, 0, 0), "slow_axis": (0, -1, 0), "origin": (0, 0, -50), "pixel_size": (0.1, 0.1)}


class Flex:
    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    def as_numpy_array(self) -> Any:
        return self.values


class Images:
    """What dxtbx's image sets offer, as far as the reader uses it."""

    def __len__(self) -> int:
        return 2

    def get_raw_data(self, index: int) -> Any:
        return (Flex(np.full((3, 4), index)),)

    def get_mask(self, index: int) -> Any:
        return (Flex(np.eye(3, 4) == 0),)

    def get_detector(self, index: int) -> Any:
        return SimpleNamespace(to_dict=lambda: {"panels": [{**PANEL, "image_size": (4, 3)}]})

    def get_beam(self, index: int) -> Any:
        return SimpleNamespace(to_dict=lambda: {"direction": (0, 0, 1), "wavelength": 1.0 + index})

    def get_spectrum(self, index: int) -> Any:
        return SimpleNamespace(get_energies_eV=lambda: Flex([1e4, 2e4]), get_weights=lambda: Flex([1.0, 2.0]))


def test_dxtbx_where_it_is_importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.xtc"
    path.write_bytes(b"whatever only dxtbx knows")
    if dxtbx_images.find_spec("dxtbx") is None:
        with pytest.raises(InputError, match="no reader knows"):
            read_image_experiment(path)
    registry = ModuleType("dxtbx.format.Registry")
    registry.get_format_class_for_file = lambda name: (  # type: ignore[attr-defined]
        SimpleNamespace(get_imageset=lambda names, as_imageset: Images()) if name.endswith(".xtc") else None
    )
    for name in ("dxtbx", "dxtbx.format"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "dxtbx.format.Registry", registry)
    monkeypatch.setattr(dxtbx_images, "find_spec", lambda name: object())
    experiment = read_image_experiment(path, 1)
    assert (count_images(path), experiment.beam.wavelength_A) == (2, 2.0)
    image = read_image(experiment.image, experiment.detector)
    np.testing.assert_array_equal(image.raw[0], np.ones((3, 4)))
    np.testing.assert_array_equal(image.mask[0], np.eye(3, 4) == 0)
    np.testing.assert_allclose(image.spectrum.energies_eV, [1e4, 2e4])
    with pytest.raises(InputError, match="image 2 was asked for, the file has 2"):
        read_image_experiment(path, 2)
    monkeypatch.setattr(Images, "get_raw_data", lambda self, index: 1 / 0)
    with pytest.raises(InputError, match="dxtbx cannot read it: ZeroDivisionError"):
        read_image(experiment.image, experiment.detector)

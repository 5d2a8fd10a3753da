"""Full CBF images: pixels and geometry against what was written, against DIALS, and damaged files."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cbf_files import ANGLE, write_cbf

from bayesbragg.io.experiments import read_experiments
from bayesbragg.io.images import read_image, read_image_experiment
from bayesbragg.io.reflections import read_reflections
from bayesbragg.model.errors import InputError


@pytest.fixture
def pixels() -> Any:
    return np.random.default_rng(0).poisson(20, (2, 4, 10)).astype(np.int32)


@pytest.fixture
def cbf(tmp_path: Path, pixels: Any) -> Path:
    return write_cbf(tmp_path / "sections.cbf", pixels)


def test_sections_become_panels_of_a_hierarchy(cbf: Path, pixels: Any) -> None:
    experiment = read_image_experiment(cbf)
    detector = experiment.detector
    image = read_image(experiment.image, detector)
    assert detector.names == ("P0", "P1", "P2", "P3")
    for i in range(4):
        np.testing.assert_array_equal(image.raw[i], pixels[i // 2, :, 5 * (i % 2) : 5 + 5 * (i % 2)])
    turn = np.exp(1j * np.radians(ANGLE))
    for i in range(4):
        # The panel's corner in the turned quadrant, as a complex number.
        corner = 10 + turn * complex(i, 2)
        np.testing.assert_allclose(detector.origin_mm[i], [corner.real, corner.imag, -100], atol=1e-12)
        np.testing.assert_allclose(detector.fast[i], [turn.real, turn.imag, 0], atol=1e-12)
        np.testing.assert_allclose(detector.slow[i], [turn.imag, -turn.real, 0], atol=1e-12)
    assert detector.pixel_size_mm.tolist() == [[0.1, 0.2]] * 4
    assert detector.image_size.tolist() == [[5, 4]] * 4
    assert detector.trusted_range.tolist() == [[-4, 900]] * 4
    assert detector.gain.tolist() == [2.0] * 4
    assert detector.document is not None
    assert [c["name"] for c in detector.document["hierarchy"]["children"]] == ["QUAD"]
    assert experiment.beam.wavelength_A == 1.3
    np.testing.assert_array_equal(experiment.beam.direction, [0, 0, -1])


def test_undefined_pixels_are_not_trusted(tmp_path: Path, pixels: Any) -> None:
    """The header's undefined_value, -4 here, is the lower end of the trusted range too, as dxtbx has it."""
    pixels[1, 2, 7] = -4
    experiment = read_image_experiment(write_cbf(tmp_path / "gap.cbf", pixels))
    image = read_image(experiment.image, experiment.detector)
    assert [np.argwhere(~mask).tolist() for mask in image.mask] == [[], [], [], [[2, 2]]]
    pixels[1, 2, 7] = 4
    experiment = read_image_experiment(write_cbf(tmp_path / "none.cbf", pixels))
    assert read_image(experiment.image, experiment.detector).mask is None


def test_damage_is_named(cbf: Path) -> None:
    data = cbf.read_bytes()
    with pytest.raises(InputError, match="has 1"):
        read_image_experiment(cbf, 1)
    cbf.write_bytes(data[: data.index(b"\x0c\x1a\x04\xd5") + 60])
    with pytest.raises(InputError, match="cut short"):
        read_image_experiment(cbf)
    at = data.index(b"\x0c\x1a\x04\xd5") + 30
    cbf.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(InputError, match="checksum"):
        read_image_experiment(cbf)


def test_mutated_files_raise_only_input_errors(cbf: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = cbf.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(150):
        mutant = bytearray(data)
        for at in rng.integers(8, len(data), rng.integers(1, 4)):
            mutant[at] = rng.integers(0, 256)
        cbf.write_bytes(bytes(mutant[: rng.integers(len(data) // 2, len(data))] if rng.random() < 0.3 else mutant))
        with suppress(InputError):
            experiment = read_image_experiment(cbf)
            read_image(experiment.image, experiment.detector)


@pytest.mark.parametrize("shot", ["401", "601", "701", "801"])
def test_cspad_geometry_is_that_of_dials(shared: Path, shot: str) -> None:
    name = f"idx-20130301060858{shot}"
    experiment = read_image_experiment(shared / "real" / f"{name}.cbf")
    reference = read_experiments(shared / "real" / "dials" / f"{name}_refined.expt")[0]
    for what in ("origin_mm", "fast", "slow", "pixel_size_mm", "image_size", "trusted_range", "gain"):
        ours, theirs = (getattr(e.detector, what) for e in (experiment, reference))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11)
    assert experiment.detector.names == reference.detector.names
    assert experiment.beam.wavelength_A == reference.beam.wavelength_A
    image = read_image(experiment.image, experiment.detector)
    # The pixels that DIALS kept of its spots are there: pixels and panels belong together.
    for box in read_reflections(shared / "real" / "dials" / f"{name}_indexed.refl")["shoebox"]:
        x0, x1, y0, y1 = box.bbox[:4]
        kept = box.mask[0] != 0
        np.testing.assert_array_equal(image.raw[box.panel][y0:y1, x0:x1][kept], box.data[0][kept])


def test_rayonix(shared: Path) -> None:
    experiment = read_image_experiment(shared / "real" / "rayonix_hit-20181213155134902.cbf")
    np.testing.assert_allclose(experiment.detector.origin_mm, [[-170, 170, -124]])
    assert experiment.beam.wavelength_A == 1.30375729885
    image = read_image(experiment.image, experiment.detector)
    # What dxtbx reads from this file.
    assert image.raw[0].shape == (1920, 1920)
    assert image.raw[0].mean() == pytest.approx(925.226822374132)

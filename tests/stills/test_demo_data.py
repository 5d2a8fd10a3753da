"""The bundled demonstration data are whole, small, free of machine paths, and off by what they claim."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import bayesbragg
from bayesbragg.io.experiments import read_experiments
from bayesbragg.io.images import read_image
from bayesbragg.io.reflections import read_reflections
from bayesbragg.io.structure_factors import read_mtz
from bayesbragg.model import Crystal

DEMO = Path(bayesbragg.__file__).parent / "data" / "demo"
SHOTS = ("shot_000", "shot_001", "shot_002")


def test_small_and_free_of_machine_paths() -> None:
    files = list(DEMO.iterdir())
    assert sum(f.stat().st_size for f in files) < 2e6
    for file in files:
        assert b"/work" not in file.read_bytes()
    for shot in SHOTS:
        document = json.loads((DEMO / f"{shot}_indexed.expt").read_text())
        assert document["imageset"][0]["images"] == [f"{shot}.h5"]


@pytest.mark.parametrize("shot", SHOTS)
def test_start_is_off_as_indexing_leaves_it(shot: str) -> None:
    experiment = read_experiments(DEMO / f"{shot}_indexed.expt")[0]
    truth = json.loads((DEMO / "truth.json").read_text())
    crystal = Crystal(np.array(truth["shots"][shot]["real_space_A"]))
    start = experiment.crystal
    assert start is not None
    angle = np.degrees(np.arccos((np.trace(start.U @ crystal.U.T) - 1) / 2))
    assert angle == pytest.approx(0.1, abs=1e-3)
    assert np.allclose(np.abs(start.cell[:3] / crystal.cell[:3] - 1), 0.003, atol=1e-6)
    assert start.space_group_number == 96


@pytest.mark.parametrize("shot", SHOTS)
def test_files_fit_together(shot: str) -> None:
    experiment = read_experiments(DEMO / f"{shot}_indexed.expt")[0]
    table = read_reflections(DEMO / f"{shot}_indexed.refl")
    assert table.identifiers == {0: experiment.identifier}
    assert 60 <= len(table) <= 128
    assert experiment.image is not None
    image = read_image(experiment.image, experiment.detector)
    assert [panel.shape for panel in image.raw] == [(300, 300)] * 4
    assert image.spectrum is not None
    assert image.spectrum.n_channels == 12
    # Spots are where the table says: the brightest pixels near them stand far above the background.
    f, s = table["xyzobs.px.value"][:, :2].astype(int).T
    peak = np.array([image.raw[p][b, a] for p, a, b in zip(table["panel"], f, s, strict=True)])
    assert np.median(peak) > 10 * np.median(np.stack(image.raw))
    offset = np.linalg.norm((table["xyzcal.px"] - table["xyzobs.px.value"])[:, :2], axis=1)
    assert 0.3 < np.sqrt(np.mean(offset**2)) < 2.0
    factors = read_mtz(DEMO / "structure_factors.mtz", "I(+),SIGI(+),I(-),SIGI(-)", space_group=96)
    assert np.mean(factors.contains(table["miller_index"])) == 1.0

"""The classic program's stored model, made again from files by our own readers, at its own final parameters."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bayesbragg as bb
from bayesbragg.forward import Options, Parameters, build_scene, expected_photons
from bayesbragg.model import Shot
from bayesbragg.pipeline.api import structure_factors
from bayesbragg.priors import CellConstraint

RUNS = {"procPoly": "indexed", "procBad": "indexed_badGeo"}
SHOTS = [
    pytest.param(run, shot, marks=() if (run, shot) == ("procPoly", 3) else pytest.mark.slow)
    for run in RUNS
    for shot in range(10)
]


@pytest.mark.parametrize(("run", "shot"), SHOTS)
def test_classic_model_from_our_readers(shared: Path, run: str, shot: int) -> None:
    tutorial = shared / "tutorial"
    tag = f"shot_{shot:03d}"
    settings = bb.RefineSettings(
        counts=bb.CountSettings(28.0, 3.0),
        spectrum=bb.SpectrumSettings(source="image"),
        factors=bb.FactorSettings(
            mtz=tutorial / "structure_factors" / "iobs_all.mtz", columns="I(+),SIGI(+),I(-),SIGI(-)"
        ),
    )
    start = tutorial / RUNS[run]
    (still,) = bb.load(start / f"{tag}_refined.expt", start / f"{tag}_indexed.refl", settings)
    record = json.loads((tutorial / "classic" / run / "fits.json").read_text())
    row = next(r for r in (record if isinstance(record, list) else record.values()) if int(r["shot"]) == shot)
    final = ast.literal_eval(row["params"]) if isinstance(row["params"], str) else row["params"]
    stored = np.load(tutorial / "classic" / run / f"{tag}_pixels.npz")
    bounds = stored["roi_f1_f2_s1_s2"].astype(int)
    n = len(bounds)
    blank = np.zeros((n, 144))
    boxes = Shot(
        panel=stored["roi_panel"].astype(int),
        bounds=bounds,
        shape=(12, 12),
        counts=blank,
        background=blank,
        trusted=blank > 0,
        readout_sd=np.asarray(0.0),
        miller_index=stored["roi_miller_index"].astype(int),
        reflection_row=stored["roi_reflection_row"].astype(int),
        lattice=np.zeros(n, int),
        tilt=np.zeros((n, 3)),
    )
    crystal = still.crystals[0]
    cell = np.array([final["a"], final["a"], final["c"], *[np.pi / 2] * 3])
    CellConstraint.for_space_group(crystal.space_group_number, cell)
    parameters = Parameters.start(
        cell,
        rot_xyz=[final["rotX"], final["rotY"], final["rotZ"]],
        n_abc=final["Nabc"],
        G=final["G"],
    )
    options = Options()
    padded = boxes.padded()
    factors = structure_factors(still, settings)
    scene = build_scene(
        still.detector, still.experiments[0].beam, still.spectrum, [crystal], padded, factors, parameters, options,
        kahn_factor=1.0,
    )  # fmt: skip
    ours = np.asarray(expected_photons(parameters, scene, options))[:n][boxes.valid]
    classic = stored["model_bragg_photons"]
    where = np.stack([boxes.panel[:, None] + 0 * boxes.fast, boxes.fast, boxes.slow], -1)[boxes.valid]
    assert np.array_equal(where, stored["panel_fast_slow"])
    assert np.abs(ours - classic).max() < 1e-5 * classic.max()
    # The experiment's own polarization (0.999) changes single pixels by up to a part in a thousand.
    own = replace(scene, beam=replace(scene.beam, kahn=np.asarray(still.experiments[0].beam.kahn_factor)))
    other = np.asarray(expected_photons(parameters, own, options))[:n][boxes.valid]
    bright = classic > 1.0
    assert 1e-5 < np.abs(other / ours - 1)[bright].max() < 5e-3

"""Unknown intensities, inferred planes and outliers in refinements of the demonstration data, against their truth."""

from __future__ import annotations

import json
from dataclasses import replace

import gemmi
import numpy as np
import pytest

import bayesbragg as bb
from bayesbragg.io.phil import load_phil
from bayesbragg.model import Crystal
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.api import demo_folder
from bayesbragg.pipeline.from_phil import settings_from_phil
from bayesbragg.pipeline.load import load_factors
from bayesbragg.pipeline.pixel_model import expected_intensity, on_own_reflection, pixels_of
from bayesbragg.pipeline.refine import Refined, prepare
from bayesbragg.pipeline.settings import FactorSettings
from bayesbragg.pipeline.still import Still
from bayesbragg.stills.background import poisson_planes
from bayesbragg.stills.boxes import BoxSettings, PanelLayout
from bayesbragg.stills.shot import make_shot

WILSON = bb.RefineSettings(
    counts=bb.CountSettings(28.0, 3.0),
    spectrum=bb.SpectrumSettings(source="image"),
    factors=FactorSettings(intensities="wilson"),
    model=bb.ModelSettings(oversample=2),
)


@pytest.fixture(scope="module")
def still() -> Still:
    folder = demo_folder()
    (found,) = bb.load(folder / "shot_000_indexed.expt", folder / "shot_000_indexed.refl", WILSON)
    return found


def test_expected_intensities_follow_gemmis_symmetry() -> None:
    group = gemmi.SpaceGroup("P 43 21 2")
    crystal = Crystal(np.diag([79.0, 79.0, 38.0]), "P 43 21 2", 96, group.hall)
    hkl = np.array([[1, 2, 3], [0, 0, 4], [3, 3, 1], [5, 0, 2], [4, 4, 0], [7, 0, 0]])
    mean, centric = expected_intensity(crystal, hkl)
    ops = group.operations()
    factor = [ops.epsilon_factor_without_centering(h) for h in hkl.tolist()]
    np.testing.assert_allclose(mean / mean[0], factor)
    assert centric.tolist() == [ops.is_reflection_centric(h) for h in hkl.tolist()]
    # About 6000 atoms of 7 electrons in this cell.
    assert 2e5 < mean[0] < 4e5


def test_words_of_the_command_line_reach_the_settings() -> None:
    words = ["intensities=wilson", "background=inferred", "sigma_gain=0.03", "outlier_fraction=0.01"]
    settings = settings_from_phil(load_phil((), words))
    assert settings.factors.intensities == "wilson"
    assert (settings.background, settings.counts.sigma_gain, settings.counts.outlier_fraction) == (
        "inferred",
        0.03,
        0.01,
    )
    with pytest.raises(InputError, match="intensities=wilson"):
        load_factors(FactorSettings(), "P 1", 1.0)


def test_every_pixel_belongs_to_its_nearest_reflection(still: Still) -> None:
    beam, crystal = still.experiments[0].beam, still.crystals[0]
    shot, _ = make_shot(still.panels, still.detector, still.reflections, gain=28.0)
    own = on_own_reflection(shot, still.detector, beam, still.crystals)
    for box, pixel in [(0, 0), (3, 70), (10, 143)]:
        fs = [shot.fast[box, pixel] + 0.5, shot.slow[box, pixel] + 0.5]
        ray = still.detector.lab_mm(shot.panel[box], *fs)
        h = crystal.real_space_A @ (ray / np.linalg.norm(ray) - beam.direction) / beam.wavelength_A
        assert own[box, pixel] == np.array_equal(np.rint(h), shot.miller_index[box])
    assert 0.3 < own.mean() <= 1


def test_prior_of_a_plane_knows_nothing_of_its_box() -> None:
    rng = np.random.default_rng(0)
    image = rng.poisson(3.0, (60, 60)).astype(float)
    layout = PanelLayout.of_sizes(np.array([[60, 60]]))
    bounds, centre = np.array([[24, 36, 24, 36]]), np.array([[30.0, 30.0]])

    def fit(pixels: np.ndarray) -> np.ndarray:
        good = np.ones(pixels.size, bool)
        args = (pixels.ravel(), good, layout, np.array([0]), bounds, centre, np.array([4.0]), BoxSettings())
        planes = poisson_planes(*args, around=True)
        assert not planes.used[0, 10:22, 10:22].any()
        return planes.tilt

    other = image.copy()
    other[24:36, 24:36] += rng.poisson(2.0, (12, 12))
    np.testing.assert_array_equal(fit(image), fit(other))


def test_parts_of_the_model_reach_the_pixels(still: Still) -> None:
    counts = replace(WILSON.counts, outlier_fraction=0.01)
    inferred = replace(WILSON, background="inferred")
    for settings in (replace(WILSON, counts=counts), inferred):
        shot, report = make_shot(still.panels, still.detector, still.reflections, gain=28.0, background="inferred")
        pixels = pixels_of(shot.padded(), report, settings, still.crystals)
        assert pixels.intensities is not None
        assert (pixels.outliers is not None) == (settings is not inferred)
        assert (pixels.planes is not None) == (settings is inferred)
    assert pixels.planes is not None
    sd = np.linalg.norm(np.einsum("bij,ip->bjp", pixels.planes.factor, pixels.planes.design), axis=1)
    # A plane through some 800 pixels of a photon or less is known to a few hundredths of a photon.
    assert np.all((sd > 1e-3) & (sd < 0.5))
    # The prior's coordinates are those of the box: its mean is the plane that was fitted.
    b = 5
    tilt, shift = shot.tilt[b], (report.bounds - report.padded)[shot.reflection_row[b]][[0, 2]]
    plane = np.array([tilt[0], tilt[1], tilt[2] + tilt[:2] @ shift]) @ pixels.planes.design
    np.testing.assert_allclose(np.where(shot.valid[b], plane, 0), shot.background[b], atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("background", ["poisson", "inferred"])
def test_refinement_without_structure_factors_finds_the_truth(still: Still, background: str) -> None:
    settings = replace(WILSON, background=background)  # type: ignore[arg-type]
    refined = bb.refine(still, settings)
    truth = json.loads((demo_folder() / "truth.json").read_text())
    true = Crystal(np.array(truth["shots"]["shot_000"]["real_space_A"]))
    assert refined.fit.converged
    sd = dict(zip(refined.fit.names, refined.fit.standard_errors, strict=True))
    value = dict(zip(refined.fit.names, refined.fit.values, strict=True))
    turn = true.U @ refined.crystals[0].U.T
    off = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]) / 2
    pulls = [*(off / [sd["rotX"], sd["rotY"], sd["rotZ"]]), (value["ucell_a"] - 79.1) / sd["ucell_a"],
             (value["ucell_c"] - 38.4) / sd["ucell_c"]]  # fmt: skip
    assert np.max(np.abs(pulls)) < 3.5, pulls
    assert np.degrees(np.linalg.norm(off)) < 0.01
    assert np.all(refined.intensity > 0)
    assert np.all(refined.intensity_sd < refined.intensity)


@pytest.mark.slow
def test_zingers_bend_the_plain_model_and_not_the_robust_one(still: Still) -> None:
    rng = np.random.default_rng(3)
    settings = replace(WILSON, factors=FactorSettings(mtz=demo_folder() / "structure_factors.mtz",
                                                      columns="I(+),SIGI(+),I(-),SIGI(-)"))  # fmt: skip
    clean = bb.refine(still, settings)
    panels = tuple(
        np.where(rng.uniform(size=p.shape) < 0.01, p + 28 * rng.exponential(300.0, p.shape), p) for p in still.panels
    )
    hit = replace(still, panels=panels)
    plain = bb.refine(hit, settings)
    robust = bb.refine(hit, replace(settings, counts=replace(settings.counts, outlier_fraction=0.01)))
    sd = clean.fit.standard_errors

    def worst(refined: Refined) -> float:
        return float(np.max(np.abs(refined.fit.values - clean.fit.values) / sd))

    assert worst(plain) > 3
    assert worst(robust) < 1.5


def test_a_still_is_prepared_with_its_own_reflections_alone(still: Still) -> None:
    prepared = prepare(still, load_factors(WILSON.factors, "P 43 21 2", 1.3), replace(WILSON, model=replace(
        WILSON.model, forward="exact")))  # fmt: skip
    real = np.asarray(prepared.scene.factors.real)
    assert np.all(np.count_nonzero(real, axis=-1) == 1)
    mean, _ = expected_intensity(still.crystals[0], prepared.shot.miller_index)
    np.testing.assert_allclose(real.max(axis=-1)[0, : prepared.shot.n_boxes] ** 2, mean)

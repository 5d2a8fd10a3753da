"""Boxes of which a fit expects too few photons leave it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import bayesbragg as bb
from bayesbragg.io.phil import load_phil
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.api import demo_folder
from bayesbragg.pipeline.from_phil import settings_from_phil

SETTINGS = bb.RefineSettings(
    counts=bb.CountSettings(28.0, 3.0),
    spectrum=bb.SpectrumSettings(source="image"),
    factors=bb.FactorSettings(mtz=demo_folder() / "structure_factors.mtz", columns="I(+),SIGI(+),I(-),SIGI(-)"),
)
PHOTONS = 150.0


@pytest.mark.slow
def test_dim_boxes_leave_the_fit() -> None:
    folder = demo_folder()
    (still,) = bb.load(folder / "shot_000_indexed.expt", folder / "shot_000_indexed.refl", SETTINGS)
    every = bb.refine(still, SETTINGS)
    expected = every.bragg.sum(axis=1)
    dim = expected < PHOTONS
    assert 0 < dim.sum() < len(dim)

    bright = bb.refine(still, replace(SETTINGS, min_expected=PHOTONS))
    assert np.array_equal(bright.prepared.shot.trusted.any(axis=1), ~dim)
    assert bright.fit.n_pixels == every.prepared.shot.trusted[~dim].sum()
    assert bright.fit.converged
    # Dim boxes know little: error bars grow a little, and nothing moves far.
    growth = bright.fit.standard_errors / every.fit.standard_errors
    assert np.all((growth > 0.97) & (growth < 1.5))
    assert np.all(np.abs(bright.fit.values - every.fit.values) < 2.5 * bright.fit.standard_errors)

    # The boxes that stayed are fitted as if there had never been others.
    pixels = bright.prepared.density.problem.pixels
    assert not np.asarray(pixels.trusted)[: len(dim)][dim].any()

    assert bb.refine(still, replace(SETTINGS, min_expected=0.5 * expected.min())).fit.n_pixels == every.fit.n_pixels
    with pytest.raises(InputError, match="lower min_expected"):
        bb.refine(still, replace(SETTINGS, min_expected=1e9))


def test_the_word_reaches_the_settings() -> None:
    assert settings_from_phil(load_phil((), ["min_expected=120"])).min_expected == 120.0

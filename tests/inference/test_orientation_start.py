"""The step that the centroids of the spots tell, on simulated shots turned by known angles."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from trials import Trial, make_trial, perturbed_start

from bayesbragg.inference.orientation_start import turned

step = jax.jit(turned)


@pytest.fixture(scope="module")
def trial() -> Trial:
    return make_trial(77)


def test_half_a_degree_is_found(trial: Trial) -> None:
    """To a fraction of a spot's width, which is about 0.1 degree, whatever the axis; the cell too."""
    for seed in range(12):
        density = trial.density(perturbed_start(trial.truth, seed, degrees=0.5, extreme=True), "gaussian")
        names = density.layout.names
        values = np.asarray(step(np.asarray(density.layout.start), density.problem))
        truth = trial.values(density)
        off = {name: values[i] - truth[i] for i, name in enumerate(names)}
        assert np.degrees(np.linalg.norm([off["rotX"], off["rotY"], off["rotZ"]])) < 0.05
        assert abs(off["ucell_a"]) < 0.002 * 79.1
        assert abs(off["ucell_c"]) < 0.002 * 38.4
        others = [i for i, name in enumerate(names) if not name.startswith(("rot", "ucell"))]
        np.testing.assert_array_equal(values[others], np.asarray(density.layout.start)[others])


def test_wrong_boxes_do_not_lead_astray(trial: Trial) -> None:
    """A fifth of the boxes claim other reflections."""
    density = trial.density(perturbed_start(trial.truth, 3, degrees=0.3), "gaussian")
    pixels = density.problem.pixels
    hkl = np.array(pixels.guide.miller_index)
    hkl[::5] += np.random.default_rng(1).integers(1, 3, hkl[::5].shape)
    problem = replace(density.problem, pixels=replace(pixels, guide=replace(pixels.guide, miller_index=hkl)))
    values = np.asarray(step(np.asarray(density.layout.start), problem))
    off = values - trial.values(density)
    rot = [i for i, name in enumerate(density.layout.names) if name.startswith("rot")]
    assert np.degrees(np.linalg.norm(off[rot])) < 0.08


def test_nothing_to_go_by_changes_nothing(trial: Trial) -> None:
    density = trial.density(trial.truth, "gaussian")
    start = np.asarray(density.layout.start)
    blind = replace(density.problem, pixels=replace(density.problem.pixels, guide=None))
    np.testing.assert_array_equal(np.asarray(turned(start, blind)), start)
    pixels = density.problem.pixels
    dark = replace(pixels, counts=np.asarray(pixels.background))
    np.testing.assert_allclose(np.asarray(step(start, replace(density.problem, pixels=dark))), start, rtol=1e-6)

"""The forward model of a still is the same whoever asks for it: commands, the Python API, a joint geometry."""

from __future__ import annotations

import numpy as np
import pytest

import bayesbragg as bb
from bayesbragg.io.symmetry import laue_rotations
from bayesbragg.pipeline.api import demo_shots, structure_factors
from bayesbragg.pipeline.refine import prepare


@pytest.mark.parametrize(("symmetrize", "n"), [(True, 8), (False, 1)])
def test_diffuse_scattering_has_the_symmetry_of_the_crystal(symmetrize: bool, n: int) -> None:
    """Laue group 4/mmm has eight rotations; nobody who prepares a still has to bring them."""
    model = bb.ModelSettings(oversample=1, diffuse=True, symmetrize_diffuse=symmetrize)
    factors = bb.FactorSettings(mtz=bb.demo_folder() / "structure_factors.mtz")
    settings = bb.RefineSettings(counts=bb.CountSettings(28.0, 3.0), model=model, factors=factors)
    (still,) = bb.load(*demo_shots()[0], settings)
    assert len(laue_rotations(still.crystals[0].space_group_number)) == 8
    scene = prepare(still, structure_factors(still, settings), settings).scene
    assert np.shape(scene.diffuse.laue) == (n, 3, 3)

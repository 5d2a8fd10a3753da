"""A box at the direct beam: (0, 0, 0) is within its reach, has no direction, and must not spoil the other boxes."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forward.skew_scene import N_ABC, N_DEF, skew_parameters, skew_scene

from bayesbragg.forward import Options, Parameters, Scene, expected_photons
from bayesbragg.forward.candidates import prepare_closed
from bayesbragg.forward.closed import closed_photons
from bayesbragg.forward.geometry import move_boxes
from bayesbragg.forward.listed import Margin, list_reflections

BOX = 4
PARAMETERS = skew_parameters(eta_deg=0.0, eta_def_deg=0.0, n_abc=0.4 * N_ABC, n_def=0.4 * N_DEF)
SCENE = skew_scene()


def at_the_beam() -> Scene:
    """The scene with one box moved to a few pixels from the direct beam."""
    boxes = SCENE.boxes
    where = np.asarray(move_boxes(boxes, PARAMETERS.panels).position_m)[BOX]
    move = SCENE.beam.k * 0.11 + np.array([1.5e-3, 0.8e-3, 0.0]) - where
    moved = replace(
        boxes,
        origin_m=boxes.origin_m + move * (np.arange(5) == BOX)[:, None],
        reference_m=boxes.reference_m + move * (np.arange(5) == BOX)[:, None],
    )
    low, real = SCENE.factors.low.copy(), SCENE.factors.real.copy()
    low[:, BOX] = -2
    extent = tuple(int(n) for n in SCENE.factors.extent)
    real[:, BOX, np.ravel_multi_index((2, 2, 2), extent)] = 0.0  # F(000) is part of the beam, not of the pattern
    return replace(SCENE, boxes=moved, factors=replace(SCENE.factors, low=low, real=real))


@pytest.mark.parametrize("spread", ["none", "isotropic"])
def test_other_boxes_keep_their_reflections_and_every_box_has_one(spread: str) -> None:
    options, parameters = Options(spread=spread), skew_parameters(eta_deg=0.2)
    scene = at_the_beam()
    box, lattice, hkl, brightness = list_reflections(parameters, scene, options, Margin(), None, every_box=True)
    usual = list_reflections(parameters, SCENE, options, Margin(), None, every_box=True)
    assert np.all(np.isfinite(brightness))
    assert set(box) == set(range(5))
    rows = {(b, l, *h) for b, l, h in zip(box, lattice, map(tuple, hkl), strict=True) if b != BOX}
    assert rows == {(b, l, *h) for b, l, h in zip(*usual[:2], map(tuple, usual[2]), strict=True) if b != BOX}


def test_the_closed_form_is_the_exact_sum_there_too() -> None:
    options, scene = Options(spread="none", b_factor=True), at_the_beam()
    exact = np.asarray(expected_photons(PARAMETERS, scene, options))
    closed = prepare_closed(PARAMETERS, scene, options, Margin(depth=25.0), merge=False, tabulate=False)
    photons = np.asarray(closed_photons(PARAMETERS, closed, options))
    only_000 = list_reflections(PARAMETERS, scene, options, Margin(depth=1e9), None, every_box=True)[2]
    assert np.any(np.all(only_000 == 0, axis=1))
    np.testing.assert_allclose(photons, exact, rtol=0, atol=2e-3 * exact.max())
    # Where (0, 0, 0) is the nearest reflection the exact sum has nothing, the closed form the tails of its neighbours.
    assert np.all(np.isfinite(photons[BOX]))

    def total(p: Parameters) -> jax.Array:
        return jnp.sum(closed_photons(p, closed, options))

    slope = jax.grad(total)(jax.tree.map(lambda a: jnp.asarray(a, dtype=jnp.float64), PARAMETERS))
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(slope))

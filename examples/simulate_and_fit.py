"""Simulate a shot in memory, state priors, fit, and compare the fit with the truth.

python examples/simulate_and_fit.py
"""

from __future__ import annotations

import numpy as np

from bayesbragg.forward import Options, Parameters, build_scene, expected_photons
from bayesbragg.inference.density import LogDensity
from bayesbragg.inference.map import fit_map
from bayesbragg.priors import Cell, CellConstraint, Positive, Priors, Uniform, make_layout
from bayesbragg.stills.simulation import known_background_shot, simulate_still
from bayesbragg.stills.virtual import virtual_experiment

# A crystal in a random orientation on a small detector; blocks of 8 x 9 x 13 cells; cell in angstrom and radian.
world = virtual_experiment(seed=1)
cell = np.array([79.1, 79.1, 38.4, np.pi / 2, np.pi / 2, np.pi / 2])
truth = Parameters.start(cell, n_abc=(8.0, 9.0, 13.0), G=400.0)
options = Options(oversample=2)
still = simulate_still(
    truth, world.detector, world.beam, world.spectrum, [world.crystal], world.factors, options, background=1.0, seed=1
)
shot = known_background_shot(still, most=64).padded()
print(f"{len(still.strong)} spots found; {shot.trusted.any(axis=1).sum()} boxes, {shot.trusted.sum()} pixels")

# What is believed beforehand, and a start that is off by 0.1 degree, 0.2 % in the cell and a factor 1.5 in block size.
priors = Priors(RotXYZ=Uniform(-0.05, 0.05), cell=Cell(edge_percent=3), Nabc=Uniform(3, 200), G=Positive())
start = Parameters.start(
    cell * np.array([1.002, 1.002, 0.998, 1, 1, 1]), rot_xyz=np.radians([0.06, -0.06, 0.05]), n_abc=13.0
)
layout, base = make_layout(priors, start, CellConstraint.for_space_group(96, cell))
scene = build_scene(world.detector, world.beam, world.spectrum, [world.crystal], shot, world.factors, start, options)
density = LogDensity(expected_photons, scene, options, shot, layout, base, likelihood="poisson_gaussian")
fit = fit_map(density)

print(f"{fit.status}: {fit.reason}; {fit.evaluations} evaluations; sigma-Z {fit.sigma_z:.3f}")
expected = {"rotX": 0.0, "rotY": 0.0, "rotZ": 0.0, "G": 400.0, "ucell_a": 79.1, "ucell_c": 38.4}
expected |= {"Na": 8.0, "Nb": 9.0, "Nc": 13.0}
print(f"{'':10}{'truth':>12}{'fit':>14}{'error bar':>12}  {'error / bar':>11}")
for name, unit, value, error in zip(fit.names, fit.units, fit.values, fit.standard_errors, strict=True):
    true = expected[name]
    print(f"{name:10}{true:12.6g}{value:14.6g}{error:12.2g}  {(value - true) / error:+11.2f}  {unit}")

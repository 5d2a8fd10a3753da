"""Simulate a shot, fit it, and compare its posterior with the truth: Laplace, and NUTS if asked for.

python examples/posterior_of_one_shot.py [nuts]
"""

from __future__ import annotations

import sys

import numpy as np

from bayesbragg.diagnostics.arviz_container import write_netcdf
from bayesbragg.diagnostics.inference_data import inference_data
from bayesbragg.forward import Options, Parameters, build_scene, expected_photons
from bayesbragg.inference.density import LogDensity
from bayesbragg.inference.laplace import LaplaceOptions, laplace, target_of_fit
from bayesbragg.inference.map import fit_map
from bayesbragg.inference.nuts import NutsOptions, nuts
from bayesbragg.priors import Cell, CellConstraint, Positive, Priors, Uniform, make_layout
from bayesbragg.stills.simulation import known_background_shot, simulate_still
from bayesbragg.stills.virtual import virtual_experiment

world = virtual_experiment(seed=1, n_channels=8)
cell = np.array([79.1, 79.1, 38.4, np.pi / 2, np.pi / 2, np.pi / 2])
truth, options = Parameters.start(cell, n_abc=(8.0, 9.0, 13.0), G=400.0), Options()
made_with = (world.detector, world.beam, world.spectrum, [world.crystal])
still = simulate_still(truth, *made_with, world.factors, options, background=1.0, seed=1)
shot = known_background_shot(still, most=32)

priors = Priors(RotXYZ=Uniform(-0.05, 0.05), cell=Cell(edge_percent=3), Nabc=Uniform(3, 200), G=Positive())
start = Parameters.start(cell * np.array([1.001, 1.001, 0.999, 1, 1, 1]), n_abc=10.0)
layout, base = make_layout(priors, start, CellConstraint.for_space_group(96, cell))
padded = shot.padded()
scene = build_scene(*made_with, padded, world.factors, start, options)
density = LogDensity(expected_photons, scene, options, padded, layout, base, likelihood="shifted_poisson")

target = target_of_fit(density, fit_map(density))
if "nuts" in sys.argv[1:]:
    posterior = nuts(target, NutsOptions(n_draws=250, n_warmup=50), seed=1)
else:
    posterior = laplace(target, LaplaceOptions(n_draws=1000), seed=1)
print(posterior.summary())
pulls = (posterior.mean - np.asarray(layout.values_of(truth))) / posterior.sd
print("(mean - truth) / sd:", ", ".join(f"{n} {p:+.1f}" for n, p in zip(posterior.names, pulls, strict=True)))
print("written:", write_netcdf(inference_data(posterior, density, shot), "posterior_of_one_shot.nc"))

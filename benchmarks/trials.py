"""Simulated shots to fit: truth, perturbed start, density. Used by `bias.py`, `basin.py` and the tests of bias.

Each trial is one shot of the virtual experiment in a random orientation, simulated and fitted by the same model, with
boxes chosen before the noise and the background known. The truth is `RotXYZ` = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bayesbragg.forward import Options, Parameters, build_scene, expected_photons
from bayesbragg.inference.density import LogDensity
from bayesbragg.inference.likelihood import LikelihoodName
from bayesbragg.model import Shot
from bayesbragg.priors import Cell, CellConstraint, Positive, Priors, Uniform, make_layout
from bayesbragg.stills.simulation import Camera, known_background_shot, simulate_still
from bayesbragg.stills.virtual import VirtualExperiment, virtual_experiment

FloatArray = npt.NDArray[np.float64]

OPTIONS = Options()
PRIORS = Priors(
    RotXYZ=Uniform(-0.05, 0.05),
    cell=Cell(edge_percent=3.0),
    Nabc=Uniform(2.0, 200.0),
    G=Positive(),
)
CELL = np.array([79.1, 79.1, 38.4, np.pi / 2, np.pi / 2, np.pi / 2])
BLOCKS = (10.0, 11.0, 14.0)
N_BOXES = 56


@dataclass(frozen=True)
class Trial:
    """One simulated shot.

    Attributes:
        experiment: detector, beam, spectrum, crystal, structure factors.
        truth: the parameters that made it.
        shot: its boxes, padded to 64.
    """

    experiment: VirtualExperiment
    truth: Parameters
    shot: Shot

    def density(self, start: Parameters, likelihood: LikelihoodName) -> LogDensity:
        """The density of the shot, with a search that begins at ``start``."""
        e = self.experiment
        constraint = CellConstraint.for_space_group(e.crystal.space_group_number, np.asarray(start.crystal.cell))
        layout, base = make_layout(PRIORS, start, constraint)
        scene = build_scene(e.detector, e.beam, e.spectrum, [e.crystal], self.shot, e.factors, start, OPTIONS)
        return LogDensity(expected_photons, scene, OPTIONS, self.shot, layout, base, likelihood)

    def values(self, density: LogDensity) -> FloatArray:
        """The truth as the vector of a density."""
        p, values = self.truth, []
        cell, blocks = np.asarray(p.crystal.cell), np.asarray(p.mosaic.n_abc)[0]
        known = {"rotX": 0.0, "rotY": 0.0, "rotZ": 0.0, "ucell_a": cell[0], "ucell_c": cell[2]}
        known |= dict(zip(("Na", "Nb", "Nc"), blocks, strict=True)) | {"G": np.asarray(p.scale.G)[0]}
        for name in density.layout.names:
            values.append(known[name])
        return np.array(values, dtype=float)


def make_trial(
    seed: int, *, background: float = 1.0, G: float = 600.0, blocks: tuple[float, float, float] = BLOCKS
) -> Trial:
    """Simulate a shot with 8 channels; the noise is Poisson, then Gaussian of 3 / 28 photon, rounded to 1 / 28."""
    experiment = virtual_experiment(seed, n_channels=8)
    truth = Parameters.start(CELL, n_abc=blocks, G=G)
    still = simulate_still(
        truth,
        experiment.detector,
        experiment.beam,
        experiment.spectrum,
        [experiment.crystal],
        experiment.factors,
        OPTIONS,
        background=background,
        camera=Camera(),
        seed=seed,
    )
    shot = known_background_shot(still, side=12, least_photons=20.0, most=N_BOXES)
    return Trial(experiment, truth, shot.padded(64))


def perturbed_start(
    truth: Parameters,
    seed: int,
    *,
    degrees: float = 0.1,
    cell_percent: float = 0.3,
    blocks: float = 2.0,
    extreme: bool = False,
) -> Parameters:
    """A start that is off: turned by ``degrees`` about a random axis, edges wrong by up to ``cell_percent``, blocks by
    a factor of up to ``blocks`` (one for all axes), and a scale that knows nothing.

    Args:
        truth: parameters of a tetragonal crystal, turned by a small angle at most.
        extreme: edges and blocks are wrong by all of that, one way or the other, in every start.
    """
    generator = np.random.default_rng([seed, 20])
    axis = generator.standard_normal(3)
    axis *= np.radians(degrees) / np.linalg.norm(axis)
    off = generator.choice([-1.0, 1.0], 3) if extreme else generator.uniform(-1, 1, 3)
    a, c = 1.0 + cell_percent / 100.0 * off[:2]
    return Parameters.start(
        np.asarray(truth.crystal.cell) * np.array([a, a, c, 1, 1, 1]),
        rot_xyz=np.asarray(truth.crystal.rot_xyz)[0] + axis,
        n_abc=np.asarray(truth.mosaic.n_abc)[0] * blocks ** off[2],
        G=1.0,
    )

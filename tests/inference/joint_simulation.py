"""Small simulated data sets for the joint geometry: panels, orientations and cells are drawn from their priors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bayesbragg.forward import Options, Parameters, build_scene, expected_photons
from bayesbragg.inference.density import LogDensity, Pixels
from bayesbragg.inference.pixel_term import PixelTerm
from bayesbragg.model import Crystal, Shot
from bayesbragg.model.panel_groups import PanelGrouping, group_panels
from bayesbragg.priors import Cell, CellConstraint, Normal, Positive, Priors, Uniform, make_layout
from bayesbragg.priors.panels import LevelWidths, PanelPriors, SharedPrior, shared_prior
from bayesbragg.stills.prediction import predict
from bayesbragg.stills.virtual import VirtualExperiment, random_rotation, virtual_experiment

FloatArray = npt.NDArray[np.float64]

PRIORS = Priors(
    RotXYZ=Normal(0.0, 1e-3, -0.1, 0.1),
    cell=Cell(edge_percent=3.0, edge_sd=0.05),
    Nabc=Uniform(2.0, 200.0),
    G=Positive(),
)
PANELS = PanelPriors(
    levels={
        "whole": LevelWidths((0.05, 0.05, 0.05), (0.05, 0.05, 0.1)),
        "group": LevelWidths((0.05, 0.05, 0.05), (0.03, 0.03, 0.03)),
    }
)
SIDE = 12
BACKGROUND = 10.0
READOUT = 0.1


@dataclass(frozen=True, eq=False)
class JointData:
    """A data set: terms, the prior of the panels, and the true panels."""

    terms: list[PixelTerm]
    own: list[FloatArray]
    prior: SharedPrior
    grouping: PanelGrouping
    truth: FloatArray


def draw(prior: SharedPrior, generator: np.random.Generator) -> FloatArray:
    """Shared numbers from their prior."""
    covariance = prior.covariance()[np.ix_(prior.free, prior.free)]
    width = np.sqrt(np.diag(covariance))
    root = np.linalg.cholesky(covariance / np.outer(width, width)) * width[:, None]
    result = np.zeros(prior.n)
    result[prior.free] = prior.mean[prior.free] + root @ generator.standard_normal(len(width))
    return result


def simulate(
    seed: int,
    *,
    n_shots: int = 3,
    n_boxes: int = 32,
    group: npt.ArrayLike = (0, 1, 2, 3),
    panels: PanelPriors = PANELS,
    avoid_group: int | None = None,
) -> JointData:
    """A data set on four panels.

    Args:
        group: panel groups; avoid_group: a group whose reflections are left out.
    """
    generator = np.random.default_rng(seed)
    first = virtual_experiment(0, n_channels=6)
    grouping = group_panels(first.detector, np.asarray(group))
    prior = shared_prior(grouping, panels)
    truth = draw(prior, generator)
    terms, own = [], []
    for _ in range(n_shots):
        term, x = _shot(first, grouping, truth, generator, n_boxes, avoid_group)
        terms.append(term)
        own.append(x[None])
    return JointData(terms, own, prior, grouping, truth)


def _shot(
    e: VirtualExperiment,
    grouping: PanelGrouping,
    truth: FloatArray,
    generator: np.random.Generator,
    n_boxes: int,
    avoid: int | None,
) -> tuple[PixelTerm, FloatArray]:
    cell = np.array([79.1, 79.1, 38.4, 90.0, 90.0, 90.0])
    crystal = Crystal.from_cell(
        cell, random_rotation(generator), space_group="P 43 21 2", space_group_number=96, hall_symbol=" P 4nw 2abw"
    )
    radian = np.array([*cell[:3], *np.radians(cell[3:])])
    edges = cell[[0, 2]] + 0.05 * generator.standard_normal(2)
    true = Parameters.start(
        np.array([edges[0], edges[0], edges[1], *radian[3:]]),
        rot_xyz=1e-3 * generator.standard_normal(3), n_abc=(10.0, 11.0, 14.0), G=3e4,
    )  # fmt: skip
    blank_density, panel = boxes_of(e, grouping, crystal, generator, n_boxes, avoid=avoid)
    term = PixelTerm(blank_density, panel, grouping)
    x = np.asarray(term.layout.from_parameters(true))
    mu = term.bragg(x[None], truth) + BACKGROUND
    counts = generator.poisson(mu) + READOUT * generator.standard_normal(mu.shape)
    blank = np.zeros(mu.shape)
    pixels = Pixels(counts, blank + BACKGROUND, np.ones(blank.shape, bool), np.full(blank.shape, READOUT**2))
    problem = blank_density.problem
    density = LogDensity(expected_photons, problem.scene, Options(), pixels, blank_density.layout, problem.base)
    return PixelTerm(density, panel, grouping), x


def boxes_of(
    e: VirtualExperiment,
    grouping: PanelGrouping,
    crystal: Crystal,
    generator: np.random.Generator,
    n_boxes: int,
    *,
    avoid: int | None = None,
    priors: Priors = PRIORS,
    side: int = SIDE,
) -> tuple[LogDensity, np.ndarray]:
    """The density of a shot with boxes about predicted spots and no counts, and the panel of each box."""
    cell, detector = crystal.cell, e.detector
    radian = np.array([*cell[:3], *np.radians(cell[3:])])
    spots = predict(crystal, e.beam, e.spectrum, e.detector, d_min=2.8, n_abc=(10.0, 11.0, 14.0), widths=1.5)
    middle = np.clip(np.floor(spots.position).astype(int), 0, None)
    half = side // 2
    size = detector.image_size[spots.panel]
    inside = np.all((middle >= half) & (middle < size - half), axis=1)
    if avoid is not None:
        inside &= grouping.group[spots.panel] != avoid
    rows = generator.permutation(np.flatnonzero(inside))[:n_boxes]
    assert len(rows) == n_boxes
    corner = middle[rows] - half
    bounds = np.stack([corner[:, 0], corner[:, 0] + side, corner[:, 1], corner[:, 1] + side], axis=1)
    blank = np.zeros((n_boxes, side * side))
    shot = Shot(
        panel=spots.panel[rows], bounds=bounds, shape=(side, side), counts=blank, background=blank + BACKGROUND,
        trusted=np.ones(blank.shape, bool), readout_sd=np.asarray(READOUT), miller_index=spots.miller_index[rows],
        reflection_row=np.arange(n_boxes), lattice=np.zeros(n_boxes, int), tilt=np.zeros((n_boxes, 3)),
    )  # fmt: skip
    start = Parameters.start(radian, n_abc=(10.0, 11.0, 14.0), G=3e4)
    layout, base = make_layout(priors, start, CellConstraint("tetragonal"))
    options = Options()
    scene = build_scene(e.detector, e.beam, e.spectrum, [crystal], shot, e.factors, start, options)
    blank_density = LogDensity(expected_photons, scene, options, shot, layout, base)
    return blank_density, shot.panel

"""Simulated boxes with a known background plane, spots, zingers, gain and readout noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesbragg.stills.background import Planes, poisson_planes
from bayesbragg.stills.boxes import BoxReason, BoxSettings, PanelLayout, centroid_boxes, padded_bounds

SIDE = 46


@dataclass
class Simulation:
    """One small panel per box: pixel values (ADU), the true background (photons), spots, gain and noise."""

    counts: np.ndarray
    truth: np.ndarray
    centre: np.ndarray
    neighbour: np.ndarray | None
    gain: float
    sigma_adu: float


def simulate(
    level: float,
    n: int,
    *,
    seed: int,
    spot: float = 0.0,
    width: float = 1.5,
    neighbour: float = 0.0,
    zinger: float = 0.0,
    integers: bool = False,
    slope: float = 0.3,
) -> Simulation:
    """`level` photons per pixel in the middle, rising by up to `slope` of it over 16 pixels; spots in photons."""
    rng = np.random.default_rng(seed)
    s, f = np.mgrid[:SIDE, :SIDE] + 0.5
    centre = SIDE / 2 + rng.uniform(-0.5, 0.5, (n, 2))
    angle, steep = rng.uniform(0, 2 * np.pi, n), slope * rng.uniform(0, 1, n) / 16

    def spread(position: np.ndarray) -> np.ndarray:
        r2 = (f - position[:, 0, None, None]) ** 2 + (s - position[:, 1, None, None]) ** 2
        return np.exp(-r2 / (2 * width**2)) / (2 * np.pi * width**2)

    rise = np.cos(angle)[:, None, None] * (f - SIDE / 2) + np.sin(angle)[:, None, None] * (s - SIDE / 2)
    truth = level * (1 + steep[:, None, None] * rise)
    mean = truth + spot * spread(centre)
    other = None
    if neighbour:
        turn = rng.uniform(0, 2 * np.pi, n)
        other = centre + rng.uniform(9, 18, (n, 1)) * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        mean += neighbour * spread(other)
    photons = rng.poisson(mean).astype(float)
    photons += zinger * (rng.random(photons.shape) < 0.002)
    if integers:
        return Simulation(photons, truth, centre, other, 1.0, 0.0)
    return Simulation(np.rint(28 * photons + rng.normal(0, 3, photons.shape)), truth, centre, other, 28.0, 3.0)


def fit(
    simulation: Simulation, settings: BoxSettings | None = None, *, announce: bool = False
) -> tuple[Planes, np.ndarray, np.ndarray, np.ndarray]:
    """Planes; mean error over each box and its standard deviation by the covariance, photons; which boxes hold."""
    settings = settings or BoxSettings()
    n = len(simulation.centre)
    layout = PanelLayout.of_sizes([[SIDE, SIDE]] * n)
    bounds, _ = centroid_boxes(simulation.centre, layout.size, settings.shoebox_size)
    panel, spots = np.arange(n), simulation.centre
    if announce and simulation.neighbour is not None:
        panel, spots = np.tile(panel, 2), np.concatenate([spots, simulation.neighbour])
    planes = poisson_planes(
        simulation.counts.reshape(-1),
        np.ones(simulation.counts.size, dtype=bool),
        layout,
        panel,
        bounds,
        spots,
        settings.clear_radius(np.full(len(panel), settings.shoebox_size)),
        settings,
        simulation.sigma_adu / simulation.gain,
        simulation.gain,
    )
    padded = padded_bounds(bounds, layout.size, settings.pad)
    middle = (settings.shoebox_size - 1) / 2 + bounds[:, [0, 2]] - padded[:, [0, 2]]
    design = np.column_stack([middle, np.ones(n)])
    truth = np.array([simulation.truth[i, c:d, a:b].mean() for i, (a, b, c, d) in enumerate(bounds)])
    error = np.sum(design * planes.tilt, axis=1) - truth
    sd = np.sqrt(np.einsum("ni,nij,nj->n", design, planes.covariance, design))
    return planes, error, sd, planes.reason == BoxReason.SELECTED

"""The centroid term: 64 single panels, spots simulated with the spread that the model states."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest

from bayesbragg.inference.centroid_fit import fit_centroids
from bayesbragg.inference.centroid_likelihood import CentroidPriors, CentroidTerm, Spots
from bayesbragg.inference.centroid_noise import CentroidNoise, NoiseStatistics, Population, first_noise, learn_noise
from bayesbragg.inference.centroid_spreads import with_spreads
from bayesbragg.inference.joint import fit_joint
from bayesbragg.inference.joint_types import JointOptions
from bayesbragg.inference.schur import reduce_blocks
from bayesbragg.model import Beam, Crystal, Detector
from bayesbragg.model.panel_groups import PanelGrouping, group_panels
from bayesbragg.pipeline.geometry import moved_detector
from bayesbragg.priors.panels import LevelWidths, PanelPriors, SharedPrior, shared_prior
from bayesbragg.stills.virtual import random_rotation

FloatArray = npt.NDArray[np.float64]
CELL = np.array([79.1, 79.1, 38.4, 90.0, 90.0, 90.0])
WAVELENGTH = 1.3
SD_MM = 0.02
PANELS = PanelPriors(
    levels={
        "whole": LevelWidths((0.05, 0.05, 0.05), (0.05, 0.05, 0.1)),
        "quadrant": LevelWidths((0.05, 0.05, 0.05), (0.03, 0.03, 0.03)),
        "group": LevelWidths((0.05, 0.05, 0.05), (0.03, 0.03, 0.03)),
    }
)
NOISE = CentroidNoise(mosaic=1e-3)
BEAM = Beam(np.array([0.0, 0.0, -1.0]), WAVELENGTH, np.array([0.0, 1.0, 0.0]))


def grid_detector(n: int = 8, side: int = 180, pixel_mm: float = 0.1, distance_mm: float = 100.0) -> Detector:
    """n by n square panels across the beam, which travels along -z."""
    pitch = (side + 6) * pixel_mm
    corner = (np.arange(n) - n / 2) * pitch
    x, y = np.meshgrid(corner, -corner)
    count = n * n
    return Detector(
        origin_mm=np.stack([x.ravel(), y.ravel(), np.full(count, -distance_mm)], axis=-1),
        fast=np.tile([1.0, 0.0, 0.0], (count, 1)),
        slow=np.tile([0.0, -1.0, 0.0], (count, 1)),
        pixel_size_mm=np.full((count, 2), pixel_mm),
        image_size=np.full((count, 2), side),
        trusted_range=np.tile([0.0, 1e6], (count, 1)),
        thickness_mm=np.zeros(count),
        attenuation_per_mm=np.zeros(count),
        gain=np.ones(count),
        names=tuple(str(i) for i in range(count)),
    )


def simulated(
    seed: int, n_stills: int = 60, n_spots: int = 40
) -> tuple[CentroidTerm, SharedPrior, PanelGrouping, FloatArray]:
    """Spots of crystals in random orientations on panels that were drawn from their prior."""
    generator = np.random.default_rng(seed)
    detector = grid_detector()
    grouping = group_panels(detector, np.arange(detector.n_panels))
    prior = shared_prior(grouping, PANELS)
    covariance = prior.covariance()[np.ix_(prior.free, prior.free)]
    width = np.sqrt(np.diag(covariance))
    truth = np.zeros(prior.n)
    root = np.linalg.cholesky(covariance / np.outer(width, width))
    truth[prior.free] = width * (root @ generator.standard_normal(len(width)))
    moved = moved_detector(detector, grouping, truth)
    # Every index within reach, turned onto the sphere by an angle drawn from the spread, and traced to its panel.
    steps = np.arange(-26, 27)
    hkl = np.stack(np.meshgrid(steps, steps, steps // 2, indexing="ij"), axis=-1).reshape(-1, 3)
    rows: list[tuple[int, int, FloatArray, FloatArray]] = []
    crystals = []
    for still in range(n_stills):
        start = Crystal.from_cell(
            CELL, random_rotation(generator), space_group="P 43 21 2", space_group_number=96, hall_symbol=" P 4nw 2abw"
        )
        crystals.append(start)
        q = hkl @ start.A_reciprocal.T
        length = np.linalg.norm(q, axis=1)
        k = BEAM.direction / WAVELENGTH
        along = q @ BEAM.direction
        with np.errstate(divide="ignore", invalid="ignore"):
            angle = np.arcsin(along / length) + np.arcsin(0.5 * WAVELENGTH * length)
        near = (np.abs(angle) < 2.5 * NOISE.mosaic) & (length > 0.05)
        # A spot shows with the probability that the spread gives to its angle.
        shown = np.flatnonzero(near)
        shown = shown[generator.random(len(shown)) < np.exp(-0.5 * (angle[shown] / NOISE.mosaic) ** 2)]
        for i in generator.permutation(shown)[:n_spots]:
            across = q[i] - along[i] * BEAM.direction
            on = -0.5 * WAVELENGTH * length[i] ** 2
            reach = np.sqrt(length[i] ** 2 - on**2)
            ray = k + on * BEAM.direction + reach * across / np.linalg.norm(across)
            px = moved.intersect(np.arange(64), np.broadcast_to(ray, (64, 3)))
            hit = np.flatnonzero(np.all((px > 2) & (px < 178), axis=1))
            if len(hit):
                mm = px[hit[0]] * 0.1 + SD_MM * generator.standard_normal(2)
                rows.append((still, int(hit[0]), hkl[i], mm))
    spots = Spots(
        np.array([r[0] for r in rows]), np.array([r[1] for r in rows]), np.stack([r[2] for r in rows]),
        np.stack([r[3] for r in rows]), np.full((len(rows), 2), SD_MM**2),
    )  # fmt: skip
    priors = CentroidPriors(rotation_sd=1e-3, cell_sd=1e-3)
    term = CentroidTerm(spots, detector, [BEAM] * n_stills, crystals, grouping, NOISE, priors)
    return term, prior, grouping, truth


def test_gradient_equals_finite_differences() -> None:
    term, prior, _, truth = simulated(1, n_stills=2, n_spots=10)
    term.set_noise(CentroidNoise(1.1, 0.9, 1e-3, 1e-4, 1e-3))
    generator = np.random.default_rng(0)
    own = term.start + 1e-4 * generator.standard_normal(term.start.shape)
    value, g, gs = term.value_and_grad(own, truth)
    assert value == pytest.approx(term.target(own, truth), rel=1e-10)
    for direction in generator.standard_normal((3, prior.n)) * 1e-6:
        slope = (term.target(own, truth + direction) - term.target(own, truth - direction)) / 2
        assert slope == pytest.approx(gs @ direction, rel=1e-5, abs=1e-6)
    for direction in generator.standard_normal((3, *own.shape)) * 1e-6:
        slope = (term.target(own + direction, truth) - term.target(own - direction, truth)) / 2
        assert slope == pytest.approx(float(np.sum(g * direction)), rel=1e-5, abs=1e-6)


@pytest.mark.slow
def test_sixty_four_panels_with_error_bars_that_hold() -> None:
    chi2, n, within = 0.0, 0, []
    for seed in range(3):
        term, prior, _, truth = simulated(seed)
        fit = fit_joint([term], prior, JointOptions(tolerance=1e-3))
        assert fit.status.value == "converged"
        free = np.ix_(prior.free, prior.free)
        d = (fit.shared - truth)[prior.free] / fit.standard_errors[prior.free]
        C = fit.covariance[free] / np.outer(fit.standard_errors[prior.free], fit.standard_errors[prior.free])
        chi2 += float(d @ np.linalg.solve(C, d))
        n += len(d)
        within.append(float(np.mean(np.abs(d) < 1.96)))
    assert abs(chi2 - n) < 4 * np.sqrt(2 * n)
    assert np.mean(within) == pytest.approx(0.95, abs=0.02)


@pytest.mark.slow
def test_spreads_are_found_from_the_residuals() -> None:
    term, prior, _, _ = simulated(5)
    _, population = fit_centroids(term, prior, JointOptions(tolerance=0.1))
    _, transverse, mosaic, _, bandwidth = np.exp(population.mean)
    assert transverse == pytest.approx(1.0, abs=0.1)
    # A narrow band and a smaller factor give the same radial spread as the true ones.
    assert np.mean(term.variance[:, 0]) == pytest.approx(SD_MM**2, rel=0.1)
    assert mosaic == pytest.approx(NOISE.mosaic, rel=0.15)
    assert bandwidth < 1e-3
    # All stills have the same spreads here.
    assert np.exp(population.width[1]) < 1.2
    assert 0.5 < term.dispersion < 1.3


def test_spreads_of_every_still_and_of_their_run() -> None:
    """Residuals drawn from the model itself, with log-normal spreads: the run's median and width come back."""
    generator = np.random.default_rng(2)
    n_stills, n_spots = 150, 40
    still = np.repeat(np.arange(n_stills), n_spots)
    n = len(still)
    q = generator.uniform(0.1, 0.4, n)
    tangent, stated = 0.65 * q, np.full(n, 0.03**2)
    about = NoiseStatistics(
        *(jnp.asarray(a) for a in (still, tangent, q, stated, np.full(n, 200.0), np.zeros((n, 3, 3))))
    )
    log_median = np.log([0.5, 0.8, 5e-4, 1e-5, 1.5e-3])
    true = np.exp(log_median + np.array([0.05, 0.5, 0.6, 0.05, 0.3]) * generator.standard_normal((n_stills, 5)))
    radial, transverse, mosaic, block, bandwidth = true[still].T
    wavelength = bandwidth * tangent * generator.standard_normal(n)
    angle = wavelength + np.hypot(mosaic, block / q) * generator.standard_normal(n)
    # Another wavelength shifts the spot away from where a turn would have put it.
    r = np.stack(
        [
            -200.0 * wavelength + radial * 0.03 * generator.standard_normal(n),
            transverse * 0.03 * generator.standard_normal(n),
            angle,
        ],
        axis=-1,
    )
    data = replace(about, squares=jnp.asarray(np.einsum("ra,rb->rab", r, r)))
    noise, population = first_noise(data)
    for _ in range(40):
        noise, population = learn_noise(data, noise, population, n_stills)
    found = noise.matrix(n_stills)
    for i, least in ((1, 0.97), (2, 0.8), (4, 0.6)):
        assert population.mean[i] == pytest.approx(log_median[i], abs=0.15)
        assert population.width[i] == pytest.approx([0.05, 0.5, 0.6, 0.05, 0.3][i], abs=0.12)
        assert np.corrcoef(np.log(found[:, i]), np.log(true[:, i]))[0, 1] > least


def test_spreads_join_the_equations_with_their_observed_derivatives() -> None:
    """Mixed derivatives against differences of the gradient; the panels' error bars grow, and by little."""
    term, prior, _, truth = simulated(3, n_stills=3, n_spots=25)
    values = np.tile([1.1, 0.9, 1e-3, 1e-4, 1e-3], (3, 1))
    values[1] *= 1.2
    term.set_noise(CentroidNoise.from_matrix(values))
    own = term.start + 1e-4 * np.random.default_rng(0).standard_normal(term.start.shape)
    population = Population(np.log(values[0]), np.full(5, 0.3))
    plain = term.linearize(own, truth)
    blocks = with_spreads(term, own, truth, plain, population)
    n, step = own.shape[1], 1e-5
    for still, block in enumerate(blocks):
        for k in range(5):
            sides = []
            for sign in (1, -1):
                moved = values.copy()
                moved[still, k] *= np.exp(sign * step)
                term.set_noise(CentroidNoise.from_matrix(moved))
                changed = term.linearize(own, truth)[still]
                sides.append((changed.gradient, changed.shared_gradient))
            for a, (up, down) in enumerate(zip(*sides, strict=True)):
                slope = (up - down) / (2 * step)
                mine = block.curvature[:n, n + k] if a == 0 else block.cross[n + k]
                assert np.allclose(mine, slope, atol=1e-5 * np.abs(slope).max() + 1e-6)
    before, after = (reduce_blocks(b, prior.n).matrix for b in (plain, blocks))
    assert np.trace(prior.covariance() @ after) < np.trace(prior.covariance() @ before)
    assert np.linalg.eigvalsh(before - after).min() > -1e-6 * np.abs(before).max()

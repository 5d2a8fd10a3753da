"""Spot positions instead of pixels: a fast term of the joint density for many indexed stills.

The likelihood of a spot has three Gaussian parts: the observed centroid along and across the radius against its
prediction (`bayesbragg.inference.centroid_prediction`), and the angle from the Ewald sphere against zero, with the
spreads of `bayesbragg.inference.centroid_noise`. Units: millimetre on the panel, radian, angstrom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bayesbragg.forward.rotations import misorientation
from bayesbragg.inference.centroid_noise import CentroidNoise, NoiseStatistics, spreads
from bayesbragg.inference.centroid_prediction import SpotData, linearize_spots, residuals_of_spots
from bayesbragg.inference.schur import Blocks, grouped_blocks, solve_scaled
from bayesbragg.model import Beam, Crystal, Detector
from bayesbragg.model.panel_groups import PanelGrouping
from bayesbragg.priors.cell import CellConstraint
from bayesbragg.priors.panels import EXTRAS

__all__ = ["CentroidPriors", "CentroidTerm", "Spots"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
N_EXTRA = len(EXTRAS)


@dataclass(frozen=True, eq=False)
class Spots:
    """Indexed spots of many stills.

    Attributes:
        still: number of the still of each spot, ``(n,)``, from 0 without gaps.
        panel: its panel, ``(n,)``.
        hkl: its Miller index in the crystal's own setting, ``(n, 3)``.
        observed_mm: centroid along fast and slow axis from the panel's corner, ``(n, 2)``, millimetre.
        variance_mm2: its variance, ``(n, 2)``.
    """

    still: IntArray
    panel: IntArray
    hkl: IntArray
    observed_mm: FloatArray
    variance_mm2: FloatArray


@dataclass(frozen=True)
class CentroidPriors:
    """Of each still's own numbers: sd of the misorientation (radian), and of the free cell numbers about ``cell``
    (their common mean, angstrom and radian) or about each still's own start; infinite for none."""

    rotation_sd: float = 0.02
    cell_sd: float = np.inf
    cell: tuple[float, ...] | None = None


class CentroidTerm:
    """Spot positions of many stills.

    Args:
        spots: the observations.
        detector, beams, crystals: beams and crystals one for each still; the crystals share their symmetry.
        grouping: panel groups.
        noise, priors: see there.
    """

    def __init__(
        self,
        spots: Spots,
        detector: Detector,
        beams: Sequence[Beam],
        crystals: Sequence[Crystal],
        grouping: PanelGrouping,
        noise: CentroidNoise | None = None,
        priors: CentroidPriors | None = None,
    ) -> None:
        self.spots, self.grouping = spots, grouping
        self.priors = priors or CentroidPriors()
        cells = np.stack([np.concatenate([c.cell[:3], np.radians(c.cell[3:])]) for c in crystals])
        self.constraint = CellConstraint.for_space_group(crystals[0].space_group_number, cells[0], tolerance=0.02)
        free = np.stack([self.constraint.free(c) for c in cells])
        self.start = np.concatenate([np.zeros((len(crystals), 3)), free], axis=1)
        self.step_limit = np.concatenate([np.full(3, 0.05), 0.05 * np.abs(free[0])])
        center = np.array(self.priors.cell)[None] if self.priors.cell is not None else free
        self.center = np.concatenate([np.zeros((len(crystals), 3)), np.broadcast_to(center, free.shape)], axis=1)
        self.precision = np.array([self.priors.rotation_sd**-2.0] * 3 + [self.priors.cell_sd**-2.0] * free.shape[1])
        self.dispersion = 1.0
        self._set_spots(detector, beams, crystals)
        self.set_noise(noise or CentroidNoise())

    def _set_spots(self, detector: Detector, beams: Sequence[Beam], crystals: Sequence[Crystal]) -> None:
        spots, p, group = self.spots, self.spots.panel, self.grouping.group[self.spots.panel]
        wavelength = np.array([b.wavelength_A for b in beams])
        self.pixel_mm = detector.pixel_size_mm[p]
        pixel = spots.observed_mm / self.pixel_mm
        place = detector.lab_mm(p, pixel[:, 0], pixel[:, 1])
        beam = np.stack([b.direction for b in beams])[spots.still]
        along = np.sum(place * beam, axis=1)
        distance = np.linalg.norm(place, axis=1)
        two_theta = np.arccos(np.clip(along / distance, -1.0, 1.0))
        away = place - along[:, None] * beam
        radial = np.stack([np.sum(away * detector.fast[p], axis=1), np.sum(away * detector.slow[p], axis=1)], axis=-1)
        self.radial = radial / np.linalg.norm(radial, axis=1, keepdims=True)
        n = len(p)
        self.about = NoiseStatistics(
            still=jnp.asarray(spots.still),
            tangent=jnp.asarray(np.tan(0.5 * two_theta)),
            q=jnp.asarray(2.0 * np.sin(0.5 * two_theta) / wavelength[spots.still]),
            stated=jnp.asarray(spots.variance_mm2.mean(axis=1)),
            gain=jnp.asarray(2.0 * distance / np.cos(two_theta)),
            squares=jnp.zeros((n, 3, 3)),
        )
        self.data = SpotData(
            still=jnp.asarray(spots.still),
            group=jnp.asarray(group),
            hkl=jnp.asarray(spots.hkl, dtype=float),
            origin=jnp.asarray(detector.origin_mm[p]),
            fast=jnp.asarray(detector.fast[p]),
            slow=jnp.asarray(detector.slow[p]),
            axes=jnp.asarray(self.grouping.axes[p]),
            reference=jnp.asarray(self.grouping.reference_mm[group]),
            observed=jnp.asarray(spots.observed_mm),
            U=jnp.asarray(np.stack([c.U for c in crystals])),
            k=jnp.asarray(np.stack([b.direction / b.wavelength_A for b in beams])),
            share=jnp.zeros(n),
            radial=jnp.asarray(self.radial),
        )
        order = np.argsort(spots.still, kind="stable")
        self.rows = np.split(order, np.searchsorted(spots.still[order], np.arange(1, len(crystals))))

    def set_noise(self, noise: CentroidNoise, dispersion: float = 1.0) -> None:
        """Use other spreads from now on, with all variances multiplied by `dispersion`: for residuals that are not
        independent (see `bayesbragg.inference.centroid_fit.dispersion`)."""
        self.noise, self.dispersion = noise, dispersion
        values = noise.matrix(len(self.start))[self.spots.still]
        variance, share = spreads(jnp.asarray(values), self.about)
        self.variance = dispersion * np.asarray(variance)
        self.data = replace(self.data, share=share)

    def arguments(self, own: FloatArray, shared: FloatArray) -> tuple[jnp.ndarray, jnp.ndarray, jnp.ndarray]:
        """Own numbers, motions of groups and extras as `bayesbragg.inference.centroid_prediction` takes them."""
        m = 6 * self.grouping.n_groups
        return jnp.asarray(own), jnp.asarray(shared[:m]).reshape(-1, 6), jnp.asarray(shared[m:])

    def residuals(self, own: FloatArray, shared: FloatArray) -> FloatArray:
        """Observed minus predicted away from the beam and around it (mm, in the panel's plane), and the angle from the
        Ewald sphere (radian), ``(n, 3)``."""
        return np.asarray(residuals_of_spots(*self.arguments(own, shared), self.data, self.constraint))

    def residuals_mm(self, own: FloatArray, shared: FloatArray) -> FloatArray:
        """Observed minus predicted along fast and slow axis, ``(n, 2)``, millimetre."""
        away, around = self.residuals(own, shared)[:, :2].T
        f, s = self.radial.T
        return np.stack([away * f - around * s, away * s + around * f], axis=-1)

    def statistics(self, own: FloatArray, shared: FloatArray) -> NoiseStatistics:
        """What the residuals say of the spreads, the stills' own numbers integrated out given the panels."""
        r, J = (np.asarray(a) for a in linearize_spots(*self.arguments(own, shared), self.data, self.constraint))
        n, weight = own.shape[1], 1.0 / self.variance
        J = J[:, :, :n]
        squares = np.einsum("ra,rb->rab", r, r)
        for rows in self.rows:
            curvature = np.einsum("rai,ra,raj->ij", J[rows], weight[rows], J[rows]) + np.diag(self.precision)
            covariance = solve_scaled(curvature, np.eye(n))
            squares[rows] += np.einsum("rai,ij,rbj->rab", J[rows], covariance, J[rows])
        # Back to the radial residual without any share of the band in the angle.
        back = np.broadcast_to(np.eye(3), squares.shape).copy()
        back[:, 0, 2] = -np.asarray(self.data.share) * np.asarray(self.about.gain)
        return replace(self.about, squares=jnp.asarray(back @ squares @ back.transpose(0, 2, 1)))

    def target(self, own: FloatArray, shared: FloatArray) -> float:
        r, v = self.residuals(own, shared), self.variance
        prior = 0.5 * np.sum((own - self.center) ** 2 * self.precision)
        return float(np.sum(0.5 * (np.log(2 * np.pi * v) + r**2 / v)) + prior)

    def value_and_grad(self, own: FloatArray, shared: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        blocks = self.linearize(own, shared)
        gradient = np.zeros(len(shared))
        for b in blocks:
            gradient[b.index] += b.shared_gradient
        return sum(b.target for b in blocks), np.stack([b.gradient for b in blocks]), gradient

    def linearize(self, own: FloatArray, shared: FloatArray) -> list[Blocks]:
        r, J = (np.asarray(a) for a in linearize_spots(*self.arguments(own, shared), self.data, self.constraint))
        weight = 1.0 / self.variance
        gram = np.einsum("rai,ra,raj->rij", J, weight, J)
        score = np.einsum("rai,ra->ri", J, weight * r)
        value = np.sum(0.5 * (np.log(2 * np.pi / weight) + r**2 * weight), axis=1)
        z = r * np.sqrt(weight)
        blocks = []
        for rows, x, center in zip(self.rows, own, self.center, strict=True):
            off = x - center
            touched, place = np.unique(self.grouping.group[self.spots.panel[rows]], return_inverse=True)
            by_group, by_score = (np.zeros((len(touched), *a.shape[1:])) for a in (gram, score))
            np.add.at(by_group, place, gram[rows])
            np.add.at(by_score, place, score[rows])
            target = float(value[rows].sum() + 0.5 * np.sum(off**2 * self.precision))
            told = np.array([z[rows].size, z[rows].sum(), (z[rows] ** 2).sum()])
            prior = self.precision * off, self.precision
            blocks.append(grouped_blocks(target, by_group, by_score, touched, self.grouping.n_groups, prior, told))
        return blocks

    def offsets(self, own: FloatArray, shared: FloatArray) -> FloatArray:
        r = self.residuals_mm(own, shared) / self.pixel_mm
        return np.asarray(np.linalg.norm(r, axis=1))

    def crystals(self, own: FloatArray, crystals: Sequence[Crystal]) -> list[Crystal]:
        """Refined crystals."""
        result = []
        for x, crystal in zip(own, crystals, strict=True):
            cell = np.asarray(self.constraint.expand(jnp.asarray(x[3:])))
            degrees = np.concatenate([cell[:3], np.degrees(cell[3:])])
            result.append(crystal.with_cell_and_orientation(degrees, np.asarray(misorientation(x[:3])) @ crystal.U))
        return result

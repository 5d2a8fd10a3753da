"""Spot positions instead of pixels: a fast term of the joint density for many indexed stills.

Each reflection is predicted as on a still: its reciprocal-lattice point q = R U B h is turned onto the Ewald sphere by
the shortest way, and the ray from there meets the panel. The likelihood has three Gaussian parts: the observed centroid
along and across the radius against its variance, and the angle of that turn against the spread of the stills
(mosaicity, block size and bandwidth together). With a band of wavelengths a part of that angle is no turn but another
wavelength, which shifts the spot along the radius: see `CentroidNoise`. Units: millimetre on the panel, radian,
angstrom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bayesbragg.forward.group_motion import group_rotation
from bayesbragg.forward.rotations import cell_matrix, misorientation
from bayesbragg.inference.schur import Blocks
from bayesbragg.model import Beam, Crystal, Detector
from bayesbragg.model.panel_groups import PanelGrouping
from bayesbragg.priors.cell import CellConstraint
from bayesbragg.priors.panels import EXTRAS

__all__ = ["CentroidNoise", "CentroidPriors", "CentroidTerm", "Spots"]

Array = Any
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
class CentroidNoise:
    """How far spots may be from their prediction; t is the tangent of the Bragg angle, q = 1/d.

    A spot is off the sphere at the mean wavelength because blocks are small and tilted, or because it takes another
    wavelength of the band. The angle's variance is their sum, mosaic^2 + (block / q)^2 + (bandwidth t)^2, and the
    last one's part of it tells how much of the angle to expect as a shift along the radius instead of a turn.

    Attributes:
        radial_factor, transverse_factor: what the stated variance of the centroid is multiplied by.
        radial_band: further radial sd per unit of 2 t times the distance of the detector: what of the band the angle
            does not tell.
        mosaic: spread of orientations, radian.
        block: size of a reciprocal-lattice point, 1/angstrom.
        bandwidth: relative spread of the wavelength.
    """

    radial_factor: float = 1.0
    transverse_factor: float = 1.0
    radial_band: float = 0.0
    mosaic: float = 1e-3
    block: float = 0.0
    bandwidth: float = 0.0


@dataclass(frozen=True)
class CentroidPriors:
    """Of each still's own numbers: sd of the misorientation (radian), and of the free cell numbers about ``cell``
    (their common mean, angstrom and radian) or about each still's own start; infinite for none."""

    rotation_sd: float = 0.02
    cell_sd: float = np.inf
    cell: tuple[float, ...] | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class _Data:
    """Everything fixed, per spot: ``still`` and ``group`` numbers, ``hkl``, panel vectors (mm), axes and reference of
    its group, observation, radial direction in the panel, share of
    the band in the angle, and variances ``(n, 3)``; per still: ``U`` and 1/lambda times the beam."""

    still: Array
    group: Array
    hkl: Array
    origin: Array
    fast: Array
    slow: Array
    axes: Array
    reference: Array
    observed: Array
    variance: Array
    U: Array
    k: Array
    share: Array
    radial: Array


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
        p = spots.panel
        group = grouping.group[p]
        k = np.stack([b.direction / b.wavelength_A for b in beams])
        self.pixel_mm = detector.pixel_size_mm[p]
        pixel = spots.observed_mm / self.pixel_mm
        place = detector.lab_mm(p, pixel[:, 0], pixel[:, 1])
        beam = np.stack([b.direction for b in beams])[spots.still]
        distance = np.linalg.norm(place, axis=1)
        two_theta = np.arccos(np.clip(np.sum(place * beam, axis=1) / distance, -1.0, 1.0))
        self.tangent = np.tan(0.5 * two_theta)
        self.q = 2.0 * np.sin(0.5 * two_theta) / np.array([b.wavelength_A for b in beams])[spots.still]
        self.lever_mm = 2.0 * self.tangent * distance / np.cos(two_theta)
        away = place - np.sum(place * beam, axis=1, keepdims=True) * beam
        radial = np.stack([np.sum(away * detector.fast[p], axis=1), np.sum(away * detector.slow[p], axis=1)], axis=-1)
        radial = radial / np.linalg.norm(radial, axis=1, keepdims=True)
        self.radial = radial
        self.data = _Data(
            still=jnp.asarray(spots.still),
            group=jnp.asarray(group),
            hkl=jnp.asarray(spots.hkl, dtype=float),
            origin=jnp.asarray(detector.origin_mm[p]),
            fast=jnp.asarray(detector.fast[p]),
            slow=jnp.asarray(detector.slow[p]),
            axes=jnp.asarray(grouping.axes[p]),
            reference=jnp.asarray(grouping.reference_mm[group]),
            observed=jnp.asarray(spots.observed_mm),
            variance=jnp.zeros((len(p), 3)),
            U=jnp.asarray(np.stack([c.U for c in crystals])),
            k=jnp.asarray(k),
            share=jnp.zeros(len(p)),
            radial=jnp.asarray(radial),
        )
        self.set_noise(noise or CentroidNoise())

    def set_noise(self, noise: CentroidNoise) -> None:
        """Use other spreads from now on."""
        self.noise = noise
        variance = np.empty((len(self.spots.panel), 3))
        stated = self.spots.variance_mm2.mean(axis=1)
        variance[:, 0] = noise.radial_factor * stated + (noise.radial_band * self.lever_mm) ** 2
        variance[:, 1] = noise.transverse_factor * stated
        band = (noise.bandwidth * self.tangent) ** 2
        variance[:, 2] = noise.mosaic**2 + (noise.block / self.q) ** 2 + band
        share = jnp.asarray(band / variance[:, 2])
        self.data = replace(self.data, variance=jnp.asarray(variance), share=share)

    def set_equal_weights(self, angle_weight: float = 1.0 / 9.0) -> None:
        """Count every position alike and the angles less, as a fit does that is to make the RMSD small. The target is
        then no likelihood, and the covariance no error bar."""
        variance = np.asarray(self.data.variance).copy()
        variance[:, :2] = np.mean(variance[:, :2])
        variance[:, 2] /= angle_weight
        self.data = replace(self.data, variance=jnp.asarray(variance))

    def _arguments(self, own: FloatArray, shared: FloatArray) -> tuple[Array, Array, Array]:
        m = 6 * self.grouping.n_groups
        return jnp.asarray(own), jnp.asarray(shared[:m]).reshape(-1, 6), jnp.asarray(shared[m:])

    def residuals(self, own: FloatArray, shared: FloatArray) -> FloatArray:
        """Observed minus predicted away from the beam and around it (mm, in the panel's plane), and the angle from the
        Ewald sphere (radian), ``(n, 3)``."""
        return np.asarray(_residuals(*self._arguments(own, shared), self.data, self.constraint))

    def residuals_mm(self, own: FloatArray, shared: FloatArray) -> FloatArray:
        """Observed minus predicted along fast and slow axis, ``(n, 2)``, millimetre."""
        away, around = self.residuals(own, shared)[:, :2].T
        f, s = self.radial.T
        return np.stack([away * f - around * s, away * s + around * f], axis=-1)

    def _prior(self, own: FloatArray) -> float:
        return float(0.5 * np.sum((own - self.center) ** 2 * self.precision))

    def target(self, own: FloatArray, shared: FloatArray) -> float:
        r, variance = self.residuals(own, shared), np.asarray(self.data.variance)
        return float(np.sum(0.5 * (np.log(2 * np.pi * variance) + r**2 / variance))) + self._prior(own)

    def value_and_grad(self, own: FloatArray, shared: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        blocks = self.linearize(own, shared)
        gradient = np.zeros(len(shared))
        for b in blocks:
            gradient[b.index] += b.shared_gradient
        return sum(b.target for b in blocks), np.stack([b.gradient for b in blocks]), gradient

    def linearize(self, own: FloatArray, shared: FloatArray) -> list[Blocks]:
        r, J = (np.asarray(a) for a in _linearize(*self._arguments(own, shared), self.data, self.constraint))
        weight = 1.0 / np.asarray(self.data.variance)
        n = own.shape[1]
        gram = np.einsum("rai,ra,raj->rij", J, weight, J)
        score = np.einsum("rai,ra->ri", J, weight * r)
        value = np.sum(0.5 * (np.log(2 * np.pi / weight) + r**2 * weight), axis=1)
        z = r * np.sqrt(weight)
        m = 6 * self.grouping.n_groups
        group = self.grouping.group[self.spots.panel]
        order = np.argsort(self.spots.still, kind="stable")
        cuts = np.searchsorted(self.spots.still[order], np.arange(len(own) + 1))
        blocks = []
        for i in range(len(own)):
            rows = order[cuts[i] : cuts[i + 1]]
            touched, place = np.unique(group[rows], return_inverse=True)
            k = 6 * len(touched)
            by_group = np.zeros((len(touched), *gram.shape[1:]))
            np.add.at(by_group, place, gram[rows])
            by_score = np.zeros((len(touched), score.shape[1]))
            np.add.at(by_score, place, score[rows])
            whole, whole_score = by_group.sum(axis=0), by_score.sum(axis=0)
            shared_curvature = np.zeros((k + N_EXTRA, k + N_EXTRA))
            for g in range(len(touched)):
                part = slice(6 * g, 6 * g + 6)
                shared_curvature[part, part] = by_group[g, n : n + 6, n : n + 6]
                shared_curvature[part, k:] = by_group[g, n : n + 6, n + 6 :]
                shared_curvature[k:, part] = by_group[g, n + 6 :, n : n + 6]
            shared_curvature[k:, k:] = whole[n + 6 :, n + 6 :]
            cross = by_group[:, :n, n : n + 6].transpose(1, 0, 2).reshape(n, k)
            off = own[i] - self.center[i]
            blocks.append(
                Blocks(
                    target=float(value[rows].sum() + 0.5 * np.sum(off**2 * self.precision)),
                    gradient=whole_score[:n] + self.precision * off,
                    curvature=whole[:n, :n] + np.diag(self.precision),
                    index=np.concatenate([(6 * touched[:, None] + np.arange(6)).reshape(-1), m + np.arange(N_EXTRA)]),
                    shared_gradient=np.concatenate([by_score[:, n : n + 6].reshape(-1), whole_score[n + 6 :]]),
                    cross=np.concatenate([cross, whole[:n, n + 6 :]], axis=1),
                    shared_curvature=shared_curvature,
                    z=np.array([z[rows].size, z[rows].sum(), (z[rows] ** 2).sum()]),
                )
            )
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


def _one(x: Array, motion: Array, extras: Array, spot: Any, U: Array, k: Array, constraint: CellConstraint) -> Array:
    """Residuals of one spot, ``(3,)``."""
    hkl, origin, fast, slow, axes, reference, observed, share, radial = spot
    # h = (U B_real)^T q, so that q = (U B_real)^-T h
    M = misorientation(x[:3]) @ U @ cell_matrix(constraint.expand(x[3:]))
    q = jnp.linalg.solve(M.T, hkl)
    wavelength = extras[1] + (1.0 + extras[2]) / jnp.linalg.norm(k)
    beam = k / jnp.linalg.norm(k)
    along, square = q @ beam, q @ q
    across = q - along * beam
    size = jnp.linalg.norm(across)
    on_sphere = -0.5 * wavelength * square
    reach = jnp.sqrt(square - on_sphere**2)
    psi = jnp.arctan2(along, size) - jnp.arctan2(on_sphere, reach)
    ray = beam / wavelength + on_sphere * beam + reach * across / size
    turn = group_rotation(axes, motion[:3])
    corner = reference + turn @ (origin - reference) + 1e3 * motion[3:] + jnp.array([0.0, 0.0, 1e3]) * extras[0]
    f, s = turn @ fast, turn @ slow
    normal = jnp.cross(f, s)
    # The same reflection where a wavelength of its own brings it onto the sphere (share of the bandwidth).
    own_ray = q - beam * square / (2.0 * along)
    ray = (1.0 - share) * ray / (ray @ normal) + share * own_ray / (own_ray @ normal)
    point = ray * (corner @ normal) - corner
    x, y = observed[0] - point @ f, observed[1] - point @ s
    return jnp.stack([x * radial[0] + y * radial[1], y * radial[0] - x * radial[1], psi])


def _spots(data: _Data) -> tuple[Array, ...]:
    return (
        data.hkl, data.origin, data.fast, data.slow, data.axes, data.reference, data.observed, data.share, data.radial
    )  # fmt: skip


@partial(jax.jit, static_argnames="constraint")
def _residuals(own: Array, groups: Array, extras: Array, data: _Data, constraint: CellConstraint) -> Array:
    one = partial(_one, constraint=constraint)
    args = (own[data.still], groups[data.group], extras, _spots(data), data.U[data.still], data.k[data.still])
    return jax.vmap(one, in_axes=(0, 0, None, 0, 0, 0))(*args)


@partial(jax.jit, static_argnames="constraint")
def _linearize(
    own: Array, groups: Array, extras: Array, data: _Data, constraint: CellConstraint
) -> tuple[Array, Array]:
    n = own.shape[1]

    def one(x: Array, motion: Array, spot: Any, U: Array, k: Array) -> tuple[Array, Array]:
        def of(v: Array) -> Array:
            return _one(v[:n], v[n : n + 6], v[n + 6 :], spot, U, k, constraint)

        v = jnp.concatenate([x, motion, extras])
        return of(v), jax.jacfwd(of)(v)

    return jax.vmap(one)(own[data.still], groups[data.group], _spots(data), data.U[data.still], data.k[data.still])

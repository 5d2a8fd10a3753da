"""What a fit believes of the pixels besides the forward model: unknown intensities, unknown planes, outliers.

With unknown intensities a box scatters from its own reflection alone, with the amplitude that Wilson's statistics
expect of the crystal's contents; what the reflection really has is integrated out. Pixels that are nearest to another
reflection take no part then: nothing is known of that one. The mean intensity is the number of atoms, at one for every
40 cubic angstrom of the cell (protein with half its volume solvent), times that of an atom of 7 electrons; the scale G
makes up for what is wrong with it, and B for how it falls with the angle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from bayesbragg.forward import Scene
from bayesbragg.forward.centroid import own_reflections
from bayesbragg.inference.inferred_background import plane_prior
from bayesbragg.inference.pixels import IntensityPrior, Pixels
from bayesbragg.inference.robust import outliers
from bayesbragg.io.symmetry import SpaceGroup, space_group_from_hall
from bayesbragg.model import Beam, Crystal, Detector, Shot
from bayesbragg.pipeline.settings import RefineSettings
from bayesbragg.stills.shot import BoxReport

__all__ = ["expected_intensity", "on_own_reflection", "pixels_of", "unknown_intensities"]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

ATOM_VOLUME_A3, ATOM_ELECTRONS = 40.0, 7.0


def expected_intensity(crystal: Crystal, hkl: npt.ArrayLike) -> tuple[FloatArray, BoolArray]:
    """Mean squared amplitude of reflections (electron^2), and whether they are centric, ``(n,)`` each.

    Args:
        hkl: conventional setting, ``(n, 3)``.
    """
    group: SpaceGroup = space_group_from_hall(crystal.hall_symbol)
    h = np.asarray(hkl, dtype=np.int64)
    images, _ = group.equivalents(h)
    multiplicity = np.sum(np.all(images == h, axis=-1), axis=0)
    centric = np.any(np.all(images == -h, axis=-1), axis=0)
    atoms = abs(float(np.linalg.det(crystal.real_space_A))) / ATOM_VOLUME_A3
    return multiplicity * atoms * ATOM_ELECTRONS**2, centric


def _primitive(crystal: Crystal, shot: Shot) -> npt.NDArray[np.int64]:
    return np.rint(shot.miller_index @ crystal.to_primitive.T).astype(np.int64)


def unknown_intensities(scene: Scene, shot: Shot, crystals: Sequence[Crystal]) -> Scene:
    """The scene in which each box scatters from its own reflection, with its expected amplitude.

    Args:
        shot: the boxes of the scene.
    """
    own = own_reflections(scene, _primitive(crystals[0], shot), shot.lattice)
    mean, _ = expected_intensity(crystals[0], shot.miller_index)
    real = np.asarray(own.factors.real) * np.sqrt(mean)[None, :, None]
    return replace(own, factors=replace(own.factors, real=real))


def on_own_reflection(shot: Shot, detector: Detector, beam: Beam, crystals: Sequence[Crystal]) -> BoolArray:
    """Pixels that are nearest to the reflection of their box, at the nominal wavelength, ``(n_boxes, n_pixels)``."""
    ray = detector.lab_mm(np.broadcast_to(shot.panel[:, None], shot.fast.shape), shot.fast + 0.5, shot.slow + 0.5)
    q = (ray / np.linalg.norm(ray, axis=-1, keepdims=True) - beam.direction) / beam.wavelength_A
    vectors = np.stack([crystal.to_primitive @ crystal.real_space_A for crystal in crystals])[shot.lattice]
    h = np.einsum("bij,bpj->bpi", vectors, q)
    return np.asarray(np.all(np.rint(h) == _primitive(crystals[0], shot)[:, None, :], axis=-1))


def pixels_of(shot: Shot, report: BoxReport, settings: RefineSettings, crystals: Sequence[Crystal]) -> Pixels:
    """The pixels of a shot with what the settings say of them.

    Args:
        shot: padded to a bucket.
        report: of the cutting of its boxes.
    """
    pixels = Pixels.from_shot(shot)
    fraction = settings.counts.outlier_fraction
    if fraction > 0:
        pixels = replace(pixels, outliers=outliers(fraction, pixels.background, pixels.variance))
    if settings.background == "inferred":
        rows = shot.reflection_row
        shift = (report.bounds - report.padded)[rows][:, [0, 2]].astype(np.float64)
        move = np.tile(np.eye(3), (len(rows), 1, 1))
        move[:, 2, :2] = shift
        covariance = move @ report.tilt_covariance[rows] @ move.transpose(0, 2, 1)
        pixels = replace(pixels, planes=plane_prior(shot.shape, covariance))
    if settings.factors.sigma_intensity > 0:
        pixels = replace(pixels, intensity_sd=np.asarray(settings.factors.sigma_intensity))
    if settings.factors.intensities == "wilson":
        _, centric = expected_intensity(crystals[0], shot.miller_index)
        pixels = replace(pixels, intensities=IntensityPrior(centric))
    return pixels

"""Stills of our own: expected photons of the whole detector, noise of a counting detector, and the spots that show.

Bragg photons are the forward model's own, evaluated on tiles that cover every pixel, so that nothing of a spot or of a
weak reflection is left out. Poisson noise, gain, optional calibration error, readout noise and rounding to whole
detector units (ADU) follow, in the order in which a detector adds them. Expectations are in photons, images in ADU,
positions in pixels from the outer corner of the first pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesbragg.forward import Options, Parameters, build_scene, expected_photons
from bayesbragg.forward.centroid import own_reflections
from bayesbragg.forward.rotations import misorientation
from bayesbragg.model import Beam, Crystal, Detector, Reflections, Shot, Spectrum, StructureFactors
from bayesbragg.model.errors import InputError
from bayesbragg.model.shot import bucket_size
from bayesbragg.stills.boxes import PanelLayout, centroid_boxes, separate_boxes
from bayesbragg.stills.observed import spot_table
from bayesbragg.stills.prediction import Predictions, join_predictions, predict
from bayesbragg.stills.ring import ring_background
from bayesbragg.stills.tiles import Tiles, boxes_only

__all__ = ["Camera", "Still", "expected_bragg", "expose", "known_background_shot", "simulate_still"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Camera:
    """Noise of the detector.

    Attributes:
        gain: detector units per photon.
        readout_adu: standard deviation of the readout noise, detector units.
        calibration_sd: relative standard deviation of each pixel's own gain; 0 for none.
        saturation_adu: largest value that the detector writes, detector units; None for no limit.
    """

    gain: float = 28.0
    readout_adu: float = 3.0
    calibration_sd: float = 0.0
    saturation_adu: float | None = None


@dataclass(frozen=True, eq=False)
class Still:
    """A simulated still and its truth. Pixels are flat: panel by panel, slow outer, fast inner.

    Attributes:
        detector: the detector; `panels` gives back its shape.
        camera: the noise.
        adu: image, detector units, ``(n_pixels,)`` int32.
        bragg: expected Bragg photons, ``(n_pixels,)``.
        background: expected photons of everything else, ``(n_pixels,)``.
        predictions: every excited reflection, lattice after lattice.
        lattice: lattice of each of them, ``(n,)``.
        photons: expected photons of each of them, within its box, ``(n,)``.
        centroid: expected centroid of each of them, fast and slow, ``(n, 2)``.
        reflections: the strong ones among them as an indexed DIALS table, with centroids from the noisy pixels.
        strong: row of each reflection of the table in ``predictions``, ``(n_strong,)``.
    """

    detector: Detector
    camera: Camera
    adu: npt.NDArray[np.int32]
    bragg: FloatArray
    background: FloatArray
    predictions: Predictions
    lattice: IntArray
    photons: FloatArray
    centroid: FloatArray
    reflections: Reflections
    strong: IntArray

    def panels(self, pixels: npt.NDArray[Any] | None = None) -> tuple[npt.NDArray[Any], ...]:
        """Flat pixels (the image, if not given) as one ``(n_slow, n_fast)`` array for each panel."""
        layout = PanelLayout.of_sizes(self.detector.image_size)
        parts = np.split(self.adu if pixels is None else pixels, layout.offset[1:-1])
        return tuple(part.reshape(n_slow, n_fast) for part, (n_fast, n_slow) in zip(parts, layout.size, strict=True))


def expected_bragg(
    parameters: Parameters,
    detector: Detector,
    beam: Beam,
    spectrum: Spectrum,
    crystals: Sequence[Crystal],
    factors: StructureFactors,
    options: Options,
    **scene: Any,
) -> FloatArray:
    """Bragg photons of every pixel of a detector, flat ``(n_pixels,)``, without point-spread function.

    Args:
        scene: further arguments of `bayesbragg.forward.build_scene`, such as ``beam_size_mm``.
    """
    options = replace(options, point_spread=False)
    tiles = Tiles.of_detector(detector)
    result = np.zeros(tiles.n_pixels)
    for shot, keep in tiles.shots():
        built = build_scene(detector, beam, spectrum, crystals, shot, factors, parameters, options, **scene)
        tiles.put(result, np.asarray(expected_photons(parameters, built, options)), keep)
    return result


def expose(expected: FloatArray, camera: Camera, generator: np.random.Generator | None) -> npt.NDArray[np.int32]:
    """One image of a counting detector, detector units, from the expected photons of its pixels.

    Args:
        generator: of the noise; None for an image without noise, the expectation rounded to detector units.
    """
    adu = expected * camera.gain
    if generator is not None:
        photons = generator.poisson(expected).astype(np.float64)
        if camera.calibration_sd > 0:
            photons *= 1.0 + camera.calibration_sd * generator.standard_normal(photons.shape)
        adu = photons * camera.gain + camera.readout_adu * generator.standard_normal(photons.shape)
    adu = np.rint(adu)
    most = np.iinfo(np.int32).max if camera.saturation_adu is None else camera.saturation_adu
    return np.asarray(np.minimum(adu, most), dtype=np.int32)


def simulate_still(
    parameters: Parameters,
    detector: Detector,
    beam: Beam,
    spectrum: Spectrum,
    crystals: Sequence[Crystal],
    factors: StructureFactors,
    options: Options | None = None,
    *,
    background: FloatArray | float = 1.0,
    camera: Camera | None = None,
    noise: bool = True,
    d_min: float = 2.5,
    box: int = 14,
    seed: int = 0,
    **scene: Any,
) -> Still:
    """A still of one or several lattices.

    Args:
        parameters: the truth; orientations turn the crystals' own.
        options: the forward model; 2 x 2 subpixels if not given.
        background: expected photons of each pixel, flat, or the largest value of a `ring_background`.
        noise: otherwise the image is the expectation times the gain, rounded.
        d_min: resolution limit of the reflections that are predicted, angstrom.
        box: side of the boxes in which spots are measured, pixels.
        seed: of the noise.
        scene: further arguments of `bayesbragg.forward.build_scene`, such as ``beam_size_mm``.
    """
    options, camera = options or Options(oversample=2), camera or Camera()
    generator = np.random.default_rng(seed)
    bragg = expected_bragg(parameters, detector, beam, spectrum, crystals, factors, options, **scene)
    if np.ndim(background) == 0:
        background = ring_background(detector, beam, float(background))
    background = np.asarray(background, dtype=np.float64)
    adu = expose(bragg + background, camera, generator if noise else None)

    truth = _moved(parameters, crystals)
    eta = float(parameters.mosaic.largest_spread_deg()) if options.spread != "none" else 0.0
    predictions, lattice = join_predictions(
        [
            predict(crystal, beam, spectrum, detector, d_min=d_min, n_abc=n_abc, eta_deg=eta)
            for crystal, n_abc in zip(truth, np.asarray(parameters.mosaic.n_abc), strict=True)
        ]
    )
    if len(predictions) == 0:
        raise InputError(
            f"no reflection to {d_min:g} angstrom falls on the detector; check its distance, the wavelength and d_min"
        )
    total, centroid, pixels = _own_photons(
        predictions, lattice, box, detector, beam, spectrum, crystals, factors, parameters, options, **scene
    )
    readout = camera.readout_adu / camera.gain
    mine = pixels.inside & (pixels.own > 0.5 * bragg[pixels.index])
    strong, reflections = spot_table(
        predictions,
        lattice,
        centroid,
        pixels.bounds,
        pixels.grid,
        mine,
        adu[pixels.index] / camera.gain - background[pixels.index],
        background[pixels.index] + readout**2,
        detector,
        beam,
        camera.gain,
    )
    return Still(detector, camera, adu, bragg, background, predictions, lattice, total, centroid, reflections, strong)


@dataclass(frozen=True, eq=False)
class _OwnPixels:
    """Boxes of predicted reflections: bounds ``(n, 4)``, flat index, position, expected photons of each pixel."""

    bounds: IntArray
    index: IntArray
    inside: BoolArray
    grid: FloatArray
    own: FloatArray


def _own_photons(
    predictions: Predictions,
    lattice: IntArray,
    side: int,
    detector: Detector,
    beam: Beam,
    spectrum: Spectrum,
    crystals: Sequence[Crystal],
    factors: StructureFactors,
    parameters: Parameters,
    options: Options,
    **scene: Any,
) -> tuple[FloatArray, FloatArray, _OwnPixels]:
    """Expected photons and centroid of each reflection alone, and the pixels of its box."""
    n = len(predictions)
    layout = PanelLayout.of_sizes(detector.image_size)
    bounds, _ = centroid_boxes(predictions.position, layout.size[predictions.panel], side)
    # Copies of the first box fill a bucket, so that stills share compiled programs.
    full = np.concatenate([np.arange(n), np.zeros(bucket_size(n) - n, np.int64)])
    shot = boxes_only(predictions.panel[full], bounds[full], side, lattice[full])
    built = build_scene(detector, beam, spectrum, crystals, shot, factors, parameters, options, **scene)
    plain = replace(options, diffuse=False, diffuse_stencil=0, complex_factors=False, point_spread=False)
    alone = own_reflections(built, predictions.primitive_index[full], lattice[full])
    unit = np.asarray(expected_photons(parameters, alone, plain))[:n]
    index, inside = layout.box_pixels(predictions.panel, bounds, (side, side))
    index, inside = index.reshape(n, -1), inside.reshape(n, -1)
    own = unit * np.abs(factors.lookup(predictions.primitive_index))[:, None] ** 2 * inside
    total = own.sum(axis=1)
    grid = np.stack([shot.fast[:n], shot.slow[:n]], axis=-1).astype(np.float64) + 0.5
    with np.errstate(invalid="ignore", divide="ignore"):
        centroid = np.einsum("np,npk->nk", own, grid) / total[:, None]
    centroid = np.where(np.isfinite(centroid), centroid, predictions.position)
    return total, centroid, _OwnPixels(bounds, index, inside, grid, own)


def _moved(parameters: Parameters, crystals: Sequence[Crystal]) -> list[Crystal]:
    """The crystals with the cell and orientation of the parameters."""
    cell = np.asarray(parameters.crystal.cell)
    cell = np.concatenate([cell[:3], np.degrees(cell[3:])])
    turns = np.asarray(misorientation(np.asarray(parameters.crystal.rot_xyz)))
    return [c.with_cell_and_orientation(cell, turn @ c.U) for c, turn in zip(crystals, turns, strict=True)]


def known_background_shot(
    still: Still, *, side: int = 12, least_photons: float = 30.0, most: int | None = None
) -> Shot:
    """Boxes about the brightest predicted reflections, chosen and placed without a look at the noise.

    Args:
        side: side of a box, pixels.
        least_photons: expected photons that a reflection must have.
        most: the largest number of boxes.

    Returns:
        Boxes with the true background, all of their pixels trusted.
    """
    order = np.argsort(-still.photons, kind="stable")
    rows = order[still.photons[order] >= least_photons][:most]
    layout = PanelLayout.of_sizes(still.detector.image_size)
    panel = still.predictions.panel[rows]
    bounds, _ = centroid_boxes(still.centroid[rows], layout.size[panel], side)
    bounds = separate_boxes(bounds, panel, layout)
    keep = np.min(bounds[:, [1, 3]] - bounds[:, [0, 2]], axis=1) >= 2
    rows, panel, bounds = rows[keep], panel[keep], bounds[keep]
    index, inside = layout.box_pixels(panel, bounds, (side, side))
    index, inside = index.reshape(len(rows), -1), inside.reshape(len(rows), -1)
    return replace(
        boxes_only(panel, bounds, side, still.lattice[rows]),
        counts=np.where(inside, still.adu[index] / still.camera.gain, 0.0),
        background=np.where(inside, still.background[index], 0.0),
        trusted=inside,
        readout_sd=np.asarray(still.camera.readout_adu / still.camera.gain),
        miller_index=still.predictions.miller_index[rows],
        reflection_row=rows,
    )

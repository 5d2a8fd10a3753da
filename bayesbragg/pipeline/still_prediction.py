"""The model that reflections of a still are predicted with: the refined one, or one that indexing alone can tell.

Without pixel refinement the block size follows from the spread of the indexed reflections about the Ewald sphere (a
block of D angstrom gives a standard deviation of sqrt(0.63 / 4) / D), and the scale from their observed photons under
equal structure factors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bayesbragg.forward import Options, Parameters, Scene
from bayesbragg.forward.exact import FUDGE
from bayesbragg.forward.mosaic import MosaicSamples, angular_covariance
from bayesbragg.model import Crystal, Detector, Reflections, Shot, StructureFactors
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.refine import Refined
from bayesbragg.pipeline.settings import ModelSettings
from bayesbragg.pipeline.still import Still
from bayesbragg.pipeline.still_model import model_options, still_scene
from bayesbragg.priors import CellConstraint, Priors, make_layout
from bayesbragg.stills.indexing import relative_bandwidth
from bayesbragg.stills.orientation_refinement import predicted_centroids
from bayesbragg.stills.prediction import Predictions
from bayesbragg.stills.selected_predictions import PredictionSettings
from bayesbragg.stills.spot_shapes import spot_shapes

__all__ = ["StillModel", "model_from_indexing", "model_of_refined", "overridden"]

FloatArray = npt.NDArray[np.float64]

BLOCK_RANGE = (3.0, 300.0)
EQUAL_FACTORS = StructureFactors(np.array([[1, 0, 0]]), np.array([1.0]), 1.0)
"""Shapes do not look at structure factors; a scene needs some."""


@dataclass(frozen=True, eq=False)
class StillModel:
    """What predictions need.

    Attributes:
        still: image, spectrum and incoming crystals.
        crystals, detector: refined.
        parameters, options: of the forward model, relative to the incoming crystals.
        scene_of: the scene of a shot of boxes.
    """

    still: Still
    crystals: tuple[Crystal, ...]
    detector: Detector
    parameters: Parameters
    options: Options
    scene_of: Callable[[Shot], Scene]

    def turns(self) -> FloatArray:
        """Covariance of the mosaic rotations in the lab, ``(3, 3)``, radian^2."""
        mosaic, spread = self.parameters.mosaic, self.options.spread
        if spread == "none":
            return np.zeros((3, 3))
        if spread in ("isotropic", "anisotropic"):
            return float(np.radians(np.max(np.asarray(mosaic.eta_deg))) ** 2) * np.eye(3, dtype=np.float64)
        axes = self.still.crystals[0].real_space_A
        samples = MosaicSamples(np.zeros((1, 3)), np.zeros(1), axes / np.linalg.norm(axes, axis=1, keepdims=True))
        return np.asarray(angular_covariance(samples, mosaic, spread))


def _scene_maker(still: Still, parameters: Parameters, options: Options, model: ModelSettings) -> Callable[..., Scene]:
    plain = replace(options, diffuse=False, diffuse_stencil=0, point_spread=False)

    def scene_of(shot: Shot) -> Scene:
        return still_scene(
            still, still.crystals, shot, EQUAL_FACTORS, parameters, plain, replace(model, psf_fwhm_um=None)
        )

    return scene_of


def model_of_refined(refined: Refined, model: ModelSettings) -> StillModel:
    """The model that a pixel refinement ended with."""
    still, options = refined.prepared.still, refined.prepared.options
    make = _scene_maker(still, refined.parameters, options, model)
    return StillModel(still, refined.crystals, refined.detector, refined.parameters, options, make)


def model_from_indexing(still: Still, model: ModelSettings, gain: float, default_F: float = 1e3) -> StillModel:
    """The model that the indexed spots of a still tell.

    Args:
        still: indexed.
        gain: detector units per photon, for the column ``intensity.sum.value``.
        default_F: amplitude that stands for all reflections, electrons.

    Raises:
        InputError: a cell that does not fit its space group.
    """
    crystals, table = still.crystals, still.reflections
    crystal = crystals[0]
    cell = np.concatenate([crystal.cell[:3], np.radians(crystal.cell[3:])])
    constraint = CellConstraint.for_space_group(crystal.space_group_number, cell, tolerance=5e-3)
    lattice = np.asarray(table["id"], dtype=np.int64)
    sizes = [_block_size(still, number, table.select(lattice == number)) for number in range(len(crystals))]
    lengths = np.linalg.norm(crystal.to_primitive @ crystal.real_space_A, axis=1)
    n_abc = np.clip(np.array(sizes)[:, None] / lengths, *BLOCK_RANGE)
    start = Parameters.start(cell, n_lattices=len(crystals), n_abc=n_abc, G=1.0)
    layout, base = make_layout(Priors(), start, constraint)
    options = model_options(model, base, still, layout)
    base = replace(base, scale=replace(base.scale, G=_scales(still, base, options, model, gain, default_F)))
    make = _scene_maker(still, base, options, model)
    return StillModel(still, crystals, still.detector, base, options, make)


def _block_size(still: Still, number: int, table: Reflections) -> float:
    """Size of the blocks of a lattice, angstrom."""
    beam, crystal = still.experiments[number].beam, still.crystals[number]
    hkl = np.asarray(table["miller_index"])
    if len(hkl) < 4:
        raise InputError(f"{still.tag}: {len(hkl)} indexed reflections of a lattice; predictions need 4 or more")
    panel = np.asarray(table["panel"], dtype=np.int64)
    _, distance, _ = predicted_centroids(crystal, beam, still.detector, hkl, panel)
    squared = np.sum((hkl @ crystal.A_reciprocal.T) ** 2, axis=1)
    spectral = relative_bandwidth(still.spectrum) * beam.wavelength_A * np.median(squared) / 2.0
    spread = 1.4826 * float(np.median(np.abs(distance)))
    sigma = float(np.sqrt(max(spread**2 - spectral**2, (0.2 * spread) ** 2)))
    return float(np.sqrt(1.0 / (4.0 * FUDGE)) / max(sigma, 1e-6))


def _scales(
    still: Still, base: Parameters, options: Options, model: ModelSettings, gain: float, default_F: float
) -> FloatArray:
    """Scale of each lattice that gives its indexed spots their observed photons in the median, ``(n_lattices,)``."""
    table = still.reflections
    hkl = np.asarray(table["miller_index"], dtype=np.int64)
    n, lattice = len(hkl), np.asarray(table["id"], dtype=np.int64)
    primitive = np.rint(hkl @ still.crystals[0].to_primitive.T).astype(np.int64)
    panel, position = np.asarray(table["panel"], dtype=np.int64), np.asarray(table["xyzobs.px.value"])[:, :2]
    listed = Predictions(hkl, primitive, panel, position, np.zeros(n), np.zeros(n), np.ones(n))
    shapes = spot_shapes(listed, lattice, 12, still.detector, _scene_maker(still, base, options, model), base, options)
    G = np.ones(len(still.crystals))
    observed = np.asarray(table["intensity.sum.value"], dtype=float) / gain if "intensity.sum.value" in table else None
    for number in range(len(G)):
        mine = (lattice == number) & (shapes.total > 0)
        if observed is not None and mine.any():
            G[number] = np.median(observed[mine]) / (np.median(shapes.total[mine]) * default_F**2)
    return np.asarray(np.where(np.isfinite(G) & (G > 0), G, 1.0))


def overridden(model: StillModel, settings: PredictionSettings, switches: ModelSettings) -> StillModel:
    """The model with what the ``predictions`` scope sets besides: blocks, subpixels, sensor layers, channels."""
    parameters, options, still = model.parameters, model.options, model.still
    if settings.n_abc is not None:
        blocks = np.broadcast_to(np.asarray(settings.n_abc, dtype=float), np.shape(parameters.mosaic.n_abc))
        parameters = replace(parameters, mosaic=replace(parameters.mosaic, n_abc=blocks))
    if settings.oversample:
        options = replace(options, oversample=settings.oversample)
    if settings.sensor_layers and not switches.thin_sensor:
        options = replace(options, sensor_layers=settings.sensor_layers)
    if settings.stride and settings.stride > 1:
        spectrum = still.spectrum
        kept = type(spectrum)(spectrum.wavelengths_A[:: settings.stride], spectrum.photons[:: settings.stride])
        still = replace(still, spectrum=kept.with_flux(spectrum.flux))
    make = _scene_maker(still, parameters, options, switches)
    return replace(model, still=still, parameters=parameters, options=options, scene_of=make)

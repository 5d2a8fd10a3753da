"""Predictions that are worth integrating: bright enough under equal structure factors, strong or among the best weak.

The rules are those of the classic ``predictions`` scope. Every excited reflection is given the same amplitude, so that
nothing of the answer enters the question; it counts as predicted if its brightest pixel is expected to hold more
photons than a threshold. A prediction near an observed strong spot is strong; of the others a fraction is kept, those
with the largest expected photons. Resolution is in angstrom, distances in reciprocal space are 1/angstrom (1/d).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from bayesbragg.forward import Options, Parameters, Scene
from bayesbragg.model import Beam, Crystal, Detector, Reflections, Shot, Spectrum, StructureFactors
from bayesbragg.model.errors import InputError
from bayesbragg.stills.prediction import Predictions, join_predictions, predict
from bayesbragg.stills.spot_shapes import SpotShapes, spot_shapes

__all__ = ["PredictionSettings", "Selected", "select_predictions"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

WIDTHS = 5.5
"""Distance from the Ewald spheres within which candidates are sought, standard deviations: beyond, nothing shows."""


@dataclass(frozen=True)
class PredictionSettings:
    """Names are those of the classic ``predictions`` scope, where it has one.

    Attributes:
        d_min, d_max: resolution range (``resolution_range``), angstrom.
        threshold: photons that the brightest pixel must be expected to hold.
        default_F: amplitude that every reflection is given (``default_Famplitude``), electrons.
        with_factors: use the structure factors of the refinement instead (``use_diffBragg_mtz``).
        weak_fraction: fraction of the weak predictions that are kept.
        qcut: predictions within this distance of an observed strong spot count as strong, 1/angstrom.
        strong_column: column of the strong spots' positions (``label_weak_col``).
        n_abc: block size instead of the refined one (``Nabc_override``), cells.
        oversample, sensor_layers: instead of the refinement's (``oversample_override``, ``thicksteps_override``).
        stride: keep every n-th channel of the spectrum (``pink_stride_override``).
    """

    d_min: float = 1.0
    d_max: float = 999.0
    threshold: float = 1e-3
    default_F: float = 1e3
    with_factors: bool = False
    weak_fraction: float = 0.5
    qcut: float = 0.1
    strong_column: str = "xyzobs.px.value"
    n_abc: tuple[float, ...] | None = None
    oversample: int | None = None
    sensor_layers: int | None = None
    stride: int | None = None


@dataclass(frozen=True, eq=False)
class Selected:
    """Predictions that were chosen.

    Attributes:
        predictions: ``n`` reflections; lattice: number of the lattice of each; shapes: of their spots.
        strong: which lie near an observed strong spot, ``(n,)``.
        n_excited: reflections above the threshold, before the weak ones were thinned.
    """

    predictions: Predictions
    lattice: IntArray
    shapes: SpotShapes
    strong: BoolArray
    n_excited: int


def select_predictions(
    crystals: Sequence[Crystal],
    beam: Beam,
    spectrum: Spectrum,
    detector: Detector,
    strong: Reflections,
    settings: PredictionSettings,
    side: int,
    scene_of: Callable[[Shot], Scene],
    parameters: Parameters,
    options: Options,
    factors: StructureFactors | None = None,
) -> Selected:
    """Predict the reflections of all lattices and choose among them.

    Args:
        crystals: refined.
        strong: observed strong spots with ``panel`` and the settings' column.
        side: of the boxes in which shapes are made, pixels.
        scene_of, parameters, options: of the refined model, see `spot_shapes`.
        factors: used with ``with_factors``.
    """
    d_min = max(settings.d_min, _corner_resolution(detector, beam, float(spectrum.wavelengths_A.min())))
    eta = float(parameters.mosaic.largest_spread_deg()) if options.spread != "none" else 0.0
    blocks = np.asarray(parameters.mosaic.n_abc)
    predictions, lattice = join_predictions(
        [
            predict(crystal, beam, spectrum, detector, d_min=d_min, n_abc=n, eta_deg=eta, widths=WIDTHS)
            for crystal, n in zip(crystals, blocks, strict=True)
        ]
    )
    in_range = predictions.d_A <= settings.d_max
    predictions, lattice = predictions.select(in_range), lattice[in_range]
    shapes = spot_shapes(predictions, lattice, side, detector, scene_of, parameters, options)
    square = np.full(len(predictions), settings.default_F**2)
    if settings.with_factors and factors is not None:
        square = np.abs(factors.lookup(predictions.primitive_index)) ** 2
    excited = shapes.photons.max(axis=1, initial=0.0) * square > settings.threshold
    predictions, lattice, shapes, square = (
        predictions.select(excited),
        lattice[excited],
        shapes.select(excited),
        square[excited],
    )
    is_strong = _near_strong(shapes, strong, detector, beam, settings)
    weak = np.flatnonzero(~is_strong)
    best = weak[np.argsort(-(shapes.total * square)[weak], kind="stable")]
    keep = is_strong.copy()
    keep[best[: int(np.ceil(settings.weak_fraction * len(weak)))]] = True
    return Selected(predictions.select(keep), lattice[keep], shapes.select(keep), is_strong[keep], int(excited.sum()))


def _corner_resolution(detector: Detector, beam: Beam, wavelength_A: float) -> float:
    """The highest resolution on the detector, angstrom."""
    panel = np.repeat(np.arange(detector.n_panels), 4)
    corner = np.tile([[0, 0], [1, 0], [0, 1], [1, 1]], (detector.n_panels, 1)) * detector.image_size[panel]
    ray = detector.lab_mm(panel, corner[:, 0], corner[:, 1])
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    return float(wavelength_A / np.linalg.norm(ray - beam.direction, axis=1).max())


def _near_strong(
    shapes: SpotShapes, strong: Reflections, detector: Detector, beam: Beam, settings: PredictionSettings
) -> BoolArray:
    """Which predictions lie within `qcut` of an observed strong spot, ``(n,)``."""
    if len(strong) == 0 or len(shapes.panel) == 0 or not settings.qcut > 0:
        return np.zeros(len(shapes.panel), dtype=bool)
    if settings.strong_column not in strong:
        raise InputError(
            f"predictions.label_weak_col={settings.strong_column}: the strong spots have no such column (there are: "
            f"{', '.join(sorted(strong.columns))}); xyzobs.px.value is usual"
        )
    position = np.asarray(strong[settings.strong_column])[:, :2]
    # At one wavelength, positions are scattering vectors that lie on a sphere.
    seen = _scattering(detector, beam, np.asarray(strong["panel"], dtype=np.int64), position)
    expected = _scattering(detector, beam, shapes.panel, shapes.centroid)
    distance, _ = cKDTree(seen).query(expected, distance_upper_bound=settings.qcut)
    return np.asarray(np.isfinite(distance))


def _scattering(detector: Detector, beam: Beam, panel: IntArray, position: FloatArray) -> FloatArray:
    """q of positions on the detector at the beam's wavelength, ``(n, 3)``, 1/angstrom."""
    ray = detector.lab_mm(panel, position[:, 0], position[:, 1])
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    return np.asarray((ray - beam.direction) / beam.wavelength_A)

"""From a still's model to its table of integrated reflections, with the columns of DIALS and a few of our own.

Intensities and backgrounds are in detector units, as DIALS has them: photons times gain, variances times gain squared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesbragg.model import Reflections, StructureFactors
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.settings import RefineSettings
from bayesbragg.pipeline.still_prediction import StillModel, overridden
from bayesbragg.pipeline.stills_settings import IntegrationSettings
from bayesbragg.stills.integration import Integrated, integrate
from bayesbragg.stills.neighbours import find_neighbours
from bayesbragg.stills.orientation_refinement import predicted_centroids
from bayesbragg.stills.partiality import partialities
from bayesbragg.stills.selected_predictions import PredictionSettings, Selected, select_predictions
from bayesbragg.stills.shot import make_shot

__all__ = ["APPLIED", "IntegratedStill", "correct_partiality", "integrate_still"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

APPLIED = "partiality.applied"
"""Column that says by which partiality the intensities of a row were divided; 1 where they were not."""
INTENSITIES = ("intensity.sum", "intensity.prf", "intensity.posterior")
PREDICTED, OBSERVED, INDEXED, STRONG, INTEGRATED_SUM, INTEGRATED_PRF = 1, 2, 4, 32, 256, 512
OVERLAPPED, BAD_FOREGROUND = 4096, 16384
"""Bits of the DIALS column ``flags``."""
CONTESTED = 0.05
"""Share of a spot under brighter neighbours from which it is flagged as overlapped."""


@dataclass(frozen=True, eq=False)
class IntegratedStill:
    """Integrated reflections of a still, and how many were predicted.

    Attributes:
        reflections: the table; ``id`` is the number of the lattice.
        n_excited: predictions above the threshold.
        n_selected: those among them that were to be integrated.
    """

    reflections: Reflections
    n_excited: int
    n_selected: int


def integrate_still(
    model: StillModel,
    strong: Reflections,
    indexed: Reflections,
    settings: RefineSettings,
    predictions: PredictionSettings,
    how: IntegrationSettings,
    factors: StructureFactors | None = None,
) -> IntegratedStill:
    """Predict and integrate the reflections of a still.

    Args:
        model: of the still.
        strong: all strong spots, for the selection.
        indexed: indexed spots, whose centroids and flags are handed on.
        factors: structure factors for predictions with ``use_diffBragg_mtz``.

    Raises:
        InputError: nothing is predicted, or no predicted spot has a usable box.
    """
    model = overridden(model, predictions, settings.model)
    still, beam = model.still, model.still.experiments[0].beam
    side = settings.boxes.shoebox_size + how.margin
    chosen = select_predictions(
        model.crystals, beam, still.spectrum, model.detector, strong, predictions, side, model.scene_of,
        model.parameters, model.options, factors,
    )  # fmt: skip
    if len(chosen.predictions) == 0:
        raise InputError(
            f"{still.tag}: no reflection is predicted above predictions.threshold={predictions.threshold} photons "
            f"between {predictions.d_min} and {predictions.d_max} A; widen resolution_range or lower the threshold"
        )
    boxes = replace(
        settings.boxes,
        shoebox_size=side,
        deltaQ=None,
        centroid="cal",
        allow_overlapping_spots=True,
        reject_edge_reflections=False,
        reject_roi_with_hotpix=False,
        min_trusted_pix_per_roi=side * side,
        remove_duplicates=False,
        mask_outside_trusted_range=True,
        mask_all_if_any_outside_trusted_range=False,
        skip_roi_with_negative_bg=False,
        res_ranges=None,
    )
    place = np.column_stack([chosen.predictions.position, np.zeros(len(chosen.predictions))])
    listed = Reflections(
        {
            "panel": chosen.predictions.panel,
            "miller_index": chosen.predictions.miller_index,
            "id": chosen.lattice,
            "xyzcal.px": place,
        }
    )
    shot, report = make_shot(
        still.panels,
        model.detector,
        listed,
        boxes,
        gain=settings.counts.gain,
        sigma_readout_adu=settings.counts.sigma_readout_adu,
        mask=still.mask,
        dark_rms_adu=still.dark_rms_adu,
        background="poisson",
        beam=beam,
    )
    rows = shot.reflection_row
    shapes = chosen.shapes.select(rows)
    found = integrate(
        shot,
        shapes.photons,
        report.tilt_covariance[rows],
        report.padded[rows][:, [0, 2]].astype(float),
        find_neighbours(shapes),
    )
    table = _table(model, chosen, rows, found, indexed, settings.counts.gain, shot.bounds)
    if how.partial_correct:
        table = correct_partiality(table, how.least_partiality)
    return IntegratedStill(table, chosen.n_excited, len(chosen.predictions))


def correct_partiality(table: Reflections, least: float = 0.05) -> Reflections:
    """Intensities of whole reflections: divided by their partiality, once.

    The divisor goes into the column ``partiality.applied`` and ``partiality`` becomes 1, so that neither this function
    nor a merging program divides again.

    Args:
        least: reflections below this partiality are left out.
    """
    share, applied = np.asarray(table["partiality"]), np.asarray(table[APPLIED])
    keep = (share >= least) | (applied != 1.0)
    table = table.select(keep)
    divisor = np.where(applied[keep] == 1.0, share[keep], 1.0)
    columns: dict[str, npt.NDArray[Any]] = {}
    for name in INTENSITIES:
        columns[f"{name}.value"] = table[f"{name}.value"] / divisor
        columns[f"{name}.variance"] = table[f"{name}.variance"] / divisor**2
    columns["partiality"] = np.where(applied[keep] == 1.0, 1.0, share[keep])
    columns[APPLIED] = np.where(applied[keep] == 1.0, share[keep], applied[keep])
    return table.with_columns(**columns)


def _table(
    model: StillModel,
    chosen: Selected,
    rows: IntArray,
    found: Integrated,
    indexed: Reflections,
    gain: float,
    bounds: IntArray,
) -> Reflections:
    predictions, lattice, shapes = chosen.predictions.select(rows), chosen.lattice[rows], chosen.shapes.select(rows)
    n, panel = len(rows), predictions.panel
    beam = model.still.experiments[0].beam
    pixel, none = model.detector.pixel_size_mm[panel], np.zeros((n, 1))
    ray = model.detector.lab_mm(panel, shapes.centroid[:, 0], shapes.centroid[:, 1])
    s1 = ray / np.linalg.norm(ray, axis=1, keepdims=True) / beam.wavelength_A
    share, psi = np.empty(n), np.empty(n)
    for number, crystal in enumerate(model.crystals):
        mine = lattice == number
        mosaic = model.parameters.mosaic
        share[mine] = partialities(
            crystal,
            beam,
            model.still.spectrum,
            predictions.miller_index[mine],
            n_abc=np.asarray(mosaic.n_abc)[number],
            n_def=np.asarray(mosaic.n_def)[number],
            turns=model.turns(),
        )
        hkl = predictions.miller_index[mine]
        _, distance, _ = predicted_centroids(crystal, beam, model.detector, hkl, panel[mine])
        q = 1.0 / predictions.d_A[mine]
        # Turning by psi about q x k moves the point across the sphere by psi |q| cos(theta).
        psi[mine] = -distance / (q * np.sqrt(1.0 - (0.5 * q * beam.wavelength_A) ** 2))
    row = _rows_in(indexed, lattice, predictions.miller_index)
    seen = row >= 0
    observed, variance = found.centroid.copy(), found.centroid_variance.copy()
    if seen.any():
        observed[seen] = np.asarray(indexed["xyzobs.px.value"])[row[seen], :2]
        if "xyzobs.px.variance" in indexed:
            variance[seen] = np.asarray(indexed["xyzobs.px.variance"])[row[seen], :2]
    lost = ~np.isfinite(observed).all(axis=1)
    observed[lost], variance[lost] = shapes.centroid[lost], 1.0 / 12.0
    summed, fitted = np.isfinite(found.sum_value), np.isfinite(found.profile_value)
    flags = PREDICTED + OBSERVED * seen + INDEXED * seen + STRONG * seen
    flags = flags + INTEGRATED_SUM * summed + INTEGRATED_PRF * fitted
    flags = flags + OVERLAPPED * (found.contested > CONTESTED) + BAD_FOREGROUND * (found.n_trusted < found.n_foreground)
    columns: dict[str, npt.NDArray[Any]] = {
        "miller_index": predictions.miller_index,
        "id": lattice,
        "imageset_id": np.zeros(n, np.int64),
        "panel": panel,
        "flags": np.asarray(flags, dtype=np.int64),
        "bbox": np.column_stack([bounds, np.zeros(n, np.int64), np.ones(n, np.int64)]),
        "entering": np.zeros(n, dtype=bool),
        "is_strong": chosen.strong[rows],
        "d": predictions.d_A,
        "s1": s1,
        "delpsical.rad": psi,
        "wavelength_cal": predictions.wavelength_A,
        "xyzcal.px": np.hstack([shapes.centroid, none]),
        "xyzcal.mm": np.hstack([shapes.centroid * pixel, none]),
        "xyzobs.px.value": np.hstack([observed, none]),
        "xyzobs.px.variance": np.hstack([variance, none]),
        "xyzobs.mm.value": np.hstack([observed * pixel, none]),
        "xyzobs.mm.variance": np.hstack([variance * pixel**2, none]),
        "intensity.sum.value": np.where(summed, found.sum_value, 0.0) * gain,
        "intensity.sum.variance": np.where(summed, found.sum_variance, -1.0) * gain**2,
        "intensity.prf.value": np.where(fitted, found.profile_value, 0.0) * gain,
        "intensity.prf.variance": np.where(fitted, found.profile_variance, -1.0) * gain**2,
        "intensity.posterior.value": np.where(fitted, found.posterior_value, 0.0) * gain,
        "intensity.posterior.variance": np.where(fitted, found.posterior_variance, -1.0) * gain**2,
        "background.mean": found.background_sum / np.maximum(found.n_foreground, 1) * gain,
        "background.sum.value": found.background_sum * gain,
        "background.sum.variance": found.background_variance * gain**2,
        "num_pixels.foreground": found.n_foreground,
        "num_pixels.valid": found.n_trusted,
        "profile.correlation": np.nan_to_num(found.correlation),
        "partiality": share,
        APPLIED: np.ones(n),
        "model.photons_per_F2": shapes.total,
    }
    names = {i: e.identifier for i, e in enumerate(model.still.experiments) if e.identifier}
    return Reflections(columns, names)


def _rows_in(indexed: Reflections, lattice: IntArray, hkl: IntArray) -> IntArray:
    """Row of each reflection among the indexed spots, or -1."""
    if len(indexed) == 0 or len(hkl) == 0:
        return np.full(len(hkl), -1)
    keys = np.column_stack([np.asarray(indexed["id"], dtype=np.int64), np.asarray(indexed["miller_index"])])
    wanted = np.column_stack([lattice, hkl])
    _, inverse = np.unique(np.concatenate([keys, wanted]), axis=0, return_inverse=True)
    inverse = inverse.ravel()
    place = np.full(inverse.max() + 1, -1)
    place[inverse[: len(keys)]] = np.arange(len(keys))
    return np.asarray(place[inverse[len(keys) :]])

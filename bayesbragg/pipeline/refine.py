"""From one still to its best fit, and what the optimum says of every reflection."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import jax
import numpy as np
import numpy.typing as npt

from bayesbragg.forward import Parameters, window_holds
from bayesbragg.forward.centroid import own_reflection_centroids
from bayesbragg.forward.rotations import misorientation
from bayesbragg.inference.box_likelihood import Fitted
from bayesbragg.inference.map import MapOptions, fit_map
from bayesbragg.model import Crystal, Detector, StructureFactors
from bayesbragg.model.errors import InputError
from bayesbragg.model.fit import Fit, FitStatus
from bayesbragg.pipeline.lattice_form import form_holds, judged
from bayesbragg.pipeline.prepare import Prepared, around, on_host, prepare
from bayesbragg.pipeline.settings import RefineSettings
from bayesbragg.pipeline.still import Still

__all__ = ["Prepared", "Refined", "around", "fit_options", "fit_prepared", "prepare", "refine_prepared", "refine_still"]

FloatArray = npt.NDArray[np.float64]
log = logging.getLogger(__name__)

MAX_WINDOW_ROUNDS = 4
"""How often a fit is continued after its spots moved beyond the reflections that were listed for them."""


_turns = jax.jit(misorientation)
"""One program instead of one for each of its steps."""


@dataclass(frozen=True, eq=False)
class Refined:
    """A fitted still.

    Attributes:
        prepared: what was fitted.
        fit: the optimum and its status.
        parameters: at the optimum (numpy arrays).
        bragg: Bragg photons at the optimum, ``(n_boxes, n_pixels)``.
        crystals, detector: refined models.
        centroid_px: model centroid of each box's own reflection, fast and slow, ``(n_boxes, 2)``.
        predicted: whether the model puts photons there, ``(n_boxes,)``.
        intensity, intensity_sd: of each box's reflection relative to its expectation, with its standard deviation at
            these parameters, ``(n_boxes,)``; 1 and 0 where intensities are known.
    """

    prepared: Prepared
    fit: Fit
    parameters: Parameters
    bragg: FloatArray
    crystals: tuple[Crystal, ...]
    detector: Detector
    centroid_px: FloatArray
    predicted: npt.NDArray[np.bool_]
    intensity: FloatArray
    intensity_sd: FloatArray


def refine_still(
    still: Still,
    factors: StructureFactors,
    settings: RefineSettings,
    *,
    start: Parameters | None = None,
) -> Refined:
    """The best fit of a still; arguments as for `prepare`.

    A fit that does not converge is a result with its status; only input that cannot be used raises `InputError`.
    """
    return refine_prepared(prepare(still, factors, settings, start=start), goes_on=start is not None)


def refine_prepared(prepared: Prepared, *, goes_on: bool = False, fit: Fit | None = None) -> Refined:
    """The best fit of a still that is ready.

    Args:
        goes_on: its start is an earlier fit's end, not to be looked for.
        fit: its fit, where that was made together with others'.
    """
    options = fit_options(prepared.settings, goes_on=goes_on)
    prepared, fit = fit_prepared(prepared, options, fit)
    if prepared.settings.min_expected > 0 and fit.status is not FitStatus.FAILED:
        bright = _without_dim_boxes(prepared, fit)
        if bright is not prepared:
            again = replace(options, start_scale=False, start_blocks=False)
            prepared, second = fit_prepared(around(bright, fit.values), again)
            fit = _together(fit, second)
    return _finish(prepared, fit, on_host(prepared.density.parameters(fit.x)))


def fit_options(settings: RefineSettings, *, goes_on: bool = False) -> MapOptions:
    """How the optimum is searched."""
    return replace(settings.fit, start_scale=False, start_blocks=False) if goes_on else settings.fit


def fit_prepared(prepared: Prepared, options: MapOptions, fit: Fit | None = None) -> tuple[Prepared, Fit]:
    """The best fit, continued until reflections and lattice sum serve where it ends.

    Args:
        fit: of the density that is prepared, where it is there already.

    Returns:
        the still with the density that the fit ended with, and the fit.
    """
    fit = fit or fit_map(prepared.density, options)
    onwards = replace(options, start_scale=False, start_blocks=False)
    wanted = prepared.settings.model.forward
    for _ in range(MAX_WINDOW_ROUNDS):
        parameters = on_host(prepared.density.parameters(fit.x))
        if fit.status is FitStatus.FAILED:
            break
        served = window_holds(parameters, prepared.scene)
        served = served and form_holds(prepared.form, parameters, prepared.density, prepared.options)
        if served:
            form = judged(prepared.form, wanted, parameters, prepared.density, prepared.options)
            changed, prepared = form.closed != prepared.form.closed, replace(prepared, form=form)
            if not changed:
                break
        prepared = around(prepared, fit.values)
        again = fit_map(prepared.density, onwards)
        fit = replace(_together(fit, again), start_target=fit.start_target)
    return prepared, fit


def _together(first: Fit, second: Fit) -> Fit:
    """The second fit, with what the first cost as well."""
    return replace(second, evaluations=first.evaluations + second.evaluations,
                   iterations=first.iterations + second.iterations, seconds=first.seconds + second.seconds)  # fmt: skip


def _without_dim_boxes(prepared: Prepared, fit: Fit) -> Prepared:
    """The still without boxes of which the fit expects too little; itself where there are none.

    A finder sees weak spots where noise has made them bright or sharp, and what is chosen by its own noise pulls a fit.
    What the model expects of a box hardly knows of that noise.

    Raises:
        InputError: too few boxes are left.
    """
    shot, settings = prepared.shot, prepared.settings
    expected = np.sum(np.asarray(prepared.density.bragg(fit.x), dtype=np.float64), axis=1)
    bright = expected >= settings.min_expected
    used = np.any(shot.trusted, axis=1)
    kept = int(np.sum(bright[: shot.n_boxes] & used))
    if kept < settings.min_boxes:
        raise InputError(
            f"{prepared.still.tag}: {kept} boxes with min_expected = {settings.min_expected:g} photons or more, fewer "
            f"than min_spot = {settings.min_boxes}; lower min_expected"
        )
    if kept == int(np.sum(used)):
        return prepared
    log.info("%s: %d boxes of fewer than %g expected photons are left out, %d stay", prepared.still.tag,
             int(np.sum(used)) - kept, settings.min_expected, kept)  # fmt: skip
    pixels = prepared.density.given.pixels
    pixels = replace(pixels, trusted=np.asarray(pixels.trusted) & bright[:, None])
    shot = replace(shot, trusted=shot.trusted & bright[: shot.n_boxes, None])
    return replace(prepared, shot=shot, density=prepared.density.with_pixels(pixels))


def _finish(prepared: Prepared, fit: Fit, parameters: Parameters) -> Refined:
    shot, still = prepared.shot, prepared.still
    shown = Fitted(*(np.asarray(a, dtype=np.float64)[: shot.n_boxes] for a in prepared.density.fitted(fit.x)))
    if prepared.density.problem.pixels.planes is not None:
        prepared = replace(prepared, shot=replace(shot, background=shown.background))
    padded = shot.padded()
    hkl = np.rint(padded.miller_index @ still.crystals[0].to_primitive.T).astype(np.int64)
    centroid, photons = own_reflection_centroids(
        parameters, prepared.scene, prepared.options, hkl, padded.lattice, padded.valid
    )
    cell = np.concatenate([parameters.crystal.cell[:3], np.degrees(parameters.crystal.cell[3:])])
    turns = np.asarray(_turns(parameters.crystal.rot_xyz))
    crystals = tuple(
        crystal.with_cell_and_orientation(cell, turn @ crystal.U)
        for crystal, turn in zip(still.crystals, turns, strict=True)
    )
    shift_mm = float(parameters.panels.detz_m) * 1e3
    detector = still.detector
    if shift_mm:
        detector = detector.with_panels(
            detector.origin_mm + np.array([0.0, 0.0, shift_mm]), detector.fast, detector.slow
        )
    n = shot.n_boxes
    return Refined(prepared, fit, parameters, shown.bragg, crystals, detector, centroid[:n],
                   np.isfinite(centroid[:n, 0]) & (photons[:n] > 0), shown.intensity, shown.intensity_sd)  # fmt: skip

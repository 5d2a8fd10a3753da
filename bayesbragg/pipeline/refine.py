"""From one still to its best fit: boxes, scene, density, optimum, and what the optimum says of every reflection."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from bayesbragg.forward import Options, Parameters, Scene, window_holds
from bayesbragg.forward.centroid import own_reflection_centroids
from bayesbragg.forward.rotations import misorientation
from bayesbragg.inference.box_likelihood import Fitted
from bayesbragg.inference.density import LogDensity
from bayesbragg.inference.map import MapOptions, fit_map
from bayesbragg.model import Crystal, Detector, Shot, StructureFactors
from bayesbragg.model.errors import InputError
from bayesbragg.model.fit import Fit, FitStatus
from bayesbragg.pipeline.lattice_form import LatticeForm, choose_form, form_density, form_holds, judged
from bayesbragg.pipeline.pixel_model import on_own_reflection, pixels_of, unknown_intensities
from bayesbragg.pipeline.settings import RefineSettings, StartValues
from bayesbragg.pipeline.still import Still
from bayesbragg.pipeline.still_model import model_options, still_scene
from bayesbragg.priors import CellConstraint, Fixed, Layout, Priors, Shared, make_layout
from bayesbragg.stills.shot import BoxReport, make_shot

__all__ = ["Prepared", "Refined", "around", "fit_options", "fit_prepared", "prepare", "refine_prepared", "refine_still"]

FloatArray = npt.NDArray[np.float64]

MAX_WINDOW_ROUNDS = 4
"""How often a fit is continued after its spots moved beyond the reflections that were listed for them."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A still made ready for a fit.

    Attributes:
        still, shot, report: the input, its boxes, and what became of each reflection.
        options, scene, density: the model and the log density (padded to a bucket of boxes).
        layout, base: what varies, and the parameters that it starts from.
        form: the lattice sum of the density.
    """

    still: Still
    shot: Shot
    report: BoxReport
    options: Options
    scene: Scene
    density: LogDensity
    layout: Layout
    base: Parameters
    form: LatticeForm


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


def prepare(
    still: Still,
    factors: StructureFactors,
    settings: RefineSettings,
    *,
    start: Parameters | None = None,
    laue_rotations: FloatArray | None = None,
) -> Prepared:
    """Boxes, background, scene and density of a still.

    Args:
        factors: in the primitive basis of the crystals.
        start: replaces the starting values of the settings (parameters of an earlier fit).
        laue_rotations: rotations of the Laue group acting on Miller indices, ``(n, 3, 3)``, for diffuse scattering.

    Raises:
        InputError: no crystal, no usable box, or a cell that does not fit its space group.
    """
    crystals = still.crystals
    if len(crystals) != len(still.experiments) or not crystals:
        raise InputError(f"{still.tag}: no crystal model; index the shot first")
    if settings.max_lattices is not None:
        crystals = crystals[: settings.max_lattices]
    shot, report = make_shot(
        still.panels,
        still.detector,
        still.reflections,
        settings.boxes,
        gain=settings.counts.gain,
        sigma_readout_adu=settings.counts.sigma_readout_adu,
        mask=still.mask,
        dark_rms_adu=still.dark_rms_adu,
        background=settings.background,
        beam=still.experiments[0].beam,
    )
    shot = replace(shot, lattice=_lattices(still, shot), gain_sd=settings.counts.sigma_gain)
    if settings.max_lattices is not None:
        shot = shot.select(shot.lattice < len(crystals))
    if settings.factors.intensities == "wilson":
        own = on_own_reflection(shot, still.detector, still.experiments[0].beam, crystals)
        shot = replace(shot, trusted=shot.trusted & own)
    if shot.n_boxes < settings.min_boxes:
        raise InputError(
            f"{still.tag}: {shot.n_boxes} usable boxes, fewer than min_spot = {settings.min_boxes} ({report.summary()})"
        )
    crystal = crystals[0]
    cell = np.concatenate([crystal.cell[:3], np.radians(crystal.cell[3:])])
    constraint = CellConstraint.for_space_group(crystal.space_group_number, cell, tolerance=5e-3)
    cell = np.asarray(constraint.expand(constraint.free(cell)))
    first = start if start is not None else _start(settings.start, cell, len(crystals))
    priors = settings.priors if start is None else _from_there(settings.priors)
    layout, base = make_layout(priors, first, constraint)
    options = model_options(settings.model, base, still, layout)
    padded = shot.padded()
    scene = _scene(still, crystals, padded, factors, base, options, settings, laue_rotations)
    pixels = pixels_of(padded, report, settings, crystals)
    form = choose_form(settings.model.forward, options)
    density = form_density(form, scene, base, options, pixels, layout, base, settings.likelihood)
    return Prepared(replace(still, experiments=still.experiments[: len(crystals)]), shot, report, options, scene,
                    density, layout, base, form)  # fmt: skip


def refine_still(
    still: Still,
    factors: StructureFactors,
    settings: RefineSettings,
    *,
    start: Parameters | None = None,
    laue_rotations: FloatArray | None = None,
) -> Refined:
    """The best fit of a still; arguments as for `prepare`.

    A fit that does not converge is a result with its status; only input that cannot be used raises `InputError`.
    """
    prepared = prepare(still, factors, settings, start=start, laue_rotations=laue_rotations)
    return refine_prepared(prepared, factors, settings, goes_on=start is not None, laue_rotations=laue_rotations)


def refine_prepared(
    prepared: Prepared,
    factors: StructureFactors,
    settings: RefineSettings,
    *,
    goes_on: bool = False,
    laue_rotations: FloatArray | None = None,
    fit: Fit | None = None,
) -> Refined:
    """The best fit of a still that is ready; arguments as for `prepare`.

    Args:
        goes_on: its start is an earlier fit's end, not to be looked for.
        fit: its fit, where that was made together with others'.
    """
    options = fit_options(settings, goes_on=goes_on)
    prepared, fit = fit_prepared(prepared, factors, settings, options, laue_rotations, fit)
    return _finish(prepared, fit, _numpy(prepared.density.parameters(fit.x)))


def fit_options(settings: RefineSettings, *, goes_on: bool = False) -> MapOptions:
    """How the optimum is searched."""
    return replace(settings.fit, start_scale=False, start_blocks=False) if goes_on else settings.fit


def around(
    prepared: Prepared,
    values: FloatArray,
    factors: StructureFactors,
    settings: RefineSettings,
    laue_rotations: FloatArray | None,
) -> Prepared:
    """The same still, model and priors, started from physical values of its layout and with reflections listed there.

    Structure factors and lists of reflections are renewed where they do not serve at these values.
    """
    layout = prepared.layout.with_start(values)
    parameters = _numpy(layout.place(np.asarray(layout.start), prepared.base))
    scene, pixels = prepared.scene, prepared.density.problem.pixels
    if window_holds(parameters, scene):
        density = prepared.density.with_layout(layout)
        if form_holds(prepared.form, parameters, density, prepared.options):
            return replace(prepared, density=density, layout=layout)
    else:
        still = prepared.still
        scene = _scene(still, still.crystals, prepared.shot.padded(), factors, parameters, prepared.options, settings,
                       laue_rotations)  # fmt: skip
    density = form_density(prepared.form, scene, parameters, prepared.options, pixels, layout, prepared.base,
                           settings.likelihood)  # fmt: skip
    return replace(prepared, scene=scene, density=density, layout=layout)


def fit_prepared(
    prepared: Prepared,
    factors: StructureFactors,
    settings: RefineSettings,
    options: MapOptions,
    laue_rotations: FloatArray | None = None,
    fit: Fit | None = None,
) -> tuple[Prepared, Fit]:
    """The best fit, continued until reflections and lattice sum serve where it ends.

    Args:
        fit: of the density that is prepared, where it is there already.

    Returns:
        the still with the density that the fit ended with, and the fit.
    """
    fit = fit or fit_map(prepared.density, options)
    onwards = replace(options, start_scale=False, start_blocks=False)
    for _ in range(MAX_WINDOW_ROUNDS):
        parameters = _numpy(prepared.density.parameters(fit.x))
        if fit.status is FitStatus.FAILED:
            break
        served = window_holds(parameters, prepared.scene)
        served = served and form_holds(prepared.form, parameters, prepared.density, prepared.options)
        if served:
            form = judged(prepared.form, settings.model.forward, parameters, prepared.density, prepared.options)
            changed, prepared = form.closed != prepared.form.closed, replace(prepared, form=form)
            if not changed:
                break
        prepared = around(prepared, fit.values, factors, settings, laue_rotations)
        again = fit_map(prepared.density, onwards)
        fit = replace(again, start_target=fit.start_target, evaluations=fit.evaluations + again.evaluations,
                      iterations=fit.iterations + again.iterations, seconds=fit.seconds + again.seconds)  # fmt: skip
    return prepared, fit


def _scene(
    still: Still,
    crystals: tuple[Crystal, ...],
    shot: Shot,
    factors: StructureFactors,
    parameters: Parameters,
    options: Options,
    settings: RefineSettings,
    laue_rotations: FloatArray | None,
) -> Scene:
    """The scene of a padded shot about parameters."""
    scene = still_scene(still, crystals, shot, factors, parameters, options, settings.model, laue_rotations)
    if settings.factors.intensities == "wilson":
        return unknown_intensities(scene, shot, crystals)
    return scene


def _from_there(priors: Priors) -> Priors:
    """The priors without starts of their own: a fit that goes on from an earlier one starts where that ended."""

    def follow(spec: Any) -> Any:
        if isinstance(spec, tuple):
            return tuple(follow(part) for part in spec)
        if isinstance(spec, Shared):
            return Shared(follow(spec.prior))
        if isinstance(spec, Fixed):
            return Fixed()
        return replace(spec, start=None) if hasattr(spec, "start") else spec

    names = [item.name for item in fields(priors) if item.name not in ("cell", "Nvol", "per_lattice_blocks")]
    return replace(priors, **{name: follow(getattr(priors, name)) for name in names})


def _lattices(still: Still, shot: Shot) -> npt.NDArray[np.int64]:
    """The lattice of each box: column ``id``, which counts all experiments, also those without reflections."""
    if "id" not in still.reflections:
        return shot.lattice
    return np.maximum(np.asarray(still.reflections["id"], dtype=np.int64)[shot.reflection_row], 0)


def _numpy(parameters: Parameters) -> Parameters:
    result: Parameters = jax.tree.map(np.asarray, parameters)
    return result


def _start(values: StartValues, cell: FloatArray, n_lattices: int) -> Parameters:
    return Parameters.start(
        cell,
        n_lattices=n_lattices,
        rot_xyz=values.rot_xyz,
        n_abc=values.n_abc,
        n_def=values.n_def,
        eta_deg=values.eta_deg,
        G=values.G,
        b_factor_A2=values.b_factor_A2,
        lambda_offset_A=values.lambda_offset_A,
        lambda_scale=values.lambda_scale,
        detz_m=values.detz_m,
        gamma_A=values.diffuse_gamma_A,
        sigma_A=values.diffuse_sigma_A,
    )


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
    turns = np.asarray(misorientation(parameters.crystal.rot_xyz))
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

"""A still made ready for a fit: boxes, scene, lattice sum and log density."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from bayesbragg.forward import Options, Parameters, Scene, window_holds
from bayesbragg.inference.density import LogDensity
from bayesbragg.model import Crystal, Shot, StructureFactors
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.lattice_form import LatticeForm, choose_form, form_density, form_holds
from bayesbragg.pipeline.pixel_model import on_own_reflection, pixels_of, unknown_intensities
from bayesbragg.pipeline.settings import RefineSettings, StartValues
from bayesbragg.pipeline.still import Still
from bayesbragg.pipeline.still_model import model_options, still_scene
from bayesbragg.priors import CellConstraint, Fixed, Layout, Priors, Shared, make_layout
from bayesbragg.stills.shot import BoxReport, make_shot

__all__ = ["Prepared", "around", "on_host", "prepare"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A still made ready for a fit.

    Attributes:
        still, shot, report: the input, its boxes, and what became of each reflection.
        options, scene, density: the model and the log density (padded to a bucket of boxes).
        layout, base: what varies, and the parameters that it starts from.
        form: the lattice sum of the density.
        factors, settings: that it was made with.
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
    factors: StructureFactors
    settings: RefineSettings


def prepare(
    still: Still, factors: StructureFactors, settings: RefineSettings, *, start: Parameters | None = None
) -> Prepared:
    """Boxes, background, scene and density of a still.

    Args:
        factors: in the primitive basis of the crystals.
        start: replaces the starting values of the settings (parameters of an earlier fit).

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
    scene = _scene(still, crystals, padded, factors, base, options, settings)
    pixels = pixels_of(padded, report, settings, crystals)
    form = choose_form(settings.model.forward, options)
    density = form_density(form, scene, base, options, pixels, layout, base, settings.likelihood)
    return Prepared(replace(still, experiments=still.experiments[: len(crystals)]), shot, report, options, scene,
                    density, layout, base, form, factors, settings)  # fmt: skip


def around(prepared: Prepared, values: FloatArray) -> Prepared:
    """The same still, model and priors, started from physical values of its layout and with reflections listed there.

    Structure factors and lists of reflections are renewed where they do not serve at these values.
    """
    layout = prepared.layout.with_start(values)
    parameters = on_host(layout.place(np.asarray(layout.start), prepared.base))
    scene, pixels = prepared.scene, prepared.density.problem.pixels
    if window_holds(parameters, scene):
        density = prepared.density.with_layout(layout)
        if form_holds(prepared.form, parameters, density, prepared.options):
            return replace(prepared, density=density, layout=layout)
    else:
        still = prepared.still
        scene = _scene(still, still.crystals, prepared.shot.padded(), prepared.factors, parameters, prepared.options,
                       prepared.settings)  # fmt: skip
    density = form_density(prepared.form, scene, parameters, prepared.options, pixels, layout, prepared.base,
                           prepared.settings.likelihood)  # fmt: skip
    return replace(prepared, scene=scene, density=density, layout=layout)


def _scene(
    still: Still,
    crystals: tuple[Crystal, ...],
    shot: Shot,
    factors: StructureFactors,
    parameters: Parameters,
    options: Options,
    settings: RefineSettings,
) -> Scene:
    """The scene of a padded shot about parameters."""
    scene = still_scene(still, crystals, shot, factors, parameters, options, settings.model)
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


def on_host(parameters: Parameters) -> Parameters:
    """Parameters as numpy arrays."""
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
        eta_def_deg=values.eta_def_deg,
        G=values.G,
        b_factor_A2=values.b_factor_A2,
        lambda_offset_A=values.lambda_offset_A,
        lambda_scale=values.lambda_scale,
        detz_m=values.detz_m,
        gamma_A=values.diffuse_gamma_A,
        sigma_A=values.diffuse_sigma_A,
    )

"""What a fit says, in the terms of DIALS and the classic program: experiments, reflections, a row of the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesbragg.forward import Parameters
from bayesbragg.model import Crystal, Experiment, Reflections
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.refine import Refined
from bayesbragg.pipeline.settings import RefineSettings, StartValues

__all__ = ["parameters_from_row", "refined_experiments", "refined_reflections", "rotation_angles", "table_rows"]

FloatArray = npt.NDArray[np.float64]

LARGEST_TURN_DEG = 10.0
"""Orientations farther apart than this belong to different indexings."""
KEPT_BESIDE = ("xyzcal.px", "xyzcal.mm")
"""Columns that the model replaces; the incoming ones are kept with the prefix ``dials.``."""


def refined_experiments(refined: Refined) -> list[Experiment]:
    """The shot's experiments with refined crystals, and the refined detector."""
    return [
        experiment.with_crystal(crystal).with_detector(refined.detector)
        for experiment, crystal in zip(refined.prepared.still.experiments, refined.crystals, strict=True)
    ]


def refined_reflections(refined: Refined, *, keep_unpredicted: bool = False) -> Reflections:
    """The reflections with a box, with ``xyzcal`` from the model.

    A centroid is that of the reflection's own photons. Incoming columns that are replaced are kept as
    ``dials.xyzcal.px`` and ``dials.xyzcal.mm``.
    """
    shot = refined.prepared.shot
    rows = np.arange(shot.n_boxes) if keep_unpredicted else np.flatnonzero(refined.predicted)
    table = refined.prepared.still.reflections.select(shot.reflection_row[rows])
    table = table.renamed({name: f"dials.{name}" for name in KEPT_BESIDE})
    px = np.concatenate([refined.centroid_px[rows], np.zeros((len(rows), 1))], axis=1)
    size = refined.detector.pixel_size_mm[shot.panel[rows]]
    mm = np.concatenate([px[:, :2] * size, np.zeros((len(rows), 1))], axis=1)
    return table.with_columns(**{"xyzcal.px": px, "xyzcal.mm": mm})


def table_rows(
    refined: Refined, settings: RefineSettings, *, expt: str = "", refl: str = "", modeler: str | None = None
) -> list[dict[str, Any]]:
    """One row of the table of shots for each lattice; the columns are explained in `bayesbragg.pipeline.columns`."""
    still, fit, parameters = refined.prepared.still, refined.fit, refined.parameters
    first = refined.prepared.base
    rows = []
    for number, crystal in enumerate(refined.crystals):
        start = still.crystals[number].cell
        names = ("a", "b", "c", "al", "be", "ga")
        rot = np.asarray(parameters.crystal.rot_xyz)[number]
        row: dict[str, Any] = {
            "spot_scales": float(parameters.scale.G[number]),
            "Amats": tuple(float(v) for v in crystal.A_reciprocal.reshape(-1)),
            "ncells": _numbers(parameters.mosaic.n_abc[number]),
            "spot_scales_init": float(first.scale.G[number]),
            "ncells_init": _numbers(first.mosaic.n_abc[number]),
            "eta_abc": _numbers(parameters.mosaic.eta_deg),
            "detz_shift_mm": float(parameters.panels.detz_m) * 1e3,
            "ncells_def": _numbers(parameters.mosaic.n_def[number]),
            "diffuse_gamma": _numbers(parameters.diffuse.gamma_A),
            "diffuse_sigma": _numbers(parameters.diffuse.sigma_A),
            "fp_fdp_shift": np.nan,
            "use_diffuse_models": settings.model.diffuse,
            "gamma_miller_units": False,
            "eta": 0.0,
            "rotX": float(rot[0]),
            "rotY": float(rot[1]),
            "rotZ": float(rot[2]),
            **{name: float(value) for name, value in zip(names, crystal.cell, strict=True)},
            **{f"{name}_init": float(value) for name, value in zip(names, start, strict=True)},
            "lam0": float(parameters.spectrum.offset_A),
            "lam1": float(parameters.spectrum.scale),
            "spectrum_filename": next((s for s in still.source if s.endswith(".lam")), None),
            "spectrum_stride": settings.spectrum.stride,
            "num_mosaicity_samples": settings.model.n_mosaic,
            "total_flux": still.spectrum.flux,
            "beamsize_mm": settings.model.beam_size_mm,
            "exp_name": expt,
            "opt_exp_name": expt,
            "spectrum_from_imageset": settings.spectrum.source == "image",
            "oversample": refined.prepared.options.oversample,
            "stage1_refls": refl,
            "stage1_output_img": modeler,
            "exp_idx": number,
            "phi_deg": 0.0,
            "osc_deg": 0.0,
            "B": float(parameters.scale.b_factor_A2),
            "eta_def": _numbers(parameters.mosaic.eta_def_deg),
            "tag": still.tag,
            "status": fit.status.value,
            "reason": fit.reason,
            "target": fit.target,
            "target_init": fit.start_target,
            "sigmaZ": fit.sigma_z,
            "niter": fit.iterations,
            "nfev": fit.evaluations,
            "seconds": fit.seconds,
            "n_boxes": refined.prepared.shot.n_boxes,
            "n_pixels": fit.n_pixels,
            "at_bound": ",".join(fit.at_bound),
            "precision": refined.prepared.options.precision,
            "forward": refined.prepared.form.name,
            "forward_reason": refined.prepared.form.reason,
            "forward_error_noise": refined.prepared.form.of_noise,
            "forward_error_peak": refined.prepared.form.of_peak,
        }
        rows.append(row)
    return rows


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in np.asarray(values).reshape(-1))


def parameters_from_row(
    rows: Sequence[dict[str, Any]], where: str, crystals: Sequence[Crystal], defaults: StartValues | None = None
) -> Parameters:
    """Starting parameters from the rows (one per lattice) of an earlier run's table, classic or ours.

    The orientation comes from ``Amats``, which is absolute: it is expressed as a rotation of this run's input
    crystals, whether these are the ones that the earlier run started from (the rotation is then that of its table) or
    its refined ones (the rotation is then zero). Bounds and restraints of RotXYZ so keep their meaning.

    Args:
        rows: in the order of the lattices.
        where: file and shot, for messages.
        crystals: of this run's input, one for each row.
        defaults: of columns that old tables lack.

    Raises:
        InputError: a column is missing or unreadable, another number of lattices, or an orientation far from the
            input's.
    """
    values = defaults or StartValues()
    if len(rows) != len(crystals):
        raise InputError(
            f"{where}: {len(rows)} lattices in the table, {len(crystals)} in the input; leave the shot out"
        )
    first = rows[0]

    def optional(name: str, default: Any, scale: float = 1.0) -> FloatArray:
        found = first.get(name)
        missing = found is None or not np.all(np.isfinite(np.asarray(found, dtype=float)))
        return np.asarray(default if missing else np.asarray(found, dtype=float) * scale)

    try:
        edges = [float(first[name]) for name in ("a", "b", "c")]
        angles = [np.radians(float(first[name])) for name in ("al", "be", "ga")]
        turns = [_turn(row, crystal, where) for row, crystal in zip(rows, crystals, strict=True)]
        n_def = [values.n_def if row.get("ncells_def") is None else row["ncells_def"] for row in rows]
        start = Parameters.start(
            np.array([*edges, *angles]),
            n_lattices=len(rows),
            rot_xyz=np.array(turns),
            n_abc=np.array([row["ncells"] for row in rows], dtype=float),
            n_def=np.array(n_def, dtype=float),
            eta_deg=optional("eta_abc", values.eta_deg),
            eta_def_deg=optional("eta_def", values.eta_def_deg),
            G=np.array([float(row["spot_scales"]) for row in rows]),
            b_factor_A2=float(optional("B", values.b_factor_A2)),
            lambda_offset_A=float(optional("lam0", values.lambda_offset_A)),
            lambda_scale=float(optional("lam1", values.lambda_scale)),
            detz_m=float(optional("detz_shift_mm", values.detz_m * 1e3)) * 1e-3,
            gamma_A=optional("diffuse_gamma", values.diffuse_gamma_A),
            sigma_A=optional("diffuse_sigma", values.diffuse_sigma_A),
        )
    except KeyError as error:
        raise InputError(f"{where}: no column {error.args[0]!r}; give the table of shots of an earlier run") from None
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: unreadable row ({error}); give the table of shots of an earlier run") from None
    if not all(np.all(np.isfinite(part)) for part in (start.crystal.cell, start.mosaic.n_abc, start.scale.G)):
        raise InputError(
            f"{where}: a value in its row is not a number; leave the shot out, or refine it from the start"
        )
    return start


def _turn(row: dict[str, Any], crystal: Crystal, where: str) -> FloatArray:
    """RotXYZ (radian) that takes the input crystal's orientation to that of the row."""
    reciprocal = np.array(row["Amats"], dtype=float).reshape(3, 3)
    before = Crystal(np.linalg.inv(reciprocal))
    turn = before.U @ crystal.U.T
    angle = np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))
    if not angle < LARGEST_TURN_DEG:
        raise InputError(
            f"{where}: its orientation is {angle:.3g} degree away from the input's; give the .expt that the table was "
            "made from, or its refined ones"
        )
    return rotation_angles(turn)


def rotation_angles(turn: npt.NDArray[np.float64]) -> FloatArray:
    """The angles whose `misorientation` is the rotation matrix ``turn``: its inverse, for turns below 90 degree.

    With Rx(-a) Ry(-b) Rz(-c): element 02 is sin(-b), 01 over 00 is -tan(-c), 12 over 22 is -tan(-a).
    """
    return -np.array(
        [
            np.arctan2(-turn[1, 2], turn[2, 2]),
            np.arcsin(np.clip(turn[0, 2], -1, 1)),
            np.arctan2(-turn[0, 1], turn[0, 0]),
        ]
    )

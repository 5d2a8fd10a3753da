"""What a fit says, in the terms of DIALS and the classic program: experiments, reflections, a row of the table."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesbragg.forward import Parameters
from bayesbragg.model import Experiment, Reflections
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.refine import Refined
from bayesbragg.pipeline.settings import RefineSettings

__all__ = ["COLUMNS", "parameters_from_row", "refined_experiments", "refined_reflections", "table_rows"]

KEPT_BESIDE = ("xyzcal.px", "xyzcal.mm")
"""Columns that the model replaces; the incoming ones are kept with the prefix ``dials.``."""

COLUMNS: dict[str, tuple[str, str]] = {
    "spot_scales": ("", "scale factor G of the lattice"),
    "Amats": ("1/A", "reciprocal matrix A = U B, nine numbers row by row"),
    "ncells": ("cells", "mosaic block size Na, Nb, Nc"),
    "spot_scales_init": ("", "scale factor that the fit was given"),
    "ncells_init": ("cells", "block size that the fit was given"),
    "eta_abc": ("degree", "mosaic spread about a, b, c"),
    "detz_shift_mm": ("mm", "shift of the detector along z"),
    "ncells_def": ("cells", "off-diagonal block elements Nd (ab), Ne (bc), Nf (ac)"),
    "diffuse_gamma": ("A", "correlation lengths of the diffuse model"),
    "diffuse_sigma": ("A", "displacements of the diffuse model"),
    "fp_fdp_shift": ("eV", "not used; kept for old scripts"),
    "use_diffuse_models": ("", "whether diffuse scattering was modelled"),
    "gamma_miller_units": ("", "whether diffuse_gamma was in cells"),
    "eta": ("degree", "not used; kept for old scripts"),
    "rotX": ("radian", "misorientation about x, from the starting orientation"),
    "rotY": ("radian", "misorientation about y"),
    "rotZ": ("radian", "misorientation about z"),
    "a": ("A", "cell edge"),
    "b": ("A", "cell edge"),
    "c": ("A", "cell edge"),
    "al": ("degree", "cell angle"),
    "be": ("degree", "cell angle"),
    "ga": ("degree", "cell angle"),
    "a_init": ("A", "cell edge at the start; likewise b_init, c_init"),
    "al_init": ("degree", "cell angle at the start; likewise be_init, ga_init"),
    "lam0": ("A", "offset of the wavelengths"),
    "lam1": ("", "factor of the wavelengths"),
    "spectrum_filename": ("", "spectrum file, if the shot had one"),
    "spectrum_stride": ("channels", "every n-th channel of that file was used"),
    "num_mosaicity_samples": ("", "orientations that sample the mosaic spread"),
    "total_flux": ("photons", "photons in the spectrum"),
    "beamsize_mm": ("mm", "side of the beam"),
    "exp_name": ("", "refined experiment list, from the output folder's parent"),
    "opt_exp_name": ("", "the same"),
    "spectrum_from_imageset": ("", "whether the spectrum came from the image file"),
    "oversample": ("", "subpixels along each side of a pixel"),
    "stage1_refls": ("", "refined reflections"),
    "stage1_output_img": ("", "modeler file, if one was written"),
    "exp_idx": ("", "number of the experiment in its list"),
    "phi_deg": ("degree", "0 for stills"),
    "osc_deg": ("degree", "0 for stills"),
    "B": ("A^2", "B factor of the shot"),
    "tag": ("", "name of the shot"),
    "status": ("", "how the fit ended: converged, iteration limit, stalled or failed"),
    "reason": ("", "one line that explains the status"),
    "target": ("", "-(log likelihood + log prior) at the end"),
    "target_init": ("", "the same for the values that the fit was given"),
    "sigmaZ": ("", "standard deviation of residual over expected standard deviation; 1 is ideal"),
    "niter": ("", "iterations"),
    "nfev": ("", "evaluations of the model"),
    "seconds": ("s", "time in the fit"),
    "n_boxes": ("", "boxes in the fit"),
    "n_pixels": ("", "trusted pixels in the fit"),
    "at_bound": ("", "parameters that ended at a bound"),
}
"""Columns of the table of shots: unit and meaning."""


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
    """One row of the table of shots for each lattice; the columns are explained in `COLUMNS`."""
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
            "gamma_miller_units": settings.model.gamma_miller_units,
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
        }
        rows.append(row)
    return rows


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in np.asarray(values).reshape(-1))


def parameters_from_row(rows: list[dict[str, Any]], where: str) -> Parameters:
    """Starting parameters from the rows (one per lattice) of an earlier run's table, classic or ours.

    The orientation of such a row is relative to the crystal that its run started from: a new run that starts from
    the same ``.expt`` may take it over.

    Raises:
        InputError: a column is missing.
    """
    try:
        first = rows[0]
        angles = [np.radians(float(first[name])) for name in ("al", "be", "ga")]
        return Parameters.start(
            np.array([float(first["a"]), float(first["b"]), float(first["c"]), *angles]),
            n_lattices=len(rows),
            rot_xyz=np.array([[float(row[name]) for name in ("rotX", "rotY", "rotZ")] for row in rows]),
            n_abc=np.array([row["ncells"] for row in rows], dtype=float),
            n_def=np.array([row["ncells_def"] for row in rows], dtype=float),
            eta_deg=np.array(first["eta_abc"], dtype=float),
            G=np.array([float(row["spot_scales"]) for row in rows]),
            b_factor_A2=float(first.get("B", 0.0)),
            lambda_offset_A=float(first["lam0"]),
            lambda_scale=float(first["lam1"]),
            detz_m=float(first["detz_shift_mm"]) * 1e-3,
            gamma_A=np.array(first["diffuse_gamma"], dtype=float),
            sigma_A=np.array(first["diffuse_sigma"], dtype=float),
        )
    except KeyError as error:
        raise InputError(f"{where}: no column {error.args[0]!r}; give the table of shots of an earlier run") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: unreadable row ({error}); give the table of shots of an earlier run") from None

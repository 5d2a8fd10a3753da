"""Files of a joint geometry fit: detector, models of every shot, table, posterior of the panels, pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bayesbragg.diagnostics.geometry_plots import error_bars_plot, progress_plot, shifts_plot
from bayesbragg.diagnostics.identifiability import identifiability_text
from bayesbragg.inference.joint_types import JointFit
from bayesbragg.io.experiments import read_experiments, write_experiments
from bayesbragg.io.files import write_bytes
from bayesbragg.io.geometry_results import write_posterior
from bayesbragg.io.reflections import write_reflections
from bayesbragg.io.tables import read_table, write_table
from bayesbragg.pipeline.geometry import moved_detector
from bayesbragg.pipeline.geometry_job import GeometryJob
from bayesbragg.pipeline.geometry_run import GeometryResult
from bayesbragg.pipeline.geometry_shots import ShotResult, panel_table

__all__ = ["write_geometry", "write_shot"]


def write_shot(job: GeometryJob, place: int, result: ShotResult) -> None:
    """Refined models and predictions of one shot, by its place in the table."""
    row = job.rows[place]
    experiments = read_experiments(row.experiments)
    refined = [e.with_crystal(c) for e, c in zip(experiments, result.crystals, strict=True)]
    write_experiments(refined, job.folder / f"{row.tag}_refined.expt")
    write_reflections(result.reflections, job.folder / f"{row.tag}_indexed.refl")
    parameters = result.parameters
    record = {
        "spot_scales": parameters.scale.G.tolist(),
        "ncells": parameters.mosaic.n_abc.tolist(),
        "ncells_def": parameters.mosaic.n_def.tolist(),
        "rotX": parameters.crystal.rot_xyz[:, 0].tolist(),
        "rotY": parameters.crystal.rot_xyz[:, 1].tolist(),
        "rotZ": parameters.crystal.rot_xyz[:, 2].tolist(),
        "lam0": float(parameters.spectrum.offset_A),
        "lam1": float(parameters.spectrum.scale),
        "target": result.target,
        "sigmaZ": result.sigma_z,
        "n_boxes": result.n_boxes,
    }
    for name in result.error_bars[0] if result.error_bars else ():
        record[name] = [columns[name] for columns in result.error_bars]
    write_bytes(job.folder / f"{row.tag}_shot.json", json.dumps(record, indent=2).encode())


def write_geometry(result: GeometryResult, job: GeometryJob, detector_name: str, table: Path) -> list[str]:
    """Everything that the run as a whole has found.

    Args:
        detector_name: name of the file with the fitted detector.
        table: the table of shots that was read.

    Returns:
        the report of priors and of what the data say, line by line.
    """
    fit, prior, grouping, folder = result.fit, result.prior, result.grouping, job.folder
    detector = moved_detector(result.detector, grouping, fit.shared)
    first = read_experiments(job.rows[0].experiments)[0]
    write_experiments([first.with_detector(detector)], folder / detector_name)
    for row in job.rows:
        path = folder / f"{row.tag}_refined.expt"
        write_experiments([e.with_detector(detector) for e in read_experiments(path)], path)
    _write_table(job, table, fit)
    rows = panel_table(fit, prior, grouping, result.reflections_of_group)
    lines = [",".join(rows[0]), *(",".join(f"{v:.9g}" for v in row.values()) for row in rows)]
    units = "# rotations in radian, shifts in metre; *_sd is the posterior, *_prior_sd the prior standard deviation"
    write_bytes(folder / "panels.csv", ("\n".join([units, *lines]) + "\n").encode())
    write_posterior(
        folder / "panels.h5",
        names=prior.names,
        units=prior.units,
        arrays={
            "mean": fit.shared,
            "covariance": fit.covariance,
            "prior_mean": prior.mean,
            "prior_covariance": fit.prior_covariance,
            "free": prior.free,
            "group_of_panel": grouping.group,
            "group_labels": grouping.labels,
            "reference_mm": grouping.reference_mm,
            "axes_of_panel": grouping.axes,
            "reflections_of_group": result.reflections_of_group,
        },
        attributes={
            "prior": "\n".join(prior.text), "target": fit.target, "status": fit.status.value, "reason": fit.reason,
            "rotation_reference": grouping.rotation_reference,
        },
    )  # fmt: skip
    report = [
        *result.notes, "prior of the panel groups:", *(f"  {line}" for line in prior.text),
        *identifiability_text(fit, prior),
    ]  # fmt: skip
    write_bytes(folder / "identifiability.txt", ("\n".join(report) + "\n").encode())
    shifts_plot(folder / "shifts.png", result.detector, detector, grouping, result.reflections_of_group)
    error_bars_plot(folder / "error_bars.png", fit, prior, grouping, result.reflections_of_group)
    progress_plot(folder / "progress.png", fit)
    return report


def _write_table(job: GeometryJob, source: Path, fit: JointFit) -> None:
    """The rows that came in, with what the joint fit changed: crystals and files."""
    table = read_table(source)
    records = []
    wanted = {place: (row, number) for row in job.rows for number, place in enumerate(row.places)}
    for place, record in enumerate(table.to_dict("records")):
        if place not in wanted:
            continue
        row, number = wanted[place]
        expt = job.folder / f"{row.tag}_refined.expt"
        crystal = read_experiments(expt)[number].crystal
        assert crystal is not None
        new: dict[str, Any] = {
            **{str(k): v for k, v in record.items()},
            **_numbers(job.folder, row.tag, number),
            "tag": row.tag,
        }
        new["Amats"] = tuple(float(v) for v in crystal.A_reciprocal.reshape(-1))
        new.update(zip(("a", "b", "c", "al", "be", "ga"), crystal.cell.tolist(), strict=True))
        new["exp_name"] = new["opt_exp_name"] = str(expt)
        new["stage1_refls"] = str(job.folder / f"{row.tag}_indexed.refl")
        new["status"], new["reason"] = fit.status.value, fit.reason
        records.append(new)
    write_table(type(table)(records), job.folder)


def _numbers(folder: Path, tag: str, lattice: int) -> dict[str, Any]:
    document = json.loads((folder / f"{tag}_shot.json").read_text(encoding="utf-8"))
    return {name: values[lattice] if isinstance(values, list) else values for name, values in document.items()}

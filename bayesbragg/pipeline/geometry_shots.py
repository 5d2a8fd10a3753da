"""What the optimum of a joint fit says of every shot, and of every panel group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesbragg.forward import Parameters
from bayesbragg.forward.rotations import misorientation
from bayesbragg.inference.joint_density import joint_sds
from bayesbragg.inference.joint_types import JointFit
from bayesbragg.inference.schur import Blocks
from bayesbragg.model import Crystal, Reflections
from bayesbragg.model.panel_groups import PanelGrouping
from bayesbragg.pipeline.error_bars import NOT_CHECKED, sd_columns
from bayesbragg.pipeline.geometry_term import GeometryShot
from bayesbragg.priors.panels import SharedPrior

__all__ = ["ShotResult", "panel_table", "shot_result"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ShotResult:
    """What the joint optimum says of one shot.

    Attributes:
        parameters: physical values; crystals: refined; reflections: with ``xyzcal`` from the model.
        target: its -(log likelihood + log prior of its own numbers); sigma_z: of its pixels.
        n_boxes: boxes in the fit.
        error_bars: of its own numbers with the panels' integrated out, as columns of the table, for every lattice.
    """

    tag: str
    parameters: Parameters
    crystals: tuple[Crystal, ...]
    reflections: Reflections
    target: float
    sigma_z: float
    n_boxes: int
    error_bars: tuple[dict[str, Any], ...] = ()


def shot_result(
    shot: GeometryShot, own: FloatArray, shared: FloatArray, block: Blocks, covariance: FloatArray
) -> ShotResult:
    """Refined models of a shot at the joint optimum.

    Args:
        covariance: marginal covariance of the shared numbers, ``(n_shared, n_shared)``.
    """
    prepared, term = shot.prepared, shot.term
    parameters = term.parameters(own, shared)
    cell = np.concatenate([parameters.crystal.cell[:3], np.degrees(parameters.crystal.cell[3:])])
    turns = np.asarray(misorientation(parameters.crystal.rot_xyz))
    crystals = tuple(
        crystal.with_cell_and_orientation(cell, turn @ crystal.U)
        for crystal, turn in zip(prepared.still.crystals, turns, strict=True)
    )
    n = prepared.shot.n_boxes
    centroid = term.centroids(own, shared)[:n]
    rows = np.flatnonzero(np.isfinite(centroid[:, 0]))
    table = prepared.still.reflections.select(prepared.shot.reflection_row[rows])
    px = np.concatenate([centroid[rows], np.zeros((len(rows), 1))], axis=1)
    size = prepared.still.detector.pixel_size_mm[prepared.shot.panel[rows]]
    mm = np.concatenate([px[:, :2] * size, np.zeros((len(rows), 1))], axis=1)
    count, first, second = block.z
    sigma_z = float(np.sqrt(max(second / count - (first / count) ** 2, 0.0))) if count else np.nan
    return ShotResult(
        prepared.still.tag,
        parameters,
        crystals,
        table.with_columns(**{"xyzcal.px": px, "xyzcal.mm": mm}),
        block.target,
        sigma_z,
        n,
        _error_bars(shot, own, block, covariance),
    )


def _error_bars(
    shot: GeometryShot, own: FloatArray, block: Blocks, covariance: FloatArray
) -> tuple[dict[str, Any], ...]:
    layout, inference = shot.term.layout, shot.prepared.settings.posterior.inference
    sds = joint_sds(layout, own[0], block, covariance)
    known = dict(zip(layout.names, (sds if inference != "map" else sds * np.nan).tolist(), strict=True))
    said = {"inference": "map" if inference == "map" else "laplace"}
    said["verdict"] = "" if inference == "map" else NOT_CHECKED
    return tuple(
        sd_columns(known, layout.constraint, number) | said for number in range(len(shot.prepared.still.crystals))
    )


def panel_table(
    fit: JointFit, prior: SharedPrior, grouping: PanelGrouping, n_reflections: npt.NDArray[np.int64]
) -> list[dict[str, Any]]:
    """A row for each group: reflections, motions, posterior and prior standard deviations (radian, metre)."""
    rows = []
    posterior = fit.standard_errors
    before = np.sqrt(np.maximum(np.diag(fit.prior_covariance), 0.0))
    for g, label in enumerate(grouping.labels):
        row: dict[str, Any] = {"group": int(label), "n_reflections": int(n_reflections[g])}
        for i in range(6):
            name = prior.names[6 * g + i].split("_", 1)[1]
            row[name] = float(fit.shared[6 * g + i])
            row[f"{name}_sd"] = float(posterior[6 * g + i])
            row[f"{name}_prior_sd"] = float(before[6 * g + i])
        rows.append(row)
    return rows

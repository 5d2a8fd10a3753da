"""Many stills and one detector: terms of the joint density from stills, and what the optimum says of the detector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesbragg.forward import Parameters, window_holds
from bayesbragg.forward.group_motion import group_rotation, move_rigidly
from bayesbragg.forward.rotations import misorientation
from bayesbragg.inference.joint_types import JointFit, Term
from bayesbragg.inference.pixel_term import PixelTerm
from bayesbragg.inference.schur import Blocks
from bayesbragg.model import Crystal, Detector, Reflections, StructureFactors
from bayesbragg.model.errors import InputError
from bayesbragg.model.panel_groups import PanelGrouping
from bayesbragg.pipeline.refine import Prepared, prepare
from bayesbragg.pipeline.settings import RefineSettings
from bayesbragg.pipeline.still import Still
from bayesbragg.priors.panels import SharedPrior

__all__ = [
    "GeometryShot",
    "LazyTerm",
    "ShotResult",
    "check_same_detector",
    "geometry_shot",
    "moved_detector",
    "shot_result",
    "windows_hold",
]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GeometryShot:
    """A still ready for the joint fit: what `prepare` made of it, and its term."""

    prepared: Prepared
    term: PixelTerm


class LazyTerm:
    """A term that is read from its files whenever it is visited and then forgotten.

    Args:
        term: read once already, for its start.
        read: makes it again.
    """

    def __init__(self, term: PixelTerm, read: Callable[[], Term]) -> None:
        self.start, self.step_limit, self._read = term.start, term.step_limit, read

    def linearize(self, own: FloatArray, shared: FloatArray) -> list[Blocks]:
        return self._read().linearize(own, shared)

    def target(self, own: FloatArray, shared: FloatArray) -> float:
        return self._read().target(own, shared)

    def value_and_grad(self, own: FloatArray, shared: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        return self._read().value_and_grad(own, shared)

    def offsets(self, own: FloatArray, shared: FloatArray) -> FloatArray:
        # Progress is not worth another reading of the files.
        return np.zeros(0)


@dataclass(frozen=True, eq=False)
class ShotResult:
    """What the joint optimum says of one shot.

    Attributes:
        parameters: physical values; crystals: refined; reflections: with ``xyzcal`` from the model.
        target: its -(log likelihood + log prior of its own numbers); sigma_z: of its pixels.
        n_boxes: boxes in the fit.
    """

    tag: str
    parameters: Parameters
    crystals: tuple[Crystal, ...]
    reflections: Reflections
    target: float
    sigma_z: float
    n_boxes: int


def geometry_shot(
    still: Still,
    factors: StructureFactors,
    settings: RefineSettings,
    grouping: PanelGrouping,
    *,
    start: Parameters | None = None,
    laue_rotations: FloatArray | None = None,
) -> GeometryShot:
    """A still as a term of the joint density; arguments as for `prepare`."""
    settings = replace(settings, model=replace(settings.model, forward="exact"))
    prepared = prepare(still, factors, settings, start=start, laue_rotations=laue_rotations)
    shot = prepared.shot.padded()
    observed = np.asarray(still.reflections["xyzobs.px.value"], dtype=np.float64)[shot.reflection_row, :2].copy()
    observed[prepared.shot.n_boxes :] = np.nan
    hkl = np.rint(shot.miller_index @ still.crystals[0].to_primitive.T).astype(np.int64)
    term = PixelTerm(
        prepared.density,
        shot.panel,
        grouping,
        hkl=hkl,
        lattice=shot.lattice,
        valid=shot.valid,
        observed_px=observed,
    )
    return GeometryShot(prepared, term)


def check_same_detector(stills: list[Still]) -> Detector:
    """The detector that all stills share.

    Raises:
        InputError: naming the first still whose panels lie elsewhere.
    """
    first = stills[0].detector
    for still in stills[1:]:
        check_detector(first, still.detector, stills[0].tag, still.tag)
    return first


def check_detector(first: Detector, other: Detector, first_tag: str, other_tag: str) -> None:
    """Raise `InputError` unless two detectors have the same panels in the same places (to 0.1 micrometre)."""
    tolerances = {"origin_mm": 1e-4, "fast": 1e-6, "slow": 1e-6, "pixel_size_mm": 1e-9, "image_size": 0.0}
    same = first.n_panels == other.n_panels and all(
        np.allclose(getattr(first, name), getattr(other, name), atol=tolerance, rtol=0)
        for name, tolerance in tolerances.items()
    )
    if not same:
        raise InputError(
            f"{other_tag}: its detector differs from that of {first_tag}; one geometry is fitted to all shots: give "
            "shots of one geometry, or name one with reference_geometry"
        )


def moved_detector(detector: Detector, grouping: PanelGrouping, shared: npt.ArrayLike) -> Detector:
    """The detector after the motions of its groups.

    Args:
        shared: six motions of every group (radian, metre), then the extras of which the first is a shift along z.
    """
    shared = np.asarray(shared, dtype=np.float64)
    motion = shared[: 6 * grouping.n_groups].reshape(-1, 6)[grouping.group]
    turn = np.asarray(group_rotation(grouping.axes, motion[:, :3]))
    reference = grouping.reference_mm[grouping.group]
    shift = 1e3 * motion[:, 3:]
    if len(shared) > 6 * grouping.n_groups:
        shift = shift + np.array([0.0, 0.0, 1e3 * shared[6 * grouping.n_groups]])

    def turned(vectors: FloatArray) -> FloatArray:
        return np.asarray(np.einsum("pij,pj->pi", turn, vectors))

    origin = reference + turned(detector.origin_mm - reference) + shift
    return detector.with_panels(origin, turned(detector.fast), turned(detector.slow))


def windows_hold(shot: GeometryShot, own: FloatArray, shared: FloatArray) -> bool:
    """Whether the structure factors looked up for each box still cover it."""
    term = shot.term
    groups = np.asarray(shared)[: 6 * term.n_groups].reshape(-1, 6)
    scene = term.moving.problem.scene
    boxes = move_rigidly(scene.boxes, term.moving.axes, groups[np.asarray(term.moving.group)])
    return window_holds(term.parameters(own, shared), replace(scene, boxes=boxes))


def shot_result(shot: GeometryShot, own: FloatArray, shared: FloatArray, block: Blocks) -> ShotResult:
    """Refined models of a shot at the joint optimum."""
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

"""Settings of a joint geometry fit, and how PHIL states them (classic scope ``geometry``, our scope ``joint``)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bayesbragg.inference.joint_types import JointOptions
from bayesbragg.inference.joint_widths import WidthOptions
from bayesbragg.io.panel_groups import read_panel_groups
from bayesbragg.io.phil import ResolvedParameters
from bayesbragg.model import Detector
from bayesbragg.model.errors import InputError
from bayesbragg.model.panel_groups import PanelGrouping, group_panels, hierarchy_groups, shorthand_groups
from bayesbragg.pipeline.from_phil import settings_from_phil
from bayesbragg.pipeline.settings import RefineSettings
from bayesbragg.priors.panels import LevelWidths, PanelPriors

__all__ = ["GeometrySettings", "GroupSettings", "geometry_settings", "make_grouping"]

MM = 1e-3


@dataclass(frozen=True)
class GroupSettings:
    """Which panels move together.

    Attributes:
        kind: ``auto`` is the file if one is named, else the lowest nodes of the hierarchy, else single panels.
        file: panel group file.
        level: depth in the hierarchy, which goes before ``kind``.
        reference: what a group turns about.
    """

    kind: Literal["auto", "file", "single", "pairs", "quadrants", "whole"] = "auto"
    file: Path | None = None
    level: int | None = None
    reference: Literal["centroid", "classic"] = "centroid"


@dataclass(frozen=True)
class GeometrySettings:
    """All settings of ``geometry-refine``.

    Attributes:
        shots: settings of the shots, their priors among them.
        groups: panel groups.
        priors: of the panels.
        options: of the search; solver: which search.
        keep_in_memory: else shots are read whenever they are visited.
        resume: go on from a saved state.
        widths: how the widths of the prior are learned.
        positions_first: fit the spots' positions before the pixels; ``auto`` where the median prediction offset at the
            start exceeds ``off_by_px``, pixel.
    """

    shots: RefineSettings = field(default_factory=RefineSettings)
    groups: GroupSettings = field(default_factory=GroupSettings)
    priors: PanelPriors = field(default_factory=PanelPriors)
    options: JointOptions = field(default_factory=JointOptions)
    solver: Literal["gauss_newton", "lbfgsb"] = "gauss_newton"
    keep_in_memory: bool = True
    resume: bool = True
    widths: WidthOptions = field(default_factory=WidthOptions)
    positions_first: Literal["auto", "yes", "no"] = "auto"
    off_by_px: float = 2.0


def geometry_settings(p: ResolvedParameters) -> GeometrySettings:
    """The settings that resolved PHIL parameters mean.

    Raises:
        InputError: values that contradict each other, or ``geometry.optimize`` switched off.
    """
    if not p.geometry.optimize:
        raise InputError("geometry.optimize=False: nothing to do; set geometry { optimize = True }")
    joint = p.joint
    file = p.path(p.refiner.panel_group_file)
    if joint.groups == "file" and file is None:
        raise InputError("joint.groups=file needs refiner.panel_group_file")
    shots = settings_from_phil(p)
    # A start comes from the table: the orientation there is that of the refined crystal.
    return GeometrySettings(
        shots=replace(shots, modelers=False),
        groups=GroupSettings(joint.groups, file, joint.hierarchy_level, joint.rotation_reference),
        priors=_panel_priors(p),
        options=JointOptions(max_iterations=joint.max_iterations, tolerance=joint.tolerance),
        solver=joint.solver,
        keep_in_memory=joint.keep_in_memory,
        resume=joint.resume,
        widths=WidthOptions(learn=joint.learn_widths),
        positions_first=joint.positions_first,
        off_by_px=joint.off_by,
    )


def _panel_priors(p: ResolvedParameters) -> PanelPriors:
    geometry, joint = p.geometry, p.joint
    units = np.array([np.radians(1.0)] * 3 + [MM] * 3)

    def six(group: Any, rotation: str = "panel_rotations", shift: str = "panel_translations") -> np.ndarray[Any, Any]:
        return np.array([*getattr(group, rotation), *getattr(group, shift)], dtype=float)

    beta = np.full(6, np.inf)
    if p.use_restraints:
        beta = six(geometry.betas, "panel_rot", "panel_xyz")
        if joint.beta_units == "degree_mm":
            beta = beta * units**2
    levels = None
    if joint.hierarchy:
        levels = {
            level: LevelWidths(
                tuple(getattr(joint, f"{level}_rotation_sd")), tuple(getattr(joint, f"{level}_shift_sd"))
            )
            for level in ("whole", "quadrant", "group")
        }
    extras = {
        name: getattr(joint, f"{name}_sd") * (MM if name == "detz_shift" else 1.0)
        for name in ("detz_shift", "lambda_offset", "lambda_scale")
        if getattr(joint, f"{name}_sd")
    }
    return PanelPriors(
        levels=levels,
        center=tuple(six(geometry.center) * units),
        beta=tuple(beta),
        low=tuple(six(geometry.min) * units),
        high=tuple(six(geometry.max) * units),
        fixed=tuple(bool(flag) for flag in six(geometry.fix)),
        close_distance_beta=geometry.betas.close_distances if p.use_restraints else None,
        extras=extras,
    )


def make_grouping(detector: Detector, settings: GroupSettings) -> PanelGrouping:
    """The panel groups of a detector by the settings.

    Raises:
        InputError: a group file that does not fit the detector, a level that the hierarchy has not.
    """
    if settings.level is not None:
        groups = hierarchy_groups(detector, settings.level)
    elif settings.kind in ("file", "auto") and settings.file is not None:
        groups = read_panel_groups(settings.file, detector.n_panels)
    elif settings.kind == "auto":
        groups = _lowest_nodes(detector)
    else:
        groups = shorthand_groups(detector, settings.kind)  # type: ignore[arg-type]
    grouping = group_panels(detector, groups)
    return grouping.classic_reference(detector) if settings.reference == "classic" else grouping


def _lowest_nodes(detector: Detector) -> np.ndarray[Any, np.dtype[np.int64]]:
    groups = shorthand_groups(detector, "single")
    depth = 0
    while True:
        try:
            groups = hierarchy_groups(detector, depth)
        except InputError:
            return groups
        depth += 1

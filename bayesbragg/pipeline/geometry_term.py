"""A still of a joint fit whose lists of reflections follow it, kept in memory or read whenever it is visited.

Structure factors and, for the closed forms, reflections are listed around each box beforehand. Before each step the
lists are checked where the fit is now, and made anew there if a spot has moved beyond them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bayesbragg.forward import Parameters, window_holds
from bayesbragg.forward.candidates import closed_holds
from bayesbragg.forward.closed import ClosedScene
from bayesbragg.forward.group_motion import move_rigidly
from bayesbragg.inference.density import LogDensity
from bayesbragg.inference.pixel_term import PixelTerm, exact_scene, with_boxes
from bayesbragg.inference.schur import Blocks
from bayesbragg.model import StructureFactors
from bayesbragg.model.panel_groups import PanelGrouping
from bayesbragg.pipeline.geometry import moved_detector
from bayesbragg.pipeline.lattice_form import form_density, judged
from bayesbragg.pipeline.refine import Prepared, prepare
from bayesbragg.pipeline.settings import RefineSettings
from bayesbragg.pipeline.still import Still
from bayesbragg.pipeline.still_model import still_scene

__all__ = ["GeometryShot", "ShotTerm", "geometry_shot", "lists_hold"]

log = logging.getLogger(__name__)
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GeometryShot:
    """A still ready for the joint fit.

    Attributes:
        prepared: its boxes, scene and density; term: its pixels as a term of the joint density.
        grouping: of the panels.
    """

    prepared: Prepared
    term: PixelTerm
    grouping: PanelGrouping


def geometry_shot(
    still: Still,
    factors: StructureFactors,
    settings: RefineSettings,
    grouping: PanelGrouping,
    *,
    start: Parameters | None = None,
) -> GeometryShot:
    """A still as a term of the joint density; arguments as for `prepare`.

    Where the settings leave the choice of the lattice sum open, the closed form is used if its error is small at the
    start.
    """
    prepared = prepare(still, factors, settings, start=start)
    form = judged(prepared.form, settings.model.forward, prepared.base, prepared.density, prepared.options)
    if form.closed != prepared.form.closed:
        density = form_density(form, prepared.scene, prepared.base, prepared.options, prepared.density.problem.pixels,
                               prepared.layout, prepared.base, settings.likelihood)  # fmt: skip
        prepared = replace(prepared, density=density)
    prepared = replace(prepared, form=form)
    return GeometryShot(prepared, _term(prepared, grouping), grouping)


def _term(prepared: Prepared, grouping: PanelGrouping, density: LogDensity | None = None) -> PixelTerm:
    still, shot = prepared.still, prepared.shot.padded()
    observed = np.asarray(still.reflections["xyzobs.px.value"], dtype=np.float64)[shot.reflection_row, :2].copy()
    observed[prepared.shot.n_boxes :] = np.nan
    return PixelTerm(
        density or prepared.density,
        shot.panel,
        grouping,
        hkl=np.rint(shot.miller_index @ still.crystals[0].to_primitive.T).astype(np.int64),
        lattice=shot.lattice,
        valid=shot.valid,
        observed_px=observed,
        boxes=exact_scene(prepared.density.problem.scene).boxes,
    )


def lists_hold(shot: GeometryShot, own: FloatArray, shared: FloatArray) -> bool:
    """Whether the reflections that were listed for each box serve at these numbers."""
    term = shot.term
    groups = np.asarray(shared)[: 6 * term.n_groups].reshape(-1, 6)
    scene = term.moving.problem.scene
    boxes = move_rigidly(exact_scene(scene).boxes, term.moving.axes, groups[np.asarray(term.moving.group)])
    scene, parameters = with_boxes(scene, boxes), term.parameters(own, shared)
    if not window_holds(parameters, exact_scene(scene)):
        return False
    return not isinstance(scene, ClosedScene) or closed_holds(parameters, scene, shot.prepared.options)


def _listed_anew(shot: GeometryShot, own: FloatArray, shared: FloatArray) -> GeometryShot:
    """The shot with reflections listed around these numbers; its density is the same."""
    prepared, settings = shot.prepared, shot.prepared.settings
    parameters, still = shot.term.parameters(own, shared), prepared.still
    # The shift that all panels share is among the parameters.
    detector = moved_detector(still.detector, shot.grouping, shared[: 6 * shot.grouping.n_groups])
    there = replace(still, experiments=tuple(e.with_detector(detector) for e in still.experiments))
    scene = still_scene(there, still.crystals, prepared.shot.padded(), prepared.factors, parameters, prepared.options,
                        settings.model)  # fmt: skip
    density = form_density(prepared.form, scene, parameters, prepared.options, prepared.density.problem.pixels,
                           prepared.layout, prepared.base, settings.likelihood)  # fmt: skip
    return replace(shot, term=_term(prepared, shot.grouping, density))


class ShotTerm:
    """A still as a term of a joint fit.

    Args:
        shot: the still, read once already.
        read: makes it again: then it is not kept, but read at each visit, so that memory is that of one shot.

    Attributes:
        listed_at: numbers around which reflections were listed last, own and shared; None for the start.
    """

    def __init__(self, shot: GeometryShot, read: Callable[[], GeometryShot] | None = None) -> None:
        self.tag, self.start, self.step_limit = shot.prepared.still.tag, shot.term.start, shot.term.step_limit
        self._read, self._kept = read, shot if read is None else None
        self.listed_at: tuple[FloatArray, FloatArray] | None = None

    def shot(self) -> GeometryShot:
        """The still with its present lists of reflections."""
        if self._kept is not None:
            return self._kept
        assert self._read is not None
        shot = self._read()
        return shot if self.listed_at is None else _listed_anew(shot, *self.listed_at)

    def list_at(self, own: FloatArray, shared: FloatArray, shot: GeometryShot | None = None) -> GeometryShot:
        """The still with reflections listed around these numbers, from now on; ``shot`` where it was read already."""
        shot = _listed_anew(shot or self.shot(), own, shared)
        self.listed_at = own.copy(), shared.copy()
        self._kept = shot if self._kept is not None else None
        return shot

    def linearize(self, own: FloatArray, shared: FloatArray) -> list[Blocks]:
        shot = self.shot()
        if np.all(np.isfinite(own)) and not lists_hold(shot, own, shared):
            log.debug("%s: spots have moved beyond the reflections that were listed for them; listed anew", self.tag)
            shot = self.list_at(own, shared, shot)
        return shot.term.linearize(own, shared)

    def target(self, own: FloatArray, shared: FloatArray) -> float:
        return self.shot().term.target(own, shared)

    def value_and_grad(self, own: FloatArray, shared: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        return self.shot().term.value_and_grad(own, shared)

    def offsets(self, own: FloatArray, shared: FloatArray) -> FloatArray:
        # Progress is not worth another reading of the files.
        return self._kept.term.offsets(own, shared) if self._kept is not None else np.zeros(0)

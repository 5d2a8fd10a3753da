"""One raw still from its image to integrated reflections: spots, lattices, pixel refinement, prediction, integration.

Whatever stops a still is a status with cause and remedy, and what was found until then is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np

from bayesbragg.io.images import read_image
from bayesbragg.io.masks import read_mask
from bayesbragg.io.matching import ImageGroup
from bayesbragg.model import Experiment, Reflections
from bayesbragg.model.errors import InputError
from bayesbragg.model.fit import FitStatus
from bayesbragg.pipeline.integrate_still import IntegratedStill, integrate_still
from bayesbragg.pipeline.load import assemble_still, structure_factors
from bayesbragg.pipeline.refine import Refined, refine_still
from bayesbragg.pipeline.results import refined_experiments, refined_reflections
from bayesbragg.pipeline.shot_files import ShotFiles
from bayesbragg.pipeline.still import Still
from bayesbragg.pipeline.still_prediction import model_from_indexing, model_of_refined
from bayesbragg.pipeline.stills_settings import StillsSettings
from bayesbragg.stills.indexing import IndexedStill, index_still, reindex_still
from bayesbragg.stills.spotfinding import find_spots

__all__ = ["ProcessedStill", "StillStatus", "process_image", "process_indexed"]

SATURATED_FRACTION = 0.2
"""Share of pixels above the trusted range from which an image without spots counts as saturated."""


class StillStatus(StrEnum):
    """How far a still came. The first four are successes of the steps that were asked for."""

    INTEGRATED = "integrated"
    REFINED = "refined"
    INDEXED = "indexed"
    SPOTS = "spots found"
    NO_SPOTS = "no spots"
    SATURATED = "saturated"
    NOT_A_HIT = "not a hit"
    FEW_SPOTS = "few spots"
    BAD_GEOMETRY = "bad geometry"
    NO_LATTICE = "no lattice"
    POOR_LATTICE = "poor lattice"
    NOT_REFINED = "not refined"
    NOT_INTEGRATED = "not integrated"
    BAD_INPUT = "bad input"
    ERROR = "error"


@dataclass(frozen=True, eq=False)
class ProcessedStill:
    """What became of a still.

    Attributes:
        tag: its name in outputs.
        status: how far it came; reason: cause and remedy in one line, empty for a success.
        strong: all strong spots.
        indexed: indexed spots; after a refinement with ``xyzcal`` from the model.
        experiments: one per lattice with the best model, empty if none was found.
        integrated: integrated reflections.
        refined: the pixel refinement.
        rmsd_px: root mean square offset of the indexed spots after indexing, pixels.
        n_indexed: spots that indexing gave; a refinement drops those without a usable box.
    """

    tag: str
    status: StillStatus
    reason: str = ""
    strong: Reflections | None = None
    indexed: Reflections | None = None
    experiments: tuple[Experiment, ...] = ()
    integrated: IntegratedStill | None = None
    refined: Refined | None = None
    rmsd_px: float = float("nan")
    n_indexed: int = 0


def process_image(
    tag: str, experiment: Experiment, settings: StillsSettings, spectrum: Path | None = None
) -> ProcessedStill:
    """Process a still from its image.

    Args:
        experiment: beam, detector and image; no crystal is needed.
        settings: of every step.
        spectrum: a ``.lam`` file of this shot.

    Raises:
        InputError: the image, its mask or its spectrum cannot be read.
    """
    if experiment.image is None:
        raise InputError(f"{tag}: the experiment names no image; give one")
    path = experiment.image.path
    image = read_image(experiment.image, experiment.detector)
    group = ImageGroup((experiment,), Reflections({}), experiment.image, (0,))
    files = ShotFiles(path, path, spectrum, tag=tag)
    still = assemble_still(tag, group, files, settings.refine, image)
    still = replace(still, source=tuple(dict.fromkeys(still.source)))
    mask = still.mask
    if settings.spot_mask is not None:
        own = read_mask(settings.spot_mask, still.detector)
        mask = tuple(own) if mask is None else tuple(a & b for a, b in zip(mask, own, strict=True))
    try:
        strong = find_spots(still.panels, still.detector, experiment.beam, settings.spots, mask=mask)
    except InputError as error:
        return ProcessedStill(tag, StillStatus.NO_SPOTS, f"{path}: {error}")
    found = ProcessedStill(tag, StillStatus.SPOTS, strong=strong)
    stop = _no_hit(still, strong, settings)
    if stop is not None:
        return replace(found, status=stop[0], reason=f"{path}: {stop[1]}")
    if not settings.do_index:
        return found
    indexed = _indexed(still, strong, settings)
    if not indexed.lattices:
        return replace(found, status=StillStatus(indexed.status.replace("_", " ")), reason=f"{path}: {indexed.message}")
    rmsd = _rmsd(indexed.reflections)
    found = replace(
        found,
        status=StillStatus.INDEXED,
        indexed=indexed.reflections,
        experiments=indexed.experiments,
        rmsd_px=rmsd,
        n_indexed=len(indexed.reflections),
    )
    poor = _poor(indexed, rmsd, settings)
    if poor:
        return replace(found, status=StillStatus.POOR_LATTICE, reason=f"{path}: {poor}", experiments=())
    still = replace(still, experiments=indexed.experiments, reflections=indexed.reflections)
    return _onwards(found, still, settings, str(path))


def process_indexed(still: Still, settings: StillsSettings) -> ProcessedStill:
    """Process a still from existing indexing results: refinement, prediction and integration."""
    experiments = tuple(still.experiments)
    found = ProcessedStill(
        still.tag,
        StillStatus.INDEXED,
        strong=still.reflections,
        indexed=still.reflections,
        experiments=experiments,
        rmsd_px=_rmsd(still.reflections),
        n_indexed=len(still.reflections),
    )
    name = still.source[0] if still.source else still.tag
    return replace(_onwards(found, still, settings, name), strong=None)


def _no_hit(still: Still, strong: Reflections, settings: StillsSettings) -> tuple[StillStatus, str] | None:
    """Why the spots are not worth indexing, or None."""
    n = len(strong)
    if n == 0:
        high = sum(
            int(np.sum(panel > limit[1]))
            for panel, limit in zip(still.panels, still.detector.trusted_range, strict=True)
        )
        n_pixels = sum(panel.size for panel in still.panels)
        if high > SATURATED_FRACTION * n_pixels:
            return StillStatus.SATURATED, (
                f"{high} of {n_pixels} pixels lie above the trusted range and no spot is left; leave the image out, or "
                "correct the detector's trusted_range"
            )
        return StillStatus.NO_SPOTS, (
            "no strong spots; a blank image, or spotfinder.threshold.dispersion.gain and global_threshold are too high"
        )
    hits = settings.hits
    if n < hits.least:
        return StillStatus.NOT_A_HIT, (
            f"{n} strong spots, dispatch.hit_finder.minimum_number_of_reflections={hits.least}; lower it to go on"
        )
    if hits.most is not None and n > hits.most:
        return StillStatus.NOT_A_HIT, (
            f"{n} strong spots, dispatch.hit_finder.maximum_number_of_reflections={hits.most}; raise it to go on"
        )
    return None


def _indexed(still: Still, strong: Reflections, settings: StillsSettings) -> IndexedStill:
    """Lattices; with a limit of resolution the search is given the spots below it only."""
    lattice, experiment = settings.lattice, still.experiments[0]
    chosen = strong
    if lattice.d_min is not None:
        position = np.asarray(strong["xyzobs.px.value"])
        ray = still.detector.lab_mm(strong["panel"], position[:, 0], position[:, 1])
        ray /= np.linalg.norm(ray, axis=1, keepdims=True)
        with np.errstate(divide="ignore"):
            d = experiment.beam.wavelength_A / np.linalg.norm(ray - experiment.beam.direction, axis=1)
        chosen = strong.select(d >= lattice.d_min)
    found = index_still(chosen, experiment, lattice.crystal(), settings.indexing, spectrum=still.spectrum)
    if found.lattices and lattice.reindex:
        found = reindex_still(strong, found, settings.indexing, spectrum=still.spectrum)
    return found


def _rmsd(table: Reflections) -> float:
    if "xyzcal.px" not in table or len(table) == 0:
        return float("nan")
    offset = np.asarray(table["xyzobs.px.value"])[:, :2] - np.asarray(table["xyzcal.px"])[:, :2]
    return float(np.sqrt(np.nanmean(np.sum(offset**2, axis=1))))


def _poor(found: IndexedStill, rmsd: float, settings: StillsSettings) -> str:
    """Why a lattice is not good enough; empty if it is."""
    known = settings.lattice
    if rmsd > known.rmsd_px:
        return (
            f"indexed with an RMSD of {rmsd:.2f} pixels, indexing.stills.rmsd_min_px={known.rmsd_px:g}; check the "
            "geometry, or raise it"
        )
    expected = np.asarray(known.cell)
    for lattice in found.lattices:
        cell = lattice.fit.crystal.cell
        off = np.abs(cell[:3] / expected[:3] - 1.0).max()
        turned = np.abs(cell[3:] - expected[3:]).max()
        if off > known.length_tolerance or turned > known.angle_tolerance_deg:
            shown = ", ".join(f"{x:.2f}" for x in cell)
            return (
                f"the lattice has a cell of {shown}, beyond the tolerances of indexing.known_symmetry; check the cell"
            )
    return ""


def _onwards(found: ProcessedStill, still: Still, settings: StillsSettings, name: str) -> ProcessedStill:
    """Pixel refinement, prediction and integration of an indexed still."""
    own = settings.refine
    factors = None
    if settings.do_refine or settings.predictions.with_factors:
        factors = structure_factors(still, own)
    if settings.do_refine and factors is not None:
        try:
            refined = refine_still(still, factors, own)
        except InputError as error:
            return replace(found, status=StillStatus.NOT_REFINED, reason=_named(name, error))
        if refined.fit.status is FitStatus.FAILED:
            return replace(found, status=StillStatus.NOT_REFINED, reason=f"{name}: {refined.fit.reason}")
        found = replace(
            found,
            status=StillStatus.REFINED,
            refined=refined,
            experiments=tuple(refined_experiments(refined)),
            indexed=refined_reflections(refined, keep_unpredicted=own.keep_unpredicted),
        )
    if not settings.do_integrate or found.strong is None or found.indexed is None:
        return found
    try:
        if found.refined is not None:
            model = model_of_refined(found.refined, own.model)
        else:
            model = model_from_indexing(still, own.model, own.counts.gain, settings.predictions.default_F)
        integrated = integrate_still(
            model, found.strong, found.indexed, own, settings.predictions, settings.integration, factors
        )
    except InputError as error:
        return replace(found, status=StillStatus.NOT_INTEGRATED, reason=_named(name, error))
    return replace(found, status=StillStatus.INTEGRATED, integrated=integrated)


def _named(name: str, error: InputError) -> str:
    text = " ".join(str(error).split())
    return text if name in text else f"{name}: {text}"

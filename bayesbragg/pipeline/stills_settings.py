"""Everything that decides what becomes of a raw still, as frozen values; `stills_settings` reads them from PHIL."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bayesbragg.io.phil import ResolvedParameters
from bayesbragg.io.symmetry import cell_misfit, lookup_space_group
from bayesbragg.model import Crystal
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.from_phil import settings_from_phil
from bayesbragg.pipeline.settings import RefineSettings
from bayesbragg.stills.ice import ice_ring_ranges
from bayesbragg.stills.indexing import IndexingSettings
from bayesbragg.stills.selected_predictions import PredictionSettings
from bayesbragg.stills.spotfinding import SpotfinderSettings

__all__ = ["HitSettings", "IntegrationSettings", "KnownLattice", "StillsSettings", "stills_settings"]


@dataclass(frozen=True)
class HitSettings:
    """Which images go on to indexing.

    Attributes:
        least, most: numbers of strong spots; 0 and None for no limit.
    """

    least: int = 0
    most: int | None = None


@dataclass(frozen=True)
class KnownLattice:
    """The cell and space group that indexing looks for.

    Attributes:
        cell: a, b, c (angstrom), alpha, beta, gamma (degree); None without indexing.
        space_group: symbol.
        length_tolerance: largest relative difference of an indexed cell's edges from it.
        angle_tolerance_deg: largest difference of its angles, degree.
        rmsd_px: largest root mean square offset of the indexed spots, pixels.
        d_min: spots of higher resolution are left out of the search, angstrom; None for all.
        reindex: index all spots with the lattice that was found without them.
    """

    cell: tuple[float, ...] | None = None
    space_group: str = "P1"
    length_tolerance: float = 0.1
    angle_tolerance_deg: float = 5.0
    rmsd_px: float = 2.0
    d_min: float | None = None
    reindex: bool = False

    def crystal(self) -> Crystal:
        """The lattice in a standard orientation; raises `InputError` without a cell that fits the space group."""
        if self.cell is None:
            raise InputError(
                "no unit cell to index with: set indexing.known_symmetry.unit_cell=a,b,c,alpha,beta,gamma and "
                "indexing.known_symmetry.space_group, or give indexed .expt and .refl files"
            )
        group = lookup_space_group(self.space_group)
        misfit = cell_misfit(self.cell, group.number)
        if misfit is not None:
            raise InputError(f"indexing.known_symmetry.unit_cell={self.cell}: {misfit}")
        return Crystal.from_cell(
            self.cell,
            np.eye(3),
            space_group=group.hm,
            space_group_number=group.number,
            hall_symbol=group.hall,
            to_primitive=group.to_primitive,
        )


@dataclass(frozen=True)
class IntegrationSettings:
    """How reflections are integrated.

    Attributes:
        margin: added to the side of the refinement's boxes, pixels: whole spots fit.
        partial_correct: divide intensities by partiality.
        least_partiality: with `partial_correct`, reflections below it are left out.
    """

    margin: int = 4
    partial_correct: bool = False
    least_partiality: float = 0.05


@dataclass(frozen=True)
class StillsSettings:
    """All settings of `stills-process`.

    Attributes:
        refine: of images, model and fit, whether or not a fit is made.
        spots, spot_mask, hits, lattice, indexing, predictions, integration: see their classes; the mask is a file of
            good pixels.
        do_index, do_refine, do_integrate: steps that are taken.
        composite: one set of files for the whole run.
        shoeboxes: write the pixels of each spot into the tables of spots.
    """

    refine: RefineSettings
    spots: SpotfinderSettings = field(default_factory=SpotfinderSettings)
    spot_mask: Path | None = None
    hits: HitSettings = field(default_factory=HitSettings)
    lattice: KnownLattice = field(default_factory=KnownLattice)
    indexing: IndexingSettings = field(default_factory=IndexingSettings)
    predictions: PredictionSettings = field(default_factory=PredictionSettings)
    integration: IntegrationSettings = field(default_factory=IntegrationSettings)
    do_index: bool = True
    do_refine: bool = True
    do_integrate: bool = True
    composite: bool = False
    shoeboxes: bool = True


def stills_settings(p: ResolvedParameters) -> StillsSettings:
    """The settings that resolved PHIL parameters mean.

    Raises:
        InputError: values that contradict each other or that are not offered.
    """
    refine = settings_from_phil(p)
    integration, dispatch = p.stills.integration, p.stills.dispatch
    gain = integration.summation.detector_gain
    if "integration.summation.detector_gain" in p.explicit and "refiner.adu_per_photon" not in p.explicit:
        refine = replace(refine, counts=replace(refine.counts, gain=gain))
    if not dispatch.find_spots:
        raise InputError("dispatch.find_spots=False: an image needs spots; give indexed .expt and .refl files instead")
    hits = HitSettings()
    if dispatch.hit_finder.enable:
        hits = HitSettings(
            dispatch.hit_finder.minimum_number_of_reflections, dispatch.hit_finder.maximum_number_of_reflections
        )
    return StillsSettings(
        refine=refine,
        spots=_spots(p),
        spot_mask=p.path(p.stills.spotfinder.lookup.mask),
        hits=hits,
        lattice=_lattice(p),
        indexing=_indexing(p),
        predictions=_predictions(p),
        integration=IntegrationSettings(partial_correct=p.stills.partial_correct),
        do_index=dispatch.index,
        do_refine=not p.stills.skip_hopper,
        do_integrate=dispatch.integrate,
        composite=p.stills.output.composite_output,
        shoeboxes=p.stills.output.shoeboxes,
    )


def _spots(p: ResolvedParameters) -> SpotfinderSettings:
    scope = p.stills.spotfinder
    threshold, limits = scope.threshold, scope.filter
    if threshold.algorithm not in ("dispersion", "dispersion_extended"):
        raise InputError(
            f"spotfinder.threshold.algorithm={threshold.algorithm}: expected dispersion or dispersion_extended"
        )
    numbers, defaults = threshold.dispersion, SpotfinderSettings()
    gain = numbers.gain
    if gain is None and "integration.summation.detector_gain" in p.explicit:
        gain = p.stills.integration.summation.detector_gain
    size = limits.min_spot_size
    rings: tuple[tuple[float, float], ...] = ()
    if limits.ice_rings.filter:
        rings = ice_ring_ranges(tuple(limits.ice_rings.unit_cell), limits.ice_rings.width, limits.ice_rings.d_min)
    return SpotfinderSettings(
        algorithm=threshold.algorithm,
        gain=gain,
        kernel_size=tuple(numbers.kernel_size),
        sigma_background=numbers.sigma_background,
        sigma_strong=numbers.sigma_strong,
        global_threshold=numbers.global_threshold,
        min_local=numbers.min_local,
        min_spot_size=size if isinstance(size, int) else defaults.min_spot_size,
        max_spot_size=limits.max_spot_size,
        max_separation=limits.max_separation,
        max_strong_pixel_fraction=limits.max_strong_pixel_fraction,
        d_min=limits.d_min,
        d_max=limits.d_max,
        ice_rings=rings,
    )


def _lattice(p: ResolvedParameters) -> KnownLattice:
    scope = p.stills.indexing
    known, group = scope.known_symmetry, scope.known_symmetry.space_group
    return KnownLattice(
        cell=None if known.unit_cell is None else tuple(float(x) for x in known.unit_cell),
        space_group="P1" if group is None else str(group),
        length_tolerance=known.relative_length_tolerance,
        angle_tolerance_deg=known.absolute_angle_tolerance,
        rmsd_px=scope.stills.rmsd_min_px,
        d_min=scope.refinement_protocol.d_min_start,
        reindex=p.stills.reidx_obs,
    )


def _indexing(p: ResolvedParameters) -> IndexingSettings:
    scope, defaults = p.stills.indexing, IndexingSettings()
    fixed = p.stills.refinement.parameterisation.crystal.fix
    return IndexingSettings(
        max_lattices=max(scope.multiple_lattice_search.max_lattices or 1, 1),
        hkl_tolerance=scope.index_assignment.simple.hkl_tolerance,
        min_spots=defaults.min_spots,
        refine_cell=fixed not in ("all", "cell"),
    )


def _predictions(p: ResolvedParameters) -> PredictionSettings:
    scope = p.predictions
    low, high = sorted(float(x) for x in scope.resolution_range)
    return PredictionSettings(
        d_min=low,
        d_max=high,
        threshold=scope.threshold,
        default_F=scope.default_Famplitude,
        with_factors=scope.use_diffBragg_mtz,
        weak_fraction=scope.weak_fraction,
        qcut=scope.qcut,
        strong_column=scope.label_weak_col,
        n_abc=None if scope.Nabc_override is None else tuple(float(n) for n in scope.Nabc_override),
        oversample=scope.oversample_override,
        sensor_layers=scope.thicksteps_override,
        stride=scope.pink_stride_override,
    )

"""Stills from files: experiments and reflections matched by identifier, images, masks and spectra."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bayesbragg.io.coordinates import read_pdb_structure_factors
from bayesbragg.io.experiments import read_beam, read_detector, read_experiments, replace_detector
from bayesbragg.io.hkl_lists import read_hkl
from bayesbragg.io.images import image_from_shoeboxes, read_image
from bayesbragg.io.masks import read_mask
from bayesbragg.io.matching import ImageGroup, match
from bayesbragg.io.reflections import read_reflections
from bayesbragg.io.spectra import read_lam
from bayesbragg.io.structure_factors import read_mtz
from bayesbragg.io.symmetry import SpaceGroup, lookup_space_group
from bayesbragg.model import Detector, Experiment, Reflections, StructureFactors
from bayesbragg.model.errors import InputError
from bayesbragg.model.image import Image
from bayesbragg.pipeline.settings import CountSettings, FactorSettings, RefineSettings
from bayesbragg.pipeline.shot_files import ShotFiles
from bayesbragg.pipeline.spectrum_choice import spectrum_of
from bayesbragg.pipeline.still import Still

__all__ = [
    "StillSource",
    "assemble_still",
    "check_inputs",
    "find_stills",
    "load_factors",
    "load_stills",
    "structure_factors",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StillSource:
    """A still that is there to be read.

    Attributes:
        tag: its name in outputs.
        read: reads image, mask and spectrum; raises `InputError` that names the file.
    """

    tag: str
    read: Callable[[], Still]


def find_stills(
    files: ShotFiles,
    settings: RefineSettings,
    *,
    reference_geometry: Path | None = None,
    reference_beam: Path | None = None,
) -> list[StillSource]:
    """The stills of a pair of files; images are read one by one later, so that a bad one spoils no other.

    Args:
        settings: counts, spectrum and factor settings are used.
        reference_geometry: an ``.expt`` whose detector replaces the shots' own.
        reference_beam: an ``.expt`` whose beam replaces the shots' own.

    Raises:
        InputError: naming the file, what is wrong with it, and the remedy.
    """
    experiments = read_experiments(files.experiments)
    reflections = read_reflections(files.reflections)
    if reference_geometry is not None:
        experiments = replace_detector(experiments, reference_geometry)
    if reference_beam is not None:
        beam = read_beam(reference_beam)
        experiments = [replace(experiment, beam=beam) for experiment in experiments]
    groups = match(experiments, reflections)
    if files.number is not None:
        if not 0 <= files.number < len(experiments):
            raise InputError(f"{files.experiments}: no experiment {files.number}; there are {len(experiments)}")
        groups = [_only(group, files.number) for group in groups if files.number in group.numbers]
    if not groups:
        raise InputError(f"{files.experiments}: no experiments in it; write it again with DIALS or leave it out")
    tags = [files.name] if len(groups) == 1 else [f"{files.name}_{i:05d}" for i in range(len(groups))]
    return [
        StillSource(tag, partial(_still, tag, group, files, settings)) for tag, group in zip(tags, groups, strict=True)
    ]


def _only(group: ImageGroup, number: int) -> ImageGroup:
    """One lattice of an image: the experiment with this place in its list."""
    lattice = group.numbers.index(number)
    rows = np.flatnonzero(np.asarray(group.reflections["id"]) == lattice)
    chosen = group.reflections.select(rows).with_columns(id=np.zeros(len(rows), dtype=np.int64))
    identifier = group.experiments[lattice].identifier
    table = Reflections(chosen.columns, {0: identifier} if identifier else {}, chosen.types)
    return replace(group, experiments=(group.experiments[lattice],), reflections=table, numbers=(number,))


def load_stills(
    files: ShotFiles,
    settings: RefineSettings,
    *,
    reference_geometry: Path | None = None,
    reference_beam: Path | None = None,
) -> Iterator[Still]:
    """The stills of a pair of files, one after the other; arguments and errors as for `find_stills`."""
    found = find_stills(files, settings, reference_geometry=reference_geometry, reference_beam=reference_beam)
    yield from (source.read() for source in found)


def _still(tag: str, group: ImageGroup, files: ShotFiles, settings: RefineSettings) -> Still:
    detector = group.experiments[0].detector
    missing = [number for number, e in zip(group.numbers, group.experiments, strict=True) if e.crystal is None]
    if missing:
        raise InputError(
            f"{files.experiments}: experiment {missing[0]} has no crystal; index the shot, or leave it out"
        )
    if len(group.reflections) == 0:
        raise InputError(
            f"{files.reflections}: no reflections for experiment {group.numbers[0]} of {files.experiments.name}; "
            "index the shot, or leave it out"
        )
    if settings.counts.from_shoeboxes:
        try:
            image = image_from_shoeboxes(group.reflections, detector)
        except InputError as error:
            raise InputError(f"{files.reflections}: {error}") from None
        if settings.counts.shoeboxes_in_photons:
            # Everything after this works in detector units.
            image = replace(image, raw=tuple(panel * settings.counts.gain for panel in image.raw))
    elif group.image is None:
        raise InputError(
            f"{files.experiments}: the experiment names no image; add one, or set load_data_from_refls=True to use "
            "the shoeboxes of the .refl file"
        )
    else:
        image = read_image(group.image, detector)
    try:
        return assemble_still(tag, group, files, settings, image)
    except InputError as error:
        name = files.experiments if group.image is None else group.image.path
        raise error if _names_a_file(error) else InputError(f"{name}: {error}") from None


def _names_a_file(error: InputError) -> bool:
    """Whether a message begins with a path, as those of the readers do."""
    first = str(error).split(": ", 1)[0]
    return "/" in first or (Path(first).suffix != "" and " " not in first)


def assemble_still(tag: str, group: ImageGroup, files: ShotFiles, settings: RefineSettings, image: Image) -> Still:
    """A still from what was read: its mask, spectrum and space group as the settings say.

    Args:
        group: experiments on one image, with or without crystals, and their reflections.
        files: names for messages, and the shot's spectrum file.
    """
    detector = group.experiments[0].detector
    spectrum, name = spectrum_of(image, group.experiments[0], files.spectrum, settings.spectrum)
    source = [str(files.experiments), str(files.reflections)]
    source += [str(path) for path in (group.image and group.image.path, files.spectrum) if path]
    return Still(
        tag=tag,
        experiments=tuple(_with_space_group(e, settings.factors.space_group) for e in group.experiments),
        reflections=group.reflections,
        panels=image.raw,
        spectrum=spectrum,
        mask=_mask(image, detector, settings.counts),
        dark_rms_adu=_dark(image, files, settings.counts),
        source=tuple(source),
        spectrum_name=name,
    )


def _with_space_group(experiment: Experiment, symbol: str | None) -> Experiment:
    if symbol is None or experiment.crystal is None:
        return experiment
    group = lookup_space_group(symbol)
    crystal = replace(
        experiment.crystal,
        space_group=group.hm,
        space_group_number=group.number,
        hall_symbol=group.hall,
        to_primitive=group.to_primitive,
    )
    return experiment.with_crystal(crystal)


def _dark(image: Image, files: ShotFiles, counts: CountSettings) -> tuple[npt.NDArray[np.float64], ...] | None:
    if not counts.dark_rms:
        return None
    if image.readout_sd is None:
        raise InputError(f"{files.experiments}: use_perpixel_dark_rms=True, but the image file holds no dark RMS")
    return image.readout_sd


def _mask(image: Image, detector: Detector, counts: CountSettings) -> tuple[npt.NDArray[np.bool_], ...] | None:
    masks = [] if image.mask is None else [image.mask]
    if counts.mask is not None:
        masks.append(tuple(read_mask(counts.mask, detector)))
    if counts.hot_pixels is not None:
        masks.append(tuple(~panel for panel in read_mask(counts.hot_pixels, detector)))
    if not masks:
        return None
    return tuple(np.logical_and.reduce(panels) for panels in zip(*masks, strict=True))


def structure_factors(still: Still, settings: RefineSettings) -> StructureFactors:
    """The structure factors that the settings name, for the crystal of a still; errors as for `load_factors`."""
    symbol = still.crystals[0].hall_symbol.strip() if still.crystals else ""
    return load_factors(settings.factors, symbol or "P 1", still.experiments[0].beam.wavelength_A)


def load_factors(settings: FactorSettings, group: str, wavelength_A: float) -> StructureFactors:
    """Structure factors by the settings, for crystals of a space group (Hall or Hermann-Mauguin symbol).

    Raises:
        InputError: no source, or one that cannot be read or does not fit.
    """
    # Shots differ in wavelength, measured amplitudes do not.
    depends = settings.mtz is None and settings.anomalous
    return _factors(settings, group, wavelength_A if depends else 1.0)


@lru_cache(maxsize=4)
def _factors(settings: FactorSettings, group: str, wavelength_A: float) -> StructureFactors:
    if settings.intensities == "wilson":
        # The amplitude is put in box by box (`bayesbragg.pipeline.pixel_model`).
        return StructureFactors(np.zeros((1, 3), dtype=np.int64), np.zeros(1), default_F=1.0)
    symmetry: SpaceGroup = lookup_space_group(settings.space_group or group)
    if settings.mtz is not None and settings.mtz.suffix == ".hkl":
        return read_hkl(settings.mtz, symmetry, default_F=settings.default_F)
    if settings.mtz is not None:
        return read_mtz(settings.mtz, settings.columns, space_group=symmetry, default_F=settings.default_F)
    if settings.pdb is not None:
        return read_pdb_structure_factors(
            settings.pdb,
            settings.d_min,
            d_max=settings.d_max,
            wavelength_A=wavelength_A if settings.anomalous else None,
            k_sol=settings.k_sol,
            b_sol=settings.b_sol,
            default_F=settings.default_F,
        )
    raise InputError(
        "no structure factors: set simulator.structure_factors.mtz_name (and mtz_column), or "
        "simulator.structure_factors.from_pdb.name, or intensities=wilson to do without"
    )


def check_inputs(
    settings: RefineSettings, *, reference_geometry: Path | None = None, reference_beam: Path | None = None
) -> None:
    """Read once what all shots share, so that a run does not start with files that would fail every shot.

    Raises:
        InputError: a file is missing or cannot be used.
    """
    factors = settings.factors
    if factors.mtz is None and factors.pdb is None:
        load_factors(factors, "P 1", 1.0)
    if factors.space_group is not None:
        lookup_space_group(factors.space_group)
    if factors.mtz is not None:
        # The symmetry of the shots is not known yet; the columns are what can be wrong here.
        if factors.mtz.suffix == ".hkl":
            read_hkl(factors.mtz)
        else:
            read_mtz(factors.mtz, factors.columns, default_F=factors.default_F)
    for what, path in (
        ("coordinate file", None if factors.mtz else factors.pdb),
        ("mask", settings.counts.mask),
        ("mask of hot pixels", settings.counts.hot_pixels),
    ):
        if path is not None and not path.is_file():
            raise InputError(
                f"{path}: no such file; expected a {what}; check the name, the working directory and the PHIL file's "
                "folder"
            )
    if settings.spectrum.source == "file" and settings.spectrum.path is not None:
        read_lam(settings.spectrum.path, None, settings.spectrum.stride)
    if reference_geometry is not None:
        read_detector(reference_geometry)
    if reference_beam is not None:
        read_beam(reference_beam)

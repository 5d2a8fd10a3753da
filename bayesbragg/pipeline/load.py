"""Stills from files: experiments and reflections matched by identifier, images, masks and spectra."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bayesbragg.io.coordinates import read_pdb_structure_factors
from bayesbragg.io.experiments import read_detector, read_experiments, replace_detector
from bayesbragg.io.images import image_from_shoeboxes, read_image
from bayesbragg.io.masks import read_mask
from bayesbragg.io.matching import ImageGroup, match
from bayesbragg.io.reflections import read_reflections
from bayesbragg.io.spectra import read_lam
from bayesbragg.io.structure_factors import read_mtz
from bayesbragg.io.symmetry import SpaceGroup, lookup_space_group
from bayesbragg.model import Detector, Experiment, Spectrum, StructureFactors
from bayesbragg.model.errors import InputError
from bayesbragg.model.image import Image
from bayesbragg.model.spectra import gaussian_spectrum
from bayesbragg.pipeline.settings import CountSettings, FactorSettings, RefineSettings, SpectrumSettings
from bayesbragg.pipeline.still import Still
from bayesbragg.stills.spectrum import downsample_spectrum

__all__ = ["ShotFiles", "load_factors", "load_stills", "pair_files", "read_shot_list", "unique_tags"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShotFiles:
    """The files of one or several shots.

    Attributes:
        experiments, reflections: paths of the ``.expt`` and ``.refl``.
        spectrum: path of a ``.lam`` file, or None.
        number: use only this experiment of the list, or None for all.
        tag: name of the shot in outputs; from the reflection file's name if empty.
    """

    experiments: Path
    reflections: Path
    spectrum: Path | None = None
    number: int | None = None
    tag: str = ""

    @property
    def name(self) -> str:
        """The tag, or the file's name without its usual endings."""
        return self.tag or stem(self.reflections)


def stem(path: Path) -> str:
    """A file's name without extension and without the words that DIALS adds."""
    name = path.stem
    for ending in ("_indexed", "_refined", "_integrated", "_strong"):
        name = name.removesuffix(ending)
    return name


def read_shot_list(path: Path) -> list[ShotFiles]:
    """The classic ``exp_ref_spec_file``: a line for each shot with ``.expt``, ``.refl`` and, in any order after them, a
    spectrum file and the number of the experiment in its list. Relative names count from the working directory, then
    from the list's folder. Empty lines and those that begin with ``#`` are passed over.

    Raises:
        InputError: missing file, or a line that names fewer than two files.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a list with one line '.expt .refl [.lam]' for each shot")
    shots = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; expected a line '.expt .refl [.lam]' for each shot") from None
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        if len(fields) < 2 or len(fields) > 4:
            raise InputError(f"{path}: line {number} is {line.strip()!r}; expected '.expt .refl [.lam] [number]'")
        index = [field for field in fields[2:] if field.isdigit()]
        spectra = [_beside(field, path) for field in fields[2:] if not field.isdigit()]
        shots.append(
            ShotFiles(
                _beside(fields[0], path),
                _beside(fields[1], path),
                spectra[0] if spectra else None,
                int(index[0]) if index else None,
            )
        )
    if not shots:
        raise InputError(f"{path}: no shots; expected a line '.expt .refl [.lam]' for each")
    return shots


def _beside(name: str, owner: Path) -> Path:
    path = Path(name)
    return path if path.is_absolute() or path.exists() or not (owner.parent / path).exists() else owner.parent / path


def pair_files(paths: Sequence[Path]) -> list[ShotFiles]:
    """Shots from ``.expt`` and ``.refl`` files given in any order; files belong together by their name's beginning, or
    one by one where there is one of each.

    Raises:
        InputError: a file without its partner, or one of another kind.
    """
    kinds = {".expt": "experiments", ".json": "experiments", ".refl": "reflections"}
    for path in paths:
        if path.suffix not in kinds:
            raise InputError(f"{path}: expected .expt and .refl files (PHIL files end in .phil or .eff)")
    experiments = [p for p in paths if kinds[p.suffix] == "experiments"]
    reflections = [p for p in paths if kinds[p.suffix] == "reflections"]
    if len(experiments) == 1 and len(reflections) == 1:
        return [ShotFiles(experiments[0], reflections[0])]
    partner = {(p.parent, stem(p)): p for p in reflections}
    by_name = {stem(p): p for p in reflections}
    if len(partner) < len(reflections):
        raise InputError("two .refl files of one folder have the same name; give them in a list (exp_ref_spec_file)")
    shots = []
    for path in experiments:
        found = partner.pop((path.parent, stem(path)), None)
        if found is None and len(by_name) == len(reflections):
            found = by_name.get(stem(path))
            partner.pop((found.parent, stem(found)), None) if found else None
        if found is None:
            raise InputError(f"{path}: no .refl file of the same name was given; list both in exp_ref_spec_file")
        shots.append(ShotFiles(path, found))
    if partner:
        raise InputError(f"{next(iter(partner.values()))}: no .expt file of the same name was given")
    return shots


def unique_tags(shots: Iterable[ShotFiles]) -> list[ShotFiles]:
    """The shots with tags that differ: equal file names in several folders get their folder's name, then a number."""
    shots = list(shots)
    names = [shot.name for shot in shots]
    repeated = {name for name in names if names.count(name) > 1}
    tags = [f"{s.reflections.parent.name}_{n}" if n in repeated else n for s, n in zip(shots, names, strict=True)]
    seen: dict[str, int] = {}
    result = []
    for shot, tag in zip(shots, tags, strict=True):
        seen[tag] = seen.get(tag, -1) + 1
        number = "" if tags.count(tag) == 1 else f"_{seen[tag]}"
        result.append(replace(shot, tag=f"{tag}{number}"))
    return result


def load_stills(
    files: ShotFiles, settings: RefineSettings, *, reference_geometry: Path | None = None
) -> Iterable[Still]:
    """The stills of a pair of files, one after the other.

    Args:
        settings: counts, spectrum and factor settings are used.
        reference_geometry: an ``.expt`` whose detector replaces the shots' own.

    Raises:
        InputError: naming the file, what is wrong with it, and the remedy.
    """
    experiments = read_experiments(files.experiments)
    reflections = read_reflections(files.reflections)
    if reference_geometry is not None:
        experiments = replace_detector(experiments, reference_geometry)
    if files.number is not None:
        if not 0 <= files.number < len(experiments):
            raise InputError(f"{files.experiments}: no experiment {files.number}; there are {len(experiments)}")
        chosen = experiments[files.number]
        rows = np.asarray(reflections["id"]) == files.number if len(experiments) > 1 else slice(None)
        experiments, reflections = [chosen], reflections.select(np.arange(len(reflections))[rows])
    groups = match(experiments, reflections)
    for number, group in enumerate(groups):
        tag = files.name if len(groups) == 1 else f"{files.name}_{number:05d}"
        yield _still(tag, group, files, settings)


def _still(tag: str, group: ImageGroup, files: ShotFiles, settings: RefineSettings) -> Still:
    detector = group.experiments[0].detector
    if len(group.reflections) == 0:
        raise InputError(f"{files.reflections}: no reflections for the image of experiment {group.numbers[0]}")
    if settings.counts.from_shoeboxes:
        image = image_from_shoeboxes(group.reflections, detector)
    elif group.image is None:
        raise InputError(
            f"{files.experiments}: the experiment names no image; add one, or set load_data_from_refls=True to use "
            "the shoeboxes of the .refl file"
        )
    else:
        image = read_image(group.image, detector)
    spectrum, name = _spectrum(image, group.experiments[0], files.spectrum, settings.spectrum)
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
        masks.append(_read_mask(counts.mask, detector))
    if counts.hot_pixels is not None:
        masks.append(tuple(~panel for panel in _read_mask(counts.hot_pixels, detector)))
    if not masks:
        return None
    return tuple(np.logical_and.reduce(panels) for panels in zip(*masks, strict=True))


def _read_mask(path: Path, detector: Detector) -> tuple[npt.NDArray[np.bool_], ...]:
    return tuple(read_mask(path, detector))


def _spectrum(
    image: Image, experiment: Experiment, file: Path | None, settings: SpectrumSettings
) -> tuple[Spectrum, str]:
    """The shot's spectrum and where it came from: its own file first, then what the settings say."""
    path = file or (settings.path if settings.source == "file" else None)
    if path is not None:
        spectrum = read_lam(path, None, settings.stride)
        return spectrum, f"{path.name} ({spectrum.n_channels} channels)"
    wavelength = experiment.beam.wavelength_A
    if settings.source == "gaussian":
        spectrum = gaussian_spectrum(
            wavelength, settings.fwhm_eV, settings.n_channels, settings.resolution_eV, settings.total_flux
        )
        return spectrum, f"Gaussian of {settings.fwhm_eV:g} eV ({spectrum.n_channels} channels)"
    if settings.source == "image":
        if image.spectrum is None:
            raise InputError("spectrum_from_imageset=True, but the image file holds no spectrum; set it to False")
        if not settings.downsample:
            return image.spectrum, f"image file ({image.spectrum.n_channels} channels)"
        spectrum = downsample_spectrum(
            image.spectrum,
            filt_freq=settings.filt_freq,
            filt_order=settings.filt_order,
            tail=settings.tail,
            delta_en=settings.delta_en,
            stride=settings.stride,
            flux=settings.total_flux,
        )
        return spectrum, f"image file, down-sampled to {spectrum.n_channels} channels"
    return Spectrum.monochromatic(wavelength, settings.total_flux), f"monochromatic, {wavelength:.5f} A"


@lru_cache(maxsize=4)
def load_factors(settings: FactorSettings, group: str, wavelength_A: float) -> StructureFactors:
    """Structure factors by the settings, for crystals of a space group (Hermann-Mauguin symbol).

    Raises:
        InputError: no source, or one that cannot be read or does not fit.
    """
    symmetry: SpaceGroup = lookup_space_group(settings.space_group or group)
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
        "simulator.structure_factors.from_pdb.name"
    )


def check_reference(path: Path) -> None:
    """Read a reference geometry once, so that a run does not start with one that cannot be read."""
    read_detector(path)

"""Simulated stills as files: images that readers know, with the truth beside them.

The seed and a shot's number decide everything random about it, so that shots can be made in any order, in parallel,
and again. A faulty geometry, where one is asked for, is what the files state; the images are made with the true one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesbragg.forward import Parameters
from bayesbragg.io.coordinates import read_pdb_symmetry
from bayesbragg.io.experiments import read_beam, read_detector, write_experiments
from bayesbragg.io.files import atomic_path
from bayesbragg.io.hdf5_writer import image_file
from bayesbragg.io.images import read_image_experiment
from bayesbragg.io.mtz_files import read_mtz_symmetry
from bayesbragg.io.panel_arrays import panels_of, read_array
from bayesbragg.io.spectra import read_lam
from bayesbragg.io.symmetry import SpaceGroup, cell_misfit, lookup_space_group
from bayesbragg.model import (
    Beam,
    Crystal,
    Detector,
    Experiment,
    Spectrum,
    StructureFactors,
)
from bayesbragg.model.beam import WAVELENGTH_ENERGY_A_EV
from bayesbragg.model.crystal import cell_matrix
from bayesbragg.model.errors import InputError
from bayesbragg.model.spectra import gaussian_spectrum
from bayesbragg.pipeline.geometry import moved_detector
from bayesbragg.pipeline.geometry_settings import make_grouping
from bayesbragg.pipeline.load import load_factors
from bayesbragg.pipeline.simulate_settings import SimulateSettings
from bayesbragg.pipeline.simulate_truth import describe, write_truth
from bayesbragg.pipeline.still_model import options_for, scene_arguments
from bayesbragg.stills.amorphous import amorphous_background
from bayesbragg.stills.boxes import PanelLayout
from bayesbragg.stills.ring import ring_background
from bayesbragg.stills.sase import sase_spectrum
from bayesbragg.stills.simulation import Still, simulate_still
from bayesbragg.stills.virtual import four_panels, random_rotation

__all__ = ["MadeShot", "World", "make_world", "simulate_file", "write_geometry"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class World:
    """What all shots share.

    Attributes:
        detector: the true one; stated: the one that the files state.
        beam: direction, polarization, nominal wavelength.
        cell: a, b, c (angstrom), alpha, beta, gamma (degree), before jitter.
        group: space group; factors: structure factors.
        background: photons of every pixel, flat.
    """

    detector: Detector
    stated: Detector
    beam: Beam
    cell: FloatArray
    group: SpaceGroup
    factors: StructureFactors
    background: FloatArray


@dataclass(frozen=True)
class MadeShot:
    """A shot that was written: its number, image file, strong spots, and the brightest pixel's Bragg photons."""

    number: int
    path: Path
    n_spots: int
    brightest: float


def make_world(settings: SimulateSettings) -> World:
    """Read and work out what all shots share.

    Raises:
        InputError: a file that cannot be read or does not fit.
    """
    detector, beam = _instrument(settings)
    if settings.energy_eV is not None:
        beam = replace(beam, wavelength_A=WAVELENGTH_ENERGY_A_EV / settings.energy_eV)
    factors = replace(settings.shared.factors, d_min=settings.d_min)
    if factors.mtz is not None and factors.mtz.suffix != ".hkl":
        cell, group = read_mtz_symmetry(factors.mtz)
    elif factors.pdb is not None:
        cell, group = read_pdb_symmetry(factors.pdb)
    else:
        cell, group = np.zeros(6), lookup_space_group(1)
    if factors.space_group is not None:
        group = lookup_space_group(factors.space_group)
    loaded = load_factors(factors, group.hm, beam.wavelength_A)
    if settings.unit_cell is not None:
        cell = np.array(settings.unit_cell)
    misfit = cell_misfit(cell, group.number)
    if misfit is not None:
        raise InputError(f"simulate.unit_cell: {misfit}")
    with np.errstate(invalid="ignore"):
        volume = np.linalg.det(cell_matrix(cell))
    if not volume > 0:
        raise InputError(
            f"simulate.unit_cell={tuple(float(x) for x in cell)}: no such cell; expected a, b, c, alpha, beta, gamma"
        )
    if settings.orientation is not None:
        turn = np.reshape(settings.orientation, (3, 3))
        if not (np.allclose(turn @ turn.T, np.eye(3), atol=1e-4) and np.linalg.det(turn) > 0):
            raise InputError("simulate.orientation: not a rotation; give the nine elements of U, row by row")
    stated = _stated(detector, settings)
    return World(detector, stated, beam, cell, group, loaded, _background(detector, beam, settings))


def _instrument(settings: SimulateSettings) -> tuple[Detector, Beam]:
    path = settings.experiment
    if path is None:
        return four_panels(gain=settings.camera.gain), Beam(np.array([0.0, 0, -1]), 1.3, np.array([0.0, 1, 0]))
    if path.suffix in (".expt", ".json"):
        return read_detector(path), read_beam(path)
    experiment = read_image_experiment(path)
    return experiment.detector, experiment.beam


def _stated(detector: Detector, settings: SimulateSettings) -> Detector:
    """The geometry with the errors that were asked for; they are the same for every shot of a seed."""
    errors = settings.errors
    if not errors.any:
        return detector
    grouping = make_grouping(detector, errors.groups)
    sd = np.array([*np.radians(errors.group_rotation_sd_deg), *(1e-3 * np.array(errors.group_shift_sd_mm))])
    motion = sd * np.random.default_rng([settings.seed, 1]).standard_normal((grouping.n_groups, 6))
    motion[:, 3:] += 1e-3 * np.array(errors.shift_mm)
    return moved_detector(detector, grouping, motion.ravel())


def _background(detector: Detector, beam: Beam, settings: SimulateSettings) -> FloatArray:
    chosen, flux = settings.background, settings.shared.spectrum.total_flux
    total = amorphous_background(detector, beam, flux, {"water": chosen.water_mm, "air": chosen.air_mm})
    if chosen.ring_photons > 0:
        total = total + ring_background(detector, beam, chosen.ring_photons)
    if chosen.file is not None:
        what = "background"
        _, array = read_array(chosen.file, what, ("background",))
        panels = [np.asarray(panel, dtype=np.float64) for panel in panels_of(array, detector, chosen.file, what)]
        total = total + np.concatenate([panel.ravel() for panel in panels])
        if not np.all(np.isfinite(total) & (total >= 0)):
            raise InputError(f"{chosen.file}: negative or missing values; expected photons of every pixel")
    return total


def _spectrum(settings: SimulateSettings, wavelength_A: float, generator: np.random.Generator) -> Spectrum:
    chosen = settings.shared.spectrum
    if settings.spectrum == "sase":
        return sase_spectrum(
            wavelength_A,
            generator,
            fwhm_eV=chosen.fwhm_eV,
            spike_eV=settings.spike_eV,
            jitter_eV=settings.jitter_eV,
            n_channels=chosen.n_channels,
            resolution_eV=chosen.resolution_eV,
            flux=chosen.total_flux,
        )
    if settings.spectrum == "gaussian":
        return gaussian_spectrum(
            wavelength_A, chosen.fwhm_eV, chosen.n_channels, chosen.resolution_eV, chosen.total_flux
        )
    if settings.spectrum == "file" and chosen.path is not None:
        return read_lam(chosen.path, chosen.total_flux, chosen.stride)
    return Spectrum.monochromatic(wavelength_A, chosen.total_flux)


def _jittered(cell: FloatArray, number: int, sd: float, generator: np.random.Generator) -> FloatArray:
    """The cell with random edges; edges that the crystal system makes equal stay so."""
    change = generator.standard_normal(3) * sd
    system = lookup_space_group(number).crystal_system
    if system == "cubic" or (system == "trigonal" and abs(cell[5] - 120.0) > 1.0):
        change[:] = change[0]
    elif system in ("tetragonal", "hexagonal", "trigonal"):
        change[1] = change[0]
    return np.concatenate([cell[:3] * (1.0 + change), cell[3:]])


def _shot(world: World, settings: SimulateSettings, number: int) -> tuple[Still, Spectrum, Parameters, list[Crystal]]:
    generator = np.random.default_rng([settings.seed, 0, number])
    shared, start = settings.shared, settings.shared.start
    n = len(settings.lattice_scales)
    turns = [random_rotation(generator) for _ in range(n)]
    if settings.orientation is not None:
        turns[0] = np.reshape(settings.orientation, (3, 3))
    cell = _jittered(world.cell, world.group.number, settings.cell_sd, generator)
    crystals = [
        Crystal.from_cell(
            cell,
            turn,
            space_group=world.group.hm,
            space_group_number=world.group.number,
            hall_symbol=world.group.hall,
            to_primitive=world.group.to_primitive,
        )
        for turn in turns
    ]
    blocks = np.array(start.n_abc) * np.exp(settings.block_sd * generator.standard_normal((n, 1)))
    scale = start.G * np.exp(settings.scale_sd * generator.standard_normal()) * np.array(settings.lattice_scales)
    spectrum = _spectrum(settings, world.beam.wavelength_A, generator)
    level = float(np.exp(settings.background.sd * generator.standard_normal()))
    parameters = Parameters.start(
        np.concatenate([cell[:3], np.radians(cell[3:])]),
        n_lattices=n,
        n_abc=blocks,
        n_def=start.n_def,
        eta_deg=start.eta_deg,
        eta_def_deg=start.eta_def_deg,
        G=scale,
        b_factor_A2=start.b_factor_A2,
    )
    model = shared.model
    options = options_for(model, parameters, world.detector, spectrum)
    still = simulate_still(
        parameters,
        world.detector,
        world.beam,
        Spectrum(spectrum.wavelengths_A, spectrum.photons * model.init_scale),
        crystals,
        world.factors,
        options,
        background=world.background * level,
        camera=settings.camera,
        noise=settings.noise,
        d_min=settings.d_min,
        seed=int(generator.integers(2**63)),
        **scene_arguments(world.detector, options, model, np.asarray(world.group.rotations, dtype=np.float64)),
    )
    return still, spectrum, parameters, crystals


def simulate_file(world: World, settings: SimulateSettings, numbers: Sequence[int], folder: Path) -> Iterator[MadeShot]:
    """Make shots and write them to one image file, with the truth of each beside it and inside.

    Args:
        numbers: of the shots.
        folder: of the output; the truth goes into ``truth/``.
    """
    name = f"{settings.prefix}_{numbers[0]:05d}"
    path = (folder / f"{name}.h5").resolve()
    stated = world.stated
    if settings.camera.saturation_adu is not None:
        trusted = stated.trusted_range.copy()
        trusted[:, 1] = np.minimum(trusted[:, 1], settings.camera.saturation_adu - 1.0)
        stated = replace(stated, trusted_range=trusted)
    truth: list[dict[str, Any]] = []
    made = []
    with image_file(path, len(numbers), stated, world.beam) as file:
        for place, number in enumerate(numbers):
            still, spectrum, parameters, crystals = _shot(world, settings, number)
            file.put(place, still.panels(), spectrum)
            described = describe(number, place, path, spectrum, parameters, crystals, settings)
            truth.append(described)
            write_truth(folder / "truth", f"{settings.prefix}_{number:05d}", world.beam, still, described, path)
            made.append(MadeShot(number, path, len(still.strong), float(still.bragg.max())))
        keys = ("real_space_A", "G", "n_abc", "eta_deg")
        arrays: dict[str, Any] = {key: np.array([t[key] for t in truth]) for key in keys}
        file.put_group("truth", {**arrays, "number": np.array(numbers), "seed": settings.seed})
    yield from made


def write_geometry(world: World, folder: Path) -> None:
    """The true geometry, the stated one where it differs, and the background, in files that can be used again."""
    write_experiments([Experiment("", world.beam, world.detector)], folder / "geometry_true.expt")
    if world.stated is not world.detector:
        write_experiments([Experiment("", world.beam, world.stated)], folder / "geometry_stated.expt")
    layout = PanelLayout.of_sizes(world.detector.image_size)
    parts = np.split(world.background.astype(np.float32), layout.offset[1:-1])
    panels = {f"panel_{i:04d}": x.reshape(s, f) for i, (x, (f, s)) in enumerate(zip(parts, layout.size, strict=True))}
    same = len({p.shape for p in panels.values()}) == 1
    arrays = {"background": np.stack(list(panels.values()))} if same else panels
    with atomic_path(folder / "background.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)

"""Settings of simulated stills, and how PHIL states them (scope ``simulate`` and the names that refinement has)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bayesbragg.io.phil import ResolvedParameters
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.from_phil import settings_from_phil
from bayesbragg.pipeline.geometry_settings import GroupSettings
from bayesbragg.pipeline.settings import RefineSettings
from bayesbragg.stills.simulation import Camera

__all__ = ["BackgroundSettings", "GeometryErrors", "SimulateSettings", "simulate_settings"]


@dataclass(frozen=True)
class BackgroundSettings:
    """Photons without Bragg scattering: thicknesses (mm), a ring (photons), a file, and how the level varies."""

    water_mm: float = 0.0
    air_mm: float = 0.0
    ring_photons: float = 0.0
    file: Path | None = None
    sd: float = 0.0


@dataclass(frozen=True)
class GeometryErrors:
    """What the geometry in the files is off by: one shift (mm), and each group's rotations (degree), shifts (mm)."""

    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    group_rotation_sd_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    group_shift_sd_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    groups: GroupSettings = field(default_factory=GroupSettings)

    @property
    def any(self) -> bool:
        return any((*self.shift_mm, *self.group_rotation_sd_deg, *self.group_shift_sd_mm))


@dataclass(frozen=True)
class SimulateSettings:
    """All settings of ``simulate``; see docs/parameters.md for each.

    Attributes:
        shared: structure factors, spectrum, forward model and block sizes, as a refinement has them.
        camera: noise of the detector; None writes expectations.
    """

    shared: RefineSettings
    n_shots: int = 1
    first: int = 0
    images_per_file: int = 1
    prefix: str = "shot"
    experiment: Path | None = None
    unit_cell: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    lattice_scales: tuple[float, ...] = (1.0,)
    cell_sd: float = 0.0
    block_sd: float = 0.0
    scale_sd: float = 0.0
    d_min: float = 2.0
    spectrum: Literal["experiment", "sase", "gaussian", "file"] = "experiment"
    energy_eV: float | None = None
    spike_eV: float = 2.0
    jitter_eV: float = 0.0
    background: BackgroundSettings = field(default_factory=BackgroundSettings)
    camera: Camera = field(default_factory=Camera)
    noise: bool = True
    errors: GeometryErrors = field(default_factory=GeometryErrors)
    seed: int = 0


def simulate_settings(p: ResolvedParameters) -> SimulateSettings:
    """The settings that resolved PHIL parameters mean.

    Raises:
        InputError: values that contradict each other.
    """
    scope = p.simulate
    shared = settings_from_phil(p)
    if scope.spectrum == "file" and shared.spectrum.path is None:
        raise InputError("simulate.spectrum=file needs simulator.spectrum.filename")
    scales = tuple(scope.lattice_scales or (1.0,) * scope.n_lattices)
    if len(scales) != scope.n_lattices:
        raise InputError(
            f"simulate.lattice_scales has {len(scales)} numbers for simulate.n_lattices={scope.n_lattices}; give one "
            "for each lattice"
        )
    if shared.model.psf_fwhm_um is not None:
        raise InputError("simulator.psf.use=True: simulated images have no point-spread function yet; set it to False")
    background, errors = scope.background, scope.errors
    return SimulateSettings(
        shared=shared,
        n_shots=scope.n_shots,
        first=scope.first,
        images_per_file=scope.images_per_file,
        prefix=scope.prefix,
        experiment=p.path(scope.experiment),
        unit_cell=None if scope.unit_cell is None else tuple(scope.unit_cell),
        orientation=None if scope.orientation is None else tuple(scope.orientation),
        lattice_scales=scales,
        cell_sd=scope.cell_sd,
        block_sd=scope.block_sd,
        scale_sd=scope.scale_sd,
        d_min=scope.d_min,
        spectrum=scope.spectrum,
        energy_eV=scope.energy,
        spike_eV=scope.sase.spike,
        jitter_eV=scope.sase.jitter,
        background=BackgroundSettings(
            background.water, background.air, background.ring, p.path(background.file), background.sd
        ),
        camera=Camera(shared.counts.gain, shared.counts.sigma_readout_adu, shared.counts.sigma_gain, scope.saturation),
        noise=scope.noise,
        errors=GeometryErrors(
            tuple(errors.detector_shift),
            tuple(errors.group_rotation_sd),
            tuple(errors.group_shift_sd),
            GroupSettings(p.joint.groups, p.path(p.refiner.panel_group_file), p.joint.hierarchy_level),
        ),
        seed=p.seed,
    )

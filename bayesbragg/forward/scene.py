"""Everything about a shot that a fit does not vary, as arrays ready for the device.

`build_scene` is the one place where detector, beam, spectrum, crystals, boxes and structure factors meet. Its result
is a pytree: shots with equal shapes share one compiled program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bayesbragg.forward.diffuse import DiffuseModel
from bayesbragg.forward.factors import FactorWindows, HeavyAtoms
from bayesbragg.forward.geometry import BoxGeometry, move_boxes, scattering_directions
from bayesbragg.forward.mosaic import MosaicSamples, sample_axes
from bayesbragg.forward.options import Options
from bayesbragg.forward.parameters import CrystalParameters, Parameters, SpectrumParameters
from bayesbragg.forward.psf import PointSpread
from bayesbragg.forward.quick_jit import quick_jit
from bayesbragg.forward.rotations import cell_matrix, misorientation
from bayesbragg.model import Beam, Crystal, Detector, Shot, Spectrum, StructureFactors

__all__ = ["R_E_SQUARED_M2", "PanelGroups", "Scene", "build_scene", "window_holds"]

Array = Any

R_E_SQUARED_M2 = 7.94079248018965e-30
"""Square of the classical electron radius, m^2, as the classic program has it."""

SPREAD_SDS = 4.0
"""Standard deviations of the mosaic spread that a window of structure factors reaches."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BeamArrays:
    """k: unit vector of travel ``(3,)``; polarization_normal ``(3,)``; kahn: Kahn factor, scalar."""

    k: Array
    polarization_normal: Array
    kahn: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Channels:
    """wavelengths_A ``(n_channels,)``; strength: r_e^2 times photons per area and channel count, ``(n_channels,)``."""

    wavelengths_A: Array
    strength: Array

    def inverse(self, correction: SpectrumParameters) -> Array:
        """1/lambda' of every channel, ``(n_channels,)``, 1/angstrom."""
        return 1.0 / (correction.offset_A + correction.scale * self.wavelengths_A)

    def ends(self, correction: SpectrumParameters) -> Array:
        """Least and largest 1/lambda' of the channels that hold photons, ``(2,)``, 1/angstrom."""
        inverse, live = self.inverse(correction), self.strength > 0
        return jnp.stack([jnp.min(jnp.where(live, inverse, jnp.inf)), jnp.max(jnp.where(live, inverse, -jnp.inf))])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Lattices:
    """U: starting orientations ``(n_lattices, 3, 3)``; basis: conventional to primitive indices O, ``(3, 3)``."""

    U: Array
    basis: Array

    def real_space(self, crystal: CrystalParameters) -> Array:
        """M without mosaic rotation, RXYZ U B_real O^T, of every lattice, ``(n_lattices, 3, 3)``, angstrom."""
        U = misorientation(crystal.rot_xyz) @ self.U
        return U @ cell_matrix(crystal.cell) @ self.basis.T


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sensor:
    """thickstep_m: depth of a layer; attenuation_m: attenuation length, 0 for a sensor that is not modelled."""

    thickstep_m: Array
    attenuation_m: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Scene:
    """The fixed part of the forward model; see the classes of its fields for shapes and units."""

    boxes: BoxGeometry
    beam: BeamArrays
    channels: Channels
    lattices: Lattices
    factors: FactorWindows
    mosaic: MosaicSamples
    sensor: Sensor
    diffuse: DiffuseModel
    point_spread: PointSpread


@dataclass(frozen=True)
class PanelGroups:
    """Which panels move together.

    Attributes:
        group: group number of every panel, ``(n_panels,)``, from 0.
        reference_mm: point about which each group turns, ``(n_groups, 3)``, millimetre.
    """

    group: npt.NDArray[np.int64]
    reference_mm: npt.NDArray[np.float64]


def build_scene(
    detector: Detector,
    beam: Beam,
    spectrum: Spectrum,
    crystals: Sequence[Crystal],
    shot: Shot,
    factors: StructureFactors,
    start: Parameters,
    options: Options,
    *,
    beam_size_mm: float = 0.001,
    kahn_factor: float | None = None,
    groups: PanelGroups | None = None,
    mosaic: MosaicSamples | None = None,
    n_mosaic: int = 1,
    mosaic_seed: int = 0,
    heavy_atoms: HeavyAtoms | None = None,
    diffuse: DiffuseModel | None = None,
    thickstep_mm: float = 0.0,
    attenuation_length_mm: float = 0.0,
    kernel: npt.NDArray[np.float64] | None = None,
    margin: int = 1,
) -> Scene:
    """Arrays of one shot for `expected_photons`.

    Args:
        spectrum: photons per channel; the fluence is their sum over the number of channels and ``beam_size_mm``^2.
        crystals: the lattices of the shot; they share symmetry and cell.
        shot: boxes (only their panels and bounds are used here).
        start: parameters around which the structure-factor windows are laid.
        beam_size_mm: side of the beam (PHYSICS 10), millimetre.
        kahn_factor: replaces the beam's own Kahn factor (the classic pipeline uses 1).
        groups: panel groups; by default one group in which each panel turns about its own origin.
        mosaic: sampled spread; drawn from ``n_mosaic`` and ``mosaic_seed`` if not given.
        heavy_atoms: anomalous scatterers (complex structure factors only).
        diffuse: symmetry of diffuse scattering (needed with ``options.diffuse``).
        thickstep_mm, attenuation_length_mm: depth of a sensor layer and attenuation length; 0 turns capture off.
        kernel: point-spread function (needed with ``options.point_spread``), see `bayesbragg.forward.psf`.
        margin: extra reflections on each side of a window.
    """
    boxes = _box_geometry(detector, shot, groups, options)
    strength = R_E_SQUARED_M2 * spectrum.photons / (spectrum.n_channels * (beam_size_mm * 1e-3) ** 2)
    channels = Channels(spectrum.wavelengths_A, strength)
    lattices = Lattices(np.stack([c.U for c in crystals]), crystals[0].to_primitive)
    low, high = _index_range(start, boxes, beam.direction, channels, lattices)
    if mosaic is None:
        axes, cdf = sample_axes(n_mosaic, mosaic_seed) if options.spread != "none" else (np.zeros((1, 3)), np.zeros(1))
        cell_vectors = crystals[0].real_space_A
        mosaic = MosaicSamples(axes, cdf, cell_vectors / np.linalg.norm(cell_vectors, axis=1, keepdims=True))
    return Scene(
        boxes=boxes,
        beam=BeamArrays(
            beam.direction,
            beam.polarization_normal,
            np.asarray(beam.kahn_factor if kahn_factor is None else kahn_factor),
        ),
        channels=channels,
        lattices=lattices,
        factors=_windows(factors, np.asarray(low), np.asarray(high), margin, options, heavy_atoms),
        mosaic=mosaic,
        sensor=Sensor(np.asarray(thickstep_mm * 1e-3), np.asarray(attenuation_length_mm * 1e-3)),
        diffuse=diffuse if diffuse is not None else DiffuseModel(np.eye(3)[None]),
        point_spread=_point_spread(shot, kernel if options.point_spread else None),
    )


def window_holds(parameters: Parameters, scene: Scene) -> bool:
    """Whether every pixel's nearest reflection lies inside its box's window at these parameters."""
    low, high = _index_range(parameters, scene.boxes, scene.beam.k, scene.channels, scene.lattices)
    first = np.asarray(scene.factors.low)
    last = first + np.asarray(scene.factors.extent) - 1
    return bool(np.all(np.ceil(low - 0.5) >= first) and np.all(np.ceil(high - 0.5) <= last))


def _box_geometry(detector: Detector, shot: Shot, groups: PanelGroups | None, options: Options) -> BoxGeometry:
    panel = shot.panel
    origin = detector.origin_mm[panel]
    dtype = np.dtype(options.precision)
    centre = np.stack([shot.bounds[:, :2].mean(axis=1), shot.bounds[:, 2:].mean(axis=1)], axis=-1)
    return BoxGeometry(
        origin_m=origin * 1e-3,
        fast=detector.fast[panel],
        slow=detector.slow[panel],
        normal=detector.normal[panel],
        normal_sign=np.asarray(detector.normal_sign),
        pixel_m=detector.pixel_size_mm[panel] * 1e-3,
        group=np.zeros(len(panel), dtype=np.int64) if groups is None else groups.group[panel],
        reference_m=(origin if groups is None else groups.reference_mm[groups.group[panel]]) * 1e-3,
        centre_px=centre,
        fast_px=(shot.fast - centre[:, :1]).astype(dtype),
        slow_px=(shot.slow - centre[:, 1:]).astype(dtype),
    )


def _point_spread(shot: Shot, kernel: npt.NDArray[np.float64] | None) -> PointSpread:
    if kernel is None:
        return PointSpread(np.zeros((0, 0)), np.zeros((0, 0, 0)), np.zeros((0, 0)))
    valid = shot.valid.reshape(shot.n_boxes, *shot.shape).astype(np.float64)
    return PointSpread(kernel, valid, shot.background)


@quick_jit()
def _index_range(
    parameters: Parameters, boxes: BoxGeometry, k: Array, channels: Channels, lattices: Lattices
) -> tuple[Array, Array]:
    """Smallest and largest fractional index of each box and lattice, each ``(n_lattices, n_boxes, 3)``.

    A mosaic rotation w adds w . (q x a) to the index along a: nothing where q lies along a, most where it lies across.
    """
    s = scattering_directions(boxes, move_boxes(boxes, parameters.panels), k)
    ends = channels.ends(parameters.spectrum)
    M = lattices.real_space(parameters.crystal)
    slope = jnp.einsum("lji,bpj->lbpi", M, s)
    h = slope[..., None] * ends
    product = jnp.sum(s * s, axis=-1)[None, :, :, None] * jnp.sum(M * M, axis=1)[:, None, None, :]
    lever = jnp.sqrt(jnp.max(jnp.maximum(product - slope * slope, 0.0), axis=2)) * ends[1]
    reach = SPREAD_SDS * jnp.radians(parameters.mosaic.largest_spread_deg()) * lever
    return jnp.min(h, axis=(2, 4)) - reach, jnp.max(h, axis=(2, 4)) + reach


def _windows(
    factors: StructureFactors,
    low: npt.NDArray[np.float64],
    high: npt.NDArray[np.float64],
    margin: int,
    options: Options,
    heavy_atoms: HeavyAtoms | None,
) -> FactorWindows:
    """Look up the window of every box; extents are rounded up to even numbers so that shots share compilations."""
    pad = margin + options.diffuse_stencil
    first = np.ceil(low - 0.5).astype(np.int64) - pad
    last = np.ceil(high - 0.5).astype(np.int64) + pad
    extent = (last - first + 1).max(axis=(0, 1))
    extent += extent % 2
    steps = np.stack(np.meshgrid(*(np.arange(n) for n in extent), indexing="ij"), axis=-1).reshape(-1, 3)
    hkl = first[..., None, :] + steps
    values: npt.NDArray[Any] = factors.lookup(hkl)
    # Windows of up to 6 x 6 x 6 reflections have one length, larger ones a power of two: few compiled shapes.
    length = 216 if hkl.shape[2] <= 216 else 1 << (hkl.shape[2] - 1).bit_length()
    values = np.pad(values, ((0, 0), (0, 0), (0, length - hkl.shape[2])))
    empty = np.zeros(0)
    inside = empty
    if options.diffuse:
        stencil = options.diffuse_stencil
        inside = np.asarray(factors.inside(hkl - stencil) & factors.inside(hkl + stencil), dtype=np.float64)
        inside = np.pad(inside, ((0, 0), (0, 0), (0, length - hkl.shape[2])))
    if options.complex_factors:
        real, imag = np.real(values), np.imag(values)
        heavy_atoms = heavy_atoms or HeavyAtoms(np.zeros((0, 5)), empty, empty)
    else:
        real, imag = np.abs(values), empty
        heavy_atoms = HeavyAtoms(np.zeros((0, 5)), empty, empty)
    return FactorWindows(first, extent, np.asarray(real), imag, inside, heavy_atoms)

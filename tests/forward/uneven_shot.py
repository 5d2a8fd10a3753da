"""A shot of two crystals on tilted panels, every number different, and its photons by PHYSICS 1 in plain numpy."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from bayesbragg.forward import Options, Parameters, Scene, build_scene
from bayesbragg.forward.diffuse import DiffuseModel
from bayesbragg.forward.factors import HeavyAtoms
from bayesbragg.forward.mosaic import MosaicSamples
from bayesbragg.forward.scene import PanelGroups
from bayesbragg.model import Beam, Crystal, Detector, Shot, Spectrum, StructureFactors

FloatArray = npt.NDArray[np.float64]

CELL_DEG = np.array([21.0, 27.0, 33.0, 83.0, 96.0, 107.0])
CELL = np.concatenate([CELL_DEG[:3], np.radians(CELL_DEG[3:])])
O_BASIS = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
TURNS = Rotation.from_rotvec([[0.3, 0.4, -0.2], [1.1, -0.6, 0.5]]).as_matrix()
SPECTRUM = Spectrum(np.array([1.2, 1.25, 1.29, 1.6]), np.array([1e12, 3e12, 0.7e12, 0.0]))
BEAM = Beam(np.array([0.03, -0.02, 1.0]), 1.25, np.array([0.1, 1.0, 0.2]), 0.8)
BEAM_MM, THICKSTEP_MM, ATTENUATION_MM = 0.02, 0.15, 0.4
GROUPS = PanelGroups(np.array([1, 0]), np.array([[3.0, -5.0, 95.0], [20.0, 10.0, 105.0]]))
LAUE = Rotation.from_rotvec([[0.1, 0.2, 0.3], [0.5, -0.4, 0.2]]).as_matrix()
ATOMS = HeavyAtoms(
    np.array([[0.13, 0.27, 0.41, 9.0, 0.8], [0.61, 0.05, 0.77, 14.0, 0.5]]),
    np.array([-90.0, -60.0, -30.0, 0.0]), np.array([40.0, 80.0, 120.0, 10.0]),
)  # fmt: skip
KERNEL = np.random.default_rng(9).uniform(0.1, 1.0, (3, 3)) / 9.0


def uneven_detector() -> Detector:
    frames = Rotation.from_rotvec([[0.1, -0.2, 0.3], [-0.15, 0.1, -0.2]]).as_matrix()
    return Detector(
        origin_mm=np.array([[10.0, -20.0, 100.0], [-30.0, 15.0, 104.0]]),
        fast=frames[:, :, 0],
        slow=-frames[:, :, 1],
        pixel_size_mm=np.array([[0.3, 0.35], [0.4, 0.32]]),
        image_size=np.full((2, 2), 60),
        trusted_range=np.tile([-1e9, 1e9], (2, 1)),
        thickness_mm=np.zeros(2),
        attenuation_per_mm=np.zeros(2),
        gain=np.ones(2),
        names=("0", "1"),
    )


def uneven_blocks() -> Shot:
    """Three boxes of 3 x 4 pixels; the last one has only 2 x 3."""
    bounds = np.array([[5, 9, 40, 43], [30, 34, 7, 10], [50, 53, 20, 22]])
    background = np.random.default_rng(6).uniform(1.0, 3.0, (3, 12))
    return Shot(
        panel=np.array([1, 0, 1]),
        bounds=bounds,
        shape=(3, 4),
        counts=np.zeros((3, 12)),
        background=background,
        trusted=np.zeros((3, 12), bool),
        readout_sd=np.asarray(0.0),
        miller_index=np.zeros((3, 3), int),
        reflection_row=np.arange(3),
        lattice=np.zeros(3, int),
        tilt=np.zeros((3, 3)),
    )


def uneven_factors(*, is_complex: bool) -> StructureFactors:
    """A box of indices, some of them not listed, that ends within the shot; values from 20 to 90."""
    generator = np.random.default_rng(7)
    every = np.array(list(itertools.product(range(-12, 13), range(-15, 16), range(-16, 7))))
    hkl = every[generator.uniform(size=len(every)) < 0.8]
    F: Any = generator.uniform(20.0, 90.0, len(hkl))
    if is_complex:
        F = F * np.exp(2j * np.pi * generator.uniform(size=len(hkl)))
    return StructureFactors(hkl, F, 35.0, every.min(axis=0), every.max(axis=0))


def uneven_parameters(**changes: Any) -> Parameters:
    """Blocks of two cells or so: every pixel sees every channel, sample and lattice."""
    values: dict[str, Any] = {
        "n_lattices": 2,
        "rot_xyz": np.array([[0.02, -0.03, 0.01], [-0.01, 0.02, 0.04]]),
        "n_abc": np.array([[2.1, 1.7, 2.4], [1.5, 2.2, 1.9]]),
        "n_def": np.array([[0.3, -0.2, 0.1], [-0.1, 0.25, 0.35]]),
        "eta_deg": np.array([1.0, 2.0, 3.0]),
        "eta_def_deg": 0.0,
        "G": np.array([700.0, 400.0]),
        "b_factor_A2": 11.0,
        "lambda_offset_A": 0.02,
        "lambda_scale": 0.97,
        "n_groups": 2,
        "panel_rotation_rad": np.array([[0.01, -0.02, 0.03], [-0.02, 0.01, 0.04]]),
        "panel_translation_m": np.array([[1e-3, 2e-3, -1e-3], [-2e-3, 1e-3, 3e-3]]),
        "detz_m": 1e-3,
        "gamma_A": np.array([12.0, 20.0, 31.0]),
        "sigma_A": np.array([0.3, 0.5, 0.4]),
    }
    return Parameters.start(CELL, **(values | changes))


def uneven_mosaic() -> MosaicSamples:
    generator = np.random.default_rng(8)
    axes = generator.standard_normal((2, 3))
    vectors = Crystal.from_cell(CELL_DEG, TURNS[0]).real_space_A
    return MosaicSamples(
        axes / np.linalg.norm(axes, axis=1, keepdims=True), np.array([0.3, 0.8]),
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
    )  # fmt: skip


def uneven_scene(options: Options, parameters: Parameters | None = None, **changes: Any) -> Scene:
    words: dict[str, Any] = {
        "beam_size_mm": BEAM_MM,
        "groups": GROUPS,
        "mosaic": uneven_mosaic(),
        "heavy_atoms": ATOMS if options.complex_factors else None,
        "diffuse": DiffuseModel(LAUE),
        "thickstep_mm": THICKSTEP_MM,
        "attenuation_length_mm": ATTENUATION_MM,
        "kernel": KERNEL,
        "margin": 1,
    }
    return build_scene(
        uneven_detector(),
        BEAM,
        SPECTRUM,
        [Crystal.from_cell(CELL_DEG, U, to_primitive=O_BASIS) for U in TURNS],
        uneven_blocks(),
        uneven_factors(is_complex=options.complex_factors),
        uneven_parameters() if parameters is None else parameters,
        options,
        **(words | changes),
    )


def moved_panel(p: Parameters, panel: int) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Origin (metre), fast, slow and normal of a panel after its motions (PHYSICS 1.1)."""
    d, g = uneven_detector(), GROUPS.group[panel]
    axes = (d.normal[panel], d.fast[panel], d.slow[panel])
    angles = np.asarray(p.panels.rotation_rad)[g]
    r1, r2, r3 = (Rotation.from_rotvec(a * v).as_matrix() for a, v in zip(angles, axes, strict=True))
    R = r1 @ r2 @ r3
    c = GROUPS.reference_mm[g] / 1000.0
    shift = np.asarray(p.panels.translation_m)[g] + [0.0, 0.0, float(p.panels.detz_m)]
    F, S = R @ axes[1], R @ axes[2]
    return c + R @ (d.origin_mm[panel] / 1000.0 - c) + shift, F, S, d.normal_sign * np.cross(F, S)


def positions(p: Parameters, f: float, s: float, depth: float) -> FloatArray:
    """Of a point of every pixel, ``(3, 12, 3)``, metre."""
    shot, d = uneven_blocks(), uneven_detector()
    result = np.zeros((3, 12, 3))
    for b, panel in enumerate(shot.panel):
        o, F, S, N = moved_panel(p, panel)
        px, py = d.pixel_size_mm[panel] / 1000.0
        column, row = shot.bounds[b, 0] + np.tile(np.arange(4), 3), shot.bounds[b, 2] + np.repeat(np.arange(3), 4)
        result[b] = o + ((column + f) * px)[:, None] * F + ((row + s) * py)[:, None] * S + depth * N
    return result


def planes(p: Parameters) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Normal, distance and pixel area of every box."""
    panel = uneven_blocks().panel
    moved = [moved_panel(p, i) for i in panel]
    normal = np.stack([m[3] for m in moved])
    distance = np.array([m[0] @ m[3] for m in moved])
    return normal, distance, np.prod(uneven_detector().pixel_size_mm[panel], axis=1) * 1e-6


def lattice_vectors(p: Parameters, lattice: int) -> FloatArray:
    """M = RXYZ U B_real O^T (PHYSICS 1.2)."""
    a, b, c, al, be, ga = np.asarray(p.crystal.cell)
    z = np.sqrt(1 - np.cos(al) ** 2 - np.cos(be) ** 2 - np.cos(ga) ** 2 + 2 * np.cos(al) * np.cos(be) * np.cos(ga))
    y = (np.cos(al) - np.cos(be) * np.cos(ga)) / np.sin(ga)
    B = np.array([[a, b * np.cos(ga), c * np.cos(be)], [0, b * np.sin(ga), c * y], [0, 0, c * z / np.sin(ga)]])
    x, y, z = -np.asarray(p.crystal.rot_xyz)[lattice]
    turn = Rotation.from_euler("XYZ", [x, y, z]).as_matrix()
    return np.asarray(turn @ TURNS[lattice] @ B @ O_BASIS.T)


def numpy_photons(
    p: Parameters, options: Options, umats: FloatArray, attenuation_mm: float, atoms: HeavyAtoms = ATOMS
) -> FloatArray:
    """PHYSICS 1.8 without the point spread: one term after the other, ``(3, 12)``."""
    n, layers = options.oversample, options.sensor_layers
    factors = uneven_factors(is_complex=options.complex_factors)
    k = BEAM.direction
    normal, distance, area = planes(p)
    wavelengths = float(p.spectrum.offset_A) + float(p.spectrum.scale) * SPECTRUM.wavelengths_A
    r_e_squared, flux = 7.94079248018965e-30, SPECTRUM.photons
    fluence = flux.sum() / 4 / (BEAM_MM / 1000.0) ** 2
    weight = flux / flux.mean()
    total = np.zeros((3, 12))
    for i, j, t in itertools.product(range(n), range(n), range(layers)):
        point = positions(p, (i + 0.5) / n, (j + 0.5) / n, t * THICKSTEP_MM / 1000.0)
        r = np.linalg.norm(point, axis=-1)
        u = point / r[..., None]
        share = np.ones((3, 12))
        if layers > 1 and attenuation_mm > 0:
            path = THICKSTEP_MM / attenuation_mm / np.einsum("bpi,bi->bp", u, normal)
            share = np.exp(-t * path) - np.exp(-(t + 1) * path)
        if options.oversample_omega:
            share = share * (area * distance)[:, None] / r**3
        for lattice, (wavelength, w), W in itertools.product(range(2), zip(wavelengths, weight, strict=True), umats):
            q = (u - k) / wavelength
            amount = w * share * float(p.scale.G[lattice])
            channel = list(wavelengths).index(wavelength)
            total += amount * _one_term(p, options, factors, lattice, W, q, channel, atoms)
    centre = positions(p, 0.5, 0.5, 0.0)
    r = np.linalg.norm(centre, axis=-1)
    u = centre / r[..., None]
    if not options.oversample_omega:
        total *= (area * distance)[:, None] / r**3
    if options.polarization:
        e = np.cross(k, BEAM.polarization_normal)
        e /= np.linalg.norm(e)
        across = np.cross(e, k)
        psi = -np.arctan2(u @ across, u @ np.cross(k, across))
        c2 = (u @ k) ** 2
        total *= 0.5 * (1 + c2 - 0.6 * np.cos(2 * psi) * (1 - c2))
    return np.asarray(total * r_e_squared * fluence / (n * n * layers * 4 * len(umats)))


def _one_term(
    p: Parameters,
    options: Options,
    factors: StructureFactors,
    lattice: int,
    W: FloatArray,
    q: FloatArray,
    channel: int,
    atoms: HeavyAtoms,
) -> FloatArray:
    """(F_latt^2 + I_diffuse) |F|^2, with the Debye-Waller factor."""
    (a, b, c), (d, e, f) = np.asarray(p.mosaic.n_abc)[lattice], np.asarray(p.mosaic.n_def)[lattice]
    N = np.array([[a, d, f], [d, b, e], [f, e, c]])
    h = q @ (W @ lattice_vectors(p, lattice))
    h0 = np.ceil(h - 0.5)
    V = (h - h0) @ N.T
    squared = np.exp(-2 * np.sum(V * V, axis=-1) / 0.63) * (np.linalg.det(N) ** 2 if options.block_scale else 1.0)
    q2 = np.sum(q * q, axis=-1)
    F: Any = factors.lookup(h0.astype(int))
    if options.complex_factors:
        for x, y, z, B, occupancy in atoms.sites:
            phase = np.exp(2j * np.pi * (h0 @ [x, y, z]))
            F = F + occupancy * np.exp(-B * q2 / 4) * phase * (atoms.fprime[channel] + 1j * atoms.fdoubleprime[channel])
    if options.diffuse:
        squared = squared + _halo(p, options, factors, lattice, h, h0)
    return np.asarray(squared * np.abs(F) ** 2 * np.exp(-float(p.scale.b_factor_A2) * q2 / 2 * options.b_factor))


def _halo(
    p: Parameters, options: Options, factors: StructureFactors, lattice: int, h: FloatArray, h0: FloatArray
) -> FloatArray:
    """PHYSICS 1.10."""
    n = options.diffuse_stencil
    gamma, sigma = np.asarray(p.diffuse.gamma_A), np.asarray(p.diffuse.sigma_A)
    turn = Rotation.from_euler("XYZ", -np.asarray(p.crystal.rot_xyz)[lattice]).as_matrix()
    A = np.linalg.inv(turn.T @ lattice_vectors(p, lattice)).T  # U B_recip O^-1: neither RXYZ nor mosaic rotation
    low, high = np.asarray(factors.table_min), np.asarray(factors.table_max)
    inside = np.all((h0 - n >= low) & (h0 + n <= high), axis=-1)
    F0 = np.asarray(factors.lookup(h0.astype(int)))
    total = np.zeros(h.shape[:-1])
    for D in itertools.product(range(-n, n + 1), repeat=3):
        ratio = np.where(F0 > 0, factors.lookup((h0 + D).astype(int)) / np.where(F0 > 0, F0, 1.0), 1.0) ** 2
        for L in LAUE:
            x = 4 * np.pi**2 * np.sum((sigma * (h0 @ (A @ L).T)) ** 2, axis=-1)
            r = gamma * ((h - h0 - D) @ (A @ L).T)
            total += ratio * x * np.exp(-x) / (1 + 4 * np.pi**2 * np.sum(r * r, axis=-1)) ** 2
    return np.asarray(inside * total * 8 * np.pi * np.prod(gamma) / (2 * (2 * n + 1) ** 3))

"""A scene without any symmetry, and what one reflection is to one scattering vector, written anew in numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from bayesbragg.forward import Options, Parameters, Scene
from bayesbragg.forward.diffuse import DiffuseModel
from bayesbragg.forward.factors import FactorWindows, HeavyAtoms
from bayesbragg.forward.geometry import BoxGeometry, move_boxes
from bayesbragg.forward.mosaic import MosaicSamples
from bayesbragg.forward.psf import PointSpread
from bayesbragg.forward.scene import BeamArrays, Channels, Lattices, Sensor
from bayesbragg.model.crystal import cell_matrix

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

CELL = np.array([31.0, 37.0, 43.0, *np.radians([83.0, 96.0, 107.0])])
N_ABC, N_DEF = np.array([[7.0, 9.0, 8.0], [9.0, 6.5, 7.5]]), np.array([[0.8, -0.5, 0.3], [-0.4, 0.6, 0.7]])
ETA, ETA_DEF = np.array([0.5, 0.3, 0.8]), np.array([0.2, -0.3, 0.1])
WAVELENGTHS = np.array([1.312, 1.25, 1.29, 1.335, 1.30, 1.41])
STRENGTH = 1e-6 * np.array([1.0, 0.0, 3.0, 0.7, 2.0, 0.0])
OFFSET, SCALE = 0.03, 0.985
HKL = np.array([[8, 9, 4], [-7, -3, 9], [6, 7, 4], [5, -8, -7], [-3, -2, 7]])
LATTICE = np.array([0, 1, 0, 1, 1])
"""Whose reflection is in the middle of each box, and which."""
SIDE = (5, 4)
B_FACTOR = 11.0


def skew_parameters(**changes: Any) -> Parameters:
    """Two lattices of a triclinic cell, turned; blocks, spread and corrections of the wavelengths all uneven."""
    generator = np.random.default_rng(5)
    values: dict[str, Any] = {
        "n_lattices": 2,
        "rot_xyz": np.array([[0.02, -0.03, 0.01], [-0.01, 0.02, 0.04]]),
        "n_abc": N_ABC,
        "n_def": N_DEF,
        "eta_deg": ETA,
        "eta_def_deg": ETA_DEF,
        "G": np.array([700.0, 400.0]),
        "b_factor_A2": B_FACTOR,
        "lambda_offset_A": OFFSET,
        "lambda_scale": SCALE,
        "n_groups": 2,
        "panel_rotation_rad": 1e-3 * generator.standard_normal((2, 3)),
        "panel_translation_m": 1e-5 * generator.standard_normal((2, 3)),
        "detz_m": 2e-5,
    }
    return Parameters.start(CELL, **(values | changes))


def real_vectors(parameters: Parameters, scene: Scene) -> FloatArray:
    """M = RXYZ U B_real O^T of every lattice; columns are a, b, c in the laboratory."""
    cell = np.asarray(parameters.crystal.cell)
    B = cell_matrix(np.concatenate([cell[:3], np.degrees(cell[3:])]))
    turns = Rotation.from_euler("XYZ", -np.asarray(parameters.crystal.rot_xyz)).as_matrix()
    return np.asarray(turns @ scene.lattices.U @ B @ np.asarray(scene.lattices.basis).T)


def corrected_k(parameters: Parameters, scene: Scene) -> FloatArray:
    """1/lambda' of every channel."""
    wavelengths = np.asarray(scene.channels.wavelengths_A)
    return np.asarray(1.0 / (float(parameters.spectrum.offset_A) + float(parameters.spectrum.scale) * wavelengths))


def spectrum_ends(parameters: Parameters, scene: Scene) -> tuple[float, float]:
    """Least and largest 1/lambda' of the channels that have photons."""
    k = corrected_k(parameters, scene)[np.asarray(scene.channels.strength) > 0]
    return float(k.min()), float(k.max())


def rays(parameters: Parameters, scene: Scene) -> FloatArray:
    """u - k of every pixel's centre, ``(n_boxes, n_pixels, 3)``."""
    moved, boxes = move_boxes(scene.boxes, parameters.panels), scene.boxes
    f, s = np.asarray(boxes.fast_px, float) + 0.5, np.asarray(boxes.slow_px, float) + 0.5
    p = f[..., None] * np.asarray(moved.fast_m)[:, None] + s[..., None] * np.asarray(moved.slow_m)[:, None]
    p = p + np.asarray(moved.position_m)[:, None]
    return np.asarray(p / np.linalg.norm(p, axis=-1, keepdims=True) - scene.beam.k)


def skew_scene(parameters: Parameters | None = None, *, pixel_mm: float = 1.0, **channels: Any) -> Scene:
    """Boxes on tilted panels, each with a reflection of one of two lattices in its middle.

    Args:
        pixel_mm: about the size of pixels, which are not square.
        channels: wavelengths and strength, if not those of this module.
    """
    parameters = skew_parameters() if parameters is None else parameters
    generator = np.random.default_rng(2)
    n_boxes = len(HKL)
    k_in = np.array([0.03, -0.02, 1.0])
    k_in /= np.linalg.norm(k_in)
    polarization = np.array([0.1, 0.9, 0.2])  # not quite across the beam
    orientations = Rotation.from_rotvec([[0.3, 0.4, -0.2], [1.1, -0.6, 0.5]]).as_matrix()
    lattices = Lattices(orientations, np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]))
    middle = 1.0 / (OFFSET + SCALE * 1.305)
    cell = np.concatenate([CELL[:3], np.degrees(CELL[3:])])
    turns = Rotation.from_euler("XYZ", -np.asarray(parameters.crystal.rot_xyz)).as_matrix()
    tilts = Rotation.from_rotvec(0.15 * generator.standard_normal((n_boxes, 3))).as_matrix()
    centre = generator.uniform(100.0, 500.0, (n_boxes, 2))
    pixel = pixel_mm * np.array([0.9e-3, 1.1e-3]) * generator.uniform(0.9, 1.1, (n_boxes, 1))
    origin, fast, slow, where = (np.zeros((n_boxes, 3)) for _ in range(4))
    for box, (hkl, lattice) in enumerate(zip(HKL, LATTICE, strict=True)):
        # The reflection diffracts where |k_in k + q| = k, within the spectrum.
        M = turns[lattice] @ orientations[lattice] @ cell_matrix(cell) @ lattices.basis.T
        q = np.linalg.inv(M).T @ hkl
        where[box] = 0.11 * (k_in - 2.0 * (q @ k_in) / (q @ q) * q)
        fast[box], slow[box] = tilts[box] @ [1.0, 0.0, 0.0], tilts[box] @ [0.0, -1.0, 0.0]
        origin[box] = (
            where[box] - centre[box, 0] * pixel[box, 0] * fast[box] - centre[box, 1] * pixel[box, 1] * slow[box]
        )
    f, s = (a.ravel() for a in np.meshgrid(np.arange(SIDE[0]) - 2.0, np.arange(SIDE[1]) - 1.5))
    normal = np.cross(fast, slow)
    sign = float(np.sign(np.sum(normal[0] * origin[0])))
    boxes = BoxGeometry(
        origin_m=origin,
        fast=fast,
        slow=slow,
        normal=sign * normal,
        normal_sign=np.asarray(sign),
        pixel_m=pixel,
        group=np.arange(n_boxes) % 2,
        reference_m=origin + 1e-3 * generator.standard_normal((n_boxes, 3)),
        centre_px=centre,
        fast_px=np.tile(f, (n_boxes, 1)) + generator.uniform(-0.2, 0.2, (n_boxes, 1)),
        slow_px=np.tile(s, (n_boxes, 1)) + generator.uniform(-0.2, 0.2, (n_boxes, 1)),
    )
    empty = np.zeros(0)
    atoms = HeavyAtoms(np.zeros((0, 5)), empty, empty)
    directions = (turns[0] @ orientations[0] @ cell_matrix(cell)).T
    scene = Scene(
        boxes=boxes,
        beam=BeamArrays(k_in, polarization / np.linalg.norm(polarization), np.asarray(0.9)),
        channels=Channels(
            channels.get("wavelengths", WAVELENGTHS).copy(), np.asarray(channels.get("strength", STRENGTH)).copy()
        ),
        lattices=lattices,
        factors=FactorWindows(np.zeros((2, n_boxes, 3), int), np.zeros(3, int), empty, empty, empty, atoms),
        mosaic=MosaicSamples(np.zeros((1, 3)), np.zeros(1), directions / np.linalg.norm(directions, axis=1)[:, None]),
        sensor=Sensor(np.asarray(0.0), np.asarray(0.0)),
        diffuse=DiffuseModel(np.eye(3)[None]),
        point_spread=PointSpread(np.zeros((0, 0)), np.zeros((0, 0, 0)), np.zeros((0, 0))),
    )
    h = np.einsum("lji,bj->lbi", real_vectors(parameters, scene), rays(parameters, scene).mean(axis=1)) * middle
    extent = np.array([6, 4, 5])
    low = np.rint(h).astype(np.int64) - np.array([3, 2, 2])
    real = generator.uniform(20.0, 400.0, (2, n_boxes, 128))
    factors = FactorWindows(low, extent, real, empty, empty, atoms)
    return Scene(**{**{name: getattr(scene, name) for name in scene.__dataclass_fields__}, "factors": factors})


def block_of(parameters: Parameters, lattice: int) -> FloatArray:
    """N of one lattice."""
    a, b, c = np.asarray(parameters.mosaic.n_abc)[lattice]
    d, e, f = np.asarray(parameters.mosaic.n_def)[lattice]
    return np.array([[a, d, f], [d, b, e], [f, e, c]])


def turning(parameters: Parameters, scene: Scene, options: Options) -> FloatArray:
    """Covariance of the rotation vector of the Gaussian spreads, radian^2."""
    eta = np.radians(np.asarray(parameters.mosaic.eta_deg))
    axes = np.asarray(scene.mosaic.cell_directions)
    if options.spread == "none":
        return np.zeros((3, 3))
    if options.spread == "gaussian_isotropic":
        return np.asarray(eta[0] ** 2 * np.eye(3))
    if options.spread == "gaussian_anisotropic":
        return np.asarray(sum(eta[i] ** 2 * np.outer(axes[i], axes[i]) for i in range(3)))
    assert options.spread == "gaussian_general"
    d, e, f = np.radians(np.asarray(parameters.mosaic.eta_def_deg))
    root = np.array([[eta[0], 0.0, 0.0], [d, eta[1], 0.0], [f, e, eta[2]]])
    star = np.cross(axes[0], axes[1])
    star /= np.linalg.norm(star)
    own = np.stack([axes[0], np.cross(star, axes[0]), star])
    return np.asarray(own.T @ root @ root.T @ own)


@dataclass(frozen=True)
class Spot:
    """One Gaussian about a reflection: exponent = w.C^-1.w / 2 + B |q|^2 / 2, w from q by `displacement`."""

    n: FloatArray
    length: float
    share: float
    C: FloatArray
    narrow: FloatArray
    """Covariance without rotations."""
    b_factor: float

    def exponent(self, q: FloatArray) -> FloatArray:
        along = q @ self.n
        norm = np.linalg.norm(q, axis=-1)
        w = q + (self.share * (norm - along) - self.length)[..., None] * self.n
        quadratic = np.einsum("...i,ij,...j->...", w, np.linalg.inv(self.C), w)
        return np.asarray(0.5 * quadratic + 0.5 * self.b_factor * norm**2)

    def parabola(self, s: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """p, k* and m of exponent(k s) = p (k - k*)^2 + m, from three k."""
        k0, h = 0.77, 0.05
        low, mid, high = (self.exponent(k * s) for k in (k0 - h, k0, k0 + h))
        p = (high + low - 2.0 * mid) / (2.0 * h * h)
        k = k0 - (high - low) / (4.0 * h * p)
        return p, k, mid - p * (k0 - k) ** 2

    @property
    def across(self) -> float:
        """Mean variance across q0 without rotations."""
        return 0.5 * float(np.trace(self.narrow) - self.n @ self.narrow @ self.n)


def spot(
    parameters: Parameters,
    scene: Scene,
    options: Options,
    lattice: int,
    hkl: npt.ArrayLike,
    *,
    angle: float = 0.0,
    relative: float = 0.0,
    blur: FloatArray | None = None,
    rotations: FloatArray | None = None,
) -> Spot:
    """The Gaussian of a reflection whose block turns with the covariance ``rotations``."""
    M = real_vectors(parameters, scene)[lattice]
    N = block_of(parameters, lattice)
    star = np.linalg.inv(M).T
    q0 = star @ np.asarray(hkl, float)
    length = float(np.linalg.norm(q0))
    n = q0 / length
    narrow = star @ np.linalg.inv(4.0 / 0.63 * N.T @ N) @ star.T
    narrow = narrow + (0.0 if blur is None else blur)
    along = np.outer(n, n)
    narrow = narrow + length**2 * (relative**2 * along + angle**2 * (np.eye(3) - along))
    S = turning(parameters, scene, options) if rotations is None else rotations
    X = np.array([[0.0, q0[2], -q0[1]], [-q0[2], 0.0, q0[0]], [q0[1], -q0[0], 0.0]])  # X w = w x q0
    turned = X @ S @ X.T
    own = 0.5 * float(np.trace(narrow) - n @ narrow @ n)
    share = 0.5 * float(np.trace(turned)) / (0.5 * float(np.trace(turned)) + own)
    b = float(parameters.scale.b_factor_A2) if options.b_factor else 0.0
    return Spot(n, length + share * own / length, 1.0 - (1.0 - share) ** 2, narrow + turned, narrow, b)

"""Closed forms of everything that widens a spot, each against a sum or an integral that knows nothing of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from forward.closed_cases import small_scene

from bayesbragg.forward import Parameters, Scene, expected_photons
from bayesbragg.forward.approximation import approximation_error
from bayesbragg.forward.beam_spread import BeamSpread, beam_axes, blur_covariance
from bayesbragg.forward.candidates import closed_holds, prepare_closed
from bayesbragg.forward.closed import closed_photons

FloatArray = npt.NDArray[np.float64]


def _difference(ours: Any, reference: Any) -> float:
    return float(np.abs(np.asarray(ours) - np.asarray(reference)).max() / np.asarray(reference).max())


def test_fewer_subpixels_where_spots_are_wide() -> None:
    """Six by six subpixels; the closed form sums fewer and blurs in the rest. Both precisions, one table."""
    parameters, scene, options = small_scene(oversample=6, blocks=9.0, bandwidth=0.01)
    exact = expected_photons(parameters, scene, options)
    closed = prepare_closed(parameters, scene, options)
    assert 1 <= closed.subpixels < 6
    assert closed.table is not None
    ours = closed_photons(parameters, closed, options)
    assert _difference(ours, exact) < 1e-3
    assert closed_holds(parameters, closed, options)
    _, scene, single = small_scene(oversample=6, blocks=9.0, bandwidth=0.01, precision="float32")
    closed_single = prepare_closed(parameters, scene, single)
    assert _difference(closed_photons(parameters, closed_single, single), ours) < 2e-5
    error = approximation_error(parameters, closed, options, 1e6)
    assert error.small
    assert error.of_peak == pytest.approx(_difference(ours, exact), rel=1e-6)


@pytest.mark.parametrize(("eta_deg", "block"), [(0.02, 13.0), (0.5, 100.0)])
def test_as_many_nodes_as_the_spread_needs(eta_deg: float, block: float) -> None:
    blocks = block * np.array([1.0, 1.0, 2.0])
    parameters, scene, options = small_scene(spread="isotropic", eta_deg=eta_deg, blocks=blocks, n_boxes=4)
    closed = prepare_closed(parameters, scene, options)
    ours = closed_photons(parameters, closed, options)
    finer = replace(options, mosaic_nodes=40)
    reference = closed_photons(parameters, prepare_closed(parameters, scene, finer, merge=False), finer)
    assert _difference(ours, reference) < 1e-3
    assert len(closed.rule) in ((2, 3) if eta_deg < 0.1 else (10, 12, 16))
    coarse = replace(options, mosaic_nodes=2)
    error = approximation_error(parameters, prepare_closed(parameters, scene, coarse), coarse, 1e9)
    assert error.small == (eta_deg < 0.1)


def test_divergence_and_lit_volume() -> None:
    """Against exact sums over directions of the beam and places in the crystal (products of Gauss-Hermite rules)."""
    parameters, scene, options = small_scene(bandwidth=0.001, n_boxes=4)
    beam = BeamSpread(np.array([2e-4, 4e-4]), np.array([3e-5, 2e-5]))
    x, w = np.polynomial.hermite_e.hermegauss(7)
    w = w / w.sum()
    axes = np.asarray(beam_axes(scene))

    def moved(i: int, step: float, places: bool) -> Scene:
        if places:
            shift = step * beam.source_m[i] * axes[i]
            boxes = replace(
                scene.boxes, origin_m=scene.boxes.origin_m - shift, reference_m=scene.boxes.reference_m - shift
            )
            return replace(scene, boxes=boxes)
        k = scene.beam.k + step * beam.divergence_rad[i] * axes[i]
        return replace(scene, beam=replace(scene.beam, k=k / np.linalg.norm(k)))

    for part, places in (
        (replace(beam, source_m=np.zeros(2)), False),
        (replace(beam, divergence_rad=np.zeros(2)), True),
    ):
        exact = 0.0
        for a, wa in zip(x, w, strict=True):
            first = scene
            scene = moved(0, a, places)
            for b, wb in zip(x, w, strict=True):
                exact = exact + wa * wb * np.asarray(expected_photons(parameters, moved(1, b, places), options))
            scene = first
        closed = prepare_closed(parameters, scene, options, beam=part)
        still = closed_photons(parameters, prepare_closed(parameters, scene, options), options)
        ours = closed_photons(parameters, closed, options)
        assert _difference(still, exact) > 0.02
        assert _difference(ours, exact) < 1e-3
        assert 0 < approximation_error(parameters, closed, options, 1e9).unseen < 2e-3


def _rotated_away(q: FloatArray, q0: FloatArray, swing: FloatArray, twist: FloatArray) -> FloatArray:
    """W^T q for W = swing about an axis across q0 times twist about q0; swing ``(..., 2)``, twist ``(...)``."""
    n = q0 / np.linalg.norm(q0)
    e1 = np.cross(n, np.eye(3)[np.argmin(np.abs(n))])
    e1 /= np.linalg.norm(e1)
    e2 = np.cross(n, e1)

    def turn(v: FloatArray, axis: FloatArray, angle: FloatArray) -> FloatArray:
        c, s = np.cos(angle)[..., None], np.sin(angle)[..., None]
        return c * v + s * np.cross(axis, v) + (1 - c) * axis * np.sum(axis * v, axis=-1, keepdims=True)

    angle = np.linalg.norm(swing, axis=-1)
    axis = (swing[..., :1] * e1 + swing[..., 1:] * e2) / np.maximum(angle, 1e-300)[..., None]
    return turn(turn(q, axis, -angle), n, -twist)


def _over_all_rotations(q: FloatArray, q0: FloatArray, M: FloatArray, N: FloatArray, eta: float) -> float:
    """The average of exp(-2/0.63 |N (M^T W^T q - h0)|^2) over the classic isotropic spread, by quadrature on SO(3).

    A rotation is a swing a of q0 and a twist t about it: its angle w has cos(w/2) = cos(a/2) cos(t/2), its volume
    relative to that of rotation vectors is (sin a / a) (sin(w/2) / (w/2))^-2 / ... to second order 1 - a^2/6 + w^2/12.
    """
    h0, length = M.T @ q0, float(np.linalg.norm(q0))
    n = q0 / length
    e1 = np.cross(n, np.eye(3)[np.argmin(np.abs(n))])
    e1 /= np.linalg.norm(e1)
    e2 = np.cross(n, e1)
    direction = q / np.linalg.norm(q)
    axis = np.cross(n, direction)
    sine = np.linalg.norm(axis)
    aim = axis / max(sine, 1e-300) * np.arcsin(sine)
    aim = np.array([aim @ e1, aim @ e2])
    inverse = np.linalg.inv(N @ M.T)
    widths = np.sqrt(0.63 / 4 * np.linalg.eigvalsh(inverse @ inverse.T)) / length
    x, weight = np.polynomial.legendre.leggauss(40)
    limit = np.arcsinh(eta / widths[0])
    z = 0.5 * (x + 1) * limit
    total = 0.0
    grid = np.linspace(-1, 1, 33)
    for s, ds in zip(widths[0] * np.sinh(z), 0.5 * weight * limit * widths[0] * np.cosh(z), strict=True):
        share = s**2 / (s**2 + widths[0] * widths[-1])
        reach = 6.5 / np.sqrt(1 / s**2 + 1 / widths[-1] ** 2)
        twist = 6.0 * s * np.linspace(-1, 1, 11)
        a1, a2, t = np.meshgrid(share * aim[0] + reach * grid, share * aim[1] + reach * grid, twist, indexing="ij")
        swing = np.stack([a1, a2], axis=-1)
        a = np.linalg.norm(swing, axis=-1)
        w = 2 * np.arccos(np.clip(np.cos(a / 2) * np.cos(t / 2), -1, 1))
        density = np.exp(-0.5 * (w / s) ** 2) * (1 - a**2 / 6 + w**2 / 12)
        off = (_rotated_away(q, q0, swing, t) @ M - h0) @ N.T
        light = np.sum(density * np.exp(-2 / 0.63 * np.sum(off**2, axis=-1)))
        cell = (reach * (grid[1] - grid[0])) ** 2 * (twist[1] - twist[0])
        total += ds / eta * light * cell / (2 * np.pi * s**2) ** 1.5
    return total


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [(300.0, 300.0, 620.0), (200.0, 300.0, 500.0)])
def test_wide_spread_of_large_blocks_against_all_rotations(blocks: tuple[float, float, float]) -> None:
    """Half a degree and 300 cells: where the second order of a rotation is as large as the spot."""
    eta_deg = 0.5
    parameters, scene, options = small_scene(
        spread="isotropic", eta_deg=eta_deg, blocks=blocks, n_boxes=2, n_channels=300, bandwidth=0.01
    )
    closed = prepare_closed(parameters, scene, options, merge=False)
    ours = np.asarray(closed_photons(parameters, closed, replace(options, polarization=False)))
    reference, mine = _bright_pixels(parameters, scene, ours, closed, blocks, eta_deg)
    assert np.abs(mine / reference - 1).max() < 3e-3, mine / reference
    assert approximation_error(parameters, closed, options, 1e12).unseen < 1e-3


def _bright_pixels(
    parameters: Parameters, scene: Scene, ours: FloatArray, closed: Any, blocks: Any, eta_deg: float
) -> tuple[FloatArray, FloatArray]:
    """Photons of a few pixels from an independent sum over channels and rotations, and those of the closed form."""
    U, cell = scene.lattices.U[0], parameters.crystal.cell
    M = U @ np.diag(cell[:3])
    N = np.diag(blocks)
    boxes, listed = scene.boxes, closed.reflexes
    reference, mine = [], []
    for box in range(len(ours)):
        rows = [i for i in np.flatnonzero(np.asarray(listed.box) == box) if listed.live[i]]
        order = np.argsort(ours[box])[::-1]
        for pixel in order[[0, 6]]:
            f = boxes.centre_px[box, 0] + boxes.fast_px[box, pixel] + 0.5
            s = boxes.centre_px[box, 1] + boxes.slow_px[box, pixel] + 0.5
            p = boxes.origin_m[box] + f * boxes.pixel_m[box, 0] * boxes.fast[box]
            p = p + s * boxes.pixel_m[box, 1] * boxes.slow[box]
            r = np.linalg.norm(p)
            ray = p / r - scene.beam.k
            omega = boxes.pixel_m[box].prod() * abs(boxes.origin_m[box] @ boxes.normal[box]) / r**3
            light = 0.0
            for row in rows:
                F = scene.factors.real.reshape(-1)[listed.position[row]]
                q0 = np.linalg.inv(M).T @ listed.hkl[row]
                for wavelength, strength in zip(scene.channels.wavelengths_A, scene.channels.strength, strict=True):
                    q = ray / wavelength
                    if abs(np.linalg.norm(q) - np.linalg.norm(q0)) < 6 * 0.4 / np.min(blocks * cell[:3]):
                        light += F**2 * strength * _over_all_rotations(q, q0, M, N, np.radians(eta_deg))
            reference.append(parameters.scale.G[0] * np.prod(blocks) ** 2 * light * omega)
            mine.append(ours[box, pixel])
    return np.array(reference), np.array(mine)


def test_blur_follows_the_corrected_wavelengths() -> None:
    """An offset and a factor of the wavelengths blur as channels that are there do."""
    parameters, scene, options = small_scene(bandwidth=0.01, n_boxes=4)
    beam = BeamSpread(np.array([2e-4, 4e-4]), np.array([3e-5, 2e-5]))
    reflexes = prepare_closed(parameters, scene, options).reflexes
    offset, scale = 0.02, 1.03
    corrected = replace(parameters, spectrum=replace(parameters.spectrum, offset_A=offset, scale=scale))
    moved = replace(
        scene, channels=replace(scene.channels, wavelengths_A=offset + scale * scene.channels.wavelengths_A)
    )
    ours = np.asarray(blur_covariance(corrected, scene, reflexes, beam, 0.05))
    theirs = np.asarray(blur_covariance(parameters, moved, reflexes, beam, 0.05))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert np.max(np.abs(ours / np.asarray(blur_covariance(parameters, scene, reflexes, beam, 0.05)) - 1)) > 0.05

"""Partialities against the forward model's own photons, crystal turned through the reflecting position."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bayesbragg.forward import Options, Parameters, build_scene, expected_photons
from bayesbragg.forward.centroid import own_reflections
from bayesbragg.model import Shot, Spectrum, StructureFactors
from bayesbragg.stills.boxes import centroid_boxes
from bayesbragg.stills.partiality import partialities
from bayesbragg.stills.prediction import predict
from bayesbragg.stills.virtual import LYSOZYME_CELL, four_panels, virtual_experiment

BLOCKS = (7.0, 8.0, 13.0)
EQUAL = StructureFactors(np.array([[1, 0, 0]]), np.array([1.0]), 1.0)


def test_partiality_is_the_share_of_the_best_orientation() -> None:
    """Photons of a reflection over those at the best of many small turns of the crystal, by the exact forward sum.

    The spots are a quarter of a pixel wide: subpixels have to add up what the middles of pixels would miss.
    """
    world = replace(virtual_experiment(4, n_channels=3), detector=four_panels(side=96, distance_mm=30.0))
    crystal, detector, beam, spectrum = world.crystal, world.detector, world.beam, world.spectrum
    cell = np.concatenate([LYSOZYME_CELL[:3], np.radians(LYSOZYME_CELL[3:])])
    parameters, options = Parameters.start(cell, n_lattices=1, n_abc=BLOCKS, G=1.0), Options(oversample=4)
    found = predict(crystal, beam, spectrum, detector, d_min=3.4, n_abc=BLOCKS, widths=2.5)
    edge = np.min(np.concatenate([found.position, detector.image_size[found.panel] - found.position], axis=1), axis=1)
    found = found.select(np.flatnonzero(edge > 10)[:12])
    share = partialities(crystal, beam, spectrum, found.miller_index, n_abc=BLOCKS)
    assert share.min() < 0.25
    assert share.max() > 0.9

    # Each reflection is turned about its own axis, so that it passes the sphere without moving along it.
    q = found.miller_index @ crystal.A_reciprocal.T
    bounds, _ = centroid_boxes(found.position, detector.image_size[found.panel], 18)
    angles = np.radians(np.linspace(-1.2, 1.2, 61))
    for row in range(len(found)):
        axis = np.cross(q[row], beam.direction)
        axis /= np.linalg.norm(axis)
        nothing = np.zeros((1, 18 * 18))
        shot = Shot(
            found.panel[[row]], bounds[[row]], (18, 18), nothing, nothing, nothing == 0, np.asarray(1.0),
            found.miller_index[[row]], np.zeros(1, int), np.zeros(1, int), np.zeros((1, 3)),
        )  # fmt: skip
        scene = build_scene(detector, beam, spectrum, [crystal], shot, EQUAL, parameters, options, margin=2)
        alone = own_reflections(scene, found.primitive_index[[row]], np.zeros(1, int))
        photons = []
        for angle in angles:
            there = replace(parameters, crystal=replace(parameters.crystal, rot_xyz=angle * axis[None]))
            photons.append(float(np.sum(expected_photons(there, alone, options))))
        assert share[row] == pytest.approx(photons[30] / max(photons), abs=0.005)


def test_wide_spectra_record_whole_reflections() -> None:
    """A spectrum much wider than the crystal's own width leaves reflections at the top of their curve.

    The spectrum spreads the distance from the sphere with 1/d^2, so that those of the lowest order keep their width.
    """
    world = virtual_experiment(1)
    beam = world.beam
    wide = Spectrum(beam.wavelength_A * np.linspace(0.9, 1.1, 301), np.ones(301))
    narrow = Spectrum.monochromatic(beam.wavelength_A)
    found = predict(world.crystal, beam, narrow, world.detector, d_min=4.0, n_abc=(60.0, 60.0, 60.0), widths=3.0)
    assert len(found) > 20
    full = partialities(world.crystal, beam, wide, found.miller_index, n_abc=(60.0, 60.0, 60.0))
    part = partialities(world.crystal, beam, narrow, found.miller_index, n_abc=(60.0, 60.0, 60.0))
    d = 1.0 / np.linalg.norm(found.miller_index @ world.crystal.A_reciprocal.T, axis=1)
    assert np.sum(d < 14.0) > 20
    assert full[d < 14.0].min() > 0.98
    assert part.min() < 0.3

"""Indexing of simulated spots with known truth, of the tutorial's images, and of real stills."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bayesbragg.io.experiments import read_experiments
from bayesbragg.io.images import read_image, read_image_experiment
from bayesbragg.io.reflections import read_reflections, write_reflections
from bayesbragg.io.symmetry import lookup_space_group
from bayesbragg.model import Beam, Crystal, Detector, Experiment, Reflections, Spectrum
from bayesbragg.stills.indexing import IndexingSettings, ambiguity_operators, index_still
from bayesbragg.stills.lattice_search import nearest_rotations, reduced_basis, sharpen
from bayesbragg.stills.orientation_refinement import predicted_centroids, refine_orientation
from bayesbragg.stills.prediction import predict
from bayesbragg.stills.spotfinding import SpotfinderSettings, find_spots

BEAM = Beam(np.array([0.0, 0.0, -1.0]), 1.3, np.array([0.0, 1.0, 0.0]))
LYSOZYME = ((79.1, 79.1, 38.4, 90, 90, 90), "P43212")
CELLS = {
    "P43212": LYSOZYME,
    "P43": (LYSOZYME[0], "P43"),
    "C2": ((110, 45, 80, 90, 105, 90), "C2"),
    "P1": ((35, 42, 51, 85, 97, 104), "P1"),
    "R3": ((80, 80, 90, 90, 90, 120), "R3:H"),
}


def crystal_of(cell: tuple[float, ...], symbol: str) -> tuple[Crystal, Any]:
    group = lookup_space_group(symbol)
    names = {"space_group": group.hm, "space_group_number": group.number, "hall_symbol": group.hall}
    return Crystal.from_cell(cell, np.eye(3), to_primitive=group.to_primitive, **names), group


def flat(distance: float = 100.0, n: int = 2000, pixel: float = 0.1) -> Detector:
    half = n * pixel / 2
    return Detector(
        origin_mm=[[-half, half, -distance]],
        fast=[[1, 0, 0]],
        slow=[[0, -1, 0]],
        pixel_size_mm=[[pixel, pixel]],
        image_size=[[n, n]],
        trusted_range=[[-1, 1e6]],
        thickness_mm=[0],
        attenuation_per_mm=[0],
        gain=[1],
        names=("p",),
    )


def misorientation(a: Crystal, b: Crystal, rotations: Any) -> float:
    """Smallest angle between two crystals, degree, over operators that act on Miller indices as h @ R."""
    reciprocal = np.linalg.inv(a.B_real).T
    turns = [a.U @ reciprocal @ np.asarray(r).T @ np.linalg.inv(reciprocal) @ b.U.T for r in rotations]
    return float(min(np.degrees(np.arccos(np.clip((np.trace(t) - 1) / 2, -1, 1))) for t in turns))


def still(
    crystal: Crystal, rng: np.random.Generator, n: int, false: float, lattices: int = 1
) -> tuple[Reflections, list[Crystal]]:
    """`n` spots of each of some lattices, 0.3 pixels off, with a fraction of false spots all over the disc."""
    detector, truth, places = flat(), [], []
    for _ in range(lattices):
        turned = crystal.with_cell_and_orientation(crystal.cell, Rotation.random(random_state=rng).as_matrix())
        p = predict(turned, BEAM, Spectrum.monochromatic(1.3), detector, d_min=2.8, n_abc=30, widths=2.0)
        chosen = rng.choice(len(p), min(n, len(p)), replace=False)
        places.append(p.position[chosen] + rng.normal(0, 0.3, (len(chosen), 2)))
        truth.append(turned)
    radius = np.linalg.norm(places[0] - 1000, axis=1).max()
    m = round(n * lattices * false / (1 - false))
    angle, r = rng.uniform(0, 2 * np.pi, m), radius * np.sqrt(rng.uniform(0, 1, m))
    places.append(1000 + np.column_stack([r * np.cos(angle), r * np.sin(angle)]))
    xy = rng.permutation(np.concatenate(places))
    columns = {"panel": np.zeros(len(xy), np.int64), "xyzobs.px.value": np.column_stack([xy, np.zeros(len(xy))])}
    return Reflections(columns), truth


@pytest.mark.parametrize("name", list(CELLS))
def test_few_spots_many_of_them_false(name: str) -> None:
    crystal, group = crystal_of(*CELLS[name])
    # Where the lattice has more symmetry than the crystal, either choice is right.
    extra = ambiguity_operators(crystal, group.rotations)
    operators = [*group.rotations, *(a @ r for a in extra for r in group.rotations)]
    rng = np.random.default_rng(3)
    for n, false in ((15, 0.3), (25, 0.3), (25, 0.3), (25, 0.6)):
        spots, truth = still(crystal, rng, n, false)
        found = index_still(spots, Experiment("", BEAM, flat()), crystal)
        assert found.status == "indexed"
        assert misorientation(found.experiments[0].crystal, truth[0], operators) < 0.2
        assert len(found.reflections) >= 0.9 * n


def test_distance_off_by_a_percent() -> None:
    crystal, group = crystal_of(*LYSOZYME)
    rng = np.random.default_rng(4)
    for factor in (0.99, 1.01):
        spots, truth = still(crystal, rng, 25, 0.3)
        found = index_still(spots, Experiment("", BEAM, flat(100.0 * factor)), crystal)
        assert found.status == "indexed"
        assert misorientation(found.experiments[0].crystal, truth[0], group.rotations) < 0.3


def test_several_lattices() -> None:
    crystal, group = crystal_of(*LYSOZYME)
    for lattices in (2, 3):
        spots, truth = still(crystal, np.random.default_rng(lattices), 30, 0.2, lattices)
        found = index_still(spots, Experiment("", BEAM, flat()), crystal, IndexingSettings(max_lattices=4))
        assert len(found.experiments) == lattices
        for t in truth:
            assert min(misorientation(e.crystal, t, group.rotations) for e in found.experiments) < 0.2
        assert sorted(set(found.reflections["id"])) == list(range(lattices))


def test_noise_is_not_indexed() -> None:
    crystal, _ = crystal_of(*LYSOZYME)
    rng = np.random.default_rng(5)
    for _ in range(5):
        xy = rng.uniform(300, 1700, (40, 3))
        spots = Reflections({"panel": np.zeros(40, np.int64), "xyzobs.px.value": xy})
        found = index_still(spots, Experiment("", BEAM, flat()), crystal)
        assert (found.status, len(found.reflections), found.experiments) == ("no_lattice", 0, ())
        assert "check unit cell" in found.message
    few = index_still(spots.select(np.arange(3)), Experiment("", BEAM, flat()), crystal)
    assert few.status == "few_spots"
    none = index_still(spots.select(np.arange(0)), Experiment("", BEAM, flat()), crystal)
    assert none.status == "few_spots"


def test_hopeless_geometry_is_a_status() -> None:
    crystal, _ = crystal_of(*LYSOZYME)
    spots, _ = still(crystal, np.random.default_rng(7), 25, 0.3)
    away = replace(flat(), origin_mm=np.array([[-100.0, 100.0, 100.0]]))
    assert index_still(spots, Experiment("", BEAM, away), crystal).status == "bad_geometry"
    wrong = crystal_of((57, 63, 91, 90, 90, 90), "P212121")[0]
    assert index_still(spots, Experiment("", BEAM, flat()), wrong).status == "no_lattice"


def test_ambiguity() -> None:
    counts = {name: len(ambiguity_operators(c, g.rotations)) for name, (c, g) in _crystals().items()}
    # P43 lacks the two-fold axes of its lattice, R3 those of the rhombohedral one.
    assert counts == {"P43212": 0, "P43": 1, "C2": 0, "P1": 0, "R3": 1}


def _crystals() -> dict[str, tuple[Crystal, Any]]:
    return {name: crystal_of(*args) for name, args in CELLS.items()}


def test_reduced_basis_spans_the_lattice() -> None:
    rng = np.random.default_rng(6)
    vectors = np.diag([30.0, 41.0, 52.0]) @ Rotation.random(random_state=1).as_matrix()
    for _ in range(10):
        m = np.eye(3, dtype=int)
        for _ in range(4):
            i, j = rng.choice(3, 2, replace=False)
            m[i] += rng.integers(-2, 3) * m[j]
        basis, change = reduced_basis(m @ vectors)
        np.testing.assert_allclose(basis, change @ m @ vectors, atol=1e-9)
        np.testing.assert_allclose(np.linalg.norm(basis, axis=1), [30, 41, 52], atol=1e-9)
        assert np.linalg.det(basis) > 0


def test_nearest_rotations_are_those_of_scipy() -> None:
    generator = np.random.default_rng(4)
    reference, observed = generator.normal(size=(2, 5, 12, 3))
    found = nearest_rotations(np.swapaxes(reference, 1, 2) @ observed)
    for i in range(5):
        expected, _ = Rotation.align_vectors(observed[i], reference[i])
        np.testing.assert_allclose(found[i], expected.as_matrix(), atol=1e-9)


def test_starts_are_sharpened_each_on_its_own() -> None:
    """Two starts a degree off end on the lattice; one that indexes nothing is left as it was."""
    generator = np.random.default_rng(5)
    basis = np.array([[40.0, 0.0, 0.0], [5.0, 50.0, 0.0], [0.0, -4.0, 60.0]])
    truth = Rotation.random(random_state=6).as_matrix()
    hkl = generator.integers(-8, 9, (80, 3))
    q = hkl[hkl.any(axis=1)] @ np.linalg.inv(basis @ truth.T).T
    turns = [Rotation.from_rotvec(np.radians(1.0) * v).as_matrix() for v in np.eye(3)[:2]]
    for i, found in enumerate(sharpen(np.array([turns[0] @ truth, turns[1] @ truth]), q, basis)):
        np.testing.assert_allclose(found, truth, atol=1e-9, err_msg=f"start {i}")
    few = q[:3]
    np.testing.assert_array_equal(sharpen(truth[None], few, basis)[0], truth)


def test_refinement_recovers_cell_and_orientation() -> None:
    crystal, group = crystal_of(*LYSOZYME)
    detector = flat()
    truth = crystal.with_cell_and_orientation(
        (79.4, 79.4, 38.3, 90, 90, 90), Rotation.random(random_state=3).as_matrix()
    )
    p = predict(truth, BEAM, Spectrum.monochromatic(1.3), detector, d_min=2.5, n_abc=50, widths=2.0)
    place, distance, s1 = predicted_centroids(truth, BEAM, detector, p.miller_index, p.panel)
    np.testing.assert_allclose(place, p.position, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(s1, axis=1), 1 / 1.3)
    assert np.abs(distance).max() < 2e-3
    start = crystal.with_cell_and_orientation(
        crystal.cell, Rotation.from_rotvec([3e-3, -2e-3, 2e-3]).as_matrix() @ truth.U
    )
    noisy = place + np.random.default_rng(0).normal(0, 0.2, place.shape)
    fit = refine_orientation(start, BEAM, detector, p.miller_index, p.panel, noisy)
    assert misorientation(fit.crystal, truth, group.rotations) < 0.01
    np.testing.assert_allclose(fit.crystal.cell, truth.cell, rtol=2e-4)
    assert fit.sigma_px == pytest.approx(0.2, rel=0.2)


@pytest.mark.parametrize("seed", range(4))
def test_a_monoclinic_cell_with_right_angles_keeps_its_unique_axis(seed: int) -> None:
    crystal, _ = crystal_of((50, 60, 70, 90, 90, 90), "P21")
    turn = Rotation.random(random_state=seed).as_matrix()
    truth = crystal.with_cell_and_orientation((50, 60, 70, 90, 90.4, 90), turn)
    start = crystal.with_cell_and_orientation(crystal.cell, turn)
    detector = flat()
    p = predict(truth, BEAM, Spectrum.monochromatic(1.3), detector, d_min=2.5, n_abc=50, widths=2.0)
    place, _, _ = predicted_centroids(truth, BEAM, detector, p.miller_index, p.panel)
    fit = refine_orientation(start, BEAM, detector, p.miller_index, p.panel, place)
    np.testing.assert_allclose(fit.crystal.cell[3:], [90, 90.4, 90], atol=0.02)


TUTORIAL = SpotfinderSettings(
    gain=28, global_threshold=40, kernel_size=(2, 2), sigma_strong=1, sigma_background=6, min_spot_size=2
)


def test_tutorial_shots(shared: Path, tmp_path: Path) -> None:
    """From raw images to orientations: 16 shots within 0.1 degree of the truth, median below 0.05."""
    crystal, group = crystal_of(*LYSOZYME)
    angles = []
    for shot in range(16):
        experiment = read_image_experiment(shared / "tutorial" / "images" / f"shot_{shot:03d}.h5")
        image = read_image(experiment.image, experiment.detector)
        spots = find_spots(image.raw, experiment.detector, experiment.beam, TUTORIAL, mask=image.mask)
        found = index_still(spots, experiment, crystal, spectrum=image.spectrum)
        truth = json.loads((shared / "tutorial" / "truth" / f"shot_{shot:03d}.json").read_text())
        true = crystal.with_cell_and_orientation(crystal.cell, np.reshape(truth["U"], (3, 3)))
        angles.append(misorientation(found.experiments[0].crystal, true, group.rotations))
        dials = read_reflections(shared / "tutorial" / "indexed" / f"shot_{shot:03d}_indexed.refl")
        assert len(found.reflections) > 0.93 * len(dials)
    assert max(angles) < 0.1
    assert np.median(angles) < 0.05
    write_reflections(found.reflections, tmp_path / "indexed.refl")
    again = read_reflections(tmp_path / "indexed.refl")
    for name in ("miller_index", "xyzcal.px", "s1", "rlp", "flags", "bbox"):
        np.testing.assert_allclose(again[name], found.reflections[name])


@pytest.mark.parametrize(
    ("shot", "n_dials", "rmsd_dials"), [(401, 121, 0.734), (601, 29, 0.416), (701, 62, 0.385), (801, 40, 0.263)]
)
def test_thermolysin(shared: Path, shot: int, n_dials: int, rmsd_dials: float) -> None:
    """Real CSPAD stills from the raw CBF: at least as many spots as DIALS indexes, and all of them nearer together."""
    crystal, group = crystal_of((92.9, 92.9, 130.4, 90, 90, 120), "P6122")
    name = f"idx-20130301060858{shot}"
    experiment = read_image_experiment(shared / "real" / f"{name}.cbf")
    image = read_image(experiment.image, experiment.detector)
    settings = SpotfinderSettings(algorithm="dispersion_extended", gain=25, global_threshold=100, min_spot_size=2)
    spots = find_spots(image.raw, experiment.detector, experiment.beam, settings, mask=image.mask)
    table = index_still(spots, experiment, crystal)
    dials = read_experiments(shared / "real" / "dials" / f"{name}_refined.expt")[0]
    assert misorientation(table.experiments[0].crystal, dials.crystal, group.rotations) < 0.1
    difference = (table.reflections["xyzobs.px.value"] - table.reflections["xyzcal.px"])[:, :2]
    offset = np.sort(np.linalg.norm(difference, axis=1))
    assert len(offset) >= n_dials
    assert np.sqrt(np.mean(offset**2)) < rmsd_dials


def test_rayonix(shared: Path) -> None:
    crystal, _ = crystal_of((41.9, 75.7, 102, 90, 90, 90), "P212121")
    header = read_image_experiment(shared / "real" / "rayonix_hit-20181213155134902.cbf")
    image = read_image(header.image, header.detector)
    geometry = read_experiments(shared / "real" / "rayonix_experiments.json")[0]
    experiment = replace(header, detector=geometry.detector)
    for gain in (0.5, 1.0, 2.0):
        settings = SpotfinderSettings(gain=gain)
        spots = find_spots(image.raw, experiment.detector, experiment.beam, settings, mask=image.mask)
        found = index_still(spots, experiment, crystal)
        assert found.lattices[0].chance < 1e-20
        np.testing.assert_allclose(found.experiments[0].crystal.cell[:3], crystal.cell[:3], rtol=0.01)

"""Prediction offsets against closed forms, the published table of a classic run, and the classic binning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bayesbragg.diagnostics.offsets import Offsets, by_resolution, combine, prediction_offsets, summary
from bayesbragg.model import Beam, Crystal, Detector, Reflections
from bayesbragg.model.errors import InputError

DATA = Path(__file__).resolve().parents[1] / "data" / "offsets" / "classic_procPoly.npz"

# The tutorial's table: reflections, RMSD, radial, transverse, median (micrometre), shots 0 to 7.
TABLE = {
    "classic/procPoly": (1776, 73.9, 58.0, 45.8, 24.9),
    "classic/procBad": (1773, 135.3, 102.4, 88.5, 92.7),
    "classic/procOpt": (1775, 113.7, 89.9, 69.6, 56.9),
    "dials_refined": (1062, 62.3, 46.4, 41.5, 38.6),
    "dials_refined_badGeo": (908, 128.5, 100.8, 79.6, 102.0),
    "indexed": (1920, 241.2, 211.2, 116.5, 156.1),
    "indexed_badGeo": (1917, 324.3, 298.4, 126.9, 213.7),
}
BY_RESOLUTION = (0.10, 0.14, 0.20, 0.18, 0.20, 0.23, 0.31, 0.33, 0.38, 0.80)


def make_detector(origins: list[list[float]], fast: list[list[float]], slow: list[list[float]]) -> Detector:
    n = len(origins)
    return Detector(
        origin_mm=np.array(origins),
        fast=np.array(fast),
        slow=np.array(slow),
        pixel_size_mm=np.full((n, 2), 0.1),
        image_size=np.full((n, 2), 200),
        trusted_range=np.tile([-1.0, 1e6], (n, 1)),
        thickness_mm=np.zeros(n),
        attenuation_per_mm=np.zeros(n),
        gain=np.ones(n),
        names=tuple(f"p{i}" for i in range(n)),
    )


@pytest.fixture
def flat() -> Detector:
    """One panel of 200 x 200 pixels of 0.1 mm across the beam, the beam through its centre, 100 mm away."""
    return make_detector([[-10.0, 10.0, -100.0]], [[1.0, 0.0, 0.0]], [[0.0, -1.0, 0.0]])


def table(observed: object, calculated: object, panel: object = None, **columns: np.ndarray) -> Reflections:
    obs, cal = np.atleast_2d(np.asarray(observed, float)), np.atleast_2d(np.asarray(calculated, float))
    zero = np.zeros((len(obs), 1))
    return Reflections(
        {
            "xyzobs.px.value": np.hstack([obs, zero]),
            "xyzcal.px": np.hstack([cal, zero]),
            "panel": np.zeros(len(obs), int) if panel is None else np.asarray(panel),
            **columns,
        }
    )


@pytest.fixture(scope="module")
def classic() -> Offsets:
    with np.load(DATA) as file:
        g = dict(file)
    detector = Detector(
        origin_mm=g["origin_mm"],
        fast=g["fast"],
        slow=g["slow"],
        pixel_size_mm=g["pixel_size_mm"],
        image_size=g["image_size"],
        trusted_range=np.zeros((64, 2)),
        thickness_mm=np.zeros(64),
        attenuation_per_mm=np.zeros(64),
        gain=np.ones(64),
        names=("",) * 64,
    )
    return prediction_offsets(
        table(g["observed_px"], g["calculated_px"], g["panel"].astype(int), rlp=g["rlp"].astype(float)), detector
    )


def test_components_of_a_spot_right_of_the_beam(flat: Detector) -> None:
    # 50 pixels right of the beam: outwards is +x, a quarter turn on (about +z) is +y, against the slow axis.
    offsets = prediction_offsets(table([150.0, 100.0], [148.0, 103.0]), flat)
    assert offsets.lab_mm[0] == pytest.approx([5.0, 0.0, -100.0])
    assert offsets.radial_um[0] == pytest.approx(200.0)
    assert offsets.transverse_um[0] == pytest.approx(300.0)
    assert offsets.offset_um[0] == pytest.approx([200.0, 300.0, 0.0])
    assert offsets.overall_um[0] == pytest.approx(np.hypot(200.0, 300.0))
    assert offsets.overall_px[0] == pytest.approx(np.hypot(2.0, 3.0))


def test_a_wrong_distance_is_radial_and_a_turn_is_transverse(flat: Detector) -> None:
    rng = np.random.default_rng(3)
    centre = np.array([100.0, 100.0])
    obs = rng.uniform(10, 190, (400, 2))
    stretched = prediction_offsets(table(obs, centre + (obs - centre) / 1.01), flat)
    assert np.abs(stretched.transverse_um).max() < 1e-9
    assert np.all(stretched.radial_um > 0)
    angle = 0.01
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = prediction_offsets(table(obs, centre + (obs - centre) @ turn.T), flat)
    # a turn moves spots along the chord: transverse r sin(angle), radial r (1 - cos(angle))
    radius = 100.0 * np.linalg.norm(obs - centre, axis=1)
    assert np.abs(turned.transverse_um) == pytest.approx(radius * np.sin(angle), rel=1e-9)
    assert turned.radial_um == pytest.approx(radius * (1 - np.cos(angle)), rel=1e-6)


def test_the_axis_is_the_beam_not_z(flat: Detector) -> None:
    beam = Beam(np.array([0.03, -0.02, -1.0]), 1.3, np.array([0.0, 1.0, 0.0]))
    place = flat.intersect(0, beam.direction)
    obs = place + np.array([[30.0, 0.0], [0.0, -40.0], [25.0, 25.0]])
    offsets = prediction_offsets(table(obs, place + (obs - place) * 0.99), flat, beam)
    # not quite zero: the panel is not across this beam
    assert np.all(np.abs(offsets.transverse_um) < 0.05 * np.abs(offsets.radial_um))
    about_z = prediction_offsets(table(obs, place + (obs - place) * 0.99), flat)
    assert np.abs(about_z.transverse_um).max() > 0.3 * about_z.overall_um.max()


def test_classic_run_has_the_published_offsets(classic: Offsets) -> None:
    n, *expected = TABLE["classic/procPoly"]
    s = summary(classic)
    assert s.n_reflections == n
    assert [s.rmsd_um, s.radial_um, s.transverse_um, s.median_um] == pytest.approx(expected, abs=0.051)
    assert s.radial_um**2 + s.transverse_um**2 == pytest.approx(s.rmsd_um**2, rel=1e-4)


def test_classic_run_has_the_published_medians_by_resolution(classic: Offsets) -> None:
    bins = by_resolution(classic, 10)
    assert bins.overall_px == pytest.approx(BY_RESOLUTION, abs=0.0051)
    assert bins.d_A[[1, 3, 6, 9]] == pytest.approx([7.0, 4.7, 3.4, 2.35], abs=0.05)


@pytest.mark.parametrize("n_bins", [1, 3, 10, 17])
def test_bins_are_those_of_the_classic_script(classic: Offsets, n_bins: int) -> None:
    d = classic.d_A
    edges = [part[0] - 1e-6 for part in np.array_split(np.sort(d), n_bins)] + [d.max() + 1e-6]
    which = np.digitize(d, edges)
    bins = by_resolution(classic, n_bins)
    for i in range(n_bins):
        members = which == n_bins - i
        assert bins.n_reflections[i] == pytest.approx(members.sum(), abs=2)  # equal d at an edge
        assert bins.d_A[i] == pytest.approx(np.median(d[members]), rel=1e-3)
        assert bins.radial_px[i] == pytest.approx(
            np.median(np.abs(classic.radial_um[members]) / classic.pixel_um[members]), abs=2e-3
        )
        assert bins.tangential_px[i] == pytest.approx(
            np.median(np.abs(classic.transverse_um[members]) / classic.pixel_um[members]), abs=2e-3
        )
    assert bins.n_reflections.sum() == len(classic)


@pytest.mark.parametrize("run", list(TABLE))
def test_tutorial_table(shared: Path, run: str) -> None:
    from bayesbragg.io.experiments import read_experiments
    from bayesbragg.io.reflections import read_reflections

    parts = []
    for shot in range(8):
        path = shared / "tutorial" / run / f"shot_{shot:03d}_refined.expt"
        if path.exists():
            (experiment,) = read_experiments(path)
            reflections = read_reflections(path.with_name(f"shot_{shot:03d}_indexed.refl"))
            parts.append(prediction_offsets(reflections, experiment.detector, experiment.beam, experiment.crystal))
    n, *expected = TABLE[run]
    s = summary(combine(parts))
    assert s.n_reflections == n
    assert [s.rmsd_um, s.radial_um, s.transverse_um, s.median_um] == pytest.approx(expected, abs=0.051)


def test_resolution_without_rlp_comes_from_the_crystal(flat: Detector) -> None:
    crystal = Crystal.from_cell([50.0, 60.0, 70.0, 90.0, 90.0, 90.0], np.eye(3))
    hkl = np.array([[1, 2, 3], [4, 0, -1]])
    expected = 1.0 / np.sqrt((hkl[:, 0] / 50.0) ** 2 + (hkl[:, 1] / 60.0) ** 2 + (hkl[:, 2] / 70.0) ** 2)
    spots = np.full((2, 2), 20.0)
    assert prediction_offsets(table(spots, spots, miller_index=hkl), flat, crystal=crystal).d_A == pytest.approx(
        expected
    )
    assert np.isnan(prediction_offsets(table(spots, spots, miller_index=hkl), flat).d_A).all()
    rlp = np.array([[0.0, 0.1, 0.0], [0.25, 0.0, 0.0]])
    offsets = prediction_offsets(table(spots, spots, miller_index=hkl, rlp=rlp), flat, crystal=crystal)
    assert offsets.d_A == pytest.approx([10.0, 4.0])


def test_rows_without_a_centroid_are_left_out_and_counted(flat: Detector) -> None:
    obs = np.array([[10.0, 10.0], [20.0, 20.0], [30.0, 30.0]])
    cal = obs + np.array([[1.0, 0.0], [np.nan, 0.0], [0.0, 1.0]])
    offsets = prediction_offsets(table(obs, cal), flat)
    assert list(offsets.row) == [0, 2]
    assert offsets.n_left_out == 1
    both = combine([offsets, offsets])
    assert len(both) == 4
    assert both.n_left_out == 2
    assert summary(both).rmsd_um == pytest.approx(100.0)


def test_no_reflections_give_no_numbers() -> None:
    s = summary(combine([]))
    assert s.n_reflections == 0
    assert np.isnan(s.rmsd_um)
    with pytest.raises(InputError, match="0 reflections"):
        by_resolution(combine([]))


def test_bad_input_names_what_is_wrong(flat: Detector) -> None:
    spots = np.full((2, 2), 20.0)
    with pytest.raises(InputError, match=r"no column 'xyzcal\.px'"):
        prediction_offsets(table(spots, spots).without_columns(["xyzcal.px"]), flat)
    with pytest.raises(InputError, match="panels 0 to 5 but the detector has 1"):
        prediction_offsets(table(spots, spots, [0, 5]), flat)

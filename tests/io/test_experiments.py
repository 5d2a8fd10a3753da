"""Experiment lists against DIALS itself, against composition by hand, and through damage."""

from __future__ import annotations

import copy
import json
import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bayesbragg.io.detectors import detector_from_document, detector_to_document
from bayesbragg.io.experiments import read_detector, read_experiments, replace_detector, write_experiments
from bayesbragg.model import Crystal, Detector, Experiment, ImageReference
from bayesbragg.model.errors import InputError

REPORT = """
import json
from dxtbx.model.experiment_list import ExperimentList
experiments = ExperimentList.from_file({path!r}, check_format=False)
out = []
for e in experiments:
    out.append(dict(
        identifier=e.identifier,
        wavelength=e.beam.get_wavelength(), to_source=list(e.beam.get_sample_to_source_direction()),
        origin=[list(p.get_origin()) for p in e.detector], fast=[list(p.get_fast_axis()) for p in e.detector],
        slow=[list(p.get_slow_axis()) for p in e.detector], pixel=[list(p.get_pixel_size()) for p in e.detector],
        size=[list(p.get_image_size()) for p in e.detector], mu=[p.get_mu() for p in e.detector],
        thickness=[p.get_thickness() for p in e.detector],
        groups=[g.get_name() for g in e.detector.hierarchy()] if e.detector.hierarchy() else [],
        cell=list(e.crystal.get_unit_cell().parameters()) if e.crystal else None,
        U=list(e.crystal.get_U()) if e.crystal else None,
        group=e.crystal.get_space_group().type().lookup_symbol() if e.crystal else None,
        image=e.imageset.paths()[0] if e.imageset else None,
        index=e.imageset.indices()[0] if e.imageset else None,
    ))
print(json.dumps(out))
"""


def agree(ours: list[Experiment], theirs: list[dict[str, Any]]) -> None:
    """Every model equal to what DIALS makes of the file."""
    assert len(ours) == len(theirs)
    for e, d in zip(ours, theirs, strict=True):
        assert e.identifier == d["identifier"]
        assert e.beam.wavelength_A == pytest.approx(d["wavelength"], abs=1e-15)
        np.testing.assert_allclose(-e.beam.direction, d["to_source"], atol=1e-15)
        np.testing.assert_allclose(e.detector.origin_mm, d["origin"], atol=1e-12)
        np.testing.assert_allclose(e.detector.fast, d["fast"], atol=1e-12)
        np.testing.assert_allclose(e.detector.slow, d["slow"], atol=1e-12)
        np.testing.assert_array_equal(e.detector.pixel_size_mm, d["pixel"])
        np.testing.assert_array_equal(e.detector.image_size, d["size"])
        np.testing.assert_array_equal(e.detector.attenuation_per_mm, d["mu"])
        np.testing.assert_array_equal(e.detector.thickness_mm, d["thickness"])
        if e.crystal is not None:
            np.testing.assert_allclose(e.crystal.cell, d["cell"], atol=1e-9)
            np.testing.assert_allclose(e.crystal.U, np.reshape(d["U"], (3, 3)), atol=1e-9)
            assert e.crystal.space_group.split(":")[0] == d["group"].split(":")[0].strip()
        if e.image is not None:
            assert str(e.image.path) == d["image"]


def moved(detector: Detector) -> Detector:
    """Every panel but the first turned and shifted."""
    rng = np.random.default_rng(7)
    origin, fast, slow = (np.array(x) for x in (detector.origin_mm, detector.fast, detector.slow))
    for i in range(1, detector.n_panels):
        turn, _ = np.linalg.qr(np.eye(3) + 0.01 * rng.normal(size=(3, 3)))
        turn = turn * np.sign(np.diag(turn))
        origin[i], fast[i], slow[i] = origin[i] + rng.normal(size=3), turn @ fast[i], turn @ slow[i]
    return detector.with_panels(origin, fast, slow)


def test_models_and_sharing(expt_path: Path) -> None:
    one, two, three = read_experiments(expt_path)
    assert (one.identifier, two.identifier, three.identifier) == ("one", "two", "three")
    assert one.beam is two.beam is three.beam
    assert one.detector is three.detector
    assert one.image is two.image
    assert one.image is not None
    assert three.image is not None
    assert one.image.path == expt_path.parent.parent / "data" / "a.h5"
    assert one.image.index == 4
    assert one.image.mask == expt_path.parent / "m.pickle"
    assert (three.image.path, three.image.index) == (expt_path.parent / "sub" / "b.cbf", 0)
    assert one.crystal is not None
    np.testing.assert_allclose(one.crystal.cell, [79.1, 79.1, 38.4, 90, 90, 90])
    assert (one.crystal.space_group, one.crystal.space_group_number) == ("P 43 21 2", 96)
    assert one.beam.direction[2] < 0


def test_hierarchy_by_hand(expt_path: Path, expt_document: dict[str, Any]) -> None:
    """Panel 3 composed step by step with 4 x 4 matrices."""

    def affine(node: dict[str, Any]) -> np.ndarray:
        f, s = np.array(node["fast_axis"]), np.array(node["slow_axis"])
        m = np.eye(4)
        m[:3] = np.column_stack([f, s, np.cross(f, s), node["origin"]])
        return m

    root = expt_document["detector"][0]["hierarchy"]
    m = affine(root) @ affine(root["children"][1]) @ affine(expt_document["detector"][0]["panels"][3])
    detector = read_experiments(expt_path)[0].detector
    np.testing.assert_allclose(detector.origin_mm[3], m[:3, 3], atol=1e-12)
    np.testing.assert_allclose(detector.fast[3], m[:3, 0], atol=1e-14)
    np.testing.assert_allclose(detector.slow[3], m[:3, 1], atol=1e-14)


def test_untouched_list_survives(expt_path: Path, expt_document: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "elsewhere" / "deep" / "out.expt"
    write_experiments(read_experiments(expt_path), out)
    written = json.loads(out.read_text())
    for key in ("beam", "detector", "crystal", "profile", "history", "goniometer", "scan", "scaling_model"):
        assert written[key] == expt_document[key], key
    assert [e["note"] for e in written["experiment"]] == ["about one", "about two", "about three"]
    for before, after in zip(expt_document["experiment"], written["experiment"], strict=True):
        assert before == after
    first = written["imageset"][0]
    assert first["images"] == [str(tmp_path / "data" / "a.h5")]
    assert first["mask"] == str(expt_path.parent / "m.pickle")
    assert first["params"] == {"dynamic_shadowing": True}
    assert "single_file_indices" not in written["imageset"][1]


def test_moved_panels_come_back(expt_path: Path, tmp_path: Path, expt_document: dict[str, Any]) -> None:
    experiments = read_experiments(expt_path)
    detector = moved(experiments[0].detector)
    write_experiments([e.with_detector(detector) for e in experiments], tmp_path / "out.expt")
    again = read_experiments(tmp_path / "out.expt")[0].detector
    for name in ("origin_mm", "fast", "slow"):
        np.testing.assert_allclose(getattr(again, name), getattr(detector, name), atol=1e-12)
    written = json.loads((tmp_path / "out.expt").read_text())["detector"]
    assert len(written) == 1
    assert written[0]["hierarchy"] == expt_document["detector"][0]["hierarchy"]
    assert written[0]["panels"][0] == expt_document["detector"][0]["panels"][0]
    assert written[0]["panels"][1]["from_the_future"] == {"x": 1}


def test_dials_reads_the_same(expt_path: Path, tmp_path: Path, run_dials: Any) -> None:
    agree(read_experiments(expt_path), run_dials(REPORT.format(path=str(expt_path))))
    experiments = read_experiments(expt_path)
    detector = moved(experiments[0].detector)
    crystal = experiments[0].crystal
    assert crystal is not None
    new = crystal.with_cell_and_orientation([78.9, 78.9, 38.5, 90, 90, 90], crystal.U)
    beam = replace(experiments[0].beam, wavelength_A=1.2987, direction=np.array([0.0, 0.001, -1.0]))
    changed = [replace(e, detector=detector, crystal=new, beam=beam) for e in experiments]
    out = tmp_path / "new.expt"
    write_experiments(changed, out)
    report = run_dials(REPORT.format(path=str(out)))
    agree(changed, report)
    assert report[0]["groups"] == ["g0", "g1"]


def test_refined_crystal_drops_its_old_covariance(expt_path: Path, tmp_path: Path) -> None:
    one = read_experiments(expt_path)[0]
    assert one.crystal is not None
    new = one.crystal.with_cell_and_orientation([80, 80, 38, 90, 90, 90], np.eye(3))
    write_experiments([one.with_crystal(new)], tmp_path / "out.expt")
    written = json.loads((tmp_path / "out.expt").read_text())["crystal"][0]
    assert "B_covariance" not in written
    assert written["ML_half_mosaicity_deg"] == 0.0
    np.testing.assert_allclose(written["real_space_a"], [80, 0, 0], atol=1e-12)


def test_models_made_in_memory(tmp_path: Path, run_dials: Any) -> None:
    from bayesbragg.model import Beam

    detector = Detector(
        origin_mm=np.array([[-50.0, 50.0, -100.0]]),
        fast=np.array([[1.0, 0, 0]]),
        slow=np.array([[0, -1.0, 0]]),
        pixel_size_mm=np.array([[0.1, 0.1]]),
        image_size=np.array([[1000, 1000]]),
        trusted_range=np.array([[-1.0, 1e6]]),
        thickness_mm=np.array([0.5]),
        attenuation_per_mm=np.array([2.0]),
        gain=np.array([1.0]),
        names=("panel",),
    )
    crystal = Crystal.from_cell([50, 60, 70, 90, 90, 90], np.eye(3), space_group="P 21 21 21", hall_symbol=" P 2ac 2ab")
    beam = Beam(np.array([0, 0, -1.0]), 1.1, np.array([0, 1.0, 0]))
    image = ImageReference(tmp_path / "x.h5", 2)
    experiments = [Experiment("made", beam, detector, crystal, image)]
    write_experiments(experiments, tmp_path / "made.expt")
    agree(experiments, run_dials(REPORT.format(path=str(tmp_path / "made.expt"))))
    (again,) = read_experiments(tmp_path / "made.expt")
    assert again.image is not None
    assert again.image.index == 2


@pytest.mark.parametrize("hierarchy", ["none", "trivial", "bare list"])
def test_flat_detectors(expt_document: dict[str, Any], tmp_path: Path, hierarchy: str) -> None:
    detector = expt_document["detector"][0]
    if hierarchy == "none":
        del detector["hierarchy"]
    elif hierarchy == "bare list":
        expt_document["detector"][0] = detector["panels"]
    else:
        identity = {"origin": [0, 0, 0], "fast_axis": [1, 0, 0], "slow_axis": [0, 1, 0]}
        detector["hierarchy"] = {**identity, "children": [{"panel": i} for i in range(4)]}
    (tmp_path / "flat.expt").write_text(json.dumps(expt_document))
    experiments = read_experiments(tmp_path / "flat.expt")
    for i, p in enumerate(detector["panels"]):
        np.testing.assert_allclose(experiments[0].detector.origin_mm[i], p["origin"], atol=1e-15)
    new = moved(experiments[0].detector)
    write_experiments([e.with_detector(new) for e in experiments], tmp_path / "out.expt")
    np.testing.assert_allclose(read_experiments(tmp_path / "out.expt")[1].detector.fast, new.fast, atol=1e-14)


def test_one_imageset_of_several_images(expt_document: dict[str, Any], tmp_path: Path) -> None:
    images = {"images": ["a.h5", "a.h5", "b.h5"], "single_file_indices": [0, 7, 1]}
    expt_document["imageset"] = [{"__id__": "ImageSet", **images}]
    for e in expt_document["experiment"]:
        e["imageset"] = 0
    path = tmp_path / "many.expt"
    path.write_text(json.dumps(expt_document))
    found = [(e.image.path.name, e.image.index) for e in read_experiments(path) if e.image]
    assert found == [("a.h5", 0), ("a.h5", 7), ("b.h5", 1)]
    write_experiments(read_experiments(path)[1:2], tmp_path / "single.expt")
    (only,) = read_experiments(tmp_path / "single.expt")
    assert only.image is not None
    assert (only.image.path, only.image.index) == (tmp_path / "a.h5", 7)
    expt_document["experiment"].pop()
    path.write_text(json.dumps(expt_document))
    with pytest.raises(InputError, match="2 experiments share an image set of 3 images"):
        read_experiments(path)


@pytest.mark.parametrize(
    ("template", "expected"), [("img_####.cbf", ("img_0012.cbf", 0)), ("all_master.h5", ("all_master.h5", 11))]
)
def test_template_and_scan(
    expt_document: dict[str, Any], tmp_path: Path, template: str, expected: tuple[str, int], caplog: Any
) -> None:
    expt_document["imageset"] = [{"__id__": "ImageSequence", "template": template, "mask": ""}]
    expt_document["scan"] = [{"image_range": [12, 12], "oscillation": [0.0, 0.0], "exposure_time": [0.1]}]
    expt_document["experiment"] = [expt_document["experiment"][0] | {"imageset": 0, "scan": 0}]
    path = tmp_path / "scan.expt"
    path.write_text(json.dumps(expt_document))
    with caplog.at_level(logging.WARNING):
        (e,) = read_experiments(path)
    assert e.image is not None
    assert (e.image.path.name, e.image.index) == expected
    assert not caplog.records
    write_experiments([e], tmp_path / "again" / "scan.expt")
    (f,) = read_experiments(tmp_path / "again" / "scan.expt")
    assert f.image is not None
    assert (f.image.path, f.image.index) == (e.image.path, e.image.index)
    elsewhere = replace(e, image=replace(e.image, path=tmp_path / "other.h5", index=3))
    write_experiments([elsewhere], tmp_path / "moved.expt")
    (g,) = read_experiments(tmp_path / "moved.expt")
    assert g.image is not None
    assert (g.image.path, g.image.index) == (tmp_path / "other.h5", 3)


def test_replace_detector(expt_path: Path, expt_document: dict[str, Any], tmp_path: Path) -> None:
    experiments = read_experiments(expt_path)
    reference = copy.deepcopy(expt_document)
    reference["detector"][0]["hierarchy"]["origin"] = [0, 0, -150]
    reference |= {"beam": [], "crystal": [], "imageset": [], "profile": [], "experiment": [{"detector": 0}]}
    path = tmp_path / "geometry.expt"
    path.write_text(json.dumps(reference))
    new = replace_detector(experiments, path)
    assert new[0].detector is new[2].detector
    shift = new[0].detector.origin_mm - experiments[0].detector.origin_mm
    np.testing.assert_allclose(shift, np.tile([-1.0, 2.0, -30.0], (4, 1)), atol=1e-12)
    assert read_detector(path).n_panels == 4
    with pytest.raises(InputError, match="experiment 0: it has no beam"):
        read_experiments(path)
    reference["detector"][0]["panels"][2]["image_size"] = [99, 30]
    path.write_text(json.dumps(reference))
    with pytest.raises(InputError, match=r"panel 2 has \[99, 30\] pixels"):
        replace_detector(experiments, path)
    del reference["detector"][0]["hierarchy"]
    reference["detector"][0]["panels"].pop()
    path.write_text(json.dumps(reference))
    with pytest.raises(InputError, match="3 panels"):
        replace_detector(experiments, path)


def test_damage_gives_input_errors_only(expt_path: Path, tmp_path: Path) -> None:
    data = expt_path.read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged.expt"
    for length in [0, 1, *rng.integers(2, len(data) - 1, 60)]:
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match=r"damaged\.expt"):
            read_experiments(path)
    for _ in range(200):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place] = rng.integers(32, 127)
        path.write_bytes(bytes(damaged))
        with suppress(InputError):
            read_experiments(path)


@pytest.mark.parametrize("kind", ["beam", "detector", "crystal", "imageset"])
@pytest.mark.parametrize("value", [None, 7, "text", [], {}, [1, 2], {"direction": "x", "images": 3}])
def test_wrong_types_give_input_errors(expt_document: dict[str, Any], tmp_path: Path, kind: str, value: Any) -> None:
    expt_document[kind] = [value] * 3
    path = tmp_path / "wrong.expt"
    path.write_text(json.dumps(expt_document))
    if value in (None, {}) and kind in ("crystal", "imageset"):
        return
    with pytest.raises(InputError, match="experiment 0"):
        read_experiments(path)


def test_a_panel_whose_parallax_correction_is_null(expt_document: dict[str, Any]) -> None:
    document = expt_document["detector"][0]
    document["panels"][0]["px_mm_strategy"] = None
    detector = detector_from_document(document)
    thicker = replace(detector, thickness_mm=detector.thickness_mm + 0.1)
    again = detector_from_document(detector_to_document(thicker))
    np.testing.assert_allclose(again.thickness_mm, thicker.thickness_mm)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("beam", {"polarization_normal": [0.0, float("nan"), 0.0]}),
        ("beam", {"polarization_fraction": float("nan")}),
        ("panels", {"thickness": float("nan")}),
        ("panels", {"gain": float("inf")}),
        ("panels", {"trusted_range": [0.0, float("nan")]}),
    ],
)
def test_what_is_no_number_is_refused(
    expt_document: dict[str, Any], tmp_path: Path, kind: str, change: dict[str, Any]
) -> None:
    """JSON has no NaN, but Python's does."""
    (expt_document["beam"] if kind == "beam" else expt_document["detector"][0]["panels"])[0].update(change)
    path = tmp_path / "nan.expt"
    path.write_text(json.dumps(expt_document))
    with pytest.raises(InputError, match=r"experiment 0: .*(finite|two) numbers"):
        read_experiments(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_experiments(tmp_path / "none.expt")
    (tmp_path / "folder.expt").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        read_experiments(tmp_path / "folder.expt")
    (tmp_path / "x.expt").write_text("{}")
    with pytest.raises(InputError, match="__id__"):
        read_experiments(tmp_path / "x.expt")


def test_interrupted_write_leaves_the_old_file(expt_path: Path) -> None:
    before = expt_path.read_bytes()
    (one, *_) = read_experiments(expt_path)
    broken = replace(one, document={"cannot": object()})
    with pytest.raises(TypeError):
        write_experiments([broken], expt_path)
    assert expt_path.read_bytes() == before
    assert [p.name for p in expt_path.parent.iterdir()] == [expt_path.name]


@pytest.mark.parametrize(
    "name",
    [
        "tutorial/indexed/shot_000_refined.expt",
        "tutorial/classic/procBad/shot_003_refined.expt",
        "tutorial/dials_refined/shot_002_refined.expt",
        "real/rayonix_experiments.json",
        "real/metrology/experiments.json",
        "real/dials/idx-20130301060858401_integrated.expt",
    ],
)
def test_real_lists_as_dials_reads_them(shared: Path, tmp_path: Path, run_dials: Any, name: str) -> None:
    experiments = read_experiments(shared / name)
    agree(experiments, run_dials(REPORT.format(path=str(shared / name))))
    detector = moved(experiments[0].detector)
    new = [e.with_detector(detector) for e in experiments]
    write_experiments(new, tmp_path / "out.expt")
    agree(new, run_dials(REPORT.format(path=str(tmp_path / "out.expt"))))

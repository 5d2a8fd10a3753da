"""`bayesbragg report`: what the page says of a folder, whole or under way, and that it is sound HTML on its own."""

from __future__ import annotations

import json
import os
import re
import time
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bayesbragg.cli.main import main
from bayesbragg.diagnostics.report_charts import curves, histogram, whiskers
from bayesbragg.diagnostics.report_numbers import number as shown
from bayesbragg.diagnostics.report_numbers import ticks, with_error
from bayesbragg.diagnostics.report_spots import best_and_worst, spots_of
from bayesbragg.io.experiments import write_experiments
from bayesbragg.io.reflections import write_reflections
from bayesbragg.io.table_rows import write_row
from bayesbragg.io.tables import rebuild_table
from bayesbragg.model import Beam, Crystal, Detector, Experiment, Reflections, Shot
from bayesbragg.pipeline.report import suggestions
from bayesbragg.pipeline.report_data import read_run_data
from bayesbragg.pipeline.report_shots import _cause
from bayesbragg.pipeline.summary import phil_of, summarize

N_SPOTS = 60
VOID = {"meta", "link", "input", "img", "br", "path", "rect", "circle", "polyline"}


class Page(HTMLParser):
    """Elements in order, whether they close as they open, the tables' data, and every address outside the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []
        self.outside: list[str] = []
        self.images = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [str(values["id"])] if "id" in values else []
        for name in ("src", "href"):
            address = values.get(name) or "#"
            if not address.startswith(("#", "data:")):
                self.outside.append(address)
        if tag == "img":
            self.images += 1
            assert values.get("alt")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def table(self, name: str) -> dict[str, Any]:
        found = re.search(
            rf'<div class="table" id="{name}">.*?<script type="application/json">(.*?)</script>', self.text, re.S
        )
        assert found, f"no table {name}"
        table: dict[str, Any] = json.loads(found[1])
        return table


def write_files(folder: Path, number: int, offset_px: float) -> None:
    rng = np.random.default_rng(number)
    n = 2
    detector = Detector(
        origin_mm=np.array([[-10.0, 10.0, -100.0], [0.5, 10.0, -100.0]]),
        fast=np.tile([1.0, 0.0, 0.0], (n, 1)),
        slow=np.tile([0.0, -1.0, 0.0], (n, 1)),
        pixel_size_mm=np.full((n, 2), 0.1),
        image_size=np.tile([100, 200], (n, 1)),
        trusted_range=np.tile([-1.0, 1e6], (n, 1)),
        thickness_mm=np.zeros(n),
        attenuation_per_mm=np.zeros(n),
        gain=np.ones(n),
        names=("left", "right"),
    )
    crystal = Crystal.from_cell([79.1, 79.1, 38.4, 90, 90, 90], np.eye(3))
    beam = Beam(np.array([0.0, 0.0, -1.0]), 1.37, np.array([0.0, 1.0, 0.0]))
    obs = np.column_stack([rng.uniform(5, 95, N_SPOTS), rng.uniform(5, 195, N_SPOTS), np.zeros(N_SPOTS)])
    panel = rng.integers(0, 2, N_SPOTS)
    # The right panel is off to one side: what a faulty geometry looks like.
    off = np.column_stack([np.where(panel == 1, offset_px, 0.0), np.zeros(N_SPOTS), np.zeros(N_SPOTS)])
    noise = np.column_stack([rng.normal(0, 0.05, (N_SPOTS, 2)), np.zeros(N_SPOTS)])
    table = Reflections(
        {
            "id": np.zeros(N_SPOTS, dtype=np.int32),
            "panel": panel.astype(np.uint64),
            "miller_index": rng.integers(1, 20, (N_SPOTS, 3)).astype(np.int32),
            "xyzobs.px.value": obs,
            "xyzcal.px": obs - off - noise,
            "dials.xyzcal.px": obs - [2.0, 0.0, 0.0],
        },
        {0: f"shot-{number}"},
    )
    write_experiments([Experiment(f"shot-{number}", beam, detector, crystal)], folder / f"shot_{number}_refined.expt")
    write_reflections(table, folder / f"shot_{number}_indexed.refl")


def write_modeler(folder: Path, tag: str) -> None:
    """Two boxes of 6 x 6 pixels; the model misses the second one's photons."""
    fast, slow = np.meshgrid(np.arange(6), np.arange(6))
    bragg = np.tile(50 * np.exp(-0.5 * ((fast - 2.5) ** 2 + (slow - 2.5) ** 2)), (2, 1, 1))
    counts = np.round(bragg + 2.0)
    counts[1] *= 3
    folder.mkdir(parents=True, exist_ok=True)
    where = np.stack([np.zeros(72, int), np.tile(fast.ravel(), 2), np.tile(slow.ravel(), 2)], axis=-1)
    np.savez(
        folder / f"{tag}_modeler.npz",
        panel_fast_slow=where,
        roi_id=np.repeat([0, 1], 36),
        data_photons=counts.ravel(),
        background_photons=np.full(72, 2.0),
        model_bragg_photons=bragg.ravel(),
        trusted=np.ones(72, bool),
        sigma_readout_photons=np.full(72, 0.1),
        roi_f1_f2_s1_s2=np.tile([0, 6, 0, 6], (2, 1)),
        roi_panel=np.zeros(2, int),
        roi_reflection_row=np.arange(2),
        roi_miller_index=np.array([[1, 2, 3], [4, -5, 6]]),
        roi_lattice=np.zeros(2, int),
        tilt_abc=np.zeros((2, 3)),
    )


def row(number: int) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    a = 79.1 + 0.02 * rng.standard_normal()
    crystal = Crystal.from_cell([a, a, 38.4, 90, 90, 90], np.eye(3))
    return {
        "tag": f"shot_{number}", "status": "converged", "reason": "the step left is small", "sigmaZ": 1 + 0.01 * number,
        "a": a, "b": a, "c": 38.4 + 0.01 * rng.standard_normal(), "al": 90.0, "be": 90.0, "ga": 90.0,
        "a_init": 79.3, "ncells": (10.0 + rng.standard_normal(), 9.0, 8.0), "spot_scales": 10.0 ** rng.uniform(2, 5),
        "rotX": 0.001 * number, "rotY": 0.0, "rotZ": 0.0, "n_boxes": 50, "target": 10.0, "target_init": 20.0,
        "nfev": 30, "seconds": 1.5, "at_bound": "Nc" if number == 0 else "",
        "Amats": tuple(crystal.A_reciprocal.ravel()),
    }  # fmt: skip


@pytest.fixture
def refined(tmp_path: Path) -> Path:
    folder = tmp_path / "run <7>"
    folder.mkdir()
    for number in range(6):
        write_files(folder, number, offset_px=0.6)
        write_row(row(number), folder, f"shot_{number}")
    write_modeler(folder / "modelers", "shot_0")
    rebuild_table(folder)
    shots = [{"tag": f"shot_{n}", "status": "converged", "reason": "fine", "seconds": 2.0} for n in range(6)]
    shots.append({"tag": "shot_6", "status": "bad input", "reason": "/data/shot_6.refl: cut short <b>", "seconds": 0.1})
    record = {
        "command": ["bayesbragg", "refine", "x.phil"], "written": "2026-01-02T03:04:05Z", "versions": {"jax": "0.4"},
        "seed": 7, "device": "cpu", "configuration": {"phil": "space_group = P43212\n"}, "shots": shots,
        "inputs_sha256": {"x.mtz": "abc123"},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def read(folder: Path, *words: str) -> Page:
    assert main(["report", str(folder), "-q", *words]) == 0
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_page_is_sound_and_needs_nothing_else(refined: Path) -> None:
    page = read(refined)
    assert page.wrong == []
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert page.outside == []
    assert "<b>" not in page.text
    assert "run &lt;7&gt;" in page.text
    assert 'lang="en"' in page.text


def test_it_says_what_the_run_was_and_how_it_went(refined: Path) -> None:
    page = read(refined)
    assert "6 of 7 shots are refined, 6 of them converged" in page.text
    assert "abc123" in page.text
    assert "space_group = P43212" in page.text
    assert "jax 0.4" in page.text
    assert page.table("causes")["rows"][0][1] == "cut short <b>"
    rows = {line[0]: line for line in page.table("shot-table")["rows"]}
    assert rows["shot_6"][1] == "bad input"
    assert rows["shot_3"][2] == [pytest.approx(1.03), "1.030"]
    # Half of the reflections are off by 0.6 pixels of 100 micrometre, the others by noise.
    median = rows["shot_3"][3][0]
    assert 3.0 < median < 63.0


def test_it_points_to_what_is_wrong(refined: Path) -> None:
    text = read(refined).text
    assert "1 of 2 panels are off to one side" in text
    assert "Nc ended at a bound in 1 of 6 shots" in text
    assert "Residuals are those of noise" in text
    assert "went from" in text  # offsets before and after


def test_spots_are_shown_worst_first(refined: Path) -> None:
    page = read(refined)
    assert page.images >= 3
    worst = page.text.split("<h3>Worst</h3>")[1]
    assert worst.index("(4 −5 6)") < worst.index("(1 2 3)") if "(1 2 3)" in worst else "(4 −5 6)" in worst
    without = refined / "modelers" / "shot_0_modeler.npz"
    without.unlink()
    assert "debug_mode=True" in read(refined).text


def test_a_run_under_way_is_watched(refined: Path) -> None:
    (refined / "run.json").unlink()
    log = (
        "2026-01-01 00:00:00,000 DEBUG   bayesbragg: command: bayesbragg refine x.phil\n"
        "2026-01-01 00:00:01,000 INFO    bayesbragg.refine: device: gpu of the log\n"
        "2026-01-01 00:00:01,000 INFO    bayesbragg.refine: 20 shots\n"
        "2026-01-01 00:00:02,000 INFO    bayesbragg.refine: lost: bad input: lost.expt: no such file\n"
    )
    (refined / "bayesbragg.log").write_text(log)
    run = read_run_data(refined)
    assert (run.state, run.n_shots, run.device, len(run.outcomes)) == ("running", 20, "gpu of the log", 7)
    assert [o.tag for o in run.outcomes if o.failed] == ["lost"]
    old = time.time() - 3600
    for path in [refined / "bayesbragg.log", *(refined / "pandas").iterdir()]:
        os.utime(path, (old, old))
    assert read_run_data(refined).state == "stopped"
    text = read(refined).text
    assert "rebuild-table" in text
    assert "6 of 20 shots are refined" in text


def test_a_stopped_run_of_images_says_how_it_goes_on(tmp_path: Path) -> None:
    """Its remedy is not that of a refinement, and images that were not reached are not forgotten."""
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "one.json").write_text(
        json.dumps({"tag": "one", "status": "no spots", "reason": "dark", "seconds": 1.0, "n_lattices": 0})
    )
    (tmp_path / "bayesbragg.log").write_text(
        "2026-01-01 00:00:00,000 DEBUG   bayesbragg: command: bayesbragg stills-process x.phil\n"
        "2026-01-01 00:00:01,000 INFO    bayesbragg.stills: 5 shots\n"
    )
    old = time.time() - 3600
    for path in (tmp_path / "records" / "one.json", tmp_path / "bayesbragg.log"):
        os.utime(path, (old, old))
    text = read(tmp_path).text
    assert "0 of 5 images were processed; 1 show no crystal" in text
    assert "with --resume goes on" in text
    assert "rebuild-table" not in text


def test_offsets_that_grew_stand_out(refined: Path) -> None:
    assert "farther from the refined models" not in read(refined).text
    for number in range(6):
        write_files(refined, number, offset_px=5.0)
    assert "Spots lie farther from the refined models" in read(refined).text


def test_columns_that_symmetry_fixes_are_left_out(refined: Path) -> None:
    heads = re.findall(r'<th scope="col"[^>]*><button type="button">([^<]*)', read(refined).text)
    assert {"a", "b", "c"} <= set(heads)
    assert not {"α", "β", "γ"} & set(heads)
    write_row(row(1) | {"be": 91.5}, refined, "shot_1")
    rebuild_table(refined)
    heads = re.findall(r'<th scope="col"[^>]*><button type="button">([^<]*)', read(refined).text)
    assert "β" in heads
    assert "α" not in heads


def test_a_running_page_loads_itself(refined: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (refined / "run.json").unlink()
    rounds: list[float] = []

    def sleep(seconds: float) -> None:
        rounds.append(seconds)
        assert 'data-refresh="5"' in (refined / "report.html").read_text(encoding="utf-8")
        (refined / "run.json").write_text(json.dumps({"command": ["bayesbragg", "refine"], "shots": []}))

    monkeypatch.setattr(time, "sleep", sleep)
    assert "data-refresh" not in read(refined, "--watch", "5").text.split("<script>")[0]
    assert rounds == [5]


def test_panels_of_a_geometry(tmp_path: Path) -> None:
    names = ("RotOrth", "RotFast", "RotSlow", "ShiftX", "ShiftY", "ShiftZ")
    head = ["group", "n_reflections", *(f"{n}{end}" for n in names for end in ("", "_sd", "_prior_sd"))]
    lines = ["# units", ",".join(head)]
    lines += [",".join(map(str, [g, 50, *([1e-4, 2e-5, 1e-4] * 6)])) for g in range(3)]
    (tmp_path / "panels.csv").write_text("\n".join(lines))
    trace = [
        {"number": n, "target": 100.0 - n, "sigma_z": 1.1, "median_offset_px": 1.0, "accepted": True} for n in range(4)
    ]
    fit = {"status": "converged", "reason": "done", "sigma_z": 1.01, "iterations": 3, "seconds": 4.0, "trace": trace}
    record = {"command": ["bayesbragg", "geometry-refine"], "fit": fit}
    (tmp_path / "run.json").write_text(json.dumps(record))
    page = read(tmp_path)
    assert page.wrong == []
    shift = next(cell for cell in page.table("groups")["rows"][0] if cell != "0" and cell[1] == "100.0")
    assert shift[0] == pytest.approx(100.0)  # 1e-4 metre in micrometre
    assert "0.2 of the prior" in page.text


def test_bad_folders_are_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "none")]) == 2
    assert main(["report", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "no such folder" in said
    assert "output folder of a run" in said
    assert said.count("\n") == 2


def test_suggestions_are_those_of_the_summary(refined: Path) -> None:
    run = read_run_data(refined)
    found, phil, source = suggestions(run)
    mean, sd = found["a", None]
    line = next(line for line in summarize(run.rows).lines if line.name == "a")
    assert (mean, sd) == (line.population.mean, pytest.approx(np.sqrt(line.population.variance)))
    assert phil == phil_of(summarize(run.rows))
    assert "contains the error bars" in source
    assert "betas {" in read(refined).text


def test_verdicts_are_told(refined: Path) -> None:
    rows = [row(n) | {"a_sd": 0.02, "inference": "laplace", "verdict": "not checked"} for n in range(6)]
    for n in range(6):
        write_row(rows[n], refined, f"shot_{n}")
    rebuild_table(refined)
    assert "were not checked" in read(refined).text
    for n, verdict in enumerate(["passed", "FAILED: k-hat 0.9, limit 0.7: FAILED (sample with NUTS)"]):
        write_row(rows[n] | {"verdict": verdict}, refined, f"shot_{n}")
    rebuild_table(refined)
    page = read(refined)
    assert "1 of 2 posteriors failed their checks (shot_1)" in page.text
    assert [line[:3] for line in page.table("verdicts")["rows"]] == [
        ["shot_0", "laplace", "passed"],
        ["shot_1", "laplace", "failed"],
    ]
    assert "times the error bars" in page.text


def test_causes_lose_names_and_numbers() -> None:
    assert _cause("/a/b/shot_1.refl: 3 boxes of 12.5 pixels", "shot_1") == "# boxes of # pixels"
    assert _cause("shot_1: no peak", "shot_1") == "SHOT: no peak"


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(1700.0, 2, "1700"), (-0.5, 3, "−0.5"), (2.5e-7, 2, "2.5×10⁻⁷"), (float("nan"), 3, "–"), (1.2e9, 3, "1.2×10⁹")],
)
def test_numbers_for_readers(value: float, digits: int, text: str) -> None:
    assert shown(value, digits) == text


def test_values_have_the_decimals_of_their_errors() -> None:
    assert with_error(79.09951, 0.0016) == "79.0995 ± 0.0016"
    assert with_error(-3.0, 12.0) == "−3 ± 12"
    assert with_error(38.39912, 0.00101) == "38.3991 ± 0.0010"
    assert with_error(48356.0, 1700.3) == "48400 ± 1700"
    assert with_error(-1.9e-5, 5.42e-5) == "(−1.9 ± 5.4)×10⁻⁵"


def test_ticks_are_round_and_inside() -> None:
    found = ticks(79.096, 79.103)
    assert len(found) > 2
    assert found[0] >= 79.096 - 1e-9
    assert found[-1] <= 79.103 + 1e-9
    np.testing.assert_allclose(np.diff(found), np.diff(found)[0])


def test_names_of_ticks_keep_apart() -> None:
    """No two run into each other or out of the picture, whatever the values are."""
    rng = np.random.default_rng(3)
    for scale in (1e-5, 3e-3, 0.02, 1.0, 700.0, 2e5):
        for values in (79.1 + scale * rng.standard_normal(3), scale * rng.standard_normal(40)):
            svg = histogram(values, "values")
            named = re.findall(r'<text x="([-0-9.]+)"[^>]*middle">([^<]*)</text>', svg)
            counts = re.findall(r'<text x="([-0-9.]+)"[^>]*end">([^<]*)</text>', svg)
            assert bool(counts) == (len(values) > 8)
            assert all(float(x) - 7.8 * len(text) >= 0 for x, text in counts)
            assert all(text.isdigit() for _, text in counts)
            ends = [(float(x) - 3.9 * len(text), float(x) + 3.9 * len(text)) for x, text in named]
            assert len(ends) >= 2
            assert ends[0][0] >= 0
            assert ends[-1][1] <= 340
            assert all(end < start for (_, end), (start, _) in pairwise(ends))


def test_charts_survive_poor_data() -> None:
    assert histogram([np.nan], "none") == ""
    assert histogram([1.0, 1.0, 1.0], "same").count("<circle") == 3
    assert 'class="bar"' in histogram(np.ones(9), "same")
    assert curves([0.0], [("one", [np.nan])], "none") == ""
    assert whiskers([1.0, np.nan], [0.1, 0.1], ["a", "b"], "one").count("<circle") == 1


def test_a_histogram_counts_every_value() -> None:
    svg = histogram(np.random.default_rng(1).normal(size=500), "normal")
    assert sum(int(n) for n in re.findall(r": (\d+)</title>", svg)) == 500


def test_misfit_of_a_box_is_its_rms_residual() -> None:
    rng = np.random.default_rng(5)
    expected = np.full((1, 100), 20.0)
    counts = rng.normal(20.0, np.sqrt(20.0 + 0.25), (1, 100))
    shot = Shot(
        panel=np.array([0]), bounds=np.array([[0, 10, 0, 10]]), shape=(10, 10), counts=counts,
        background=np.zeros((1, 100)), trusted=np.ones((1, 100), bool), readout_sd=np.array(0.5),
        miller_index=np.array([[1, 0, 0]]), reflection_row=np.array([0]), lattice=np.array([0]), tilt=np.zeros((1, 3)),
    )  # fmt: skip
    (spot,) = spots_of(shot, expected, "s", np.diag([0.01, 0.02, 0.03])[None])
    assert spot.misfit == pytest.approx(np.sqrt(np.mean((counts - 20.0) ** 2 / 20.25)))
    assert spot.d_A == pytest.approx(100.0)
    assert best_and_worst([spot])[1] == [spot]

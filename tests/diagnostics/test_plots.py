"""Pictures hold what they were given: every reflection, every panel, the units, and no global state."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.figure import Figure

from bayesbragg.diagnostics import plots
from bayesbragg.diagnostics.figure_style import round_down
from bayesbragg.diagnostics.offsets import Offsets, by_resolution, combine, prediction_offsets
from bayesbragg.model import Detector, Reflections, Shot

N_PANELS = 4


@pytest.fixture(scope="module")
def detector() -> Detector:
    """Four panels of 100 x 80 pixels around the beam, one of them turned."""
    turn = np.radians(20.0)
    fast = np.tile([1.0, 0.0, 0.0], (N_PANELS, 1))
    slow = np.tile([0.0, -1.0, 0.0], (N_PANELS, 1))
    fast[3], slow[3] = [np.cos(turn), np.sin(turn), 0.0], [np.sin(turn), -np.cos(turn), 0.0]
    return Detector(
        origin_mm=np.array([[-12, 10, -100], [2, 10, -100], [-12, -2, -100], [2, -4, -100]], float),
        fast=fast,
        slow=slow,
        pixel_size_mm=np.full((N_PANELS, 2), 0.1),
        image_size=np.tile([100, 80], (N_PANELS, 1)),
        trusted_range=np.tile([-1.0, 1e6], (N_PANELS, 1)),
        thickness_mm=np.zeros(N_PANELS),
        attenuation_per_mm=np.zeros(N_PANELS),
        gain=np.ones(N_PANELS),
        names=("a", "b", "c", "d"),
    )


@pytest.fixture(scope="module")
def offsets(detector: Detector) -> Offsets:
    rng = np.random.default_rng(5)
    n = 90
    obs = np.column_stack([rng.uniform(0, 100, n), rng.uniform(0, 80, n), np.zeros(n)])
    panel = rng.integers(0, 3, n)  # none on the last panel
    cal = obs + rng.normal(0, 0.4, (n, 3)) + 0.3 * panel[:, None]
    rlp = np.column_stack([rng.uniform(0.05, 0.5, n), np.zeros(n), np.zeros(n)])
    table = Reflections({"xyzobs.px.value": obs, "xyzcal.px": cal, "panel": panel, "rlp": rlp})
    return prediction_offsets(table, detector)


@pytest.fixture(scope="module")
def shot() -> Shot:
    rng = np.random.default_rng(8)
    n, side = 9, 12
    bounds = np.array([[10 * i, 10 * i + side, 5, 5 + side] for i in range(n)])
    bounds[2, 1] -= 3  # a box cut at an edge
    counts = rng.poisson(2.0, (n, side * side)).astype(float)
    counts[:, 65:68] += 40.0 * np.arange(1, n + 1)[:, None]
    trusted = rng.uniform(size=counts.shape) > 0.05
    trusted[:, 65:68] = True
    return Shot(
        panel=np.arange(n),
        bounds=bounds,
        shape=(side, side),
        counts=counts,
        background=np.full(counts.shape, 2.0),
        trusted=trusted,
        readout_sd=np.array(0.1),
        miller_index=np.column_stack([np.arange(n), np.ones(n), -np.ones(n)]).astype(int),
        reflection_row=np.arange(n),
        lattice=np.zeros(n, int),
        tilt=np.zeros((n, 3)),
    )


def drawn(figure: Figure, path: Path) -> np.ndarray:
    plots.save(figure, path, dpi=50)
    return np.asarray(matplotlib.image.imread(path))


def texts(figure: Figure) -> list[str]:
    every = [axes for parent in figure.axes for axes in (parent, *parent.child_axes)]
    found = [text.get_text() for axes in every for text in axes.texts]
    for axes in every:
        found += [axes.get_xlabel(), axes.get_ylabel()]
    return found


def test_detector_picture(detector: Detector, offsets: Offsets, tmp_path: Path) -> None:
    figure = plots.detector_figure(detector, offsets, "a run")
    main = figure.axes[0]
    (dots,) = [c for c in main.collections if isinstance(c, PathCollection)]
    (panels,) = [c for c in main.collections if type(c) is PolyCollection]
    assert len(dots.get_offsets()) == len(offsets)
    assert sorted(dots.get_array()) == pytest.approx(sorted(offsets.overall_um))
    corners = panels.get_paths()[3].vertices[1]  # end of the fast edge of the turned panel
    assert corners == pytest.approx([2 + 10 * np.cos(np.radians(20)), -4 + 10 * np.sin(np.radians(20))])
    shown = texts(figure)
    assert {"0", "1", "2", "3"} <= set(shown)
    assert any("µm" in text and "offset" in text for text in shown)
    assert any("pixels of 100 µm" in text for text in shown)
    assert any(text.endswith(" mm") for text in shown)
    picture = drawn(figure, tmp_path / "detector.png")
    assert picture.std() > 0.05


def test_detector_picture_without_reflections(detector: Detector, tmp_path: Path) -> None:
    picture = drawn(plots.detector_figure(detector, combine([])), tmp_path / "empty.png")
    assert picture.std() > 0.01


def test_resolution_picture_has_every_run(offsets: Offsets, tmp_path: Path) -> None:
    runs = {"one": by_resolution(offsets, 6), "two": by_resolution(offsets, 4)}
    figure = plots.resolution_figure(runs)
    assert [axes.get_title() for axes in figure.axes] == ["overall", "radial component", "tangential component"]
    for axes, name in zip(figure.axes, ("overall_px", "radial_px", "tangential_px"), strict=True):
        for line, bins in zip(axes.lines, runs.values(), strict=True):
            assert line.get_ydata() == pytest.approx(getattr(bins, name))
            assert 1 / np.sqrt(line.get_xdata()) == pytest.approx(bins.d_A)
        for place, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True):
            assert 1 / np.sqrt(place) == pytest.approx(float(label.get_text()))
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["one", "two"]
    assert drawn(figure, tmp_path / "resolution.png").std() > 0.02


def test_boxes_are_the_brightest_and_residuals_are_in_standard_deviations(shot: Shot, tmp_path: Path) -> None:
    model = np.where(np.arange(144) == 66, 50.0, 0.0) * np.ones((9, 1))
    figure = plots.boxes_figure(shot, model, n_boxes=3)
    titles = [axes.get_title() for axes in figure.axes if "panel" in axes.get_title()]
    assert titles == ["(8 1 -1)\npanel 8", "(7 1 -1)\npanel 7", "(6 1 -1)\npanel 6"]
    images = [axes.images[0] for axes in figure.axes if axes.images and axes.get_label() != "<colorbar>"]
    residual = np.ma.asarray(images[6].get_array())
    expected = (shot.counts[8] - 2.0 - model[8]) / np.sqrt(2.0 + model[8] + 0.01)
    good = shot.trusted[8].reshape(12, 12)
    assert np.array_equal(np.ma.getmaskarray(residual), ~good)
    assert residual.data[good] == pytest.approx(expected.reshape(12, 12)[good])
    assert drawn(figure, tmp_path / "boxes.png").std() > 0.05


def test_a_cut_box_is_drawn_without_its_padding(shot: Shot) -> None:
    figure = plots.boxes_figure(shot.select([2]), np.zeros((1, 144)))
    image = figure.axes[0].images[0]
    assert np.shape(image.get_array()) == (12, 9)
    assert tuple(image.get_extent()) == (20, 29, 17, 5)


def test_histograms_state_median_and_unit(tmp_path: Path) -> None:
    values = np.concatenate([np.random.default_rng(1).normal(79.1, 0.02, 200), [np.nan]])
    figure = plots.histograms_figure({"a": values, "G": np.full(5, 3.0), "none": [np.nan]}, {"a": "Å"}, n_columns=2)
    assert figure.axes[0].get_xlabel() == "a (Å)"
    assert f"{np.nanmedian(values):.6g}" in figure.axes[0].get_title()
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 200
    assert "no finite" in figure.axes[2].get_title()
    assert drawn(figure, tmp_path / "histograms.png").std() > 0.02


def test_saving_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = plots.save(Figure(figsize=(2, 2)), tmp_path / "new" / "blank.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="not supported"):
        plots.save(Figure(figsize=(2, 2)), tmp_path / "blank.nonsense")
    assert [p.name for p in tmp_path.iterdir()] == ["new"]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["blank.png"]


def test_no_figure_is_registered_with_pyplot(detector: Detector, offsets: Offsets) -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    plots.detector_figure(detector, offsets)
    plots.histograms_figure({"a": [1.0, 2.0]})
    assert plt.get_fignums() == before


@pytest.mark.parametrize(("value", "expected"), [(7.3, 5.0), (5.0, 5.0), (0.0019, 0.001), (240.0, 200.0)])
def test_round_down(value: float, expected: float) -> None:
    assert round_down(value) == pytest.approx(expected)

"""Posteriors as InferenceData: what plain ArviZ and xarray read is what was sampled; pictures have units."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import xarray
from inference.test_map import problem

from bayesbragg.diagnostics.arviz_container import groups_of, read_netcdf, write_netcdf
from bayesbragg.diagnostics.figure_style import save
from bayesbragg.diagnostics.inference_data import box_terms, inference_data, prior_draws
from bayesbragg.diagnostics.posterior_plots import pair_plot, prior_plot, trace_plot
from bayesbragg.diagnostics.predictive_plots import forest_plot, pit, predictive_plot, residual_plot
from bayesbragg.inference import LogDensity, fit_map
from bayesbragg.inference.laplace import LaplaceOptions, laplace, target_of_fit
from bayesbragg.model.errors import InputError
from bayesbragg.model.posterior import Posterior


@pytest.fixture(scope="module")
def made() -> tuple[LogDensity, Posterior, Any]:
    density, _ = problem(0)
    posterior = laplace(target_of_fit(density, fit_map(density)), LaplaceOptions(n_draws=400), seed=3)
    return density, posterior, inference_data(posterior, density, provenance={"command": ["bayesbragg", "test"]})


def test_plain_arviz_reads_what_was_written(made: tuple[LogDensity, Posterior, Any], tmp_path: Path) -> None:
    _, posterior, data = made
    path = write_netcdf(data, tmp_path / "deep" / "shot_posterior.nc")
    assert [p.name for p in path.parent.iterdir()] == ["shot_posterior.nc"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz

        read = arviz.from_netcdf(path)
        summary = arviz.summary(read, kind="stats")
    assert np.array_equal(np.asarray(read.posterior["rotX"]), posterior.values("rotX"))
    assert read.posterior["rotX"].attrs["units"] == "radian"
    assert summary["mean"]["Na"] == pytest.approx(posterior.values("Na").mean(), abs=1e-2)
    ours = groups_of(read_netcdf(path))
    for name, dataset in groups_of(data).items():
        for variable in dataset.data_vars:
            assert np.array_equal(ours[name][variable], dataset[variable]), (name, variable)
    assert json.loads(ours["posterior"].attrs["provenance"])["command"] == ["bayesbragg", "test"]
    assert ours["posterior"].attrs["verdict_passed"] == int(posterior.verdict.passed)


def test_log_likelihood_by_reflection_adds_up(made: tuple[LogDensity, Posterior, Any]) -> None:
    density, posterior, data = made
    groups = groups_of(data)
    terms = groups["log_likelihood"]["pixels"]
    assert terms.dims == ("chain", "draw", "reflection")
    assert terms.sizes["reflection"] == 20
    for i in (0, 7):
        x = density.layout.coordinates(posterior.draws[0, i])
        assert float(terms[0, i].sum()) == pytest.approx(density.log_likelihood(x), rel=1e-10)


def test_predicted_photons_surround_the_observed_ones(made: tuple[LogDensity, Posterior, Any]) -> None:
    density, posterior, data = made
    groups = groups_of(data)
    predicted, observed = groups["posterior_predictive"]["photons"], groups["observed_data"]["photons"]
    assert observed.attrs["units"] == "photon"
    z = (observed - predicted.mean(("chain", "draw"))) / predicted.std(("chain", "draw"))
    assert np.abs(np.asarray(z)).max() < 4.5
    terms = box_terms(density, posterior.draws[0, :3])
    assert terms.photons.shape == (3, 20)
    trusted = np.asarray(density.problem.pixels.trusted)
    assert terms.readout_variance == pytest.approx(0.09 * trusted.sum(axis=1))


def test_draws_of_the_prior_follow_it(made: tuple[LogDensity, Posterior, Any]) -> None:
    layout = made[0].layout
    draws = prior_draws(layout, 20_000, seed=1)
    # Flat without an upper bound is improper: it has no draws.
    assert set(layout.names) - set(draws) == {"G"}
    assert draws["rotX"].std() == pytest.approx(0.4 / np.sqrt(12), rel=0.02)
    assert draws["rotZ"].std() == pytest.approx(0.01, rel=0.02)
    low, high = layout.bounds()[layout.names.index("ucell_a")]
    assert low < draws["ucell_a"].min() < draws["ucell_a"].max() < high


def test_pictures_name_parameters_and_units(made: tuple[LogDensity, Posterior, Any], tmp_path: Path) -> None:
    data = made[2]
    for function in (trace_plot, pair_plot, prior_plot):
        figure = function(data, ["rotX", "Na"])
        words = [text for a in figure.axes for text in (a.get_xlabel(), a.get_ylabel())]
        assert any("rotX" in word and "radian" in word for word in words)
        assert any("Na" in word and "cells" in word for word in words)
        assert save(figure, tmp_path / "picture.png", dpi=40).stat().st_size > 1000
        with pytest.raises(InputError, match="choose among rotX"):
            function(data, ["Nz"])
    bare = inference_data(made[1])
    with pytest.raises(InputError, match="no group 'prior'"):
        prior_plot(bare)


def test_bad_files_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_netcdf(tmp_path / "none.nc")
    (tmp_path / "text.nc").write_text("hello")
    with pytest.raises(InputError, match=r"text\.nc: .*expected a posterior"):
        read_netcdf(tmp_path / "text.nc")


def test_predictions_have_uniform_pits(made: tuple[LogDensity, Posterior, Any], tmp_path: Path) -> None:
    data = made[2]
    u = pit(data)
    assert u.shape == (20,)
    # Kolmogorov-Smirnov: 1.63 / sqrt(n) is exceeded once in a hundred times. The data are in the model that they made.
    assert np.max(np.abs(np.sort(u) - (np.arange(20) + 0.5) / 20)) < 1.63 / np.sqrt(20)
    groups = groups_of(data)
    shifted = groups | {"observed_data": groups["observed_data"] * 1.5}
    assert pit(xarray.DataTree.from_dict(shifted)).min() > 0.5
    figure = predictive_plot(data)
    assert any("photons" in a.get_xlabel() for a in figure.axes)
    assert save(figure, tmp_path / "picture.png", dpi=40).stat().st_size > 1000
    with pytest.raises(InputError, match="with the shot's boxes"):
        residual_plot(data)
    with pytest.raises(InputError, match="no predictions"):
        predictive_plot(inference_data(made[1]))


def test_residuals_by_panel_and_resolution(made: tuple[LogDensity, Posterior, Any], tmp_path: Path) -> None:
    groups = groups_of(made[2])
    rows = groups["observed_data"]["reflection"]
    at = np.arange(20)
    where = {
        "panel": ("reflection", at % 3),
        "bounds": (("reflection", "edge"), np.stack([at, at + 5, at, at + 5], axis=1)),
        "resolution": ("reflection", 2.0 + 0.1 * at, {"units": "angstrom"}),
    }
    located = groups | {"constant_data": groups["constant_data"].assign(where).assign_coords(reflection=rows)}
    figure = residual_plot(xarray.DataTree.from_dict(located))
    assert {"panel", "resolution (angstrom)"} <= {a.get_xlabel() for a in figure.axes}
    assert save(figure, tmp_path / "picture.png", dpi=40).stat().st_size > 1000


def test_forests_have_a_line_for_each_posterior(made: tuple[LogDensity, Posterior, Any]) -> None:
    figure = forest_plot({"first": made[2], "second": made[2]}, "ucell_a", truth=79.2)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["first", "second"]
    assert "angstrom" in figure.axes[0].get_xlabel()
    with pytest.raises(InputError, match="not in the posterior of first"):
        forest_plot({"first": made[2]}, "Nz")


def test_the_container_of_arviz_1(
    made: tuple[LogDensity, Posterior, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ArviZ 1.x has no InferenceData but answers its name: the container is xarray's, and files are the same."""
    from bayesbragg.diagnostics import arviz_container as module

    shim = ModuleType("arviz")
    shim.__getattr__ = lambda name: xarray.DataTree  # type: ignore[method-assign]
    monkeypatch.setattr(module, "arviz", shim)
    tree = inference_data(made[1], made[0])
    assert isinstance(tree, xarray.DataTree)
    assert tree.attrs["method"] == "laplace"
    read = module.read_netcdf(module.write_netcdf(tree, tmp_path / "tree.nc"))
    assert isinstance(read, xarray.DataTree)
    before = groups_of(made[2])
    for name, dataset in groups_of(read).items():
        assert set(dataset.data_vars) == set(before[name].data_vars)
    assert np.array_equal(read["posterior"]["rotX"], made[1].values("rotX"))
    assert predictive_plot(read).axes

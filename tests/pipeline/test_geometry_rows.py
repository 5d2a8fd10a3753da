"""Shots of a joint fit: names from several runs, columns that some tables lack, processes without a shot."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_run import make_shot, write_factors

from bayesbragg.inference.communicator import LocalProcesses
from bayesbragg.io.phil import load_phil
from bayesbragg.io.tables import write_table
from bayesbragg.model.errors import InputError
from bayesbragg.model.panel_groups import group_panels, shorthand_groups
from bayesbragg.pipeline.geometry_job import ShotRow
from bayesbragg.pipeline.geometry_rows import table_rows
from bayesbragg.pipeline.geometry_start import ShotSpots, start_from_spots
from bayesbragg.priors.panels import PanelPriors, shared_prior


def row(folder: Path, name: str, **more: Any) -> dict[str, Any]:
    """A row of a table as the classic program writes it, with the files that it names."""
    folder.mkdir(exist_ok=True)
    expt, refl = folder / f"{name}_refined.expt", folder / f"{name}_indexed.refl"
    expt.touch()
    refl.touch()
    return {
        "exp_name": str(expt), "stage1_refls": str(refl), "ncells": [10.0, 11.0, 12.0], "spot_scales": 2.0
    } | more  # fmt: skip


def rows_of(given: str | Path) -> list[ShotRow]:
    return table_rows(load_phil([], [f"input_pkl={given}", "geometry.optimize=True"], program="geometry"))


def test_shots_of_one_name_from_two_runs_have_names_that_differ(tmp_path: Path) -> None:
    """Their files would overwrite each other in the output folder."""
    for run in ("one", "two"):
        write_table(pd.DataFrame([row(tmp_path / run, "shot_1")]), tmp_path / run / "table.pkl")
    found = rows_of(tmp_path / "*" / "table.pkl")
    assert [r.tag for r in found] == ["one_shot_1", "two_shot_1"]
    assert [r.places for r in found] == [(0,), (1,)]


def test_lattices_of_a_shot_are_one_shot(tmp_path: Path) -> None:
    table = [row(tmp_path, "a"), row(tmp_path, "b"), row(tmp_path, "a", spot_scales=3.0)]
    write_table(pd.DataFrame(table), tmp_path / "table.pkl")
    first, second = rows_of(tmp_path / "table.pkl")
    assert (first.tag, first.places, first.start["G"]) == ("a", (0, 2), [2.0, 3.0])
    assert (second.tag, second.places) == ("b", (1,))


def test_columns_that_one_of_the_joined_tables_lacks_have_their_defaults(tmp_path: Path) -> None:
    write_table(pd.DataFrame([row(tmp_path / "old", "x")]), tmp_path / "old" / "table.pkl")
    new = row(tmp_path / "new", "y", B=3.0, lam1=1.001, eta_abc=[0.1, 0.2, 0.3], ncells_def=[1.0, 2.0, 3.0])
    write_table(pd.DataFrame([new]), tmp_path / "new" / "table.pkl")
    y, x = rows_of(tmp_path / "*" / "table.pkl")
    assert (y.start["b_factor_A2"], y.start["lambda_scale"], y.start["eta_deg"]) == (3.0, 1.001, [0.1, 0.2, 0.3])
    assert (x.start["b_factor_A2"], x.start["lambda_scale"], x.start["eta_deg"]) == (0.0, 1.0, [0.0, 0.0, 0.0])
    assert (y.start["n_def"], x.start["n_def"]) == ([[1.0, 2.0, 3.0]], [[0.0, 0.0, 0.0]])


@pytest.mark.slow
def test_a_process_without_shots_takes_part_in_the_fit_of_positions(tmp_path: Path) -> None:
    """More ranks than shots: they add nothing to the sums and come to the same detector."""
    write_factors(tmp_path / "factors.mtz")
    shot = make_shot(1, tmp_path / "factors.mtz")
    detector, beam, crystal, table = shot.world.detector, shot.world.beam, shot.crystals[0], shot.reflections()
    n, panel = len(table), np.asarray(table["panel"])
    size = detector.pixel_size_mm[panel]
    observed = np.asarray(table["xyzobs.px.value"])[:, :2]
    spots = np.column_stack([np.zeros(n), panel, table["miller_index"], observed * size, size**2 / 12.0])
    lattice = [*crystal.U.ravel(), *crystal.cell, *beam.direction, beam.wavelength_A, crystal.space_group_number]
    own = ShotSpots(spots, np.array([lattice]), np.zeros(n))
    grouping = group_panels(detector, shorthand_groups(detector, "whole"))
    prior = shared_prior(grouping, PanelPriors())
    here, there = Pipe()

    def start(rank: int) -> Any:
        comm = LocalProcesses(rank, 2, [(here, there)[rank]])
        shots, places = ([own], [0]) if rank == 0 else ([], [])
        return start_from_spots(shots, places, 1, comm, detector, grouping, prior)

    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(start, 0)
        fit, starts = start(1)
        assert starts == []
        np.testing.assert_array_equal(fit.shared, first.result()[0].shared)
    assert len(first.result()[1]) == 1


@pytest.mark.parametrize("name", ["opt_beam", "reference_geometry"])
def test_a_reference_reaches_the_shots(tmp_path: Path, name: str) -> None:
    from bayesbragg.cli.geometry_refine import geometry_job

    write_table(pd.DataFrame([row(tmp_path, "a")]), tmp_path / "table.pkl")
    words = [f"input_pkl={tmp_path / 'table.pkl'}", "geometry.optimize=True", f"{name}={tmp_path / 'other.expt'}"]
    job = geometry_job(load_phil([], words, program="geometry"))
    given = {"opt_beam": job.reference_beam, "reference_geometry": job.reference_geometry}
    assert given.pop(name) == tmp_path / "other.expt"
    assert set(given.values()) == {None}


def test_a_shot_whose_fit_failed_stops_no_joint_fit(tmp_path: Path, caplog: pytest.LogCaptureFixture,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """`stills-process` leaves a row with the crystal alone where the pixel refinement failed."""
    monkeypatch.setattr(logging.getLogger("bayesbragg"), "propagate", True)
    lost = row(tmp_path, "lost")
    del lost["ncells"], lost["spot_scales"]
    write_table(pd.DataFrame([lost, row(tmp_path, "a")]), tmp_path / "table.pkl")
    assert [(r.tag, r.places) for r in rows_of(tmp_path / "table.pkl")] == [("a", (1,))]
    assert "row 0" in caplog.text
    assert "left out" in caplog.text
    write_table(pd.DataFrame([lost]), tmp_path / "table.pkl")
    with pytest.raises(InputError, match="row 0: no column 'ncells'"):
        rows_of(tmp_path / "table.pkl")

"""The saved state of a joint fit: what was saved comes back, the places where reflections were listed among it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bayesbragg.inference.communicator import OneProcess
from bayesbragg.inference.joint_types import Iteration, JointState
from bayesbragg.pipeline.geometry_state import StateKeeper

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    resume: bool = False
    keep_in_memory: bool = False
    tolerance: float = 0.1


class Term:
    """A shot with so many numbers of its own, which says where its reflections are listed."""

    def __init__(self, n: int) -> None:
        self.start = np.zeros((1, n))
        self.listed_at: tuple[FloatArray, FloatArray] | None = None

    def list_at(self, own: FloatArray, shared: FloatArray) -> None:
        self.listed_at = own, shared


def keeper(folder: Path, tolerance: float = 0.1) -> StateKeeper:
    if not (folder / "x.expt").exists():
        (folder / "x.expt").touch()
    rows = [
        SimpleNamespace(tag=t, experiments=folder / "x.expt", reflections=folder / "x.expt", start={}) for t in "ab"
    ]
    job: Any = SimpleNamespace(
        folder=folder,
        settings=Settings(tolerance=tolerance),
        rows=rows,
        reference_geometry=None,
        reference_beam=None,
    )
    return StateKeeper(job, OneProcess(), [0, 1])


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    terms: list[Any] = [Term(3), Term(5)]
    terms[1].list_at(np.arange(5.0)[None] + 0.5, np.array([7.0, 8.0]))
    trace = [Iteration(0, 9.0, 1.5, 0.7, 3.0, 1e-3, True)]
    state = JointState(
        [np.array([[1.0, 2.0, 3.0]]), np.arange(5.0)[None]], np.array([0.1, -0.2]), 4.0, 0.5, 2.5, 6, trace
    )
    state.widths, state.round = np.array([0.3]), 2
    keeper(tmp_path).save(state, terms)

    again: list[Any] = [Term(3), Term(5)]
    found = keeper(tmp_path).load(again)
    assert found is not None
    for ours, theirs in zip(
        [*found.own, found.shared, found.widths], [*state.own, state.shared, state.widths], strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert (found.target, found.damping, found.growth, found.iteration, found.round) == (4.0, 0.5, 2.5, 6, 2)
    assert found.trace == trace
    assert again[0].listed_at is None
    for ours, theirs in zip(again[1].listed_at, terms[1].listed_at, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("changed", ["settings", "numbers", "input"])
def test_the_state_of_another_job_is_not_taken(tmp_path: Path, changed: str) -> None:
    state = JointState([np.zeros((1, 3)), np.zeros((1, 5))], np.zeros(2))
    terms: list[Any] = [Term(3), Term(5)]
    keeper(tmp_path).save(state, terms)
    if changed == "input":
        (tmp_path / "x.expt").write_text("longer")
    others: list[Any] = [Term(3), Term(4 if changed == "numbers" else 5)]
    assert keeper(tmp_path, 0.2 if changed == "settings" else 0.1).load(others) is None

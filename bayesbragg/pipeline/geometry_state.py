"""The state of a joint fit on disk: a run that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from bayesbragg.inference.communicator import Communicator
from bayesbragg.inference.joint_types import Iteration, JointState
from bayesbragg.io.geometry_results import read_arrays, write_arrays
from bayesbragg.pipeline.geometry_job import GeometryJob
from bayesbragg.pipeline.geometry_term import ShotTerm

__all__ = ["StateKeeper"]

STATE = "geometry_state.npz"


def _stamp(path: Path) -> str:
    """Size and time of a file: an input that was written again makes a saved state worthless."""
    status = path.stat()
    return f"{path} {status.st_size} {status.st_mtime_ns}"


class StateKeeper:
    """Saves the state of all processes in one file, and finds it again.

    Args:
        places: this process's shots by their place in the table.
    """

    def __init__(self, job: GeometryJob, comm: Communicator, places: Sequence[int]) -> None:
        self.comm, self.places, self.n = comm, list(places), len(job.rows)
        self.path = job.folder / STATE
        # How shots are visited, and whether a saved state is used, make no other fit.
        settings = replace(job.settings, resume=True, keep_in_memory=True)
        known = [
            json.dumps(asdict(settings), default=str, sort_keys=True),
            *(f"{r.tag} {r.experiments} {r.reflections} {sorted(r.start.items())}" for r in job.rows),
            *(str(path) for path in (job.reference_geometry, job.reference_beam)),
            *(_stamp(path) for row in job.rows for path in (row.experiments, row.reflections)),
        ]
        self.mark = hashlib.sha256("\n".join(known).encode()).hexdigest()

    def save(self, state: JointState, terms: Sequence[ShotTerm]) -> None:
        """Write the state; with it where each shot's reflections were listed, which decides about the last digits."""
        widths = np.zeros(self.comm.size)
        widths[self.comm.rank] = max((x.shape[1] for x in state.own), default=0)
        width = int(self.comm.sum(widths).max())
        own = np.zeros((self.n, width + 1))
        for place, x in zip(self.places, state.own, strict=True):
            own[place, : x.shape[1]] = x[0]
            own[place, -1] = x.shape[1]
        own = self.comm.sum(own)
        listed = np.zeros((self.n, 1 + width + len(state.shared)))
        for place, term in zip(self.places, terms, strict=True):
            if term.listed_at is not None:
                there, shared = term.listed_at
                listed[place, 0] = 1.0
                listed[place, 1 : 1 + there.shape[1]], listed[place, 1 + width :] = there[0], shared
        listed = self.comm.sum(listed)
        if self.comm.rank:
            return
        numbers = [state.target, state.damping, state.growth, state.iteration, state.round]
        trace = np.array([list(asdict(step).values()) for step in state.trace], dtype=float)
        arrays = {"own": own, "shared": state.shared, "numbers": np.array(numbers), "trace": trace, "listed": listed}
        arrays["widths"] = np.zeros(0) if state.widths is None else state.widths
        write_arrays(self.path, {**arrays, "mark": np.array(self.mark)})

    def load(self, terms: Sequence[ShotTerm]) -> JointState | None:
        """The state that was saved, if it is one of this job; reflections are listed where they were."""
        found = read_arrays(self.path)
        if found is None or str(found.get("mark")) != self.mark:
            return None
        own = [found["own"][p, : int(found["own"][p, -1])][None] for p in self.places]
        if any(x.shape != t.start.shape for x, t in zip(own, terms, strict=True)):
            return None
        listed, width = found.get("listed"), len(found["own"][0]) - 1
        if listed is None:
            return None
        for place, term in zip(self.places, terms, strict=True):
            if listed[place, 0]:
                term.list_at(listed[place, 1 : 1 + term.start.shape[1]][None], listed[place, 1 + width :])
        target, damping, growth, iteration, round_ = (float(v) for v in found["numbers"])
        trace = [
            Iteration(int(r[0]), float(r[1]), float(r[2]), float(r[3]), float(r[4]), float(r[5]), bool(r[6]))
            for r in found["trace"]
        ]
        state = JointState(own, found["shared"], target, damping, growth, int(iteration), trace)
        state.widths, state.round = found["widths"], int(round_)
        return state

"""Joint geometry of many simulated shots that are read from disk at every visit: time and memory per shot.

    python benchmarks/streaming.py [NUMBER_OF_SHOTS ...]

Each number runs in a process of its own, which prints a row of a table: seconds per shot and pass over the shots
(reading, derivatives, Schur complement), and peak memory before and after the timed passes.
"""

from __future__ import annotations

import copy
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "inference"))
from joint_simulation import simulate

from bayesbragg.inference.joint import fit_joint
from bayesbragg.inference.joint_types import JointOptions
from bayesbragg.inference.pixel_term import PixelTerm
from bayesbragg.inference.schur import Blocks

FloatArray = npt.NDArray[np.float64]
DISTINCT = 8
"""Shots that are really simulated; the others are copies of them on disk under names of their own."""
STEPS = 3


class StoredTerm:
    """A shot whose arrays are on disk; only its start stays in memory."""

    def __init__(self, path: Path, like: PixelTerm, structure: jax.tree_util.PyTreeDef) -> None:
        self.path, self.like, self.structure = path, like, structure
        self.start, self.step_limit = like.start, like.step_limit

    def _term(self) -> PixelTerm:
        with np.load(self.path) as file:
            leaves = [file[f"arr_{i}"] for i in range(len(file.files) - 1)]
            touched = file["touched"]
        term = copy.copy(self.like)
        term.moving, term.touched = jax.tree_util.tree_unflatten(self.structure, leaves), touched
        return term

    def linearize(self, own: FloatArray, shared: FloatArray) -> list[Blocks]:
        return self._term().linearize(own, shared)

    def target(self, own: FloatArray, shared: FloatArray) -> float:
        return self._term().target(own, shared)

    def value_and_grad(self, own: FloatArray, shared: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        return self._term().value_and_grad(own, shared)

    def offsets(self, own: FloatArray, shared: FloatArray) -> FloatArray:
        return np.zeros(0)


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def one(n: int) -> None:
    data = simulate(1, n_shots=DISTINCT, n_boxes=16)
    with tempfile.TemporaryDirectory() as folder:
        terms = []
        for i in range(n):
            like = data.terms[i % DISTINCT]
            leaves, structure = jax.tree_util.tree_flatten(like.moving)
            path = Path(folder) / f"{i}.npz"
            np.savez(path, *[np.asarray(leaf) for leaf in leaves], touched=like.touched)
            terms.append(StoredTerm(path, like, structure))
        fit_joint(terms[:DISTINCT], data.prior, JointOptions(max_iterations=1))  # compiles
        before, clock, cpu = megabytes(), time.perf_counter(), time.process_time()
        fit = fit_joint(terms, data.prior, JointOptions(max_iterations=STEPS, tolerance=1e-12))
        seconds, cpu = time.perf_counter() - clock, time.process_time() - cpu
        visits = n * fit.evaluations
        print(f"| {n} | {fit.evaluations} | {1e3 * seconds / visits:.1f} | {1e3 * cpu / visits:.1f} | "
              f"{before:.0f} | {megabytes():.0f} | {1024 * (megabytes() - before) / n:.0f} |", flush=True)  # fmt: skip


def main(numbers: list[int]) -> None:
    print("| shots | passes | ms per shot and pass | CPU ms | peak before (MB) | peak (MB) | kB per shot |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for n in numbers:
        subprocess.run([sys.executable, __file__, "--one", str(n)], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(int(sys.argv[2]))
    else:
        main([int(word) for word in sys.argv[1:]] or [50, 200, 1000])

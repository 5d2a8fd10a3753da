"""Sums over the processes of a run: one process, MPI ranks, or local processes, behind one small interface.

Every process runs the same solver on its own shots; only sums over shots cross between them, so results do not depend
on how the shots are spread (up to the order of additions).
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Communicator", "LocalProcesses", "MpiRanks", "OneProcess", "run_local"]

FloatArray = npt.NDArray[np.float64]


class Communicator(Protocol):
    """Processes that work together.

    Attributes:
        rank: number of this process; size: how many there are.
    """

    rank: int
    size: int

    def sum(self, values: FloatArray) -> FloatArray:
        """Elementwise sum of an array over all processes; every process gets it."""
        ...


class OneProcess:
    """No other process."""

    rank, size = 0, 1

    def sum(self, values: FloatArray) -> FloatArray:
        return values


class MpiRanks:
    """The ranks of an MPI communicator (mpi4py)."""

    def __init__(self, comm: Any) -> None:
        self.comm, self.rank, self.size = comm, int(comm.Get_rank()), int(comm.Get_size())

    def sum(self, values: FloatArray) -> FloatArray:
        # Gathered and added in the order of the ranks: the same bits on every rank.
        parts = self.comm.allgather(np.ascontiguousarray(values))
        return np.asarray(sum(parts[1:], parts[0]))


class LocalProcesses:
    """Processes of one machine: a star of pipes with process 0 in the middle."""

    def __init__(self, rank: int, size: int, pipes: list[Connection]) -> None:
        self.rank, self.size, self.pipes = rank, size, pipes

    def sum(self, values: FloatArray) -> FloatArray:
        if self.rank:
            self.pipes[0].send(np.asarray(values))
            return np.asarray(self.pipes[0].recv())
        total = np.asarray(values)
        for pipe in self.pipes:
            total = total + pipe.recv()
        for pipe in self.pipes:
            pipe.send(total)
        return total


def run_local(work: Callable[..., Any], n: int, *arguments: Any) -> Any:
    """Call ``work(communicator, *arguments)`` in n processes at once and return what it returns in this one.

    Args:
        work: a module-level function; its arguments must be picklable.
        n: number of processes, this one among them.
    """
    import multiprocessing

    if n <= 1:
        return work(OneProcess(), *arguments)
    context = multiprocessing.get_context("spawn")
    pairs = [context.Pipe() for _ in range(n - 1)]
    workers = [
        context.Process(target=_worker, args=(work, rank, n, theirs, arguments), daemon=True)
        for rank, (_, theirs) in enumerate(pairs, start=1)
    ]
    for worker in workers:
        worker.start()
    for _, theirs in pairs:
        theirs.close()
    try:
        return work(LocalProcesses(0, n, [ours for ours, _ in pairs]), *arguments)
    finally:
        for ours, _ in pairs:
            ours.close()
        for worker in workers:
            worker.join(timeout=10)
            if worker.is_alive():
                worker.terminate()


def _worker(work: Callable[..., Any], rank: int, size: int, pipe: Connection, arguments: tuple[Any, ...]) -> None:
    work(LocalProcesses(rank, size, [pipe]), *arguments)

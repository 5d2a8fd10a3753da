"""The ranks of a run under mpirun or srun (``mp.method=mpi``): rank r of n takes every n-th shot, from r on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bayesbragg.model.errors import InputError

if TYPE_CHECKING:
    from bayesbragg.io.phil import ResolvedParameters

__all__ = ["local_rank", "mpi_ranks"]


def mpi_ranks(parameters: ResolvedParameters) -> Any:
    """The communicator of ``mp.method=mpi``; None for a single process.

    Raises:
        InputError: a queue was asked for, or MPI without mpi4py.
    """
    method = parameters.stills.mp.method
    if method not in ("multiprocessing", "mpi"):
        raise InputError(f"mp.method={method}: expected multiprocessing or mpi; start jobs of a queue yourself")
    if method != "mpi":
        return None
    try:
        from mpi4py import MPI
    except ImportError:
        raise InputError("mp.method=mpi: mpi4py is not installed; pip install bayesbragg[mpi]") from None
    return MPI.COMM_WORLD if MPI.COMM_WORLD.Get_size() > 1 else None


def local_rank(ranks: Any) -> int:
    """Number of this rank on its node, which chooses its device; 0 for a single process."""
    if ranks is None:
        return 0
    from mpi4py import MPI

    return int(ranks.Split_type(MPI.COMM_TYPE_SHARED).Get_rank())

"""Worker processes that share out tasks one by one. One that dies loses the task in its hands and no other.

Each worker has its own pipe. Log records come back through it, so that the run's log holds what workers say, and
workers get an equal share of the cores, so that two on two cores do not fight over them.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from bayesbragg.inference.cores import available_cores
from bayesbragg.model.errors import InputError

__all__ = ["share_out"]

Task = TypeVar("Task")
Result = TypeVar("Result")

LOGGER = "bayesbragg"
RESULT, LOG, READY, FAILED = "result", "log", "ready", "failed"


def share_out(
    tasks: Sequence[Task],
    prepare: Callable[[Any], Callable[[Task], Iterable[Result]]],
    argument: Any,
    n_workers: int,
    lost: Callable[[Task, str], Result],
) -> Iterator[Result]:
    """Yield the results of all tasks as they come.

    Args:
        tasks: what to do; picklable.
        prepare: called once in each worker with ``argument``; returns the function that does a task. A module-level
            function.
        argument: picklable.
        n_workers: processes.
        lost: what a task counts as whose worker died or raised an error; the text says how.
    """
    waiting = list(reversed(tasks))
    workers: list[_Worker[Task]] = []
    context = multiprocessing.get_context("spawn")
    threads = max(1, available_cores() // max(1, n_workers))

    def hire() -> None:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, prepare, argument), daemon=True)
        with _thread_limits(threads):
            process.start()
        theirs.close()
        workers.append(_Worker(process, ours, []))

    try:
        for _ in range(min(n_workers, len(tasks))):
            hire()
        while workers:
            ready = wait([w.pipe for w in workers])
            for worker in [w for w in workers if w.pipe in ready]:
                try:
                    kind, content = worker.pipe.recv()
                except (EOFError, OSError):
                    worker.process.join()
                    workers.remove(worker)
                    # A worker that dies before its first task takes one with it, lest the run hire for ever.
                    unfinished = worker.task or ([waiting.pop()] if waiting else [])
                    yield from (lost(task, _how(worker.process.exitcode)) for task in unfinished)
                    if waiting:
                        hire()
                    continue
                if kind == RESULT:
                    yield content
                elif kind == LOG:
                    logging.getLogger(content.name).handle(content)
                elif kind == FAILED:
                    yield from (lost(task, content) for task in worker.task)
                else:
                    worker.task = [waiting.pop()] if waiting else []
                    if not worker.task:
                        workers.remove(worker)
                    # A worker that died meanwhile shows at the next look.
                    try:
                        worker.pipe.send(worker.task)
                    except OSError:
                        continue
                    if not worker.task:
                        worker.process.join()
    finally:
        for worker in workers:
            worker.process.terminate()
            worker.process.join()


@dataclass(eq=False)
class _Worker(Generic[Task]):
    process: Any
    pipe: Connection
    task: list[Task]


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return f"the worker process was ended by {signal.Signals(-code).name}"
        except ValueError:
            pass
    return f"the worker process ended with code {code}"


@contextmanager
def _thread_limits(n: int) -> Iterator[None]:
    """An environment, for processes that start meanwhile, in which numerical libraries use n threads.

    ``NPROC`` is what XLA's thread pool goes by. A GPU's memory is not reserved by the first worker that comes.
    """
    names = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    wanted = dict.fromkeys(names, str(n)) | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _ToParent(logging.Handler):
    """Sends records through the pipe, their text and traceback made here."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__()
        self.pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        kept = {name: getattr(record, name) for name in ("name", "levelno", "levelname", "created", "msecs")}
        self.tell(LOG, logging.makeLogRecord({**kept, "msg": self.format(record)}))

    def tell(self, kind: str, content: Any) -> None:
        """Send a message. Threads that work ahead log while another one sends results: one at a time."""
        self.acquire()
        try:
            self.pipe.send((kind, content))
        finally:
            self.release()


def _serve(pipe: Connection, prepare: Callable[[Any], Callable[[Any], Iterable[Any]]], argument: Any) -> None:
    # An interrupt is the parent's affair, which then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logger = logging.getLogger(LOGGER)
    parent = _ToParent(pipe)
    logger.handlers = [parent]
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    work = prepare(argument)
    while True:
        parent.tell(READY, None)
        tasks = pipe.recv()
        if not tasks:
            return
        for task in tasks:
            try:
                for result in work(task):
                    parent.tell(RESULT, result)
            except Exception as error:
                logger.debug("a task failed", exc_info=error)
                text = " ".join(str(error).split())
                parent.tell(FAILED, text if isinstance(error, InputError) else f"{type(error).__name__}: {text}")

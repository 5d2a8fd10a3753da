"""Workers: every task once, the death of one, what they log, and the threads they may use."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.workers import share_out

Answer = tuple[int, str]


def prepare(argument: str) -> Callable[[int], Iterator[Answer]]:
    if argument == "die":
        os._exit(3)

    def work(task: int) -> Iterator[Answer]:
        logging.getLogger("bayesbragg.test").warning("task %d", task)
        yield task, argument
        if task == 2:
            os._exit(9)
        yield task, os.environ["NPROC"] + os.environ["OMP_NUM_THREADS"]

    return work


def lost(task: int, how: str) -> Answer:
    return task, how


def test_a_death_costs_one_task(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "77")
    logger = logging.getLogger("bayesbragg")
    monkeypatch.setattr(logger, "propagate", True)
    with caplog.at_level(logging.DEBUG):
        found = list(share_out(range(5), prepare, "argument", 2, lost))
    threads = str(max(1, len(os.sched_getaffinity(0)) // 2)) * 2
    expected = [(n, "argument") for n in range(5)] + [(n, threads) for n in (0, 1, 3, 4)]
    assert sorted(found) == sorted([*expected, (2, "the worker process ended with code 9")])
    assert sorted(record.getMessage() for record in caplog.records) == [f"task {n}" for n in range(5)]
    assert os.environ["OMP_NUM_THREADS"] == "77"
    assert "NPROC" not in os.environ or os.environ["NPROC"] != threads


def test_workers_that_cannot_start_end_the_run() -> None:
    found = list(share_out(range(3), prepare, "die", 2, lost))
    assert sorted(found) == [(n, "the worker process ended with code 3") for n in range(3)]


def prepare_chatty(_: None) -> Callable[[int], Iterator[bytes]]:
    """Work that logs from a thread while its results are sent, both larger than a pipe takes at once."""
    stop = threading.Event()

    def talk() -> None:
        while not stop.is_set():
            logging.getLogger("bayesbragg.test").debug("x" * 200_000)

    def work(task: int) -> Iterator[bytes]:
        thread = threading.Thread(target=talk)
        thread.start()
        try:
            for _ in range(5):
                yield bytes([task]) * 200_000
        finally:
            stop.set()
            thread.join()

    return work


def test_what_threads_log_does_not_mix_with_results() -> None:
    found = list(share_out([65, 66], prepare_chatty, None, 2, lambda task, how: how.encode()))
    assert sorted(found) == [b"A" * 200_000] * 5 + [b"B" * 200_000] * 5


def prepare_faulty(_: None) -> Callable[[int], Iterator[Any]]:
    def work(task: int) -> Iterator[Any]:
        if task == 0:
            raise InputError("out: no space left; name another folder")
        if task == 1:
            raise ValueError("a fault")
        yield task

    return work


def test_an_error_is_told_and_the_worker_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    found = list(share_out(range(4), prepare_faulty, None, 1, lambda task, how: (task, how)))
    assert found == [(0, "out: no space left; name another folder"), (1, "ValueError: a fault"), 2, 3]
    assert "Traceback" not in capfd.readouterr().err

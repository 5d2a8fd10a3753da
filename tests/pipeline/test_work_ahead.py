"""Working ahead: order, failures, and an interrupt after which what is finished still comes."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from bayesbragg.pipeline.work_ahead import ahead


def test_order_and_depth() -> None:
    made: list[int] = []

    def square(n: int) -> int:
        made.append(n)
        return n * n

    pairs = ahead(square, iter(range(6)), depth=2)
    assert next(pairs) == (0, 0)
    assert set(made) <= {0, 1, 2}
    assert list(pairs) == [(n, n * n) for n in range(1, 6)]


def test_work_goes_on_elsewhere() -> None:
    """The second item is made while the first is in use: it waits for a signal that the first's user gives."""
    used = threading.Event()

    def work(n: int) -> bool:
        return n == 0 or used.wait(30)

    pairs = ahead(work, range(2), depth=1)
    assert next(pairs) == (0, True)
    used.set()
    assert next(pairs) == (1, True)


def test_a_failure_is_raised_at_its_item() -> None:
    def work(n: int) -> int:
        return 1 // (n - 1)

    pairs = ahead(work, range(3))
    assert next(pairs) == (0, -1)
    with pytest.raises(ZeroDivisionError):
        next(pairs)


def test_an_interrupt_comes_last() -> None:
    def items() -> Iterator[int]:
        yield 0
        yield 1
        raise KeyboardInterrupt

    found: list[tuple[int, str]] = []
    pairs = ahead(str, items(), depth=2)
    found += [next(pairs), next(pairs)]
    assert found == [(0, "0"), (1, "1")]
    with pytest.raises(KeyboardInterrupt):
        next(pairs)

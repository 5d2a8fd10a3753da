"""A step of a run that works ahead: the next items are made in a thread while this one is in use.

Reading, background planes and writing are numpy and files, fitting is compiled code that leaves the interpreter to
others; one behind the other they leave cores and disk idle by turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ahead"]

Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(function: Callable[[Item], Made], items: Iterable[Item], depth: int = 2) -> Iterator[tuple[Item, Made]]:
    """Items with what the function makes of them, in order; up to ``depth`` are made before they are asked for.

    One thread does the work, so that the function need not be safe against itself. What it raises is raised here, at
    its item. An interrupt while an item is fetched comes after what was made by then.
    """
    waiting: deque[tuple[Item, Future[Made]]] = deque()

    def oldest() -> tuple[Item, Made]:
        item, future = waiting[0]
        made = future.result()
        waiting.popleft()
        return item, made

    with ThreadPoolExecutor(max_workers=1) as thread:
        try:
            try:
                for item in items:
                    waiting.append((item, thread.submit(function, item)))
                    while len(waiting) > depth:
                        yield oldest()
            except KeyboardInterrupt:
                while waiting:
                    yield oldest()
                raise
            while waiting:
                yield oldest()
        finally:
            for _, future in waiting:
                future.cancel()

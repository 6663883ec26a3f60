"""Calls in threads, with a bounded number of results in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], ahead: int, workers: int | None = None
) -> Iterator[Result]:
    """Call a function in threads, and yield its results in the order of the items.

    `ThreadPoolExecutor.map` starts all calls at once, so that results, and a million pending calls, fill the memory if
    they are consumed slowly.

    Args:
        function: should release the GIL for most of its time.
        items: taken one by one.
        ahead: number of calls that are started before their result is needed.
        workers: number of threads; None is that of `ThreadPoolExecutor`.
    """
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            # without it, an interrupt would wait for all pending calls
            pool.shutdown(cancel_futures=True)

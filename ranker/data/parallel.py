"""Work on several cores with results in order, so that no result depends on the number of threads.

Threads are enough: NumPy and Arrow let go of the interpreter while they work on whole columns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa

Item = TypeVar("Item")
Result = TypeVar("Result")


def num_threads() -> int:
    """As many as Arrow uses: the cores, or what ``OMP_NUM_THREADS`` says."""
    return int(pa.cpu_count())


def map_columns(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """``[function(item) for item in items]``, several at a time."""
    if num_threads() == 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(num_threads()) as pool:
        return list(pool.map(function, items))


def map_stream(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield ``function(item)`` in order; later items are read and worked on ahead.

    At most one item more than there are threads is held at a time.
    """
    if num_threads() == 1:
        yield from map(function, items)
        return
    ahead: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_threads()) as pool:
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > num_threads():
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

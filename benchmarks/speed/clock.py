"""The clock of what is timed in this process."""

from __future__ import annotations

import time
from collections.abc import Callable


def seconds(work: Callable[[], object], calls: int) -> list[float]:
    """By the clock, of each call. On a GPU the work itself must wait for its result: calls only hand it over."""
    times = []
    for _ in range(calls):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return times

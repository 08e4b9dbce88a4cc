"""Work beside the work: an iterator that is read ahead, and calls that are made behind, each in a thread of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")


def ahead(items: Iterator[Item], depth: int = 1) -> Generator[Item, None, None]:
    """The same items in the same order; while the caller works on one, the next are made in a thread.

    What the iterator raises is raised here, at the same item. When this generator is closed, the thread ends after the
    item that it is making.

    Args:
        items: is used by that thread alone from now on.
        depth: items that may wait.
    """
    end = object()
    pool = ThreadPoolExecutor(1, "ahead")
    try:
        waiting: deque[Future[Any]] = deque(pool.submit(next, items, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, items, end))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


class Behind:
    """Makes calls in a thread, in the order in which they were given; the end of its `with` block waits for all of them.

    After a call that raises no further one is made, and what it raised is raised to the caller: by the next call that is
    given, or at the end of the block. When the block itself raises, the calls that were given are still made.

    Args:
        depth: calls that may be under way or waiting; whoever gives one more waits for the first.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._waiting: deque[Future[None]] = deque()
        self._failed = False

    def __enter__(self) -> Behind:
        self._pool = ThreadPoolExecutor(1, "behind")
        return self

    def __call__(self, work: Callable[..., Any], *given: Any) -> None:
        """Make the call `work(*given)` later."""
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= self._depth):
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(self._make, work, given))

    def _make(self, work: Callable[..., Any], given: tuple[Any, ...]) -> None:
        if self._failed:
            return
        try:
            work(*given)
        except BaseException:
            self._failed = True
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        if error is None:
            for one in self._waiting:
                one.result()

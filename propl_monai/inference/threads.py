"""Two helpers for work in a second thread: `prefetch` reads an iterator early, `BackgroundWriter` makes calls later."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")


def prefetch(items: Iterator[Item], depth: int = 1) -> Generator[Item, None, None]:
    """Yield the same items in the same order; a thread makes the next ones while the caller works on one.

    An exception of the iterator is raised here, at the same item. Closing this generator ends the thread after the item
    that it is making.

    Args:
        items: from now on used by that thread only.
        depth: number of items that may wait.
    """
    end = object()
    pool = ThreadPoolExecutor(1, "prefetch")
    try:
        waiting: deque[Future[Any]] = deque(pool.submit(next, items, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, items, end))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


class BackgroundWriter:
    """Makes calls in a thread, in the order given; the end of its `with` block waits for all of them.

    What needs no order, such as waiting for a disk, can be done before in several threads, see `after`.

    After a call has raised, no further call is made, and the exception reaches the caller with the next call that is given
    or at the end of the block. When the block itself raises, the calls given before are still made.

    Args:
        depth: number of calls that may wait; giving one more waits for the first of them.
        threads: for what needs no order.
    """

    def __init__(self, depth: int, threads: int = 1) -> None:
        self._depth, self._threads = depth, threads
        self._waiting: deque[Future[None]] = deque()
        self._failed = False

    def __enter__(self) -> BackgroundWriter:
        self._pool = ThreadPoolExecutor(1, "writer")
        self._early = ThreadPoolExecutor(self._threads, "early")
        return self

    def __call__(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Make the call `work(*arguments)` later."""
        self._wait_for_room()
        self._waiting.append(self._pool.submit(self._make, work, arguments))

    def after(self, early: Callable[..., Item], *arguments: Any, work: Callable[[Item], Any]) -> None:
        """Make the call `work(early(*arguments))` later; `early` has no order, and several of its kind run side by side.

        An exception of `early` counts as one of `work`, so that all calls before it are made.
        """
        self._wait_for_room()
        begun = self._early.submit(self._begin, early, arguments)
        self._waiting.append(self._pool.submit(self._make, lambda: work(begun.result()), ()))

    def _wait_for_room(self) -> None:
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= self._depth):
            self._waiting.popleft().result()

    def _begin(self, early: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        return None if self._failed else early(*arguments)  # after a failure nobody asks for it

    def _make(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        if self._failed:
            return
        try:
            work(*arguments)
        except BaseException:
            self._failed = True
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._early.shutdown()
        self._pool.shutdown()
        if error is None:
            for call in self._waiting:
                call.result()

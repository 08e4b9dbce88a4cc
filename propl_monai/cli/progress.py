"""How far a long verb is: a bar on a terminal, plain lines when piped."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINES = 10  # plain lines in all, when nobody looks at a terminal


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """Shows progress on the error stream, so that the output stream stays clean for pipes.

    Args:
        label: what is being done.

    Yields:
        A function to call with (done, in all).
    """
    if sys.stderr.isatty():
        from rich.console import Console  # takes longer to import than a picture to segment
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bars:
            bar = bars.add_task(label, total=None)

            def draw(done: int, total: int) -> None:
                bars.update(bar, completed=done, total=total)

            yield draw
        return

    def show(done: int, total: int) -> None:
        if done * LINES // total > (done - 1) * LINES // total:
            print(f"{label} {done}/{total}", file=sys.stderr, flush=True)

    yield show

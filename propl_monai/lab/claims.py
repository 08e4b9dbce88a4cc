"""Who works on what: workers that share a folder, on one machine or several, never take the same run.

A claim is a file `claim-<n>` made with O_EXCL, which exactly one process on exactly one machine can win, on network file
systems too. Its owner touches it every few seconds. A claim that nobody has touched for long is dead, and whoever makes
`claim-<n + 1>` owns the run from then on; an owner that was only asleep sees the higher number and stops.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path

from propl_monai.errors import ProPLError

DEAD_AFTER = 300.0  # seconds; clocks of the machines of a cluster differ by less
BEAT = 20.0
PREFIX = "claim-"


class Claim:
    """The right to work on one folder; a context manager.

    Args:
        folder: of the run; made.
        dead_after: seconds without a touch after which a claim counts as dead.
        beat: seconds between two touches.

    Attributes:
        won: whether this process owns the run.
    """

    def __init__(self, folder: Path, dead_after: float = DEAD_AFTER, beat: float = BEAT) -> None:
        self.folder, self.dead_after, self.beat = folder, dead_after, beat
        self.won = False
        self._stop = threading.Event()

    def __enter__(self) -> Claim:
        self.folder.mkdir(parents=True, exist_ok=True)
        number, age = _highest(self.folder)
        if number and age < self.dead_after:
            return self
        self.path = self.folder / f"{PREFIX}{number + 1}"
        self.won = _create(self.path)
        if self.won:
            self._thread = threading.Thread(target=self._touch, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.won:
            self._stop.set()
            self._thread.join()
            # Its own and the dead ones below it; a higher one is of whoever took this claim for dead.
            for path in self.folder.glob(f"{PREFIX}*"):
                if _number(path) <= _number(self.path):
                    path.unlink(missing_ok=True)

    def check(self) -> None:
        """Call it now and then during long work.

        Raises:
            ProPLError: another worker took this one for dead and owns the run now.
        """
        if self.won and _highest(self.folder)[0] > _number(self.path):
            self.won = False
            self._stop.set()
            raise ProPLError(
                self.folder, "was taken over by another worker while this one slept", "leave it to that one"
            )

    def _touch(self) -> None:
        while not self._stop.wait(self.beat):
            try:
                os.utime(self.path)
            except FileNotFoundError:  # the run folder was deleted under us; the work itself will say so
                return


def _highest(folder: Path) -> tuple[int, float]:
    """The highest claim and the seconds since it was touched; (0, 0.0) without any."""
    claims = sorted(folder.glob(f"{PREFIX}*"), key=_number)
    if not claims:
        return 0, 0.0
    try:
        return _number(claims[-1]), time.time() - claims[-1].stat().st_mtime
    except FileNotFoundError:  # given up this very moment: look again
        return _highest(folder)


def _number(path: Path) -> int:
    return int(path.name.removeprefix(PREFIX))


def _create(path: Path) -> bool:
    owner = {"host": socket.gethostname(), "process": os.getpid(), "since": time.time()}
    try:
        with path.open("x") as stream:
            json.dump(owner, stream)
    except FileExistsError:
        return False
    return True

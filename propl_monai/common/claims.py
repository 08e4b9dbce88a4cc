"""Who works on what: workers that share a folder, on one machine or several, never take the same run.

A claim is a file `claim-<n>` made with O_EXCL, which exactly one process on exactly one machine can win, on network file
systems too. Its owner touches it every few seconds. A claim that nobody has touched for long is dead, and whoever makes
`claim-<n + 1>` owns the run from then on; an owner that was only asleep sees the higher number, or that its own claim is
gone because the other has finished, and stops.
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
        self._owner = json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": time.time()})
        self._stop = threading.Event()

    def __enter__(self) -> Claim:
        self.folder.mkdir(parents=True, exist_ok=True)
        number, age = _highest(self.folder)
        if number and age < self.dead_after:
            return self
        self._number = number + 1
        self.path = self.folder / f"{PREFIX}{self._number}"
        try:
            with self.path.open("x") as stream:
                stream.write(self._owner)
        except FileExistsError:
            return self
        self.won = True
        self._thread = threading.Thread(target=self._touch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.won:
            self._stop.set()
            self._thread.join()
            # Its own and the dead ones below it; a higher one is of whoever took this claim for dead.
            for number, path in _claims(self.folder).items() if self._stands() else ():
                if number <= self._number:
                    path.unlink(missing_ok=True)

    def check(self) -> None:
        """Call it now and then during long work."""
        if self.won and (not self._stands() or _highest(self.folder)[0] > self._number):
            self.won = False
            self._stop.set()
            fact = "was taken over by another worker while this one slept, or its claim was deleted"
            raise ProPLError(self.folder, fact, "leave it to that one; if it is not finished after all, start again")

    def _stands(self) -> bool:
        """Whether the claim is there, and not another's of the same number: who took the run and left it freed that."""
        try:
            return self.path.read_text() == self._owner
        except FileNotFoundError:
            return False

    def _touch(self) -> None:
        while not self._stop.wait(self.beat) and self._stands():
            try:
                os.utime(self.path)
            except FileNotFoundError:  # since that look; the next check says so
                return


def _claims(folder: Path) -> dict[int, Path]:
    """By number, from low to high; another file, such as an editor's copy `claim-1~`, is no claim."""
    found = {path.name.removeprefix(PREFIX): path for path in folder.glob(f"{PREFIX}*")}
    return {int(number): found[number] for number in sorted(filter(str.isdecimal, found), key=int)}


def _highest(folder: Path) -> tuple[int, float]:
    """The highest claim and the seconds since it was touched; (0, 0.0) without any."""
    if not (claims := _claims(folder)):
        return 0, 0.0
    number = max(claims)
    try:
        return number, time.time() - claims[number].stat().st_mtime
    except FileNotFoundError:  # given up this very moment: look again
        return _highest(folder)

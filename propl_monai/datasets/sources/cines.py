"""Single frames of a cine on demand, without decoding the cine again for each.

Frames are numbered from 1, as in the files that come with CAMUS and HMC-QU.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np

from propl_monai.errors import ProPLError
from propl_monai.images import Picture, read_frames

KEPT_FRAMES = 8  # for threads that read slightly out of order; keeping whole cines would take gigabytes
_LOCK = Lock()


class _Playback:
    """A cine that is decoded as far as it was read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cine = read_frames(path)
        self._frames = iter(self.cine)
        self._decoded = 0
        self._kept: dict[int, np.ndarray] = {}

    def reaches(self, number: int) -> bool:
        """Whether a frame is kept or still to come."""
        return number > self._decoded or number in self._kept

    def frame(self, number: int) -> np.ndarray:
        """Decode as far as a frame."""
        while self._decoded < number:
            pixels = next(self._frames, None)
            if pixels is None:
                fact = f"ends after frame {self._decoded}, and frame {number} is wanted"
                raise ProPLError(self.path, fact, "download it again")
            self._decoded += 1
            self._kept[self._decoded] = pixels
            self._kept.pop(self._decoded - KEPT_FRAMES, None)
        return self._kept[number]


_play = lru_cache(maxsize=2)(_Playback)  # two: a cine and the one that holds its label maps


def read_frame(path: Path, number: int) -> Picture:
    """One frame. In rising order, all frames of a cine together cost one decoding.

    Args:
        path: any file that `propl_monai.images.read_frames` reads.
        number: from 1.
    """
    with _LOCK:
        if not _play(path).reaches(number):
            _play.cache_clear()
        try:
            playback = _play(path)
            return Picture(playback.frame(number), playback.cine.spacing_mm)
        except ProPLError:
            _play.cache_clear()  # after a fault an iterator only says that it has ended
            raise


def parse_every(source: str, text: str) -> int:
    """The option `every`: 1 for each frame, 2 for every second one."""
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        fact = f"'{text}' is not a whole number of at least 1"
        raise ProPLError(f"source {source}, option every", fact, "give 1 for each frame, 2 for every second one")
    return int(text)

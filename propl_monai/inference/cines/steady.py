"""Probabilities made steady over time: a Gaussian over the frames around each, by `scipy.ndimage`, in flat memory.

docs/hearts.md has what it does to the jitter and the Dice of TG3K's videos.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import cache
from typing import Any, Generic, TypeVar

import numpy as np

from propl_monai.errors import ProPLError

MOST = 10.0  # frames; a wider Gaussian holds more frames than a beat has
REACH = 3.0  # standard deviations, where the Gaussian is cut
LEAST = 1e-6  # of a probability, as that of 0 or 1 has no finite logit

Item = TypeVar("Item")


def require_steady(deviation: float) -> float:
    """Check the option; 0 is off."""
    if not 0 <= deviation <= MOST:
        cure = f"give the standard deviation of the filter in frames, up to {MOST:g}, such as 1; 0 is off"
        raise ProPLError("steady", f"{deviation} was given", cure)
    return float(deviation)


class Steady(Generic[Item]):
    """Takes the maps of a cine's frames in order, and gives them back some frames later, filtered.

    It holds 2 · 3 · `deviation` + 1 frames on the network's grid at most, however long the cine is. The first and last frame
    stand for what lies before and behind them.

    Args:
        deviation: standard deviation of the Gaussian, in frames; above 0.
        tasks: number of tasks, whose logits come first in the maps; what follows (variances) is left as it is.
    """

    def __init__(self, deviation: float, tasks: int) -> None:
        self.weights, self.tasks = weights_of(deviation), tasks
        self.reach = len(self.weights) // 2
        self._window: deque[tuple[Item, np.ndarray, np.ndarray]] = deque()
        self._waiting = 0  # frames of the window that were not given back

    def push(self, item: Item, maps: Any) -> Iterator[tuple[Item, np.ndarray]]:
        """Take the next frame.

        Args:
            item: whatever belongs to the frame.
            maps: (K, rows, columns) or more, logits of K tasks; an array, or a tensor on the CPU.

        Yields:
            Items with their filtered maps, float32, in order; none while the frames behind them are missing.
        """
        values = np.asarray(maps, np.float32)
        self._window.append((item, values, _probability(values[: self.tasks])))
        self._waiting += 1
        if self._waiting > self.reach:
            yield self._give()

    def flush(self) -> Iterator[tuple[Item, np.ndarray]]:
        """At the end of the cine: the frames that are left."""
        while self._waiting:
            yield self._give()
        self._window.clear()

    def _give(self) -> tuple[Item, np.ndarray]:
        """The oldest frame that was not given back."""
        last = len(self._window) - 1
        centre = last + 1 - self._waiting
        around = [self._window[min(max(centre + step, 0), last)][2] for step in range(-self.reach, self.reach + 1)]
        mixed = sum(weight * one for weight, one in zip(self.weights, around, strict=True))
        item, values, _ = self._window[centre]
        self._waiting -= 1
        if centre == self.reach:
            self._window.popleft()
        return item, np.concatenate([_logit(np.asarray(mixed)), values[self.tasks :]])


@cache
def weights_of(deviation: float) -> np.ndarray:
    """What scipy's Gaussian filter weighs 2 · reach + 1 frames with, float32."""
    from scipy.ndimage import gaussian_filter1d

    reach = max(1, round(REACH * deviation))
    pulse = np.zeros(2 * reach + 1)
    pulse[reach] = 1
    weights: np.ndarray = gaussian_filter1d(pulse, deviation, mode="constant", radius=reach)
    return weights.astype(np.float32)


def _probability(logits: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # of a logit below -88: 1 / infinity is right
        return 1 / (1 + np.exp(-logits))


def _logit(probability: np.ndarray) -> np.ndarray:
    inside = probability.clip(LEAST, 1 - LEAST)
    logits: np.ndarray = np.log(inside / (1 - inside)).astype(np.float32)
    return logits

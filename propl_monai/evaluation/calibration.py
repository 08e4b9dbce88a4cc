"""Do the probabilities mean what they say: reliability in bins, its error, and the temperature that corrects it.

Every picture weighs the same whatever its size, and every task the same however many pictures it has. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit

from propl_monai.errors import ProPLError

BINS = 15  # as in Guo et al., On Calibration of Modern Neural Networks, ICML 2017
TEMPERATURES = (0.05, 20.0)  # searched in between
LARGEST_LOGIT, LOGIT_STEP = 30.0, 0.02  # of the histogram that the temperature is fitted to; beyond lies 1e-13

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """Pixels in `BINS` bins of equal width of their predicted probability, [k / 15, (k + 1) / 15).

    Attributes:
        share: of the pixels that lie in each bin, (BINS,); sums to 1.
        predicted: mean probability of a pixel of the bin times `share`, (BINS,).
        observed: share of target pixels in the bin times `share`, (BINS,).
    """

    share: Values
    predicted: Values
    observed: Values

    @property
    def expected_error(self) -> float:
        """Expected calibration error (ECE) in [0, 1]: |probability - frequency| of the bins, weighted by their pixels."""
        return float(np.abs(self.predicted - self.observed).sum())

    @property
    def average_error(self) -> float:
        """The same with every bin that holds a pixel weighing alike, so that easy background does not hide the rest."""
        gaps = [abs(predicted - observed) for _, predicted, observed in self.points()]
        return float(np.mean(gaps))

    def points(self) -> list[tuple[float, float, float]]:
        """(share, mean probability, frequency of the target) of each bin that holds a pixel."""
        rows = zip(self.share, self.predicted, self.observed, strict=True)
        return [(float(n), float(p / n), float(o / n)) for n, p, o in rows if n > 0]


class ReliabilityCounts:
    """Adds up pictures to a `Reliability`; each weighs the same."""

    def __init__(self) -> None:
        self.sums = np.zeros((3, BINS))
        self.images = 0

    def add(self, logits: Values, reference: NDArray[np.bool_], temperature: float = 1.0) -> None:
        """Add the pixels of one picture: logits and the reference mask, both (H, W)."""
        probability = expit(np.asarray(logits, np.float64).ravel() / temperature)
        place = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
        for row, weights in enumerate((None, probability, np.asarray(reference, np.float64).ravel())):
            self.sums[row] += np.bincount(place, weights, minlength=BINS) / place.size
        self.images += 1

    def reliability(self) -> Reliability:
        """What has been added."""
        if not self.images:
            raise ProPLError("calibration", "no picture to measure it on", "evaluate at least one")
        return Reliability(*(self.sums / self.images))


def together(parts: Iterable[Reliability]) -> Reliability:
    """All tasks as one, each weighing the same. What one task overstates another may understate."""
    stacked = np.array([(part.share, part.predicted, part.observed) for part in parts])
    return Reliability(*stacked.mean(axis=0))


class LogitHistogram:
    """The logits of target and of other pixels, so that all validation pictures need no more room than one."""

    def __init__(self) -> None:
        self.counts = np.zeros((2, round(2 * LARGEST_LOGIT / LOGIT_STEP)))
        self.images = 0

    def add(self, logits: Values, reference: NDArray[np.bool_]) -> None:
        """Add the pixels of one picture: logits and the reference mask, both (H, W)."""
        size = self.counts.shape[1]
        place = np.floor((np.asarray(logits, np.float64).ravel() + LARGEST_LOGIT) / LOGIT_STEP)
        place, target = np.clip(place, 0, size - 1).astype(np.int64), np.asarray(reference).ravel() > 0
        for row, chosen in enumerate((target, ~target)):
            self.counts[row] += np.bincount(place[chosen], minlength=size) / place.size
        self.images += 1


def fit_temperature(histograms: Iterable[LogitHistogram]) -> float:
    """The T for which sigmoid(logit / T) has the lowest mean negative log-likelihood (Guo et al., ICML 2017).

    One number for all tasks: masks stay as they are, as no logit changes its sign.

    Args:
        histograms: one per task, of validation pictures; each picture of a task and each task weigh the same.

    Returns:
        T, above 1 where the network is too sure of itself; within `TEMPERATURES`.
    """
    parts = [histogram.counts / histogram.images for histogram in histograms if histogram.images]
    if not parts:
        raise ProPLError("temperature", "no validation picture to fit it on", "give the validation split some masks")
    target, other = np.mean(parts, axis=0)
    logits = (np.arange(len(target)) + 0.5) * LOGIT_STEP - LARGEST_LOGIT  # in the middle of each bin

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(target @ np.logaddexp(0, -scaled) + other @ np.logaddexp(0, scaled))

    # Convex in 1 / T, so that there is one valley on any scale.
    ends = tuple(np.log(TEMPERATURES))
    return float(np.exp(minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-5}).x))

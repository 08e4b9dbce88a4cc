"""What the benchmarks of hearts and cines compute, on small numbers."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.cines import PERIOD, dice, first_diastole, jitter, made_cine
from benchmarks.ejection import agreement, draw


def test_agreement_by_hand() -> None:
    told = agreement([50.0, 60.0, 40.0, 30.0], [52.0, 58.0, 43.0, 33.0])
    differences = np.array([2.0, -2.0, 3.0, 3.0])
    assert told["bias"] == 1.5 and told["mean_absolute_error"] == 2.5 and told["n"] == 4
    deviation = np.sqrt(((differences - 1.5) ** 2).sum() / 3)
    assert told["limits_high"] - told["limits_low"] == pytest.approx(2 * 1.96 * deviation)
    assert draw([50.0, 60.0], [52.0, 58.0], told).startswith(b"\x89PNG")


def test_jitter_and_dice_by_hand() -> None:
    assert jitter([10, 20, 30, 40]) == 0  # a steady change is none
    assert jitter([10, 20, 10, 20]) == pytest.approx(10 / 15)
    mask = np.array([[True, True, False]])
    assert dice(mask, mask) == 1 and dice(mask, ~mask) == 0 and dice(mask & False, mask & False) == 1


def test_a_made_cine_beats_when_it_is_told_to() -> None:
    rows, columns = np.indices((80, 80))
    mask = np.hypot(rows - 40, columns - 40) < 15
    frames = made_cine(np.where(mask, 40, 160).astype(np.uint8), mask, seed=4)
    dark = [(frame[20:60, 20:60] < 100).sum() for frame in frames]
    first = first_diastole(4)
    assert dark[first] == max(dark) == pytest.approx(mask.sum(), rel=0.06)
    assert dark[(first + PERIOD // 2) % len(dark)] == pytest.approx(min(dark), rel=0.06) and min(dark) < 0.7 * max(dark)

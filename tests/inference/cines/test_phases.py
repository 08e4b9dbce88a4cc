"""Phases of made area curves, whose end-diastole and end-systole are known. No real heart is among them."""

from __future__ import annotations

import numpy as np
import pytest

from propl_monai.errors import ProPLError
from propl_monai.inference.cines.phases import Beat, find_beats, middle_beat


def made_curve(frames: int, period: float, first: float, systole: float = 0.38, noise: float = 0.0) -> np.ndarray:
    """Areas of a heart that falls from end-diastole in `systole` of a period, then fills; the first beat starts at `first`.

    Filling has the shape of a real one: fast, a pause, then the kick of the atrium.
    """
    share = ((np.arange(frames) - first) / period) % 1
    falling = 0.5 + 0.5 * np.cos(np.pi * share / systole)
    late = (share - systole) / (1 - systole)
    filling = np.interp(late, (0, 0.3, 0.7, 1), (0, 0.75, 0.8, 1))
    curve = 1000 + 900 * np.where(share < systole, falling, filling)
    return curve + np.random.default_rng(0).normal(0, noise, frames)


@pytest.mark.parametrize("period", [14, 25.5, 48])
@pytest.mark.parametrize("noise", [0, 30])
def test_all_beats_of_a_long_cine(period: float, noise: float) -> None:
    curve = made_curve(int(4.6 * period), period, first=0.3 * period, noise=noise)
    beats = find_beats(curve.tolist())
    diastoles = [0.3 * period + number * period for number in range(4)]
    assert len(beats) == 4
    slack = max(1.5, 0.06 * period)
    for beat, diastole in zip(beats, diastoles, strict=True):
        assert beat.diastole - 1 == pytest.approx(diastole, abs=slack)
        assert beat.systole - 1 == pytest.approx(diastole + 0.38 * period, abs=slack)
        assert beat.change == pytest.approx(900 / 1900, abs=1.8 / period)  # smoothing flattens short beats


def test_a_cine_from_end_diastole_to_end_systole() -> None:
    curve = made_curve(10, 24, first=0)
    assert find_beats(curve.tolist()) == [Beat(1, 10, pytest.approx(900 / 1900, abs=0.05))]
    backwards = find_beats(curve[::-1].tolist())
    assert backwards == []  # from end-systole to end-diastole there is no end-diastole before a systole


def test_a_cut_beat_counts_only_where_there_is_no_whole_one() -> None:
    period = 20
    curve = made_curve(45, period, first=15.0)  # begins and ends within a systole or filling
    beats = find_beats(curve.tolist())
    assert all(beat.diastole > 1 and beat.systole < 45 for beat in beats) and len(beats) >= 1
    assert beats[0].diastole - 1 == pytest.approx(15, abs=1)


def test_frames_without_a_mask_and_outliers_are_passed_over() -> None:
    curve: list[float | None] = made_curve(60, 25, first=6).tolist()
    expected = find_beats(curve)
    curve[12], curve[13], curve[40] = None, 0.0, 5000.0
    found = find_beats(curve)
    assert len(found) == len(expected) == 2
    for one, other in zip(found, expected, strict=True):
        assert abs(one.diastole - other.diastole) <= 1 and abs(one.systole - other.systole) <= 1


@pytest.mark.parametrize(
    "curve",
    [[], [1000.0, 900.0], [1000.0] * 40, [None] * 40, (1000 + np.random.default_rng(1).normal(0, 5, 40)).tolist()],
)
def test_no_beat_where_nothing_beats(curve: list[float]) -> None:
    assert find_beats(curve) == []


def test_the_middle_beat() -> None:
    beats = [Beat(1, 5, 0.5), Beat(9, 14, 0.3), Beat(18, 22, 0.4)]
    assert middle_beat(beats) == beats[2]
    assert middle_beat(beats[:2]) == beats[1]
    with pytest.raises(ProPLError, match=r"heart\.mp4: shows no beat"):
        middle_beat([], "heart.mp4")

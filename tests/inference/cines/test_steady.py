"""The filter over time: that of scipy on the whole cine, in a window."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from propl_monai.errors import ProPLError
from propl_monai.inference.cines.steady import Steady, require_steady


def filtered(logits: np.ndarray, deviation: float, tasks: int) -> list[tuple[int, np.ndarray]]:
    window: Steady[int] = Steady(deviation, tasks)
    found: list[tuple[int, np.ndarray]] = []
    for number, one in enumerate(logits):
        found += window.push(number, one)
        assert len(window._window) <= len(window.weights)  # flat memory
    return [*found, *window.flush()]


@pytest.mark.parametrize("deviation", [0.2, 0.5, 1, 2.5])
@pytest.mark.parametrize("frames", [1, 2, 5, 40])
def test_it_is_the_gaussian_filter_of_scipy(deviation: float, frames: int) -> None:
    logits = np.random.default_rng(frames).normal(0, 3, (frames, 2, 4, 5)).astype(np.float32)
    probability = 1 / (1 + np.exp(-logits))
    reach = max(1, round(3 * deviation))
    expected = gaussian_filter1d(probability, deviation, axis=0, mode="nearest", radius=reach)
    found = filtered(logits, deviation, 2)
    assert [number for number, _ in found] == list(range(frames))
    steadied = 1 / (1 + np.exp(-np.stack([maps for _, maps in found])))
    assert steadied == pytest.approx(expected, abs=2e-6)


def test_variances_are_left_as_they_are_and_certain_pixels_stay_finite() -> None:
    maps = np.zeros((6, 4, 3, 3), np.float32)
    maps[:, 0], maps[:, 1] = 200, -200
    maps[:, 2:] = np.random.default_rng(0).random((6, 2, 3, 3))
    found = filtered(maps, 1, 2)
    assert all(np.array_equal(one[2:], maps[number, 2:]) for number, one in found)
    assert all(np.isfinite(one).all() and (one[0] > 10).all() and (one[1] < -10).all() for _, one in found)


def test_tensors_are_taken_and_a_second_cine_starts_afresh() -> None:
    window: Steady[int] = Steady(1, 1)
    first = torch.full((1, 2, 2), 5.0)
    assert list(window.push(0, first)) == []
    assert len(list(window.flush())) == 1
    (number, maps), *rest = [*window.push(1, -first), *window.flush()]
    assert (number, rest) == (1, []) and maps == pytest.approx(-5, abs=1e-3)


def test_a_jumping_target_jumps_less() -> None:
    logits = np.where(np.arange(30) % 2, 4.0, -1.0).astype(np.float32).reshape(-1, 1, 1, 1)
    areas = [float(maps[0, 0, 0] > 0) for _, maps in filtered(logits, 1, 1)]
    assert set(areas[3:-3]) == {1.0}  # on in the mean, so on in each frame


@pytest.mark.parametrize("deviation", [-1, 11, float("nan")])
def test_other_options_are_refused(deviation: float) -> None:
    with pytest.raises(ProPLError, match="steady"):
        require_steady(deviation)

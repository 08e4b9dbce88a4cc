"""Reliability, its errors and the temperature: worked by hand, and against MONAI."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import CalibrationErrorMetric
from scipy.special import expit

from propl_monai.errors import ProPLError
from propl_monai.evaluation.calibration import (
    BINS,
    TEMPERATURES,
    LogitHistogram,
    Reliability,
    ReliabilityCounts,
    fit_temperature,
    together,
)

NINE = math.log(9)  # sigmoid: 0.9


def measured(*pictures: tuple[list[float], list[int]], temperature: float = 1.0) -> Reliability:
    counts = ReliabilityCounts()
    for logits, reference in pictures:
        counts.add(np.array([logits]), np.array([reference], dtype=bool), temperature)
    return counts.reliability()


def fitted(*tasks: tuple[list[float], list[int]]) -> float:
    histograms = []
    for logits, reference in tasks:
        histograms.append(LogitHistogram())
        histograms[-1].add(np.array([logits]), np.array([reference], dtype=bool))
    return fit_temperature(histograms)


def test_error_by_hand() -> None:
    """Three pixels at 0.9, of which two are target, and one at 0.1, which is not."""
    found = measured(([NINE, NINE, NINE, -NINE], [1, 1, 0, 0]))
    assert [tuple(round(value, 9) for value in point) for point in found.points()] == [
        (0.25, 0.1, 0.0),
        (0.75, 0.9, round(2 / 3, 9)),
    ]
    assert found.expected_error == pytest.approx(0.75 * (0.9 - 2 / 3) + 0.25 * 0.1)
    assert found.average_error == pytest.approx(((0.9 - 2 / 3) + 0.1) / 2)


def test_bins_are_closed_below() -> None:
    """0.1 · 15 = 1.5 and 0.9 · 15 = 13.5; the ends belong to the first and the last bin; 0.2 begins the fourth."""
    found = measured(([-NINE, NINE, -1000, 1000, math.log(0.25)], [0, 1, 0, 1, 0]))
    assert list(np.flatnonzero(found.share)) == [0, 1, 3, 13, BINS - 1]
    assert found.share.sum() == pytest.approx(1)


def test_a_perfect_network_has_no_error() -> None:
    assert measured(([1000.0, -1000.0], [1, 0])).expected_error == 0


def test_error_is_monais() -> None:
    """Pictures of one size: ours are the pooled pixels."""
    generator = np.random.default_rng(0)
    logits, reference = generator.normal(0, 2, (4, 1, 8, 9)), generator.random((4, 1, 8, 9)) < 0.3
    counts = ReliabilityCounts()
    for one, truth in zip(logits, reference, strict=True):
        counts.add(one[0], truth[0])
    pooled = [
        torch.from_numpy(np.asarray(values, np.float64)).reshape(1, 1, -1) for values in (expit(logits), reference)
    ]
    for kind, ours in (
        ("expected", counts.reliability().expected_error),
        ("average", counts.reliability().average_error),
    ):
        metric = CalibrationErrorMetric(num_bins=BINS, calibration_reduction=kind)
        metric(*pooled)
        assert ours == pytest.approx(metric.aggregate().item(), abs=1e-6)


def test_a_large_picture_weighs_no_more_than_a_small_one() -> None:
    """The single pixel of the first is right at 0.9, the four of the second are all wrong."""
    found = measured(([NINE], [1]), ([NINE] * 4, [0] * 4))
    assert found.points() == [pytest.approx((1.0, 0.9, 0.5))]


def test_tasks_together_weigh_the_same_and_may_cancel() -> None:
    over = measured(([NINE] * 5, [1, 1, 1, 1, 0]))  # 0.8 of 0.9
    under = measured(*[([NINE], [1])] * 3)  # 1.0 of 0.9
    assert over.expected_error == pytest.approx(0.1) and under.expected_error == pytest.approx(0.1)
    assert together([over, under]).expected_error == pytest.approx(0)


def test_nothing_to_measure() -> None:
    with pytest.raises(ProPLError, match="no picture"):
        ReliabilityCounts().reliability()
    with pytest.raises(ProPLError, match="no validation picture"):
        fit_temperature([LogitHistogram()])


def test_temperature_by_hand() -> None:
    """0.9 is said where 0.75 is true: sigmoid(log 9 / T) = 0.75 = sigmoid(log 3), so T = 2."""
    assert fitted(([NINE] * 4, [1, 1, 1, 0])) == pytest.approx(2, rel=0.01)
    # Said too humbly: log 3 where 0.9 is true.
    assert fitted(([math.log(3)] * 10, [1] * 9 + [0])) == pytest.approx(0.5, rel=0.01)


def test_every_task_weighs_the_same_in_the_temperature() -> None:
    """1 in one task and 0.5 in another of many pixels make 0.75."""
    assert fitted(([NINE], [1]), ([NINE] * 100, [1, 0] * 50)) == pytest.approx(2, rel=0.01)


def test_temperature_is_the_one_that_minimises_the_likelihood_of_the_pixels() -> None:
    generator = np.random.default_rng(1)
    true = generator.normal(0, 1.5, 20_000)
    reference = generator.random(true.size) < expit(true)
    said = 3 * true

    def loss(temperature: float) -> float:
        return float(np.logaddexp(0, np.where(reference, -said, said) / temperature).mean())

    histogram = LogitHistogram()
    histogram.add(said, reference)
    found = fit_temperature([histogram])
    assert found == pytest.approx(3, rel=0.05)
    assert loss(found) <= min(loss(found * 0.99), loss(found * 1.01))
    counts = [ReliabilityCounts(), ReliabilityCounts()]
    for one, temperature in zip(counts, (1.0, found), strict=True):
        one.add(said, reference, temperature)
    before, after = (one.reliability().expected_error for one in counts)
    assert after < 0.02 < 0.1 < before


def test_temperature_stays_within_its_bounds() -> None:
    low, high = TEMPERATURES
    assert fitted(([5.0, -5.0], [1, 0])) == pytest.approx(low, rel=0.01)  # always right: could be surer for ever
    assert fitted(([5.0, -5.0], [0, 1])) == pytest.approx(high, rel=0.01)

"""Hard labels, confidence, entropy and the ramp, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from propl_monai.errors import ProPLError
from propl_monai.training.confidence import check_threshold, confidence, confident, entropy, hard, ramp


def test_a_pixel_is_as_confident_as_the_likelier_class() -> None:
    probability = torch.tensor([0.0, 0.04, 0.5, 0.951, 1.0])
    assert hard(probability).tolist() == [0, 0, 0, 1, 1]
    assert confidence(probability).tolist() == pytest.approx([1, 0.96, 0.5, 0.951, 1])
    assert confident(probability, 0.95).tolist() == [1, 1, 0, 1, 1]
    assert confident(probability, 0.5).all()


def test_entropy_is_zero_where_sure_and_log_2_in_doubt() -> None:
    found = entropy(torch.tensor([0.0, 0.25, 0.5, 1.0]))
    between = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert found.tolist() == pytest.approx([0, between, math.log(2), 0], abs=1e-5)


@pytest.mark.parametrize("threshold", [0.49, 1.0, 95])
def test_a_threshold_that_no_pixel_or_every_pixel_passes_is_refused(threshold: float) -> None:
    with pytest.raises(ProPLError, match="fixmatch confidence"):
        check_threshold("fixmatch", threshold)


def test_ramp() -> None:
    assert [ramp(at) for at in (0, 0.5, 1)] == pytest.approx([math.exp(-5), math.exp(-1.25), 1])

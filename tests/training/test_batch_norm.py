"""Passes that make pseudo-labels leave running statistics as they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from propl_monai.training.batch_norm import unrecorded_statistics


def test_statistics_are_recorded_again_afterwards_even_after_a_failure() -> None:
    learning, frozen, stateless = (
        nn.BatchNorm2d(2),
        nn.BatchNorm2d(2).eval(),
        nn.BatchNorm2d(2, track_running_stats=False),
    )
    layers = nn.ModuleList((learning, frozen, stateless))
    image = torch.randn(4, 2, 3, 3)
    with pytest.raises(KeyError), unrecorded_statistics(layers):
        torch.testing.assert_close(learning(image), nn.BatchNorm2d(2)(image))  # by the batch, as in training
        torch.testing.assert_close(frozen(image), image, rtol=0, atol=1e-4)  # eval mode stays eval mode
        assert torch.equal(learning.get_buffer("running_mean"), torch.zeros(2))
        raise KeyError
    assert [layer.track_running_stats for layer in (learning, frozen, stateless)] == [True, True, False]
    learning(image)
    assert learning.get_buffer("running_mean").all()

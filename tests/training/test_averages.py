"""The running average by hand; that of a whole network is tested with `mean_teacher`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from propl_monai.training.averages import averaged


def test_by_hand() -> None:
    layer: Any = nn.BatchNorm1d(1)
    teacher = averaged(layer, decay=0.5)
    assert not teacher.training and not any(value.requires_grad for value in teacher.parameters())
    found = []
    for value in (4.0, 6.0, 0.0):
        layer.weight.data.fill_(value)
        layer.running_mean.fill_(value)
        teacher.update_parameters(layer)
        assert teacher.module.weight.item() == teacher.module.running_mean.item()
        found.append(teacher.module.weight.item())
    # Copied at first; then decay min(1/2, (t + 1) / (t + 10)): 2/11 after one update, 3/12 after two.
    second = 2 / 11 * 4 + 9 / 11 * 6
    assert found == pytest.approx([4, second, second / 4])
    assert layer.weight.item() == 0 and int(teacher.module.num_batches_tracked) == 0
    assert torch.equal(layer.running_mean, torch.zeros(1))

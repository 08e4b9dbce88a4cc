"""A teacher whose weights are the running average of a network's (Tarvainen & Valpola, NeurIPS 2017)."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def averaged(network: nn.Module, decay: float = 0.99) -> AveragedModel:
    """A copy in eval mode that is never trained; `update_parameters(network)` moves it towards the network.

    Args:
        network: is not changed. The statistics of its BatchNorm layers are averaged like its weights.
        decay: α of the average; smaller at first, min(α, (t + 1) / (t + 10)) after t updates, so that the teacher soon
            forgets the random start.
    """
    teacher = AveragedModel(network, multi_avg_fn=partial(_average, decay), use_buffers=True)
    teacher.requires_grad_(False).eval()
    return teacher


def _average(decay: float, averages: list[Tensor], current: list[Tensor], updates: Tensor) -> None:
    """Move one group of tensors, all of one type; in torch's order of arguments after `decay`."""
    if not averages[0].is_floating_point():
        return  # counters, names of prompts and the number of the decoder have no average
    count = int(updates)
    warm = min(decay, (count + 1) / (count + 10))
    get_ema_multi_avg_fn(warm)(averages, current, updates)

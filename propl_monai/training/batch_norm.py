"""BatchNorm in passes that only make pseudo-labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def unrecorded_statistics(module: nn.Module) -> Iterator[None]:
    """BatchNorm layers inside normalise as before, and leave their running statistics as they are."""
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    training = [layer for layer in norms if layer.track_running_stats and layer.training]
    for layer in training:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in training:
            layer.track_running_stats = True

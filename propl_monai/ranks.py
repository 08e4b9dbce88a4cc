"""Which process this is among those that train together under `torch.distributed`."""

from __future__ import annotations

from torch import distributed


def rank_and_count() -> tuple[int, int]:
    """Number of this process, from 0, and how many there are; (0, 1) when it is alone."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def is_writer() -> bool:
    """Whether this process writes files: rank 0, or the only one."""
    return rank_and_count()[0] == 0

"""The processes that work together under `torch.distributed`: which one this is, and what they exchange."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import distributed, nn

from propl_monai.errors import ProPLError

Item = TypeVar("Item")


def rank_and_count() -> tuple[int, int]:
    """Number of this process, from 0, and how many there are; (0, 1) when it is alone."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def is_writer() -> bool:
    """Whether this process writes files: rank 0, or the only one."""
    return rank_and_count()[0] == 0


def share(size: int) -> range:
    """The positions, of `size`, that this process works on: every n-th for n processes. Shares may differ by one."""
    rank, ranks = rank_and_count()
    if size < ranks:
        raise ProPLError("ranks", f"{size} cases are too few for {ranks} processes", "start fewer processes")
    return range(rank, size, ranks)


def gather_in_turn(mine: list[Item]) -> list[Item]:
    """The items of all processes, one per position of `share`, in the order of positions. All must call it."""
    ranks = rank_and_count()[1]
    if ranks == 1:
        return list(mine)
    parts: list[list[Item]] = [[] for _ in range(ranks)]
    distributed.all_gather_object(parts, mine)
    return [parts[place % ranks][place // ranks] for place in range(sum(len(part) for part in parts))]


def holds_everywhere(fact: bool, device: torch.device) -> bool:
    """Whether `fact` is true in every process, which exchange tensors on `device`. All must call it."""
    if rank_and_count()[1] == 1:
        return fact
    agreed = torch.tensor(int(fact), device=device)
    distributed.all_reduce(agreed, distributed.ReduceOp.MIN)
    return bool(agreed)


def unwrap(module: nn.Module) -> nn.Module:
    """The module inside `DistributedDataParallel`, or the module itself."""
    return module.module if isinstance(module, nn.parallel.DistributedDataParallel) else module

"""As a program: trains every method for two steps in two processes that share gradients, and prints a hash for each rank.

What is hashed are all parameters, averages included. Processes are forked from one that has imported everything.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import torch
from factories import tiny_network
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from propl_monai.training.methods import METHODS

TASKS = ["left atrium", "myocardium"]


def batch(seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A labelled and an unlabelled one, which differ between ranks."""
    generator = torch.Generator().manual_seed(seed)
    image, other, third = (torch.randn(2, 1, 32, 32, generator=generator) for _ in range(3))
    views: dict[str, Any] = {"image_strong": other, "image_strong_2": third, "picture_weight": torch.ones(2)}
    maps = {"pseudo_label": (third > 0).byte() * 255, "certainty": torch.full_like(image, 255).byte()}
    return {"image": image, "label": (other > 0).float(), "task": TASKS}, {
        "image": third,
        "task": TASKS,
        **views,
        **maps,
    }


def train(name: str, network: str, rank: int) -> tuple[str, list[float]]:
    """A hash of the parameters after two steps, and the losses of this rank."""
    torch.manual_seed(0)
    method: Any = METHODS[name](tiny_network(network)).train()
    shared = DistributedDataParallel(method, find_unused_parameters=True)
    optimizer, losses = torch.optim.SGD(method.parameters(), lr=0.1), []
    for step in range(2):
        torch.manual_seed(100 * step + rank)  # as the trainer: ranks draw differently
        optimizer.zero_grad()
        loss = shared(*batch(10 * step + rank), step / 2)["loss"]  # in the second step a second stage
        loss.backward()
        optimizer.step()
        method.after_step()
        losses.append(loss.item())
    state = b"".join(parameter.detach().numpy().tobytes() for parameter in method.parameters())
    return hashlib.sha256(state).hexdigest(), losses


def work(rank: int, folder: str) -> None:
    """All methods on one rank, each with its own network, those that take any with a newcomer."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    pairs = [(name, METHODS[name].only or "film") for name in METHODS]
    found = {name: train(name, network, rank) for name, network in pairs}
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(rank, sys.argv[1])) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(max(abs(process.exitcode or 0) for process in processes))

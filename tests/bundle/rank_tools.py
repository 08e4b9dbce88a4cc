"""Several processes that train or evaluate together, forked from one that has imported everything; and what they note.

As a program it takes a JSON list of [number of ranks, arguments of `python -m monai.bundle`], does one after the other,
and ends with the exit code of the first process that failed. What `torchrun` tells its processes is told here.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import socket
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from propl_monai.common.bundle_command import run_bundle
from propl_monai.common.ranks import rank_and_count
from propl_monai.model.uplc import perturb
from propl_monai.training.methods.propl import ProPLMethod

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class SameOnAnyRanks(ProPLMethod):
    """ProPL whose step is a mean over images, whoever has them: BatchNorm frozen, dropout drawn for the whole batch."""

    def __init__(self, network: Any, **options: Any) -> None:
        super().__init__(network, **options)
        self.generator = torch.Generator().manual_seed(7)

    def train(self, mode: bool = True) -> SameOnAnyRanks:
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, _BatchNorm):
                layer.eval()
        return self

    def step(self, *batches: Any) -> dict[str, Tensor]:
        with patch("propl_monai.model.uplc.perturb", self._perturb):
            return super().step(*batches)

    def _perturb(self, v4: Tensor, kind: str, strength: float, _: torch.Generator | None) -> Tensor:
        rank, ranks = rank_and_count()
        of_all = perturb(v4.new_ones(len(v4) * ranks, *v4.shape[1:]), kind, strength, self.generator)
        return v4 * of_all[rank::ranks]


class BadOnOneRank(ProPLMethod):
    """ProPL whose loss, not its gradient, is infinite in the second step of the last rank."""

    steps = 0

    def step(self, *batches: Any) -> dict[str, Tensor]:
        result = super().step(*batches)
        self.steps += 1
        if self.steps == 2 and rank_and_count()[0] == 1:
            result["loss"] = result["loss"] + torch.inf
        return result


class Diary:
    """Notes in `<folder>/<rank>.json` the loss of each step, a hash of the method after each epoch, and files written to.

    Args:
        folder: exists.
        places: of the run, where files are looked for.
        method: whose state is hashed.
    """

    def __init__(self, folder: str, places: list[str], method: nn.Module | None = None) -> None:
        self.path = Path(folder) / f"{rank_and_count()[0]}.json"
        self.method = method
        self.noted: dict[str, list] = {"losses": [], "states": [], "written": []}
        self.places = tuple(str(Path(place).resolve()) for place in places)
        sys.addaudithook(self._look)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)
        engine.add_event_handler(Events.COMPLETED, self._save)

    def _step(self, engine: Engine) -> None:
        if isinstance(engine.state.output, dict):
            self.noted["losses"].append(engine.state.output["loss"])

    def _epoch(self) -> None:
        if self.method is not None:
            state = b"".join(value.numpy().tobytes() for value in self.method.state_dict().values())
            self.noted["states"].append(hashlib.sha256(state).hexdigest())

    def _save(self) -> None:
        noted = json.dumps(self.noted)
        self.path.write_text(noted)

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Called by Python itself with every file that is opened or renamed."""
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        if (opened or event == "os.rename") and str(arguments[0]).startswith(self.places):
            self.noted["written"].append(
                Path(str(arguments[0 if opened else 1])).name
            )  # of a renamed file, its new name


def _work(rank: int, ranks: int, port: int, arguments: list[str]) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    run_bundle(arguments)


def _launch(ranks: int, arguments: list[str]) -> int:
    """The exit code of the first process that failed; the others are then stopped, as by `torchrun`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_work, args=(rank, ranks, port, arguments)) for rank in range(ranks)]
    for process in processes:
        process.start()
    running = {process.sentinel: process for process in processes}
    while running:
        for sentinel in multiprocessing.connection.wait(list(running)):
            process = running.pop(sentinel)  # type: ignore[index]
            process.join()
            if process.exitcode:
                for other in running.values():
                    other.terminate()
                return process.exitcode
    return 0


if __name__ == "__main__":
    for count, given in json.loads(sys.argv[1]):
        if code := _launch(count, given):
            sys.exit(code)

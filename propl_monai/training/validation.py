"""Validation, which chooses decoder and epoch: Dice on the network's grid, mean over tasks (mDice)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine
from ignite.metrics import Metric
from monai.engines import Evaluator
from monai.inferers import Inferer
from torch import Tensor, distributed

from propl_monai.model.network import DECODERS, ProPL, mean_logits
from propl_monai.model.networks.base import Segmenter


class EveryDecoder(Inferer):
    """Logits of every decoder: of sd, pd and mean from one encoding, (B, 3, H, W); else of the only one, (B, 1, H, W)."""

    def __call__(self, inputs: Tensor, network: Segmenter, task: Sequence[str] | None = None, **_: Any) -> Tensor:
        """Segment `inputs` (B, 1, H, W), each image by its own task."""
        if not isinstance(network, ProPL):
            return network(inputs, task=task).float()
        features = network.encode(inputs)
        text = network.text(task, len(inputs))
        sd, pd = (network.decode(features, text, name) for name in ("sd", "pd"))
        return torch.cat((sd.float(), pd.float(), mean_logits(sd, pd)), dim=1)


class ValidationDice(Metric):
    """mDice of the best decoder; `per_decoder` and `per_task` hold the rest.

    The Dice of a case is taken at probability 0.5 on the network's grid; both masks empty counts as 1. Cases are
    averaged within a task, tasks with equal weight. Under `torch.distributed` all ranks get the mean over all cases.

    Args:
        decoders: the candidates, those that a method trains; without unlabelled images the first alone, as no other learns.
    """

    def __init__(self, decoders: Sequence[str] = DECODERS) -> None:
        self.decoders = tuple(decoders)
        self.rows: dict[str, tuple[str, list[float]]] = {}
        self.per_decoder: dict[str, float] = {}
        self.per_task: dict[str, dict[str, float]] = {}
        super().__init__()

    def reset(self) -> None:
        self.rows = {}

    def iteration_completed(self, engine: Engine) -> None:
        self.update([{**item, **output} for item, output in zip(engine.state.batch, engine.state.output, strict=True)])

    def update(self, output: Sequence[dict[str, Any]]) -> None:
        """Add a decollated batch: items with "pred" (decoders, H, W), "label" (1, H, W), "task" and "case_id"."""
        for item in output:
            self.rows[item["case_id"]] = (item["task"], dice(item["pred"] > 0, item["label"] > 0).tolist())

    def compute(self) -> float:
        """Gather, average, and return the best decoder's mDice."""
        rows = dict(self.rows)
        if distributed.is_initialized():
            parts: list[dict] = [{} for _ in range(distributed.get_world_size())]
            distributed.all_gather_object(parts, self.rows)
            rows = {key: row for part in parts for key, row in part.items()}
        tasks = sorted({task for task, _ in rows.values()})
        self.per_task = {
            name: {task: _mean([row[1][_channel(name)] for row in rows.values() if row[0] == task]) for task in tasks}
            for name in self.decoders
        }
        self.per_decoder = {name: _mean(list(scores.values())) for name, scores in self.per_task.items()}
        return max(self.per_decoder.values())

    @property
    def best_decoder(self) -> str:
        return max(self.per_decoder, key=lambda name: self.per_decoder[name])

    def attach(self, engine: Engine, name: str, *args: Any) -> None:
        super().attach(engine, name, *args)
        engine.state.validation_dice = self  # `validation_of` reads it


def _channel(decoder: str) -> int:
    """The place of a decoder in what `EveryDecoder` gives."""
    return DECODERS.index(decoder) if decoder in DECODERS else 0


def dice(prediction: Tensor, reference: Tensor) -> Tensor:
    """Dice of each channel of `prediction` (C, H, W) with `reference` (1, H, W), both bool; (C,), empty on empty is 1."""
    both = (prediction & reference).flatten(1).sum(1).double()
    total = prediction.flatten(1).sum(1).double() + reference.sum().double()
    return torch.where(total > 0, 2 * both / total.clamp_min(1), torch.ones_like(total))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def validation_of(validator: Evaluator | None, epoch: int) -> ValidationDice | None:
    """The validation of this epoch, or None where none was made."""
    if validator is None or validator.state.epoch != epoch:
        return None
    dice = getattr(validator.state, "validation_dice", None)
    return dice if dice is not None and dice.per_decoder else None

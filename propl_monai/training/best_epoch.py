"""The Dice of all tasks while one is trained, and the epoch that helps it and harms no other."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from propl_monai.data import transforms
from propl_monai.model.network import ProPL
from propl_monai.training.validation import dice

logger = logging.getLogger(__name__)


class Measure:
    """Mean Dice of each task on fixed pictures, at the network's grid, by the decoder that the network has chosen.

    Args:
        network: before training; its masks replace missing ones.
        items: by task name, with `image` and `task`, and `label` if there is a mask.
        header: of the weights: spatial_size, normalisation and crop_sector.
    """

    def __init__(self, network: ProPL, items: Mapping[str, Sequence[dict]], header: Mapping[str, Any]) -> None:
        self.header = header
        self.cases = {task: [self._case(network, item) for item in some] for task, some in items.items() if some}

    def _case(self, network: ProPL, item: dict) -> tuple[Tensor, Tensor]:
        size, normalisation = self.header["spatial_size"], self.header["normalisation"]
        cut = {"crop_sector": self.header.get("crop_sector", False)}
        if "label" in item:
            loaded = transforms.validation(size, normalisation, **cut)(item)
            return _plain(loaded["image"]), _plain(loaded["label"]) > 0
        image = _plain(transforms.inference(size, normalisation, **cut)(item)["image"])
        return image, _mask(network, image, item["task"])

    def __call__(self, network: ProPL) -> dict[str, float]:
        """Mean Dice by task name; both masks empty counts as 1."""
        network.eval()
        found = {}
        for task, cases in self.cases.items():
            scores = [float(dice(_mask(network, image, task), reference)[0]) for image, reference in cases]
            found[task] = sum(scores) / len(scores)
        return found


@torch.no_grad()
def _mask(network: ProPL, image: Tensor, task: str) -> Tensor:
    device = next(network.parameters()).device
    return (network(image.unsqueeze(0).to(device), task=task)[0] > 0).cpu()


def _plain(item: Any) -> Tensor:
    return torch.as_tensor(item).as_subclass(Tensor)


@dataclass
class BestEpoch:
    """A handler that keeps the weights of the best epoch that did no harm to other tasks.

    Attributes:
        epoch: 0 if no epoch was better than the network before training.
        scores: Dice by task of that epoch, or of the network before training.
        history: Dice by task of every epoch.
    """

    network: ProPL
    task: str
    measure: Measure
    before: dict[str, float]
    tolerance: float
    epoch: int = 0
    state: dict[str, Tensor] | None = None
    scores: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scores = dict(self.before)

    def attach(self, engine: Engine) -> None:
        """Measure the network after every epoch."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.measure_epoch)

    def measure_epoch(self, engine: Engine) -> None:
        """Measure the network, and keep its weights if they are better."""
        scores = self.measure(self.network)
        self.history.append(scores)
        harmed = self.harmed(scores)
        harm = f"; harm to {', '.join(harmed)}" if harmed else ""
        logger.info("epoch %d  %s: Dice %.3f%s", engine.state.epoch, self.task, scores[self.task], harm)
        if not harmed and scores[self.task] > self.scores[self.task]:
            self.epoch, self.scores = engine.state.epoch, scores
            self.state = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}

    def harmed(self, scores: Mapping[str, float]) -> list[str]:
        """The other tasks that lost more Dice than the tolerance."""
        limits = {task: value - self.tolerance for task, value in self.before.items() if task != self.task}
        return [task for task, limit in limits.items() if scores[task] < limit]


def results_of(best: BestEpoch, compared_with: Mapping[str, str]) -> dict[str, Any]:
    """What a training is recorded by: Dice of all tasks before and after, and what they were compared with, in words."""
    table = {
        task: {
            "before": round(best.before[task], 4),
            "after": round(best.scores[task], 4),
            "pictures": len(cases),
            "compared_with": compared_with[task],
        }
        for task, cases in best.measure.cases.items()
    }
    harmed = sorted({task for scores in best.history for task in best.harmed(scores)})
    why = f"every better epoch harmed {', '.join(harmed)}" if harmed else "no epoch was better"
    history = [{task: round(score, 4) for task, score in scores.items()} for scores in best.history]
    why_none = None if best.epoch else why
    return {"task": best.task, "epoch": best.epoch, "why": why_none, "dice": table, "dice_by_epoch": history}

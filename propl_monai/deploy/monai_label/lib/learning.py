"""Training one task from a few labels while the others keep their accuracy.

Learning without forgetting (Li and Hoiem, ECCV 2016), with prompts: beside the labelled pictures of the task, the network
sees pictures under the other tasks' prompts, with its earlier predictions as targets. All tasks are measured after every
epoch, and an epoch counts only if no other task lost more Dice than the tolerance.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor
from torch.nn import functional

from propl_monai.data import transforms
from propl_monai.data.loaders import DrawnDataset, PairedLoader
from propl_monai.errors import ProPLError
from propl_monai.model.network import DECODERS, ProPL
from propl_monai.training.methods.base import Batch, Method
from propl_monai.training.trainer import SemiSupervisedTrainer
from propl_monai.training.validation import dice

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """Settings of one training.

    Attributes:
        max_epochs, steps_per_epoch, batch_size, learning_rate, seed: of AdamW and the loader.
        keep_weight: weight of the loss that keeps the other tasks' predictions; the loss of the task has weight 1.
        tolerance: Dice that another task may lose.
        val_split: share of the labels that are held out to measure the task.
    """

    max_epochs: int = 10
    steps_per_epoch: int = 20
    batch_size: int = 6
    learning_rate: float = 1e-4
    keep_weight: float = 10.0
    tolerance: float = 0.02
    seed: int = 0
    val_split: float = 0.2

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> Settings:
        """The settings of a request; its numbers may be text."""
        return cls(**{name: _number(request, name, default) for name, default in asdict(cls()).items()})


def _number(request: Mapping[str, Any], name: str, default: Any) -> Any:
    try:
        value = type(default)(request.get(name, default))
        if not 0 <= value < math.inf:
            raise ValueError("it is negative or not finite")
    except (TypeError, ValueError, OverflowError) as error:
        raise ProPLError(name, f"{request[name]!r} is no number from 0", "give such a number") from error
    return value


class KeepingOthers(Method):
    """Trains both decoders with labels, and on other pictures with the predictions of a frozen copy of the network.

    The network stays in eval mode: statistics of a few pictures of one task would spoil the BatchNorm layers for all.

    Args:
        network: trained in place.
        keep_weight: weight of the second loss.
    """

    name = "keeping_others"
    only = "propl"
    decoders = DECODERS
    network: ProPL

    def __init__(self, network: ProPL, keep_weight: float = 1.0) -> None:
        super().__init__(network)
        self.keep_weight = keep_weight
        self.before = copy.deepcopy(network).requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> KeepingOthers:
        """Stay in eval mode, whatever `mode` is."""
        super().train(False)
        return self

    def step(self, labelled: Batch | None, unlabelled: Batch | None, progress: float) -> dict[str, Tensor]:
        """Loss of labelled pictures of the task and of pictures under other prompts; see `Method.step`."""
        assert labelled is not None, "PairedLoader always gives a labelled batch where there are labels"
        both = _both_decoders(self.network, labelled)
        loss = torch.stack([self.loss(logits, labelled["label"]) for logits in both]).sum()
        result = {"supervised": loss.detach(), "logits": both[0].detach()}
        if unlabelled:
            with torch.no_grad():
                targets = [logits.float().sigmoid() for logits in _both_decoders(self.before, unlabelled)]
            pairs = zip(_both_decoders(self.network, unlabelled), targets, strict=True)
            kept = torch.stack([_departure(logits, target) for logits, target in pairs]).sum()
            result["kept"] = kept.detach()
            loss = loss + self.keep_weight * kept
        result["loss"] = loss
        return result


def _departure(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy minus its minimum, which the earlier prediction attains; soft Dice would sharpen predictions."""
    entropy = functional.binary_cross_entropy(target, target)
    return functional.binary_cross_entropy_with_logits(logits.float(), target) - entropy


def _both_decoders(network: ProPL, batch: Batch) -> list[Tensor]:
    features = network.encode(batch["image"])
    text = network.text(batch["task"], len(batch["image"]))
    return [network.decode(features, text, decoder) for decoder in ("sd", "pd")]


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


def learn(
    network: ProPL,
    task: str,
    labelled: Sequence[dict],
    rehearsed: Sequence[dict],
    measured: Mapping[str, Sequence[dict]],
    header: Mapping[str, Any],
    settings: Settings,
) -> BestEpoch:
    """Train one task; afterwards the network has the weights of the best epoch, or those from before.

    Args:
        network: changed in place.
        task: its name.
        labelled: items with `image`, `label` and `task`, not empty.
        rehearsed: items with `image` and `task`, of other tasks; may be empty.
        measured: see `Measure`; contains `task`.
        header: see `Measure`.
        settings: see `Settings`.
    """
    earlier = {name: value.detach().clone() for name, value in network.state_dict().items()}
    measure = Measure(network, measured, header)
    best = BestEpoch(network, task, measure, measure(network), settings.tolerance)
    cut = {"crop_sector": header.get("crop_sector", False)}
    pipeline = transforms.training(header["spatial_size"], header["normalisation"], **cut)
    batch = settings.batch_size
    loader = PairedLoader(
        *(DrawnDataset(labelled, pipeline), DrawnDataset(rehearsed, pipeline)),
        *(batch, batch, settings.seed, 0, settings.steps_per_epoch),
    )
    trainer = SemiSupervisedTrainer(
        device=next(network.parameters()).device,
        max_epochs=settings.max_epochs,
        train_data_loader=loader,
        method=KeepingOthers(network, settings.keep_weight),
        optimizer=torch.optim.AdamW(network.parameters(), lr=settings.learning_rate),
        seed=settings.seed,
        train_handlers=[best],
    )
    trainer.run()
    network.load_state_dict(best.state or earlier)
    network.eval()
    return best

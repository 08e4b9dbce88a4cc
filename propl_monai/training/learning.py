"""Training one task from a few labels while the others keep their accuracy; used by MONAI Label and `propl add-task`.

Learning without forgetting (Li and Hoiem, ECCV 2016), with prompts: beside the labelled pictures of the task, the network
sees pictures under the other tasks' prompts, with its earlier predictions as targets. All tasks are measured after every
epoch, and an epoch counts only if no other task lost more Dice than the tolerance.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Self

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.nn import functional

from propl_monai.data import transforms
from propl_monai.data.loaders import DrawnDataset, PairedLoader
from propl_monai.errors import ProPLError, unknown
from propl_monai.model.encoder import Features
from propl_monai.model.network import DECODERS, ProPL
from propl_monai.training.best_epoch import BestEpoch, Measure
from propl_monai.training.methods.base import Batch, Method
from propl_monai.training.trainer import SemiSupervisedTrainer

PARTS = ("sentence", "decoders")  # that learn a new task: its sentence alone, or the decoders, too
OUTDATED = ("version", "architecture", "prompt_bank_sha256", "decoder", "epoch", "validation_mdice", "halved")


def lasting(header: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of the header of weights that still hold after they were trained on."""
    return {key: value for key, value in header.items() if key not in OUTDATED}


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
    def of(cls, request: Mapping[str, Any]) -> Self:
        """The settings of a request; its numbers may be text."""
        numbers = {name: value for name, value in asdict(cls()).items() if not isinstance(value, str)}
        return cls(**{name: _number(request, name, default) for name, default in numbers.items()})


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
    encoder_learns = True

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
        both = _both_decoders(self.network, self._features(labelled), self.text(labelled))
        loss = torch.stack([self.loss(logits, labelled["label"]) for logits in both]).sum()
        result = {"supervised": loss.detach(), "logits": both[0].detach()}
        if unlabelled:
            features = self._features(unlabelled)
            with torch.no_grad():
                text = self.before.text(unlabelled["task"], len(unlabelled["image"]))
                known = self.before.encode(unlabelled["image"]) if self.encoder_learns else features
                targets = [logits.float().sigmoid() for logits in _both_decoders(self.before, known, text)]
            pairs = zip(_both_decoders(self.network, features, text), targets, strict=True)
            kept = torch.stack([_departure(logits, target) for logits, target in pairs]).sum()
            result["kept"] = kept.detach()
            loss = loss + self.keep_weight * kept
        result["loss"] = loss
        return result

    def _features(self, batch: Batch) -> Features:
        """Of the network; without a gradient the optimizer leaves the encoder as it is."""
        with torch.set_grad_enabled(self.encoder_learns and torch.is_grad_enabled()):
            return self.network.encode(batch["image"])

    def text(self, batch: Batch) -> Tensor:
        """What the labelled pictures are asked for by, (B, L, E)."""
        return self.network.text(batch["task"], len(batch["image"]))

    def groups(self) -> list[dict[str, Any]]:
        """What learns, as groups of parameters for an optimizer."""
        return [{"params": list(self.network.parameters())}]


class LearningSentence(KeepingOthers):
    """A task that the network has never been taught: the embedding of its sentence learns, by itself or with the decoders.

    Learning the embedding alone is prompt tuning (Lester et al., EMNLP 2021): no weight changes, and so nothing that the
    network says of any other task. The encoder stays as it is in both.

    Args:
        network: trained in place; its prompt bank holds the task. It is frozen as far as it does not learn.
        task: its name.
        part: one of `PARTS`.
        keep_weight: see `KeepingOthers`.
        sentence_rate: learning rate of the embedding.
    """

    name = "learning_sentence"
    encoder_learns = False

    def __init__(
        self, network: ProPL, task: str, part: str, keep_weight: float = 1.0, sentence_rate: float = 1e-2
    ) -> None:
        super().__init__(network, keep_weight)
        if part not in PARTS:
            raise unknown("part", "part of the network", part, PARTS)
        assert network.prompts is not None, "whoever calls this has put the task into its bank"
        self.bank, self.rate, self.part = network.prompts.bank, sentence_rate, part
        self.row = self.bank.task_names.index(task)
        self.sentence = nn.Parameter(self.bank.embeddings[self.row].clone())
        network.requires_grad_(False)
        if part == "decoders":
            for decoder in (network.decoder_sd, network.decoder_pd):
                decoder.requires_grad_(True)

    def text(self, batch: Batch) -> Tensor:
        """The sentence as it is now; every position counts."""
        return self.sentence.expand(len(batch["image"]), -1, -1)

    def groups(self) -> list[dict[str, Any]]:
        """The embedding, and what of the network learns."""
        own: dict[str, Any] = {"params": [self.sentence], "lr": self.rate, "weight_decay": 0.0}
        rest = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        return [own, {"params": rest}] if rest else [own]

    def after_step(self) -> None:
        """Put the sentence into the bank."""
        self.bank.embeddings[self.row] = self.sentence.detach()
        self.bank.mask[self.row] = True


def _departure(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy minus its minimum, which the earlier prediction attains; soft Dice would sharpen predictions."""
    entropy = functional.binary_cross_entropy(target, target)
    return functional.binary_cross_entropy_with_logits(logits.float(), target) - entropy


def _both_decoders(network: ProPL, features: Features, text: Tensor) -> list[Tensor]:
    return [network.decode(features, text, decoder) for decoder in ("sd", "pd")]


class Steps:
    """A handler that tells how many steps are done."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self.tell = tell

    def attach(self, engine: Engine) -> None:
        """Tell after every step."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: self.tell(engine.state.iteration))


def learn(
    network: ProPL,
    task: str,
    labelled: Sequence[dict],
    rehearsed: Sequence[dict],
    measured: Mapping[str, Sequence[dict]],
    header: Mapping[str, Any],
    settings: Settings,
    method: KeepingOthers | None = None,
    views: Mapping[str, Any] | None = None,
    handlers: Sequence[Any] = (),
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
        method: how; None for `KeepingOthers`.
        views: options of `transforms.training` for the labelled pictures; None for its defaults.
        handlers: more handlers of MONAI or ignite.
    """
    earlier = {name: value.detach().clone() for name, value in network.state_dict().items()}
    method = method or KeepingOthers(network, settings.keep_weight)
    measure = Measure(network, measured, header)
    best = BestEpoch(network, task, measure, measure(network), settings.tolerance)
    cut = {"crop_sector": header.get("crop_sector", False)}
    view = partial(transforms.training, header["spatial_size"], header["normalisation"], **cut)
    batch = settings.batch_size
    loader = PairedLoader(
        *(DrawnDataset(labelled, view(**(views or {}))), DrawnDataset(rehearsed, view())),
        *(batch, batch, settings.seed, 0, settings.steps_per_epoch),
    )
    trainer = SemiSupervisedTrainer(
        device=next(network.parameters()).device,
        max_epochs=settings.max_epochs,
        train_data_loader=loader,
        method=method,
        optimizer=torch.optim.AdamW(method.groups(), lr=settings.learning_rate),
        seed=settings.seed,
        train_handlers=[best, *handlers],
    )
    trainer.run()
    network.load_state_dict(best.state or earlier)
    network.requires_grad_(True).eval()
    return best

"""The interface of networks: everything after training, and most methods, know this alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from propl_monai import tasks as registry
from propl_monai.errors import ProPLError, unknown
from propl_monai.model.encoder import STRIDES, Features

Task = str | Sequence[str] | Tensor | None
ONLY = ("main",)  # the decoder of a network that has one


class Segmenter(nn.Module, ABC):
    """A network that segments a batch, each image by its own task.

    Attributes:
        name: in the registry, and in the header of weights.
        decoders: those with weights. The first one learns from labels.
        default_task: the task when none is given; None makes that an error.
        encodes_once: whether features do not depend on the task, so that one encoding serves several tasks.
        required: the options that a header must hold.
        related: names of networks whose weights a training may start from although their tasks are others, see `take`.
        least_side: pixels to which a smaller height or width is padded, beside the next multiple of 32.
    """

    name: ClassVar[str]
    required: ClassVar[frozenset[str]] = frozenset({"encoder", "tasks"})
    encodes_once: ClassVar[bool] = False
    related: ClassVar[frozenset[str]] = frozenset()
    least_side: int = STRIDES[-1]
    decoders: tuple[str, ...] = ONLY
    default_task: str | None = None

    @property
    @abstractmethod
    def task_names(self) -> list[str]:
        """The tasks that this network knows, in the order of their numbers."""

    @property
    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Arguments of the constructor that rebuild the network, as JSON values, and "tasks"."""

    @classmethod
    def rebuilt(cls, options: Mapping[str, Any]) -> Self:
        """The network of a header's options, without its weights and without sentences."""
        return cls(**{key: value for key, value in options.items() if key in cls.required})

    @classmethod
    def configured(cls, options: Mapping[str, Any], prompts: str | bool | None, default_task: str | None) -> Self:
        """The network of a header's options, for weights to be loaded into; `prompts` is a file of sentences, or None."""
        if prompts is not None:
            raise no_text(cls.name)
        network = cls.rebuilt(options)
        network.default_task = default_task
        return network

    def take(self, other: Segmenter) -> None:
        """Start from the weights of a network that `related` names, in place."""
        raise ProPLError(
            f"network '{self.name}'", f"starts from no weights of '{other.name}'", "use weights of its own"
        )

    def another(self) -> Self:
        """A network of the same options that starts from other random weights; the encoder's are the same."""
        made = self.rebuilt(self.options)
        made.default_task = self.default_task
        if "encoder" in dict(self.named_children()):
            made.get_submodule("encoder").load_state_dict(self.get_submodule("encoder").state_dict())
        return made.to(next(self.parameters()).device)

    @abstractmethod
    def segment(self, image: Tensor, numbers: Tensor, decoder: str) -> Tensor:
        """Images (B, 1, H, W) and task numbers (B,), int64, to logits (B, 1, H, W), without any check."""

    def forward(
        self, image: Tensor, task: Task = None, text: Tensor | None = None, decoder: str | None = None
    ) -> Tensor:
        """Segment a batch.

        Args:
            image: (B, 1 or 3, H, W), float, normalised; any height and width.
            task: one task name for all images, one per image, or task numbers (B,); None for the default task.
            text: refused: this network reads no sentence.
            decoder: one of `decoders`, or None for the chosen one.

        Returns:
            Logits (B, 1, H, W); their sigmoid is the probability of the target.
        """
        if text is not None:
            raise no_text(self.name)
        decoder = decoder or self.chosen_decoder
        self.require_decoder(decoder)
        return self.segment(image, self.numbers(task, image.shape[0]), decoder)

    def numbers(self, task: Task, batch: int) -> Tensor:
        """Task numbers (B,), int64, of one task for all images, or one per image; None means the default task."""
        task = self.default_task if task is None else task
        device = next(self.parameters()).device
        return task_numbers(task, self.task_names, batch, device, f"network '{self.name}'")

    def features(self, image: Tensor, task: Task = None) -> Features:
        """Images to the feature maps that `logits` decodes, for methods that perturb them; see `forward`."""
        raise self._without("gives no features")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the maps v1 … v4 of `features`."""
        encoder = getattr(self, "encoder", None)
        if encoder is None:
            raise self._without("gives no features")
        return encoder.channels

    def logits(self, features: Features, task: Task = None, decoder: str | None = None) -> Tensor:
        """Feature maps of `features` to logits (B, 1, H, W); see `forward`."""
        raise self._without("takes no features")

    def _without(self, fact: str) -> ProPLError:
        return ProPLError(f"network '{self.name}'", fact, "choose another network, such as film")

    @property
    def bound_to_size(self) -> bool:
        """Whether exporters cannot leave height and width of images free."""
        return False

    @property
    def prompt_bank_sha256(self) -> str | None:
        """The hash of the sentences; None for a network that reads none."""
        return None

    @property
    def sentences(self) -> dict[str, str]:
        """The sentence of each task; empty for a network that reads none."""
        return {}

    @property
    def chosen_decoder(self) -> str:
        """The decoder that `forward` uses."""
        return self.decoders[0]

    def choose_decoder(self, decoder: str) -> None:
        """Set the decoder that `forward` uses."""
        self.require_decoder(decoder)

    def require_decoder(self, decoder: str, where: str | None = None) -> None:
        """Check that a decoder exists; `where` names its user in the error."""
        if decoder not in self.decoders:
            fact = f"network '{self.name}' has no decoder {decoder}"
            raise ProPLError(where or f"decoder '{decoder}'", fact, f"use {' or '.join(self.decoders)}")

    def require_uncertainty(self) -> None:
        """Check that the network gives variances, by passes with perturbed features."""
        fact = f"network '{self.name}' gives none: it has no passes with perturbed features"
        raise ProPLError("uncertainty", fact, "leave it out, or use weights of propl")

    def keep_decoder(self, decoder: str) -> None:
        """Choose a decoder and delete the others."""
        self.choose_decoder(decoder)


def no_text(name: str) -> ProPLError:
    """The refusal of a sentence, or of a file of them, by a network that reads none."""
    return ProPLError(f"network '{name}'", "reads no sentences: it knows its tasks by number", "give a task, no text")


def task_numbers(task: Task, known: Sequence[str], batch: int, device: torch.device, where: str) -> Tensor:
    """Task names (one for all, or one each), or numbers, as an int64 tensor (B,).

    Args:
        task: names or codes of tasks, or numbers.
        known: the names that the numbers count.
        batch: B.
        device: of the result.
        where: who is asked, for the error.
    """
    if task is None:
        raise ProPLError("task", "none was given", f"give one of: {', '.join(known)}")
    if isinstance(task, Tensor):
        numbers = task.to(device=device, dtype=torch.int64).reshape(-1)
    else:
        names = [task] if isinstance(task, str) else list(task)
        numbers = torch.tensor([_number(name, known, where) for name in names], dtype=torch.int64, device=device)
    if len(numbers) == 1:
        numbers = numbers.expand(batch)
    if len(numbers) != batch:
        raise ProPLError("task", f"{len(numbers)} tasks for {batch} images", "give one task, or one per image")
    return numbers


def _number(name: str, known: Sequence[str], where: str) -> int:
    if name not in known:
        name = registry.find(name).name
    if name not in known:
        raise unknown(where, "task", name, known)
    return list(known).index(name)

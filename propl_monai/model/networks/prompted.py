"""Networks whose target a sentence selects: they share the prompt bank, its controls, and how both travel in a header."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from torch import Tensor

from propl_monai.errors import ProPLError
from propl_monai.model.encoder import VisionEncoder
from propl_monai.model.networks.base import Segmenter, Task
from propl_monai.model.prompts import PromptBank, Prompts

OF_PROMPTS = ("prompt_mode", "prompt_padding", "tasks")  # options of a header that belong to the sentences


class PromptedSegmenter(Segmenter):
    """A network with a timm encoder and text (B, L, E), a sentence's embedding or one of its controls, for each image.

    A subclass builds `encoder`, calls `take_prompts`, and then builds what needs `text_shape`.

    Attributes:
        optional: options that a header may hold beside the required ones.
    """

    required = frozenset({"encoder", "prompt_mode", "prompt_padding", "text_shape", "tasks"})
    optional: ClassVar[frozenset[str]] = frozenset({"decoder_block"})
    encoder: VisionEncoder
    prompts: Prompts | None
    text_shape: tuple[int, ...]
    decoder_block: str

    def take_prompts(
        self, prompts: str | bool | None, mode: str, padding: str, text_shape: Sequence[int]
    ) -> tuple[int, int]:
        """Read the prompt bank: a file, None for the packaged one, False for none; (L, E), `text_shape` if there is none."""
        self.prompts = None
        if prompts is not False:
            bank = PromptBank.load(None if prompts in (None, True) else str(prompts))
            self.prompts = Prompts(bank, mode, padding)
            text_shape = bank.embeddings.shape[1:]
        length, width = text_shape
        self.text_shape = (length, width)
        return length, width

    def attach_prompts(self, bank: PromptBank, mode: str = "text", padding: str = "zero") -> None:
        """Set the prompt bank, so that `task=` works."""
        shape = tuple(bank.embeddings.shape[1:])
        if shape != self.text_shape:
            raise ProPLError(
                "prompt bank", f"has (L, E) = {shape}, the decoders {self.text_shape}", "use a fitting bank"
            )
        self.prompts = Prompts(bank, mode, padding).to(next(self.encoder.parameters()).device)

    @property
    def task_names(self) -> list[str]:
        """The tasks of the prompt bank; none without one."""
        return self.prompts.bank.task_names if self.prompts else []

    @property
    def options(self) -> dict[str, Any]:
        """Encoder, decoder block, prompt mode and padding, (L, E), and the tasks of the bank."""
        return {
            "encoder": self.encoder.name,
            "decoder_block": self.decoder_block,
            "prompt_mode": self.prompts.mode if self.prompts else None,
            "prompt_padding": self.prompts.padding if self.prompts else None,
            "text_shape": list(self.text_shape),
            "tasks": self.task_names,
        }

    @classmethod
    def rebuilt(cls, options: Mapping[str, Any]) -> Self:
        """The network of a header's options, without its weights and without sentences."""
        known = (cls.required | cls.optional) - set(OF_PROMPTS)
        given: dict[str, Any] = {key: value for key, value in options.items() if key in known}
        return cls(prompts=False, **given)

    @classmethod
    def configured(cls, options: Mapping[str, Any], prompts: str | bool | None, default_task: str | None) -> Self:
        """The network of a header's options, for weights to be loaded into, with all decoders and the (L, E) of its bank.

        Args:
            options: of the header.
            prompts: file of a prompt bank, None for the packaged one.
            default_task: see `Segmenter`.
        """
        known = (cls.required | cls.optional) - {"tasks", "text_shape", "decoders"}
        given: dict[str, Any] = {key: value for key, value in options.items() if key in known}
        return cls(prompts=prompts, default_task=default_task, **given)

    def another(self) -> Self:
        """A network of the same options and sentences that starts from other random weights; the encoder's are the same."""
        made = super().another()
        made.prompts = copy.deepcopy(self.prompts)
        return made

    @property
    def prompt_bank_sha256(self) -> str | None:
        """The hash of the prompt bank."""
        return self.prompts.bank.sha256 if self.prompts else None

    @property
    def sentences(self) -> dict[str, str]:
        """The sentence of each task, where prompts are text."""
        if self.prompts is None or self.prompts.mode != "text":
            return {}
        facts = self.prompts.bank.describe()
        return dict(zip(facts["tasks"], facts["sentences"], strict=True))

    def text(self, task: Task, batch: int) -> Tensor:
        """The text (B, L, E) of one task for all images, or one per image; None means the default task."""
        return self._bank()(self.numbers(task, batch))

    def numbers(self, task: Task, batch: int) -> Tensor:
        """Task numbers (B,), int64, in the order of the bank; None means the default task."""
        bank = self._bank()
        task = self.default_task if task is None else task
        if task is None:
            raise ProPLError("task", "none was given", f"give one of: {', '.join(self.task_names)}")
        return bank.numbers(task, batch, bank.bank.embeddings.device)

    def _bank(self) -> Prompts:
        if self.prompts is None:
            raise ProPLError("task", "this network has no prompt bank", "call attach_prompts(bank), or pass text=")
        return self.prompts

    def segment(self, image: Tensor, numbers: Tensor, decoder: str) -> Tensor:
        """Images (B, 1, H, W) and task numbers (B,) to logits (B, 1, H, W), without any check."""
        return self.segment_by_text(image, self._bank()(numbers), decoder)

    @abstractmethod
    def segment_by_text(self, image: Tensor, text: Tensor, decoder: str) -> Tensor:
        """Images (B, 1, H, W) and text (B, L, E) to logits (B, 1, H, W)."""

    def forward(
        self, image: Tensor, task: Task = None, text: Tensor | None = None, decoder: str | None = None
    ) -> Tensor:
        """Segment a batch.

        Args:
            image: (B, 1 or 3, H, W), float, normalised; any height and width.
            task: one task name for all images, one per image, or task numbers (B,).
            text: (B, L, E) instead of a task.
            decoder: one of `decoders`, or None for the chosen one.

        Returns:
            Logits (B, 1, H, W); their sigmoid is the probability of the target.
        """
        if text is None:
            text = self.text(task, image.shape[0])  # not len, which a trace would fix
        decoder = decoder or self.chosen_decoder
        self.require_decoder(decoder)
        return self.segment_by_text(image, text, decoder)


class UsualPrompted(PromptedSegmenter):
    """A prompted network with the usual arguments alone; a subclass adds to the encoder what it has of its own, in `build`.

    Args:
        encoder: a timm model name, see `VisionEncoder`.
        prompts: file of a prompt bank, None for the packaged bank of the eight tasks, False for no bank.
        prompt_mode: "text", or the controls "learned", "onehot", "none".
        prompt_padding: "zero" or "released".
        decoder_block: "unetr" or "light", see `decoder.BLOCKS`.
        default_task: the task when neither `task` nor `text` is given; None makes that an error.
        text_shape: (L, E) when there is no bank.
    """

    def __init__(
        self,
        encoder: str = "convnext_tiny",
        prompts: str | bool | None = None,
        prompt_mode: str = "text",
        prompt_padding: str = "zero",
        decoder_block: str = "unetr",
        default_task: str | None = None,
        text_shape: tuple[int, int] = (24, 384),
    ) -> None:
        super().__init__()
        self.encoder = VisionEncoder(encoder)
        self.take_prompts(prompts, prompt_mode, prompt_padding, text_shape)
        self.decoder_block, self.default_task = decoder_block, default_task
        self.build(self.text_shape[1])

    @abstractmethod
    def build(self, width: int) -> None:
        """Add the other modules; `width` is E, of a sentence's embedding."""

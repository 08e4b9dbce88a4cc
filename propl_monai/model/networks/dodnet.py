"""DoDNet: one network for many tasks, whose head is made for each image from a one-hot task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional

from propl_monai.model.encoder import Features, VisionEncoder
from propl_monai.model.networks.base import Segmenter, Task, no_text
from propl_monai.model.networks.dynamic_head import DynamicDecoder
from propl_monai.tasks import NAMES, find_all


class DoDNet(Segmenter):
    """Encoder and decoder without a task, and a dynamic head from the pooled v4 and the one-hot task.

    Zhang et al., CVPR 2021, eqs. 1-5. Paper and code have a 3-D residual U-Net with group normalisation and two outputs,
    organ and tumour, of which unlabelled ones are masked: here this package's encoder and up-blocks in 2-D, and one
    output, that of the image's task. The controller sees v4 pooled as it is, as in the paper; in the code after a
    normalisation and ReLU. The tasks are fixed: it reads no sentences.

    Args:
        encoder: a timm model name, see `VisionEncoder`.
        tasks: names, in the order of their numbers.
        prompts: None; anything else is refused.
        decoder_block: "unetr" or "light", see `decoder.BLOCKS`.
        default_task: the task when none is given; None makes that an error.

    Attributes:
        extra_heads: that belong to no task; none here.
    """

    name = "dodnet"
    extra_heads: ClassVar[int] = 0
    required = frozenset({"encoder", "decoder_block", "tasks"})
    encodes_once = True

    def __init__(
        self,
        encoder: str = "convnext_tiny",
        tasks: Sequence[str] = NAMES,
        prompts: str | None = None,
        decoder_block: str = "unetr",
        default_task: str | None = None,
    ) -> None:
        super().__init__()
        if prompts is not None:
            raise no_text(self.name)
        self.tasks = [task.name for task in find_all(tasks)]
        self.encoder = VisionEncoder(encoder)
        self.decoder = DynamicDecoder(self.encoder.channels, len(self.tasks) + self.extra_heads, decoder_block)
        self.decoder_block, self.default_task = decoder_block, default_task

    @property
    def task_names(self) -> list[str]:
        """The tasks of the controller."""
        return self.tasks

    @property
    def options(self) -> dict[str, Any]:
        """Encoder, decoder block and tasks."""
        return {"encoder": self.encoder.name, "decoder_block": self.decoder_block, "tasks": self.tasks}

    def features(self, image: Tensor, task: Task = None) -> Features:
        """The features of images (B, 1, H, W), which do not depend on the task."""
        return self.encoder(image)

    def logits(self, features: Features, task: Task = None, decoder: str | None = None) -> Tensor:
        """Features to logits (B, 1, H, W)."""
        return self._decode(features, self.numbers(task, len(features.v4)))

    def segment(self, image: Tensor, numbers: Tensor, decoder: str) -> Tensor:
        """Images (B, 1, H, W) and task numbers (B,) to logits (B, 1, H, W), without any check."""
        return self._decode(self.encoder(image), numbers)

    def _decode(self, features: Features, numbers: Tensor) -> Tensor:
        wish = functional.one_hot(numbers, len(self.tasks)).to(features.v4.dtype)
        wish = functional.pad(wish, (0, self.extra_heads)) if self.extra_heads else wish
        return self.decoder(features, wish)

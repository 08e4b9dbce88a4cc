"""The CLIP-driven universal model: a head made for each image from the embedding of its target's sentence."""

from __future__ import annotations

from torch import Tensor, nn

from propl_monai.model.encoder import Features, VisionEncoder
from propl_monai.model.networks.base import Task
from propl_monai.model.networks.dynamic_head import DynamicDecoder
from propl_monai.model.networks.prompted import PromptedSegmenter

WIDTH = 256  # of the projected sentence


class ClipUniversal(PromptedSegmenter):
    """Encoder and decoder without a task, and a dynamic head from the pooled v4 and the projected sentence.

    Liu et al., ICCV 2023, eq. 1. Paper and code evaluate the heads of all classes, copy the maps for each of them, and mask
    the loss of those that a data set does not annotate: here the head of the image's own task alone, which is all that is
    annotated. Backbone: this package's encoder and up-blocks in 2-D, not a 3-D Swin UNETR. The sentence is that of the
    prompt bank (mean over its tokens), not CLIP's "A computerized tomography of a [CLS]"; prompt_mode "learned" is the
    paper's random one.

    Args:
        encoder: a timm model name, see `VisionEncoder`.
        prompts: file of a prompt bank, None for the packaged bank of the eight tasks, False for no bank.
        prompt_mode: "text", or the controls "learned", "onehot", "none".
        prompt_padding: "zero" or "released".
        decoder_block: "unetr" or "light", see `decoder.BLOCKS`.
        default_task: the task when neither `task` nor `text` is given; None makes that an error.
        text_shape: (L, E) when there is no bank.
    """

    name = "clip_universal"
    encodes_once = True

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
        _, width = self.take_prompts(prompts, prompt_mode, prompt_padding, text_shape)
        self.project = nn.Sequential(nn.Linear(width, WIDTH), nn.ReLU())
        self.decoder = DynamicDecoder(self.encoder.channels, WIDTH, decoder_block)
        self.decoder_block, self.default_task = decoder_block, default_task

    def features(self, image: Tensor, task: Task = None) -> Features:
        """The features of images (B, 1, H, W), which do not depend on the task."""
        return self.encoder(image)

    def logits(self, features: Features, task: Task = None, decoder: str | None = None) -> Tensor:
        """Features to logits (B, 1, H, W)."""
        return self._decode(features, self.text(task, len(features.v4)))

    def segment_by_text(self, image: Tensor, text: Tensor, decoder: str) -> Tensor:
        """Images (B, 1, H, W) and text (B, L, E) to logits (B, 1, H, W)."""
        return self._decode(self.encoder(image), text)

    def _decode(self, features: Features, text: Tensor) -> Tensor:
        return self.decoder(features, self.project(text.mean(1)))

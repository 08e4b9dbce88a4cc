"""The CLIP-driven universal model: a head made for each image from the embedding of its target's sentence."""

from __future__ import annotations

from torch import Tensor, nn

from propl_monai.model.encoder import Features
from propl_monai.model.networks.base import Task
from propl_monai.model.networks.dynamic_head import DynamicDecoder
from propl_monai.model.networks.prompted import UsualPrompted

WIDTH = 256  # of the projected sentence


class ClipUniversal(UsualPrompted):
    """Encoder and decoder without a task, and a dynamic head from the pooled v4 and the projected sentence.

    Liu et al., ICCV 2023, eq. 1. Paper and code evaluate the heads of all classes, copy the maps for each of them, and mask
    the loss of those that a data set does not annotate: here the head of the image's own task alone, which is all that is
    annotated. The controller sees v4 pooled as it is; in the code after a normalisation and ReLU, and a convolution to 256
    channels. Backbone: this package's encoder and up-blocks in 2-D, not a 3-D Swin UNETR. The sentence is that of the
    prompt bank (mean over its tokens), not CLIP's "A computerized tomography of a [CLS]"; prompt_mode "learned" is the
    paper's random one.

    Arguments: see `UsualPrompted`.
    """

    name = "clip_universal"
    encodes_once = True

    def build(self, width: int) -> None:
        """The projection of the sentence, and the decoder with its head."""
        self.project = nn.Sequential(nn.Linear(width, WIDTH), nn.ReLU())
        self.decoder = DynamicDecoder(self.encoder.channels, WIDTH, self.decoder_block)

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

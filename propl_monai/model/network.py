"""ProPL: a shared vision encoder, task prompts, and two prompt-guided decoders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from propl_monai.errors import ProPLError, unknown
from propl_monai.model.decoder import PromptedDecoder
from propl_monai.model.encoder import Features, VisionEncoder
from propl_monai.model.networks.base import Task
from propl_monai.model.networks.prompted import PromptedSegmenter

DECODERS = ("sd", "pd", "mean")
BOTH = ("sd", "pd")  # the decoders that have weights


class ProPL(PromptedSegmenter):
    """The network of ProPL (AAAI 2026, Figure 1).

    Decoder "sd" learns from labels, decoder "pd" from pseudo-labels; "mean" averages their probabilities. The network
    remembers which of the three predicts best (`choose_decoder`); the choice travels in its state dict.

    Args:
        encoder: a timm model name; the paper's is "convnext_tiny".
        prompts: file of a prompt bank, None for the packaged bank of the eight tasks, False for no bank.
        prompt_mode: "text", or the controls "learned", "onehot", "none".
        prompt_padding: "zero" or "released".
        decoder_block: "unetr" (the paper's) or "light" (cheap, see `decoder.LightUpBlock`).
        default_task: the task when neither `task` nor `text` is given; None makes that an error.
        text_shape: (L, E) when there is no bank.
        decoders: those to build, in the order "sd", "pd"; with one alone the network predicts, but ProPL cannot train it.

    Example:
        >>> net = ProPL("tf_efficientnet_lite0")
        >>> logits = net(torch.rand(2, 1, 160, 160), task=["thyroid gland", "thyroid nodule"])
        >>> tuple(logits.shape)
        (2, 1, 160, 160)
    """

    name = "propl"
    optional = frozenset({"decoder_block", "decoders"})
    encodes_once = True
    decoders: tuple[str, ...] = BOTH
    released_report: dict[str, Any] | None = None  # set by `from_released`
    decoder_sd: PromptedDecoder  # present only if it was built, like the next
    decoder_pd: PromptedDecoder

    def __init__(
        self,
        encoder: str = "convnext_tiny",
        prompts: str | bool | None = None,
        prompt_mode: str = "text",
        prompt_padding: str = "zero",
        decoder_block: str = "unetr",
        default_task: str | None = None,
        text_shape: tuple[int, int] = (24, 384),
        decoders: Sequence[str] = BOTH,
    ) -> None:
        super().__init__()
        self.decoders = tuple(name for name in BOTH if name in decoders)
        if not self.decoders or len(self.decoders) != len(decoders):
            raise ProPLError(
                "decoders", f"{list(decoders)} is not a choice of decoders", "name sd, pd, or both, each once"
            )
        self.encoder = VisionEncoder(encoder)
        shape = self.take_prompts(prompts, prompt_mode, prompt_padding, text_shape)
        for name in self.decoders:
            self.add_module(f"decoder_{name}", PromptedDecoder(self.encoder.channels, *shape, decoder_block))
        self.decoder_block, self.default_task = decoder_block, default_task
        self.register_buffer("predictor", torch.tensor(DECODERS.index(self.decoders[0])))

    @property
    def options(self) -> dict[str, Any]:
        """Those of a prompted network, and the decoders where only one was built."""
        held = {"decoders": list(self.decoders)} if self.decoders != BOTH else {}
        return super().options | held

    def choose_decoder(self, decoder: str) -> None:
        """Set the decoder that `forward` uses: "sd", "pd" or "mean"."""
        self.require_decoder(decoder)
        self.get_buffer("predictor").fill_(DECODERS.index(decoder))

    @property
    def chosen_decoder(self) -> str:
        """The decoder that `forward` uses."""
        number = int(self.get_buffer("predictor"))
        if not 0 <= number < len(DECODERS):
            raise ProPLError("predictor", f"is {number}, and no decoder has this number", "download the weights again")
        return DECODERS[number]

    def require_decoder(self, decoder: str, where: str | None = None) -> None:
        """Check that a decoder exists; "mean" needs both. `where` names its user in the error."""
        if decoder not in DECODERS:
            raise unknown("decoder", "decoder", decoder, DECODERS)
        for name in BOTH:
            if name not in self.decoders and decoder in (name, "mean"):
                fact = f"these weights hold decoder {self.decoders[0]} alone, not {name}"
                cure = "use the full weights, the model.safetensors of the training"
                raise ProPLError(where or f"decoder '{decoder}'", fact, cure)

    def require_uncertainty(self) -> None:
        """Check that decoder sd is there, whose passes give it."""
        self.require_decoder("sd", "uncertainty")

    def keep_decoder(self, decoder: str) -> None:
        """Choose a decoder and delete the other one; "mean" keeps both."""
        self.choose_decoder(decoder)
        for name in self.decoders:
            if decoder not in (name, "mean"):
                delattr(self, f"decoder_{name}")
                self.decoders = (decoder,)

    def encode(self, image: Tensor) -> Features:
        """Image (B, 1 or 3, H, W), normalised as the encoder's weights want it, to its features."""
        return self.encoder(image)

    def decode(self, features: Features, text: Tensor, decoder: str = "sd") -> Tensor:
        """Features and text (B, L, E), float, to logits (B, 1, H, W).

        Args:
            features: of `encode`.
            text: one prompt per image.
            decoder: "sd", "pd", or "mean" (the logit of the mean of their probabilities).
        """
        self.require_decoder(decoder)
        if decoder == "sd":
            return self.decoder_sd(features, text)
        if decoder == "pd":
            return self.decoder_pd(features, text)
        return mean_logits(self.decoder_sd(features, text), self.decoder_pd(features, text))

    def features(self, image: Tensor, task: Task = None) -> Features:
        """The features of `encode`, which do not depend on the task."""
        return self.encode(image)

    def logits(self, features: Features, task: Task = None, decoder: str | None = None) -> Tensor:
        """Features of a batch to logits (B, 1, H, W), as `decode` with the text of each task."""
        return self.decode(features, self.text(task, len(features.v4)), decoder or self.chosen_decoder)

    def segment_by_text(self, image: Tensor, text: Tensor, decoder: str) -> Tensor:
        """Images (B, 1, H, W) and text (B, L, E) to logits (B, 1, H, W)."""
        return self.decode(self.encode(image), text, decoder)


def mean_logits(sd: Tensor, pd: Tensor) -> Tensor:
    """Logits of the mean of two decoders' probabilities, in float32; the shape of `sd`.

    By log-sum-exp: with odds e^a and e^b, the odds of the mean are (2 e^(a+b) + e^a + e^b) / (2 + e^a + e^b). Through
    probabilities, rounding near 0 and 1 would be amplified: at a logit of 13, one bit of a probability is 0.03.
    """
    a, b = sd.float(), pd.float()
    log2 = torch.full_like(a, math.log(2))
    return torch.logsumexp(torch.stack((a + b + log2, a, b)), 0) - torch.logsumexp(torch.stack((log2, a, b)), 0)

"""ProPL: a shared vision encoder, task prompts, and two prompt-guided decoders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from propl_monai.errors import ProPLError, unknown
from propl_monai.model.decoder import PromptedDecoder
from propl_monai.model.encoder import Features, VisionEncoder
from propl_monai.model.prompts import PromptBank, Prompts
from propl_monai.model.tensor_file import BOTH, DECODERS


class ProPL(nn.Module):
    """The network of ProPL (AAAI 2026, Figure 1).

    Decoder "sd" learns from labels, decoder "pd" from pseudo-labels; "mean" averages their probabilities. The network
    remembers which of the three predicts best (`choose_decoder`); the choice travels in its state dict.

    Args:
        encoder: a timm model name; the paper's is "convnext_tiny".
        prompts: file of a prompt bank, None for the packaged bank of the eight tasks, "several" for one of many sentences
            per task (see `Prompts`), False for no bank.
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
        self.prompts: Prompts | None = None
        if prompts is not False:
            bank = PromptBank.load(None if prompts in (None, True) else str(prompts))
            self.prompts = Prompts(bank, prompt_mode, prompt_padding)
            text_shape = (bank.embeddings.shape[1], bank.embeddings.shape[2])
        for name in self.decoders:
            self.add_module(f"decoder_{name}", PromptedDecoder(self.encoder.channels, *text_shape, decoder_block))
        self.text_shape, self.decoder_block = tuple(text_shape), decoder_block
        self.default_task = default_task
        self.register_buffer("predictor", torch.tensor(DECODERS.index(self.decoders[0])))

    def attach_prompts(self, bank: PromptBank, mode: str = "text", padding: str = "zero") -> None:
        """Set the prompt bank, so that `task=` works."""
        shape = tuple(bank.embeddings.shape[1:])
        if shape != self.text_shape:
            raise ProPLError(
                "prompt bank", f"has (L, E) = {shape}, the decoders {self.text_shape}", "use a fitting bank"
            )
        self.prompts = Prompts(bank, mode, padding).to(next(self.encoder.parameters()).device)

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

    def text(self, task: str | Sequence[str] | Tensor | None, batch: int) -> Tensor:
        """The text (B, L, E) of one task for all images, or one per image; None means the default task."""
        if self.prompts is None:
            raise ProPLError("task", "this network has no prompt bank", "call attach_prompts(bank), or pass text=")
        if task is None:
            task = self.default_task
        if task is None:
            raise ProPLError("task", "none was given", f"give one of: {', '.join(self.prompts.bank.task_names)}")
        device = self.prompts.bank.embeddings.device
        return self.prompts(self.prompts.numbers(task, batch, device))

    def forward(
        self,
        image: Tensor,
        task: str | Sequence[str] | Tensor | None = None,
        text: Tensor | None = None,
        decoder: str | None = None,
    ) -> Tensor:
        """Segment a batch.

        Args:
            image: (B, 1 or 3, H, W), float, normalised; any height and width.
            task: one task name for all images, one per image, or task numbers (B,).
            text: (B, L, E) instead of a task.
            decoder: "sd", "pd", "mean", or None for the chosen one.

        Returns:
            Logits (B, 1, H, W); their sigmoid is the probability of the target.
        """
        if text is None:
            text = self.text(task, image.shape[0])
        return self.decode(self.encode(image), text, decoder or self.chosen_decoder)


def mean_logits(sd: Tensor, pd: Tensor) -> Tensor:
    """Logits of the mean of two decoders' probabilities, in float32; the shape of `sd`.

    By log-sum-exp: with odds e^a and e^b, the odds of the mean are (2 e^(a+b) + e^a + e^b) / (2 + e^a + e^b). Through
    probabilities, rounding near 0 and 1 would be amplified: at a logit of 13, one bit of a probability is 0.03.
    """
    a, b = sd.float(), pd.float()
    log2 = torch.full_like(a, math.log(2))
    return torch.logsumexp(torch.stack((a + b + log2, a, b)), 0) - torch.logsumexp(torch.stack((log2, a, b)), 0)

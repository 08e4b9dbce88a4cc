"""The prompt-guided decoder (ProPL, "Network Architecture" and "Prompting-upon-Decoding"), written once, used twice."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from propl_monai.errors import unknown
from propl_monai.model.blocks import SubpixelUpsample, UnetOutBlock, UnetrUpBlock
from propl_monai.model.depthwise import trains_in_bfloat16
from propl_monai.model.encoder import Features
from propl_monai.model.tensor_file import BLOCKS

SCALE_AT_START = 1.7  # alpha of eq. 3; the paper gives none, the released code starts here


def positions(length: int, width: int, like: Tensor) -> Tensor:
    """Sinusoidal encoding of token numbers, (1, length, width); on the queries and keys only (released code)."""
    place = torch.arange(length, device=like.device, dtype=torch.float32).unsqueeze(1)
    rate = torch.exp(torch.arange(0, width, 2, device=like.device, dtype=torch.float32) * (-math.log(10000.0) / width))
    wave = torch.stack((torch.sin(place * rate), torch.cos(place * rate)), dim=-1).flatten(1)[:, :width]
    return wave.unsqueeze(0).to(like.dtype)


class PromptedAttention(nn.Module):
    """Prompting-upon-decoding, eqs. 1-3: image tokens attend to themselves, then to the prompt.

    The paper leaves head counts, pre-normalisation, position encoding and the start of alpha open; they follow the
    released code: 1 and 4 heads, LayerNorm before each attention, sinusoidal positions.

    Args:
        channels: C, width of the image tokens.
        text_length: L, token positions of a prompt.
        text_width: E, width of its embeddings.
        prompt_tokens: M, tokens that the 1D convolution of eq. 2 makes of the L positions.
    """

    def __init__(self, channels: int, text_length: int, text_width: int, prompt_tokens: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.self_attention = nn.MultiheadAttention(channels, 1, batch_first=True)
        self.cross_attention = nn.MultiheadAttention(channels, 4 if channels % 4 == 0 else 1, batch_first=True)
        self.self_attention_norm = nn.LayerNorm(channels)
        self.cross_attention_norm = nn.LayerNorm(channels)
        self.text_project = nn.Sequential(
            nn.Conv1d(text_length, prompt_tokens, kernel_size=1),
            nn.GELU(),
            nn.Linear(text_width, channels),
            nn.LeakyReLU(),
        )
        self.scale = nn.Parameter(torch.tensor(SCALE_AT_START))

    def forward(self, tokens: Tensor, text: Tensor) -> Tensor:
        """(B, HW, C) image tokens and (B, L, E) text to (B, HW, C)."""
        prompt = self.text_project(text)  # eq. 2
        place = positions(tokens.shape[1], tokens.shape[2], tokens)
        value = self.norm1(tokens)
        query = value + place
        with self._kernel(tokens):
            attended, _ = self.self_attention(query, query, value, need_weights=False)
        tokens = tokens + self.self_attention_norm(attended)  # eq. 1
        query = self.norm2(tokens) + place
        key = prompt + positions(prompt.shape[1], prompt.shape[2], prompt)
        with self._kernel(tokens):
            attended, _ = self.cross_attention(query, key, prompt, need_weights=False)
        return tokens + self.scale * self.cross_attention_norm(attended)  # eq. 3

    def _kernel(self, tokens: Tensor) -> AbstractContextManager[None]:
        """torch's choice, but where its fused kernel (2.14) is slow: backwards, in bfloat16, on a CPU."""
        return sdpa_kernel(SDPBackend.MATH) if trains_in_bfloat16(self, tokens) else nullcontext()


class LightUpBlock(nn.Module):
    """A cheap up-block, not in the paper: the encoder's map is added, not appended, and convolutions are separable.

    Behind the enlargement it multiplies a tenth (24 channels out) to a thirteenth (384) as often as the UNETR block of the
    same widths.

    Args:
        channels, out_channels: of the map from below, and of what comes out.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(channels, out_channels, kernel_size=2, stride=2, bias=False)
        self.mix = nn.Sequential(*_separable(out_channels), *_separable(out_channels))

    def forward(self, z: Tensor, skip: Tensor) -> Tensor:
        """(B, C, h, w) and (B, C', 2h, 2w) to (B, C', 2h, 2w)."""
        joined = self.enlarge(z) + skip
        return joined + self.mix(joined)


def _separable(channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, channels, kernel_size=3, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, channels, kernel_size=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.LeakyReLU(0.01),
    ]


def up_block(channels: int, out_channels: int, block: str) -> nn.Module:
    """An up-block of one of `BLOCKS`: (B, C, h, w) and skip (B, C', 2h, 2w) to (B, C', 2h, 2w)."""
    if block not in BLOCKS:
        raise unknown("decoder_block", "up-block", block, BLOCKS)
    if block == "light":
        return LightUpBlock(channels, out_channels)
    return UnetrUpBlock(channels, out_channels)


class DecoderStage(nn.Module):
    """Prompted attention on one scale, then an up-block with the encoder's map of the next.

    Args:
        channels, out_channels: of the map from below, and of what comes out.
        text_length, text_width, prompt_tokens: see `PromptedAttention`.
        block: one of `BLOCKS`.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        text_length: int,
        text_width: int,
        prompt_tokens: int,
        block: str = "unetr",
    ) -> None:
        super().__init__()
        self.attention = PromptedAttention(channels, text_length, text_width, prompt_tokens)
        self.up = up_block(channels, out_channels, block)

    def forward(self, z: Tensor, skip: Tensor, text: Tensor) -> Tensor:
        """(B, C, h, w) and skip (B, C', 2h, 2w) to (B, C', 2h, 2w)."""
        tokens = self.attention(z.flatten(2).transpose(1, 2), text)
        return self.up(tokens.transpose(1, 2).unflatten(2, z.shape[-2:]), skip)


class PromptedDecoder(nn.Module):
    """Three prompt-guided stages and a sub-pixel convolution to full size: G_sd and G_pd of the paper.

    Args:
        channels: widths of v1 … v4.
        text_length: L, token positions of a prompt.
        text_width: E, width of its embeddings.
        block: one of `BLOCKS`.
    """

    def __init__(self, channels: tuple[int, ...], text_length: int, text_width: int, block: str = "unetr") -> None:
        super().__init__()
        c1, c2, c3, c4 = channels
        # M of the three stages in the released code, for its L = 24: 24, 12, 9.
        m16, m8, m4 = text_length, max(text_length // 2, 1), max(text_length * 3 // 8, 1)
        self.stage16 = DecoderStage(c4, c3, text_length, text_width, m16, block)
        self.stage8 = DecoderStage(c3, c2, text_length, text_width, m8, block)
        self.stage4 = DecoderStage(c2, c1, text_length, text_width, m4, block)
        head = max(c1 // 4, 8)  # 96 → 24 in the released code
        self.upsample = SubpixelUpsample(c1, head, scale_factor=4)
        self.out = UnetOutBlock(head, 1)

    def forward(self, features: Features, text: Tensor) -> Tensor:
        """Features of a batch and text (B, L, E) to logits (B, 1, H, W) at the size of the image."""
        z = self.stage16(features.v4, features.v3, text)
        z = self.stage8(z, features.v2, text)
        z = self.stage4(z, features.v1, text)
        return enlarge(z, self.upsample, self.out)[..., : features.height, : features.width]


def enlarge(z: Tensor, upsample: SubpixelUpsample, out: UnetOutBlock) -> Tensor:
    """What `out(upsample(z))` gives, in a tenth of its time: (B, C, h, w) to logits (B, 1, 4h, 4w).

    Convolution, shuffle of pixels, smoothing and the last convolution are linear, with nothing between them, and the last
    one mixes channels only. So it may come first: the two convolutions become one with 16 output channels where the head
    had 16 for each of its own, and one map is smoothed, not all. Function and gradients are the same up to rounding.
    """
    first, last = upsample.conv_block, out.get_submodule("conv.conv")
    assert isinstance(last, nn.Conv2d) and first.bias is not None and last.bias is not None
    mix = last.weight.flatten()
    weight = torch.einsum("c,cpikl->pikl", mix, first.weight.unflatten(0, (len(mix), -1)))
    bias = torch.einsum("c,cp->p", mix, first.bias.unflatten(0, (len(mix), -1)))
    phases = functional.conv2d(z, weight, bias, padding=first.padding)
    # One channel has two memory formats at once, and torch takes the slow one for it unless its strides say otherwise.
    image = functional.pixel_shuffle(phases, upsample.scale_factor).flatten(0, 1).unsqueeze(1)
    smoothed = upsample.pad_pool(image)
    return smoothed + last.bias

"""FiLM: the task modulates every block of the encoder by scale and shift, so that it already looks for its target."""

from __future__ import annotations

import re
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from propl_monai.errors import ProPLError
from propl_monai.model.encoder import TRIAL_SIZE, Features, VisionEncoder
from propl_monai.model.networks.base import Task
from propl_monai.model.networks.plain_decoder import PlainDecoder
from propl_monai.model.networks.prompted import UsualPrompted

BLOCK = re.compile("Block|Bottleneck|Residual|DepthwiseSeparable")  # in the names of timm's classes
_condition: ContextVar[Tensor | None] = ContextVar("condition", default=None)  # (B, E); threads may share a network


class Film(UsualPrompted):
    """A U-Net whose encoder is modulated by the prompt: block_k(x) · (1 + γ_k(t)) + β_k(t).

    FiLM (Perez et al., AAAI 2018, eq. 2) for networks of many tasks; t is the mean of the prompt's tokens, normalised, and
    (γ_k, β_k) a linear map of it for each block. The maps start at 0, so that the network starts as the one without FiLM
    and pretrained weights keep their meaning. (Perez et al. predict γ itself and start at random.) The decoder knows no
    task. As features depend on the task, each task is encoded on its own.

    Args:
        encoder: with residual blocks in NCHW layout, such as "convnext_tiny"; this and the others: see `UsualPrompted`.
    """

    name = "film"

    def build(self, width: int) -> None:
        """The maps of the blocks, and the decoder."""
        self.film = BlockModulation(self.encoder, width)
        self.decoder = PlainDecoder(self.encoder.channels, self.decoder_block)

    def features(self, image: Tensor, task: Task = None) -> Features:
        """The modulated features of images (B, 1, H, W)."""
        return self._encode(image, self.text(task, len(image)))

    def logits(self, features: Features, task: Task = None, decoder: str | None = None) -> Tensor:
        """Features to logits (B, 1, H, W); the task has acted before."""
        return self.decoder(features)

    def segment_by_text(self, image: Tensor, text: Tensor, decoder: str) -> Tensor:
        """Images (B, 1, H, W) and text (B, L, E) to logits (B, 1, H, W)."""
        return self.decoder(self._encode(image, text))

    def _encode(self, image: Tensor, text: Tensor) -> Features:
        before = _condition.set(functional.layer_norm(text.mean(1), text.shape[-1:]))
        try:
            return self.encoder(image)
        finally:
            _condition.reset(before)


class BlockModulation(nn.Module):
    """A linear map for each residual block of an encoder, attached to it by a hook, so that its tensors keep their names.

    Args:
        encoder: whose blocks get hooks.
        width: E, of the condition.
    """

    def __init__(self, encoder: VisionEncoder, width: int) -> None:
        super().__init__()
        blocks = residual_blocks(encoder.backbone)
        self.maps = nn.ModuleList(nn.Linear(width, 2 * channels) for channels in _widths(encoder, blocks))
        for parameter in self.maps.parameters():
            nn.init.zeros_(parameter)
        for number, block in enumerate(blocks):
            block.register_forward_hook(partial(self._modulate, number))

    def _modulate(self, number: int, block: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        condition = _condition.get()
        if condition is None:
            return None
        scale, shift = self.maps[number](condition)[..., None, None].chunk(2, dim=1)
        return output * (1 + scale) + shift


def residual_blocks(backbone: nn.Module) -> list[nn.Module]:
    """The residual blocks of a timm model, by the names of their classes, in their order; none inside another."""
    found: list[nn.Module] = []
    for child in backbone.children():
        found += [child] if BLOCK.search(type(child).__name__) else residual_blocks(child)
    return found


@torch.no_grad()
def _widths(encoder: VisionEncoder, blocks: list[nn.Module]) -> list[int]:
    """Output channels of each block, from a trial; an encoder without blocks in NCHW layout is refused."""
    shapes: list[tuple[int, ...]] = []
    hooks = [block.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape))) for block in blocks]
    height, width = TRIAL_SIZE
    encoder.eval()  # a trial must not leave a trace in running statistics
    encoder(torch.zeros(1, 3, height, width))
    encoder.train()
    for hook in hooks:
        hook.remove()
    if not blocks or any(len(shape) != 4 or shape[2] * width != shape[3] * height for shape in shapes):
        fact = "has no residual blocks with channels first, and film modulates these"
        raise ProPLError(f"encoder '{encoder.name}'", fact, "take convnext_tiny, an EfficientNet or a ResNet")
    return [shape[1] for shape in shapes]

"""A head whose weights are predicted for each image from what the image shows and what is wanted (DoDNet, CLIP-driven)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from propl_monai.model.encoder import Features
from propl_monai.model.networks.plain_decoder import PlainDecoder

WIDTH = 8  # of the maps that the head sees, and of its hidden layers
SHAPES = ((WIDTH, WIDTH), (WIDTH, WIDTH), (1, WIDTH))  # outputs and inputs of the three layers
COUNT = sum(out * into + out for out, into in SHAPES)  # 153


def dynamic_head(maps: Tensor, parameters: Tensor) -> Tensor:
    """Three 1 × 1 convolutions with ReLU between them, each image with weights of its own.

    Args:
        maps: (B, 8, H, W).
        parameters: (B, 153), weights and then biases of each layer, in turn.

    Returns:
        (B, 1, H, W).
    """
    place = 0
    for number, (out, into) in enumerate(SHAPES):
        weight = parameters[:, place : place + out * into].unflatten(1, (out, into))
        place += out * into
        bias = parameters[:, place : place + out]
        place += out
        maps = torch.einsum("bihw,boi->bohw", maps, weight) + bias[..., None, None]
        maps = maps if number == len(SHAPES) - 1 else maps.relu()
    return maps


class DynamicDecoder(nn.Module):
    """A plain decoder to eight maps at full size, and the dynamic head; its controller sees the deepest map and the wish.

    Args:
        channels: widths of v1 … v4.
        condition: width of the wish.
        block: one of `decoder.BLOCKS`.
    """

    def __init__(self, channels: tuple[int, ...], condition: int, block: str) -> None:
        super().__init__()
        self.decoder = PlainDecoder(channels, block, WIDTH, logits=False)
        self.classes = nn.Sequential(nn.BatchNorm2d(WIDTH), nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 1))
        self.controller = nn.Linear(channels[-1] + condition, COUNT)

    def forward(self, features: Features, condition: Tensor) -> Tensor:
        """Features of a batch and a wish (B, W) to logits (B, 1, H, W)."""
        return self.ask(*self.shown(features), condition)

    def shown(self, features: Features) -> tuple[Tensor, Tensor]:
        """What all wishes share: maps (B, 8, H, W) at the size of the image, and v4 pooled, (B, C)."""
        return self.classes(self.decoder.maps(features)), features.v4.mean((2, 3))

    def ask(self, maps: Tensor, pooled: Tensor, condition: Tensor) -> Tensor:
        """What `shown` gives and a wish (B, W) to logits (B, 1, H, W)."""
        return dynamic_head(maps, self.controller(torch.cat((pooled, condition), 1)))

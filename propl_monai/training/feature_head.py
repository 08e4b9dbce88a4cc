"""Vectors of positions, for methods that compare positions with each other: a projection of features, and a memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from propl_monai.model.encoder import Features


class FeatureHead(nn.Module):
    """v1 … v4, each by a 1 × 1 convolution, brought to the size of v2 and added; then normalised, ReLU, and projected.

    Args:
        widths: channels of v1 … v4, `Segmenter.widths`.
        width: of the vectors.
    """

    def __init__(self, widths: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.width = width
        self.sides = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in widths)
        self.out = nn.Sequential(nn.GroupNorm(1, width), nn.ReLU(), nn.Conv2d(width, width, 1))

    def forward(self, features: Features) -> Tensor:
        """Features of a batch to maps (B, width, H / 8, W / 8)."""
        size = features.v2.shape[-2:]
        maps = [side(one) for side, one in zip(self.sides, features[:4], strict=True)]
        return self.out(sum(functional.interpolate(one, size, mode="bilinear", align_corners=False) for one in maps))


class MemoryBank(nn.Module):
    """The last vectors that were pushed, for each of several groups: first in, first out. Buffers, so that a run resumes.

    Args:
        groups: G.
        size: vectors of a group, N.
        width: of a vector.
    """

    vectors: Tensor  # (G, N, width)
    pushed: Tensor  # (G,), int64, how many in all

    def __init__(self, groups: int, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(groups, size, width))
        self.register_buffer("pushed", torch.zeros(groups, dtype=torch.int64))

    @torch.no_grad()
    def push(self, group: int, vectors: Tensor) -> None:
        """Add vectors (M, width), the last N of them if there are more, in place of the oldest."""
        size = self.vectors.shape[1]
        vectors = vectors[-size:].to(self.vectors.dtype)
        places = (int(self.pushed[group]) + torch.arange(len(vectors), device=vectors.device)) % size
        self.vectors[group, places] = vectors
        self.pushed[group] += len(vectors)

    def of(self, group: int) -> Tensor:
        """A copy of a group's vectors, (n, width), n at most N; later pushes do not reach into a graph that uses it."""
        return self.vectors[group, : int(self.pushed[group].clamp(max=self.vectors.shape[1]))].clone()

"""A projection of a network's features to one vector per position, for methods that compare positions with each other."""

from __future__ import annotations

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

"""nnU-Net's U-Net of stages, from the blocks of MONAI's DynUNet, with room for a prior at its deepest place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from propl_monai.errors import ProPLError
from propl_monai.model.encoder import STRIDES

PAPER = (32, 64, 128, 256, 320, 320)  # widths of nnU-Net's six stages
FEWEST = 3  # stages of a DynUNet


class StagedUNet(nn.Module):
    """Stages of two convolutions with instance normalisation; each but the first halves the size; a decoder with skips.

    In three dimensions the picture is a volume of depth 1. Strides then leave the depth alone, as transposed convolutions of
    stride 2 would make depth 2 of it, which fits no skip.

    Args:
        filters: widths of the stages, three at least.
        spatial_dims: 2, or 3 for depth 1.
        extra: channels that the decoder gets beside the deepest features.
    """

    def __init__(self, filters: Sequence[int], spatial_dims: int, extra: int) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ProPLError(
                "spatial_dims", f"{spatial_dims!r} is neither 2 nor 3", "give 2, or 3 for volumes of depth 1"
            )
        if len(filters) < FEWEST or any(type(width) is not int or width < 1 for width in filters):
            fact = f"{list(filters)!r} are not the widths of {FEWEST} stages or more"
            raise ProPLError("filters", fact, f"give whole numbers, such as {list(PAPER)}")
        # Here, as a prediction by another network needs no MONAI, which takes a second to load.
        from monai.networks.blocks.dynunet_block import UnetUpBlock
        from monai.networks.nets.dynunet import DynUNet

        self.filters, self.spatial_dims = tuple(filters), spatial_dims
        volume = spatial_dims == 3
        first, kernel = ((1, 3, 3), (3, 3, 3)) if volume else ((3, 3), (3, 3))
        once, half = ((1, 1, 1), (1, 2, 2)) if volume else ((1, 1), (2, 2))
        strides = [once] + [half] * (len(filters) - 1)
        kernels = [first] + [kernel] * (len(filters) - 1)
        whole = DynUNet(spatial_dims, 1, 1, kernels, strides, strides[1:], list(filters))
        self.stages = nn.ModuleList([whole.input_block, *whole.downsamples, whole.bottleneck])
        norm: Any = ("INSTANCE", {"affine": True})
        deepest = UnetUpBlock(spatial_dims, filters[-1] + extra, filters[-2], kernel, half, half, norm)
        deepest.apply(DynUNet.initialize_weights)
        self.decoder = nn.ModuleList([deepest, *whole.upsamples[1:]])

    @property
    def stride(self) -> int:
        """Pixels of the picture to one of the deepest features, along each side."""
        return int(2 ** (len(self.filters) - 1))

    @property
    def least_side(self) -> int:
        """Pixels of two of the deepest features: instance normalisation of a single one would be 0."""
        return 2 * self.stride

    def padded(self, image: Tensor) -> Tensor:
        """Pictures (B, 1 or 3, H, W) as (B, 1, H', W'), multiples of the strides; edge values, as for every network here."""
        image = image.mean(1, keepdim=True) if image.shape[1] == 3 else image
        whole = max(self.stride, STRIDES[-1])  # of fewer stages, too, so that an export sees the same margin
        missing = [max(-side % whole, self.least_side - side) for side in image.shape[-2:]]
        return functional.pad(image, (0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else image

    def encode(self, image: Tensor) -> list[Tensor]:
        """Padded pictures (B, 1, H, W) to the features of all stages, (B, C_k, H / 2^k, W / 2^k), with depth 1 if 3-D."""
        found = image.unsqueeze(2) if self.spatial_dims == 3 else image
        features = []
        for stage in self.stages:
            found = stage(found)
            features.append(found)
        return features

    def decode(self, features: Sequence[Tensor], prior: Tensor) -> list[Tensor]:
        """Features of `encode`, and a prior (B, extra, …) of the size of the last, to maps without depth, full size first.

        Their widths are those of `filters` without the last.
        """
        found, maps = torch.cat((features[-1], prior), 1), []
        for block, skip in zip(self.decoder, reversed(features[:-1]), strict=True):
            found = block(found, skip)
            maps.append(found.squeeze(2) if self.spatial_dims == 3 else found)
        return maps[::-1]

"""From grey levels to what the network sees, on tensors; the MONAI transforms and the torch engine share it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from propl_monai.data.normalisations import LEAST_DEVIATION, NORMALISATIONS


def to_grid(pixels: Tensor, size: Sequence[int]) -> Tensor:
    """Resize grey levels (C, H, W), float, to uint8 (C, rows, columns), antialiased; the aspect ratio is not kept."""
    grid = functional.interpolate(pixels.unsqueeze(0), tuple(size), mode="bilinear", antialias=True)[0]
    return grid.round().clamp(0, 255).to(torch.uint8)


def normalised(image: Tensor, kind: str) -> Tensor:
    """An image (C, H, W) in [0, 1] as the encoder's weights want it, see `NORMALISATIONS`."""
    constants = NORMALISATIONS[kind]
    mean, deviation = constants or (image.mean(), image.std().clamp_min(LEAST_DEVIATION))
    return (image - mean) / deviation


def from_grid(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize real-valued maps (C, rows, columns) back to (C, H, W), bilinear."""
    return functional.interpolate(maps.float().unsqueeze(0), tuple(size), mode="bilinear", align_corners=False)[0]

"""MONAI's blocks of the decoder for two dimensions: the same parameters under the same names, the same values.

`import monai` takes longer than everything else in a prediction together. So the blocks stand here once more, and the tests
compare them with `UnetrUpBlock`, `SubpixelUpsample` and `UnetOutBlock` of `monai.networks.blocks`, bit by bit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Convolution(nn.Module):
    """A convolution under the name `conv`.

    Args:
        layer: the convolution itself.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.conv = layer

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives."""
        return self.conv(x)


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions, each with batch normalisation and a leaky ReLU (`UnetBasicBlock`).

    Args:
        channels, out_channels: of what goes in, and of what comes out.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = Convolution(nn.Conv2d(channels, out_channels, 3, padding=1, bias=False))
        self.conv2 = Convolution(nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False))
        self.lrelu = nn.LeakyReLU(0.01, inplace=True)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.norm2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H, W)."""
        x = self.lrelu(self.norm1(self.conv1(x)))
        return self.lrelu(self.norm2(self.conv2(x)))


class UnetrUpBlock(nn.Module):
    """Doubles a map, appends the encoder's, and mixes both (UNETR: arXiv 2103.10504).

    Args:
        channels, out_channels: of the map from below, and of what comes out.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.transp_conv = Convolution(nn.ConvTranspose2d(channels, out_channels, 2, stride=2, bias=False))
        self.conv_block = BasicBlock(2 * out_channels, out_channels)

    def forward(self, z: Tensor, skip: Tensor) -> Tensor:
        """(B, C, h, w) and (B, C', 2h, 2w) to (B, C', 2h, 2w)."""
        return self.conv_block(torch.cat((self.transp_conv(z), skip), dim=1))


class SubpixelUpsample(nn.Module):
    """Enlarges by a convolution and a shuffle of pixels, then smooths what the shuffle leaves (arXiv 1609.05158, 1707.02937).

    Args:
        channels, out_channels: of what goes in, and of what comes out.
        scale_factor: of height and width.
    """

    def __init__(self, channels: int, out_channels: int, scale_factor: int) -> None:
        super().__init__()
        self.scale_factor = scale_factor
        self.conv_block = nn.Conv2d(channels, out_channels * scale_factor**2, 3, padding=1)
        kernel = nn.init.kaiming_normal_(torch.zeros(out_channels, channels, 3, 3))  # ICNR, in MONAI's order of axes
        kernel = kernel.transpose(0, 1).reshape(out_channels, channels, -1).repeat(1, 1, scale_factor**2)
        kernel = kernel.reshape(channels, out_channels * scale_factor**2, 3, 3).transpose(0, 1)
        self.conv_block.weight.data.copy_(kernel)
        edge = (scale_factor - 1, 0) * 2
        self.pad_pool = nn.Sequential(nn.ConstantPad2d(edge, 0.0), nn.AvgPool2d(scale_factor, stride=1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H · scale, W · scale)."""
        return self.pad_pool(functional.pixel_shuffle(self.conv_block(x), self.scale_factor))


class UnetOutBlock(Convolution):
    """The last 1 × 1 convolution, under the name `conv.conv`.

    Args:
        channels, out_channels: of what goes in, and of what comes out.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(Convolution(nn.Conv2d(channels, out_channels, 1)))

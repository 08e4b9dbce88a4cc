"""VCLIPSeg's network: each position of the deepest map chooses between the sentences of background and target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from propl_monai.errors import unknown
from propl_monai.model.encoder import Features
from propl_monai.model.networks.base import Task
from propl_monai.model.networks.plain_decoder import PlainDecoder
from propl_monai.model.networks.prompted import UsualPrompted

HIDDEN, NARROW = 64, 16  # widths of the controller, released code
CLASSES = 2  # background and target
LAYERS: dict[int, tuple[Any, Any, str]] = {
    2: (nn.Conv2d, nn.BatchNorm2d, "bilinear"),
    3: (nn.Conv3d, nn.BatchNorm3d, "trilinear"),
}


def layers(spatial_dims: int) -> tuple[Any, Any, str]:
    """Convolution, BatchNorm and mode of interpolation for images (2) or volumes (3)."""
    if spatial_dims not in LAYERS:
        raise unknown("spatial_dims", "number of dimensions", str(spatial_dims), list(map(str, LAYERS)))
    return LAYERS[spatial_dims]


def _block(channels: int, out_channels: int, spatial_dims: int) -> nn.Sequential:
    convolution, norm, _ = layers(spatial_dims)
    return nn.Sequential(
        convolution(channels, out_channels, 3, padding=1, bias=False), norm(out_channels), nn.LeakyReLU(0.01)
    )


class VoxelPrompts(nn.Module):
    """The voxel-wise prompts module (VWPM), eqs. 1-3: a prompt for each position, joined to what is seen there.

    Args:
        channels: C, of the map.
        text_width: E, of a sentence's embedding.
        spatial_dims: 2 for images, 3 for volumes.
    """

    def __init__(self, channels: int, text_width: int, spatial_dims: int = 2) -> None:
        super().__init__()
        convolution, _, _ = layers(spatial_dims)
        self.controller = nn.Sequential(
            _block(channels, HIDDEN, spatial_dims),
            convolution(HIDDEN, NARROW, 1),
            nn.GELU(),
            convolution(NARROW, CLASSES, 1),
        )
        self.project = nn.Linear(text_width, channels)
        self.join = _block(2 * channels, channels, spatial_dims)

    def forward(self, seen: Tensor, texts: Tensor) -> Tensor:
        """A map (B, C, …) and the sentences of both classes (B, 2, E) to a map (B, C, …)."""
        share = self.controller(seen).softmax(1)  # eq. 1
        words = self.project(texts).unflatten(-1, (-1, *[1] * (seen.ndim - 2)))  # (B, 2, C, 1, …)
        prompt = (share.unsqueeze(2) * words).sum(1)  # eq. 2
        return self.join(torch.cat((seen, prompt), 1))  # eq. 3


class InterpolatingDecoder(nn.Module):
    """A decoder of its own kind, so that it errs elsewhere than one of transposed convolutions: it enlarges by interpolation.

    Args:
        channels: widths of the maps, the largest map first; each has half the sides of the one before.
        scale: from the largest map to the image.
        spatial_dims: 2 for images, 3 for volumes.
    """

    def __init__(self, channels: Sequence[int], scale: int = 4, spatial_dims: int = 2) -> None:
        super().__init__()
        convolution, _, self.mode = layers(spatial_dims)
        pairs = [*zip(channels[:0:-1], channels[-2::-1], strict=True)]
        self.enlarge = nn.ModuleList(_block(below, beside, spatial_dims) for below, beside in pairs)
        self.mix = nn.ModuleList(_block(beside, beside, spatial_dims) for _, beside in pairs)
        self.out = convolution(channels[0], 1, 1)
        self.scale = scale

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Maps (B, C, …), the largest first, to logits (B, 1, …) of a size in pixels or voxels."""
        z = maps[-1]
        for skip, enlarge, mix in zip(maps[-2::-1], self.enlarge, self.mix, strict=True):
            z = mix(enlarge(self._larger(z, 2)) + skip)
        inside: tuple[Any, ...] = (..., *[slice(length) for length in size])
        return self._larger(self.out(z), self.scale)[inside]

    def _larger(self, z: Tensor, scale: int) -> Tensor:
        return functional.interpolate(z, scale_factor=scale, mode=self.mode, align_corners=False)


class VCLIPSeg(UsualPrompted):
    """An encoder, voxel-wise prompts at its deepest map, and two decoders that enlarge in different ways.

    Li et al., MICCAI 2024, Figure 1. Paper and code segment one organ by a 3-D V-Net; here the encoder is this package's,
    in 2-D, so the deepest map is at stride 32 (16 there), and tasks come mixed: the sentence is that of the image's
    task. As in the code, a linear map brings sentences to the width of the map (the paper repeats them as they are), and
    skips are added in the interpolating decoder; the other one is that of `film`. The code's dropout of half of the
    deepest and of the last channels is left out. The sentence is that of the prompt bank (mean over its tokens,
    normalised, as embeddings of one text encoder are smaller than those of another), not CLIP's "A pixel of a [CLS]",
    and banks have none for the background: its embedding is learned.

    The decoder of transposed convolutions predicts, as in the code; the interpolating one serves training
    (`VCLIPSegMethod`).

    Arguments: see `UsualPrompted`; the decoder that predicts has blocks of `decoder_block`.
    """

    name = "vclipseg"
    encodes_once = True

    def build(self, width: int) -> None:
        """The embedding of the background, the voxel-wise prompts, and both decoders."""
        self.background = nn.Parameter(torch.randn(width))
        self.voxel_prompts = VoxelPrompts(self.encoder.channels[-1], width)
        self.decoder = PlainDecoder(self.encoder.channels, self.decoder_block)
        self.second_decoder = InterpolatingDecoder(self.encoder.channels)

    def features(self, image: Tensor, task: Task = None) -> Features:
        """The features of images (B, 1, H, W), which do not depend on the task."""
        return self.encoder(image)

    def logits(self, features: Features, task: Task = None, decoder: str | None = None) -> Tensor:
        """Features to logits (B, 1, H, W)."""
        return self.decoder(self.prompted(features, self.text(task, len(features.v4))))

    def segment_by_text(self, image: Tensor, text: Tensor, decoder: str) -> Tensor:
        """Images (B, 1, H, W) and text (B, L, E) to logits (B, 1, H, W)."""
        return self.decoder(self.prompted(self.encoder(image), text))

    def prompted(self, features: Features, text: Tensor) -> Features:
        """Features with prompts of text (B, L, E) in v4."""
        return features._replace(v4=self.voxel_prompts(features.v4, self.sentences_of(text)))

    def sentences_of(self, text: Tensor) -> Tensor:
        """Text (B, L, E) to embeddings of background and target for each image, (B, 2, E), with mean 0 and variance 1."""
        target = text.mean(1)
        both = torch.stack((self.background.to(target.dtype).expand_as(target), target), 1)
        return functional.layer_norm(both, both.shape[-1:])

    def both(self, prompted: Features) -> tuple[Tensor, Tensor]:
        """Prompted features to logits (B, 1, H, W) of both decoders, first that of the one that predicts."""
        size = (prompted.height, prompted.width)
        return self.decoder(prompted), self.second_decoder(prompted[:4], size)

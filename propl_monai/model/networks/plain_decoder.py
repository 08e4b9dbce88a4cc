"""The decoder of networks whose prompt acts elsewhere: ProPL's up-blocks without its attention to the prompt."""

from __future__ import annotations

from torch import Tensor, nn

from propl_monai.model.blocks import SubpixelUpsample, UnetOutBlock
from propl_monai.model.decoder import enlarge, up_block
from propl_monai.model.encoder import Features


class PlainDecoder(nn.Module):
    """Three up-blocks with skips, then a sub-pixel convolution to full size, as `decoder.PromptedDecoder` has them.

    Args:
        channels: widths of v1 … v4.
        block: one of `decoder.BLOCKS`.
        width: of `maps`; None for the width that ProPL's head has.
        logits: build the last convolution, to one channel; without it only `maps` can be used.
    """

    def __init__(
        self, channels: tuple[int, ...], block: str = "unetr", width: int | None = None, logits: bool = True
    ) -> None:
        super().__init__()
        c1, c2, c3, c4 = channels
        self.up16, self.up8, self.up4 = (up_block(*pair, block) for pair in ((c4, c3), (c3, c2), (c2, c1)))
        width = width or max(c1 // 4, 8)
        self.upsample = SubpixelUpsample(c1, width, scale_factor=4)
        if logits:
            self.out = UnetOutBlock(width, 1)

    def forward(self, features: Features) -> Tensor:
        """Features of a batch to logits (B, 1, H, W) at the size of the image."""
        return self._cut(enlarge(self._joined(features), self.upsample, self.out), features)

    def maps(self, features: Features) -> Tensor:
        """Features of a batch to maps (B, width, H, W) at the size of the image."""
        return self._cut(self.upsample(self._joined(features)), features)

    def _joined(self, features: Features) -> Tensor:
        z = self.up16(features.v4, features.v3)
        z = self.up8(z, features.v2)
        return self.up4(z, features.v1)

    @staticmethod
    def _cut(maps: Tensor, features: Features) -> Tensor:
        return maps[..., : features.height, : features.width]

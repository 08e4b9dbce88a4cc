"""VerSemi's network: DoDNet's dynamic head with one more task, a synthetic one that asks for every target at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from propl_monai.model.networks.dodnet import DoDNet


class VerSemi(DoDNet):
    """Encoder and decoder without a task, and a dynamic head for K tasks and a synthetic one, number K.

    Zeng et al., IEEE TMI 2025. The released code (a 3-D V-Net; the paper's text was not at hand) makes two outputs of two
    classes for each image, organ and tumour, and uses the first: here there is one, by a sigmoid, on this package's
    encoder and up-blocks in 2-D, as for `DoDNet`. The synthetic head serves training (`VerSemiMethod`); to predict, it
    cannot be asked for.
    """

    name = "versemi"
    extra_heads = 1

    @property
    def synthetic(self) -> int:
        """The number of the synthetic task, K."""
        return len(self.tasks)

    def heads(self, shown: tuple[Tensor, Tensor], numbers: Tensor) -> Tensor:
        """Several heads for each image, which decode it once.

        Args:
            shown: of `DynamicDecoder.shown`.
            numbers: (B, M) int64, of tasks; K for the synthetic one.

        Returns:
            Logits (B, M, H, W).
        """
        maps, pooled = shown
        wishes = functional.one_hot(numbers, len(self.tasks) + self.extra_heads).to(pooled.dtype)
        return torch.cat([self.decoder.ask(maps, pooled, wish) for wish in wishes.unbind(1)], 1)

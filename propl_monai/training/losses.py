"""The paper's combined loss: binary cross-entropy plus Dice, for hard, soft and pixel-weighted targets."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SMOOTH = 1.0


class BCEDiceLoss(nn.Module):
    """Mean binary cross-entropy plus soft Dice loss of each image, averaged over the batch.

    The paper names both terms without weights, so each has weight 1. Smoothing is 1, so that an empty mask has a useful
    gradient and no division by zero. Computed in float32 for any precision of the network.
    """

    def forward(
        self, logits: Tensor, target: Tensor, weight: Tensor | None = None, image_weight: Tensor | None = None
    ) -> Tensor:
        """Loss of a batch.

        Args:
            logits: (B, 1, H, W).
            target: (B, 1, H, W), in [0, 1].
            weight: (B, 1, H, W), ≥ 0, or None for 1 everywhere.
            image_weight: (B,), in [0, 1], factors of the losses of the images before their mean is taken; None for 1.

        Returns:
            A scalar ≥ 0, at most 1 of it from Dice.
        """
        logits, target = logits.float(), target.float()
        dice = dice_loss(logits.sigmoid(), target, weight)
        if image_weight is None:
            return functional.binary_cross_entropy_with_logits(logits, target, weight) + dice.mean()
        entropy = functional.binary_cross_entropy_with_logits(logits, target, weight, reduction="none")
        return (image_weight * (entropy.flatten(1).mean(1) + dice)).mean()


def dice_loss(probability: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Soft Dice loss of each image, (B,), in [0, 1].

    Args:
        probability, target: (B, 1, …), in [0, 1].
        weight: the same shape, ≥ 0, or None for 1 everywhere.
    """
    # Not monai's MaskedDiceLoss: it multiplies both by the weight, which then counts twice in the overlap and once in
    # the areas, so that a perfect prediction with weights of 0.8 would cost 0.2.
    weight = torch.ones_like(target) if weight is None else weight
    overlap = (weight * probability * target).flatten(1).sum(1)
    areas = (weight * (probability + target)).flatten(1).sum(1)
    return 1 - (2 * overlap + SMOOTH) / (areas + SMOOTH)

"""The paper's combined loss: binary cross-entropy plus Dice, for hard, soft and pixel-weighted targets."""

from __future__ import annotations

from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional


class BCEDiceLoss(nn.Module):
    """Mean binary cross-entropy plus soft Dice loss of each image, averaged over the batch.

    The paper names the two and gives no weights: both count 1. Smoothing is 1, so that an empty mask has a useful
    gradient and no division by zero. Computed in float32 whatever the precision of the network.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dice = DiceLoss(smooth_nr=1.0, smooth_dr=1.0)

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Loss of a batch.

        Args:
            logits: (B, 1, H, W).
            target: (B, 1, H, W), in [0, 1].
            weight: (B, 1, H, W), ≥ 0, or None for 1 everywhere.

        Returns:
            A scalar ≥ 0, at most 1 of it from Dice.
        """
        logits, target = logits.float(), target.float()
        entropy = functional.binary_cross_entropy_with_logits(logits, target, weight)
        probability = logits.sigmoid()
        if weight is not None:  # monai's MaskedDiceLoss would weight the logits themselves, before the sigmoid
            probability, target = probability * weight, target * weight
        return entropy + self.dice(probability, target)

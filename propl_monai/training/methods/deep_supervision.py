"""Deep supervision: labels teach the coarser maps of the decoder, too, each through a head of its own."""

from __future__ import annotations

from typing import cast

from monai.losses import DeepSupervisionLoss
from torch import Tensor, nn

from propl_monai.model.networks.uniseg import UniSeg
from propl_monai.training.methods.base import Batch, Method


class DeepSupervisionMethod(Method):
    """L = Σ_k w_k · L_sup(head_k(m_k), y_k), m_k the decoder's map of 1/2^k of the size, y_k the label there; w_k ∝ 1/2^k.

    As nnU-Net (Isensee et al. 2021), UniSeg and MedUniSeg train: the coarsest map has no head, and the weights add up to 1.
    The unlabelled batch is ignored. Their loss is the sum of Dice and cross-entropy over a batch of one task, ours
    `BCEDiceLoss` of each image, as for every method here. Their optimizer (SGD, 0.01, momentum 0.99, 1000 epochs) is an
    option of the config. Labels are brought to a map's size by nearest pixels, in the papers' code as here. The heads of
    coarser maps are parts of the method, not of the weights: nothing else uses them.

    Args:
        network: `UniSeg` or one of its kind, trained in place.
    """

    name = "deep_supervision"
    only = "uniseg"
    uses_unlabelled = False
    network: UniSeg

    def __init__(self, network: UniSeg) -> None:
        super().__init__(network)
        widths = network.unet.filters[1:-2]
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 1) for width in widths)
        shares = [0.5**level for level in range(1 + len(widths))]
        self.weights = [share / sum(shares) for share in shares]
        self.deep_loss = DeepSupervisionLoss(cast(nn.modules.loss._Loss, self.loss), weights=self.weights)

    def step(self, labelled: Batch | None, unlabelled: Batch | None, progress: float) -> dict[str, Tensor]:
        """Loss of one labelled batch; see `Method.step`. Its part "supervised" is that of the full size alone."""
        assert labelled is not None, "PairedLoader always gives a labelled batch where there are labels"
        each = self.levels(labelled)
        result: dict[str, Tensor] = {}
        self.on_labels(each[0], labelled, result)
        return {"loss": self.deep_loss(each, labelled["label"]), **result}

    def levels(self, batch: Batch) -> list[Tensor]:
        """Logits of a batch, (B, 1, H, W) and coarser ones down to the last head, each the size of what it is to learn."""
        image = batch["image"]
        numbers = self.network.numbers(self.tasks_of([batch]), len(image))
        maps = self.network.maps(image, numbers, batch.get("source"))
        coarser = [head(one) for head, one in zip(self.heads, maps[1:], strict=False)]
        logits = [self.network.final(maps[0], numbers), *coarser]
        height, width = image.shape[-2:]  # the maps are those of the padded image
        return [one[..., : -(-height // 2**level), : -(-width // 2**level)] for level, one in enumerate(logits)]

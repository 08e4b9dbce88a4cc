"""FixMatch: the network's own confident pixels of the weak view are the labels of the strong view."""

from __future__ import annotations

import torch
from torch import Tensor

from propl_monai.model.networks.base import Segmenter
from propl_monai.training.confidence import check_threshold, confident, hard
from propl_monai.training.methods.base import Batch
from propl_monai.training.methods.weak_to_strong import WeakToStrongMethod, weak_probability


class FixMatchMethod(WeakToStrongMethod):
    """L = L_sup(f(x_l), y) + λ · L_sup(f(strong x_u), [p > 0.5]) over pixels with max(p, 1 - p) ≥ τ, p = f(weak x_u).

    Sohn et al., NeurIPS 2020, eqs. 3-4, for every pixel as in UniMatch (Yang et al., CVPR 2023, eqs. 1-2). The paper has the
    sum of both losses, UniMatch's code its half, which only halves the learning rate: here the sum. As in that code, an
    unconfident pixel has weight 0 and still counts in the mean; CutMix mixes the strong views; p comes from a pass in train
    mode. There its BatchNorm statistics are recorded, and the partner of CutMix is predicted in eval mode: here nothing is
    recorded, and one pass serves image and partner, which are of one batch and one task. L_sup has Dice beside the
    cross-entropy, as all methods here.

    Args:
        network: trained in place.
        confidence: τ; 0.5 lets every pixel count.
        unlabelled_weight: λ.
        cutmix: probability that an image of the strong view gets a box of another of its task, see `cutmix`.
    """

    name = "fixmatch"

    def __init__(
        self, network: Segmenter, confidence: float = 0.95, unlabelled_weight: float = 1.0, cutmix: float = 0.5
    ) -> None:
        super().__init__(network, unlabelled_weight, cutmix)
        self.confidence = check_threshold(self.name, confidence)

    @torch.no_grad()
    def teach(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Hard labels of the weak view by the network itself, and 1 where it is confident, else 0."""
        probability = weak_probability(self, self.network, batch)
        return hard(probability), confident(probability, self.confidence)

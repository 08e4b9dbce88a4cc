"""Mean Teacher: pseudo-labels of a network whose weights are the running average of the trained one's."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from propl_monai.errors import unknown
from propl_monai.model.networks.base import Segmenter
from propl_monai.model.uplc import PSEUDO_LABELS, THRESHOLD
from propl_monai.training.averages import averaged
from propl_monai.training.confidence import ramp
from propl_monai.training.methods.base import Batch
from propl_monai.training.methods.weak_to_strong import WeakToStrongMethod


class MeanTeacherMethod(WeakToStrongMethod):
    """L = L_sup(f(x_l), y) + λ · ramp · L_sup(f(strong x_u), ŷ), ŷ the teacher's on the weak view of x_u.

    The teacher (Tarvainen & Valpola, NeurIPS 2017) is never trained: after each step its weights, and the statistics of
    its BatchNorm layers, move towards the student's. It always runs in eval mode, and so gives the pseudo-labels of the
    network that predicts in the end. f is the first decoder; ProPL's decoder pd has no part in this method.

    Args:
        network: the student, trained in place.
        decay: see `averages.averaged`.
        pseudo_label: "soft", the teacher's probability p; "hard", whether p exceeds 0.5; or "weighted", the same with
            each pixel weighted by the teacher's confidence |2p - 1|.
        unlabelled_weight: λ. Its ramp exp(-5 (1 - progress)²) is the paper's, over the whole training.
        cutmix: probability that an image of the strong view gets a box of another of its task, see `cutmix`.
    """

    name = "mean_teacher"

    def __init__(
        self,
        network: Segmenter,
        decay: float = 0.99,
        pseudo_label: str = "soft",
        unlabelled_weight: float = 1.0,
        cutmix: float = 0.0,
    ) -> None:
        super().__init__(network, unlabelled_weight, cutmix)
        if pseudo_label not in PSEUDO_LABELS:
            raise unknown("mean_teacher pseudo_label", "pseudo-label", pseudo_label, PSEUDO_LABELS)
        self.pseudo_label = pseudo_label
        self.teacher = averaged(network, decay)

    @property
    def predictor(self) -> Segmenter:
        """The teacher."""
        return cast(Segmenter, self.teacher.module)

    def weight(self, progress: float) -> float:
        """λ · ramp."""
        return self.unlabelled_weight * ramp(progress)

    @torch.no_grad()
    def teach(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The teacher's target on the weak view, (B, 1, H, W) in [0, 1], and its weight, of that shape, or None for 1."""
        probability = self.predictor(batch["image"], task=batch.get("task"), decoder=self.decoders[0]).float().sigmoid()
        if self.pseudo_label == "soft":
            return probability, None
        target = (probability > THRESHOLD).to(probability.dtype)
        return target, (2 * probability - 1).abs() if self.pseudo_label == "weighted" else None

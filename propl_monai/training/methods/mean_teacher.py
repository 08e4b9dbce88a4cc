"""Mean Teacher: pseudo-labels of a network whose weights are the running average of the trained one's."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from propl_monai.errors import unknown
from propl_monai.model.network import ProPL
from propl_monai.model.uplc import PSEUDO_LABELS, THRESHOLD
from propl_monai.training.averages import averaged
from propl_monai.training.cutmix import CutMix, cutmix, draw_for, taught_view
from propl_monai.training.methods.base import Batch, Method


class MeanTeacherMethod(Method):
    """L = L_sup(sd(x_l), y) + λ · ramp · L_sup(sd(strong x_u), ŷ), ŷ the teacher's on the weak view of x_u.

    The teacher (Tarvainen & Valpola, NeurIPS 2017) is never trained: after each step its weights, and the statistics of
    its BatchNorm layers, move towards the student's. It always runs in eval mode, and so gives the pseudo-labels of the
    network that predicts in the end. Decoder pd has no part in this method.

    Args:
        network: the student, trained in place.
        decay: see `averages.averaged`.
        pseudo_label: "soft", the teacher's probability p; "hard", whether p exceeds 0.5; or "weighted", the same with
            each pixel weighted by the teacher's confidence |2p - 1|.
        unlabelled_weight: λ. Its ramp exp(-5 (1 - progress)²) is the paper's, over the whole training.
        cutmix: probability that an image of the strong view gets a box of another of its task, see `cutmix`.
    """

    name = "mean_teacher"
    decoders = ("sd",)

    def __init__(
        self,
        network: ProPL,
        decay: float = 0.99,
        pseudo_label: str = "soft",
        unlabelled_weight: float = 1.0,
        cutmix: float = 0.0,
    ) -> None:
        super().__init__(network)
        if pseudo_label not in PSEUDO_LABELS:
            raise unknown("mean_teacher pseudo_label", "pseudo-label", pseudo_label, PSEUDO_LABELS)
        self.pseudo_label, self.unlabelled_weight, self.cutmix = pseudo_label, unlabelled_weight, cutmix
        self.teacher = averaged(network, decay)

    @property
    def predictor(self) -> ProPL:
        """The teacher."""
        return cast(ProPL, self.teacher.module)

    def train(self, mode: bool = True) -> MeanTeacherMethod:
        """Training mode for the student alone."""
        super().train(mode)
        self.teacher.eval()
        return self

    def after_step(self) -> None:
        """Move the teacher towards the student."""
        self.teacher.update_parameters(self.network)

    def step(self, labelled: Batch | None, unlabelled: Batch | None, progress: float) -> dict[str, Tensor]:
        """Losses of one pair of batches; see `Method.step`. The student sees both in one pass.

        Returns:
            "loss", its parts "supervised" and "pseudo" (before its weight), "pseudo_weight" (λ · ramp), "pseudo_foreground"
            (the mean of ŷ), and "logits" of the labelled batch.
        """
        drawing = draw_for(unlabelled, self.cutmix) if unlabelled else None
        views = [labelled["image"]] if labelled else []
        if unlabelled:
            views.append(taught_view(unlabelled, drawing))
        batches = [batch for batch in (labelled, unlabelled) if batch]
        texts = [self.network.text(batch.get("task"), len(batch["image"])) for batch in batches]
        logits = self.network.decode(self.network.encode(torch.cat(views)), torch.cat(texts), "sd")
        count = len(labelled["image"]) if labelled else 0
        result: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        if labelled:
            losses.append(self.loss(logits[:count], labelled["label"]))
            result["supervised"], result["logits"] = losses[0].detach(), logits[:count].detach()
        if unlabelled:
            losses.append(self._consistency(logits[count:], unlabelled, drawing, progress, result))
        result["loss"] = torch.stack(losses).sum()
        return result

    def _consistency(
        self, logits: Tensor, batch: Batch, drawing: CutMix | None, progress: float, result: dict[str, Tensor]
    ) -> Tensor:
        target, certainty = self.teach(batch)
        if drawing:
            target = cutmix(drawing, target)
            certainty = None if certainty is None else cutmix(drawing, certainty)
        loss = self.loss(logits, target, certainty)
        weight = self.unlabelled_weight * ramp(progress)
        result["pseudo"], result["pseudo_foreground"] = loss.detach(), target.mean()
        result["pseudo_weight"] = torch.tensor(weight, device=loss.device)
        return weight * loss

    @torch.no_grad()
    def teach(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The teacher's target on the weak view, (B, 1, H, W) in [0, 1], and its weight, of that shape, or None for 1."""
        probability = self.predictor(batch["image"], task=batch.get("task"), decoder="sd").float().sigmoid()
        if self.pseudo_label == "soft":
            return probability, None
        target = (probability > THRESHOLD).to(probability.dtype)
        return target, (2 * probability - 1).abs() if self.pseudo_label == "weighted" else None


def ramp(progress: float) -> float:
    """The Gaussian ramp-up of Tarvainen & Valpola: exp(-5) at progress 0, 1 at progress 1."""
    return math.exp(-5 * (1 - progress) ** 2)

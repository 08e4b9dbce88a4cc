"""AugSeg: random intensity views, and CutMix that helps doubtful images with labelled boxes."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.distributions import Beta

from propl_monai.common.options import switch
from propl_monai.model.networks.base import Segmenter
from propl_monai.training.averages import averaged
from propl_monai.training.confidence import check_threshold, confidence, confident, entropy, hard
from propl_monai.training.cutmix import CutMix, boxes_of, cutmix, draw_cutmix
from propl_monai.training.methods.base import Batch, Method
from propl_monai.training.methods.weak_to_strong import weak_probability

AID, MIX = (8.0, 2.0), (4.0, 4.0)  # of λ in the two mixings; a box has 1 - λ of the area
LARGEST_ENTROPY = 0.6931471805599453  # of two classes, log 2


class AugSegMethod(Method):
    """L = L_sup(f(x_l), y) + λ · L_sup(f(mixed strong x_u), mixed ŷ) over pixels with max(p, 1 - p) ≥ τ, p the teacher's.

    Zhao et al., CVPR 2023. Strong views are one to three random intensity operations (`intensity.RandIntensityOps`;
    strong_kind "random"). With probability 1 - s_i an image gets a box of a labelled one with its labels, s_i its confidence
    (mean of the larger probability times 1 - entropy / log 2); then images exchange boxes. Both mixings pair images of one
    task, where the original takes any. As few images of a batch then have a partner, an image keeps its labelled box,
    which the code shows in boxes that others get of it alone. Box areas are 1 - λ with λ from Beta(8, 2) and Beta(4, 4),
    as in the code, where the border may cut boxes; its Cityscapes config has another threshold and OHEM, which are left
    out. Teacher: `averages.averaged`, in eval mode; the student predicts in the end, as in the code. L_sup has Dice beside
    the cross-entropy, as all methods here.

    Args:
        network: the student, trained in place.
        confidence: τ; 0.5 lets every pixel count.
        unlabelled_weight: λ of the loss.
        label_aid: paste labelled boxes into doubtful images.
        cutmix: probability of the second mixing.
        decay: of the teacher, see `averages.averaged`.
    """

    name = "augseg"

    def __init__(
        self,
        network: Segmenter,
        confidence: float = 0.95,
        unlabelled_weight: float = 1.0,
        label_aid: bool = True,
        cutmix: float = 1.0,
        decay: float = 0.999,
    ) -> None:
        super().__init__(network)
        self.confidence, self.unlabelled_weight = check_threshold(self.name, confidence), unlabelled_weight
        self.label_aid, self.cutmix = switch("label_aid", label_aid), cutmix
        self.teacher = averaged(network, decay)

    def step(self, labelled: Batch | None, unlabelled: Batch | None, progress: float) -> dict[str, Tensor]:
        """Losses of one pair of batches; see `Method.step`.

        Returns:
            "loss", its parts "supervised" and "pseudo", "aided" (share of images with a labelled box), "confident" (share
            of the pixels), "pseudo_foreground", and "logits" of the labelled batch.
        """
        batches = [batch for batch in (labelled, unlabelled) if batch]
        views, result = [labelled["image"]] if labelled else [], {}
        if unlabelled:
            probability = weak_probability(self, cast(Segmenter, self.teacher.module), unlabelled)
            maps = [unlabelled.get("image_strong", unlabelled["image"]), hard(probability)]
            maps.append(confident(probability, self.confidence))
            if labelled and self.label_aid:
                drawing = self._draw_aid(labelled, unlabelled, probability)
                known = (labelled["image"], labelled["label"].to(maps[1]), torch.ones_like(labelled["label"]))
                count = len(unlabelled["image"])
                maps = [cutmix(drawing, torch.cat(pair))[:count] for pair in zip(maps, known, strict=True)]
                result["aided"] = (drawing.partners[:count] >= count).float().mean().to(probability.device)
            if self.cutmix:
                height, width = probability.shape[-2:]
                tasks = unlabelled.get("task", [""] * len(probability))
                mixing = draw_cutmix(tasks, height, width, self.cutmix, beta=MIX)
                maps = [cutmix(mixing, each) for each in maps]
            views.append(maps[0])
        logits = self.student(torch.cat(views), batches)
        first, losses = len(labelled["image"]) if labelled else 0, []
        if labelled:
            losses.append(self.on_labels(logits[:first], labelled, result))
        if unlabelled:
            pseudo = self.loss(logits[first:], *maps[1:])
            losses.append(self.unlabelled_weight * pseudo)
            result["pseudo"], result["confident"] = pseudo.detach(), maps[2].mean()
            result["pseudo_foreground"] = maps[1].mean()
        return {**result, "loss": torch.stack(losses).sum()}

    def _draw_aid(self, labelled: Batch, unlabelled: Batch, probability: Tensor) -> CutMix:
        """Boxes of labelled images for the unlabelled ones in front of them, the likelier the more doubtful."""
        sure = sureness(probability)
        tasks = self.tasks_of([unlabelled, labelled]) or [""] * (len(sure) + len(labelled["image"]))
        fitting = torch.tensor([[one == other for other in tasks[len(sure) :]] for one in tasks[: len(sure)]])
        chosen = torch.rand(fitting.shape).masked_fill(~fitting, -1).argmax(1)
        aided = fitting.any(1) & (torch.rand(len(sure)) < 1 - sure.cpu())
        side = (1 - Beta(*AID).sample(sure.shape)).sqrt() * aided
        partners = torch.arange(len(tasks))
        partners[: len(sure)] = torch.where(aided, len(sure) + chosen, partners[: len(sure)])
        boxes = torch.zeros(len(tasks), 4, dtype=torch.int64)
        boxes[: len(sure)] = boxes_of(side, *probability.shape[-2:])
        return CutMix(partners, boxes)


def sureness(probability: Tensor) -> Tensor:
    """s of images (B, 1, H, W), in [0, 1]: the mean of max(p, 1 - p) · (1 - entropy / log 2); (B,)."""
    return (confidence(probability) * (1 - entropy(probability) / LARGEST_ENTROPY)).mean((1, 2, 3))

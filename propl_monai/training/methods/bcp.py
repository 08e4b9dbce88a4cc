"""Bidirectional copy-paste: labelled and unlabelled images exchange a box, and the mixed images are learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from monai.transforms import KeepLargestConnectedComponent
from torch import Tensor

from propl_monai.common.options import switch
from propl_monai.errors import ProPLError
from propl_monai.model.networks.base import Segmenter
from propl_monai.training.averages import averaged
from propl_monai.training.confidence import hard
from propl_monai.training.cutmix import CutMix, cutmix
from propl_monai.training.methods.base import Batch, Method
from propl_monai.training.methods.weak_to_strong import weak_probability


class BCPMethod(Method):
    """L = Σ over both mixed images of L_sup on their labelled pixels + α · L_sup on their unlabelled ones.

    Bai et al., CVPR 2023, eqs. 3-8: a box of 2/3 of the sides goes from a labelled image into an unlabelled one, and from
    that one back; labels of unlabelled pixels are the teacher's, hard, its largest component. The first part of the
    training mixes labelled images with each other, without a teacher (the code's `pre_iterations`, a quarter of all).
    Teacher: `averages.averaged`. As in code and paper the student predicts in the end, and sees no strong view.

    Paper and code mix any two images of one data set. Here both must have one task: a box of another target would be
    background under the prompt of this one. An image without a partner in the batch stays whole. There two pairs of images
    make two mixed ones, the box of a labelled image in an unlabelled one and that of another unlabelled image in another
    labelled one; here each pair makes both. The code's box is the same for a batch, here each pair has its own. L_sup is
    taken over its pixels alone, as there, where it is half the sum of cross-entropy and the Dice of both classes; here it
    is the sum, and Dice is that of the target.

    Args:
        network: the student, trained in place.
        unlabelled_weight: α.
        side: of the box, as a share of the image's sides; 0 exchanges nothing.
        warmup: share of the training that learns from labelled images alone.
        largest_component: keep the largest component of a pseudo-label only.
        decay: of the teacher, see `averages.averaged`.
    """

    name = "bcp"

    def __init__(
        self,
        network: Segmenter,
        unlabelled_weight: float = 0.5,
        side: float = 2 / 3,
        warmup: float = 0.25,
        largest_component: bool = True,
        decay: float = 0.99,
    ) -> None:
        super().__init__(network)
        for option, share in (("side", side), ("warmup", warmup)):
            if not 0 <= share < 1:
                raise ProPLError(f"bcp {option}", f"{share} is outside 0…1", "give a share from 0 to below 1")
        self.unlabelled_weight, self.side, self.warmup = unlabelled_weight, side, warmup
        self.largest = KeepLargestConnectedComponent() if switch("largest_component", largest_component) else None
        self.teacher = averaged(network, decay)

    def step(self, labelled: Batch | None, unlabelled: Batch | None, progress: float) -> dict[str, Tensor]:
        """Losses of one pair of batches; see `Method.step`.

        Returns:
            "loss", its parts "supervised" (labelled pixels) and "pseudo" (unlabelled ones, before α), "mixed" (share of the
            images that exchange a box), "pseudo_foreground", and "logits" of the labelled images as the student saw them.
        """
        if labelled and progress < self.warmup:
            unlabelled = None
        groups = [(batch, batch["label"], 1.0) for batch in (labelled,) if batch]
        if unlabelled:
            groups.append((unlabelled, self.teach(unlabelled), 0.0))
        batches = [batch for batch, _, _ in groups]
        image = torch.cat([batch["image"] for batch in batches])
        target = torch.cat([label.to(image) for _, label, _ in groups])
        known = torch.cat([torch.full_like(label, share, dtype=image.dtype) for _, label, share in groups])
        first = len(groups[0][1]) if len(groups) > 1 else (len(image) + 1) // 2
        names = self.tasks_of(batches) or [""] * len(image)
        drawing = draw_exchange(names, first, image.shape[-2], image.shape[-1], self.side)
        image, target, known = (cutmix(drawing, maps) for maps in (image, target, known))
        logits = self.student(image, batches)
        halves = [slice(0, first), slice(first, None)] if len(image) > first else [slice(0, first)]
        on_labels = torch.stack([self._on_pixels(logits[h], target[h], known[h]) for h in halves])
        on_pseudo = torch.stack([self._on_pixels(logits[h], target[h], 1 - known[h]) for h in halves])
        present = 1.0 if labelled else 0.0
        loss = present * on_labels.sum() + self.unlabelled_weight * (on_pseudo.sum() if unlabelled else 0)
        result = {"loss": loss, "mixed": (drawing.partners != torch.arange(len(names))).float().mean().to(loss.device)}
        if labelled:
            result["supervised"] = on_labels.sum().detach()
            result["logits"] = logits[: len(labelled["image"])].detach()
        if unlabelled:
            result["pseudo"], result["pseudo_foreground"] = on_pseudo.sum().detach(), groups[-1][1].mean()
        return result

    def _on_pixels(self, logits: Tensor, target: Tensor, chosen: Tensor) -> Tensor:
        """L_sup over the pixels where `chosen` (B, 1, H, W) is 1, not over all: parts of an image count by α alone."""
        return self.loss(logits, target, chosen / chosen.mean().clamp_min(1 / chosen.numel()))

    @torch.no_grad()
    def teach(self, batch: Batch) -> Tensor:
        """The teacher's masks, (B, 1, H, W) in {0, 1}."""
        mask = hard(weak_probability(self, cast(Segmenter, self.teacher.module), batch))
        if self.largest is None:
            return mask
        return torch.stack([torch.as_tensor(self.largest(one.cpu())).to(mask) for one in mask])


def draw_exchange(tasks: Sequence[str], first: int, height: int, width: int, side: float) -> CutMix:
    """Pairs of one image of the first group and one of the second, of one task, that exchange the same box.

    Args:
        tasks: one name per image.
        first: how many images belong to the first group.
        height, width: of the images in pixels.
        side: of the box, as a share of height and width.
    """
    partners = torch.arange(len(tasks))
    boxes = torch.zeros(len(tasks), 4, dtype=torch.int64)
    rows, columns = round(side * height), round(side * width)
    free = list(range(first))
    for other in range(first, len(tasks)):
        fitting = [one for one in free if tasks[one] == tasks[other]]
        where, top, left = torch.rand(3).tolist()
        if not fitting or not side:
            continue
        one = fitting[int(where * len(fitting))]
        free.remove(one)
        partners[one], partners[other] = other, one
        top, left = int(top * (height - rows + 1)), int(left * (width - columns + 1))
        boxes[[one, other]] = torch.tensor([top, left, top + rows, left + columns])
    return CutMix(partners, boxes)

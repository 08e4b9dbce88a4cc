"""U2PL: pixels that a teacher is unsure of teach no label, and are negatives of the class that they are least like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import torch
from torch import Tensor
from torch.nn import functional

from propl_monai.model.networks.base import Segmenter
from propl_monai.training.averages import averaged
from propl_monai.training.confidence import entropy, hard
from propl_monai.training.cutmix import draw_for
from propl_monai.training.feature_head import FeatureHead, MemoryBank
from propl_monai.training.methods.base import Batch, Method
from propl_monai.training.methods.weak_to_strong import mixed, weak_probability

WIDTH = 64  # of the representation
ANCHOR = 0.3  # δ_p: an anchor's class has more than this probability


class U2PLMethod(Method):
    """L = L_sup(f(x_l), y) + λ_u · L_sup(f(x_u), ŷ) over sure pixels + λ_c · L_contrast; an EMA teacher says which.

    Wang et al., CVPR 2022. Of the unlabelled pixels the α_t = α_0 (1 - t) with the highest entropy teach no label;
    the mean loss of the rest is weighted by total over kept. L_contrast: anchors are sure pixels of a class, their positive
    is the mean of its sure pixels in the teacher's representation, their negatives come from a memory of unsure pixels.

    Negatives of a class are unlabelled pixels of high entropy whose rank of that class is from `low_rank` up, and labelled
    ones that are predicted as it and are not. In the code, a negative must also have the class as its label or
    pseudo-label, which excludes the labelled ones, and the others but where two passes of the teacher disagree; here it
    need not, as in the paper. The code's ranks, 3 to 20, never occur among two classes, so that a binary
    task has no unlabelled negative: here `low_rank` is 1. Classes are foreground and background of each task apart, as a
    position may be foreground of one task and background of another. The representation has 64 channels at stride 8 (256 at
    stride 4 there), the memory `bank` vectors a class (30,000), and there is no first epoch of labels alone. The teacher
    averages BatchNorm statistics as well, which the code does not. The student predicts in the end. L_sup has Dice beside
    the cross-entropy, as all methods here.

    Args:
        network: the student, trained in place; one that gives features.
        drop: α_0, share of the pixels.
        unlabelled_weight: λ_u.
        contrastive_weight: λ_c; 0 leaves the contrast out.
        low_rank: the first rank, from 0, of the class that a pixel is a negative of; the code's 3 leaves none.
        queries: anchors of each class and step.
        negatives: of each anchor.
        temperature: τ.
        bank: vectors in the memory of each class.
        cutmix: probability that an unlabelled image gets a box of another of its task, see `cutmix`.
        decay: of the teacher, see `averages.averaged`.
    """

    name = "u2pl"
    follows: ClassVar[Mapping[str, str]] = {"teacher_head": "head"}

    def __init__(
        self,
        network: Segmenter,
        drop: float = 0.2,
        unlabelled_weight: float = 1.0,
        contrastive_weight: float = 1.0,
        low_rank: int = 1,
        queries: int = 256,
        negatives: int = 50,
        temperature: float = 0.5,
        bank: int = 256,
        cutmix: float = 0.5,
        decay: float = 0.99,
    ) -> None:
        super().__init__(network)
        self.drop, self.cutmix, self.low_rank = drop, cutmix, low_rank
        self.unlabelled_weight, self.contrastive_weight = unlabelled_weight, contrastive_weight
        self.queries, self.negatives, self.temperature = queries, negatives, temperature
        self.head = FeatureHead(network.widths, WIDTH)
        self.teacher, self.teacher_head = averaged(network, decay), averaged(self.head, decay)
        self.bank = MemoryBank(2 * max(1, len(network.task_names)), bank, WIDTH)

    def step(self, labelled: Batch | None, unlabelled: Batch | None, progress: float) -> dict[str, Tensor]:
        """Losses of one pair of batches; see `Method.step`.

        Returns:
            "loss", its parts "supervised", "pseudo" and "contrast", "kept" (share of the pixels), "pseudo_foreground", and
            "logits" of the labelled batch.
        """
        drawing = draw_for(unlabelled, self.cutmix) if unlabelled else None
        views, batches = ([labelled["image"]], [labelled]) if labelled else ([], [])
        if unlabelled:
            views.append(mixed(drawing, unlabelled["image"])[0])
            batches.append(unlabelled)
        image, tasks = torch.cat(views), self.tasks_of(batches)
        features = self.network.features(image, tasks)
        logits = self.network.logits(features, tasks, self.decoders[0])
        count = len(labelled["image"]) if labelled else 0
        result: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        if labelled:
            losses.append(self.on_labels(logits[:count], labelled, result))
        if unlabelled:
            teacher, share = cast(Segmenter, self.teacher.module), self.drop * (1 - progress)
            (target,) = mixed(drawing, hard(weak_probability(self, teacher, unlabelled)))
            with torch.no_grad():
                seen = teacher.features(image, tasks)
                probability = teacher.logits(seen, tasks, self.decoders[0]).float().sigmoid()
                doubt = entropy(probability[count:])
            kept = (doubt <= doubt.flatten().quantile(1 - share)).to(probability.dtype)
            pseudo = self.loss(logits[count:], target, kept / kept.mean()) / kept.mean()
            losses.append(self.unlabelled_weight * pseudo)
            result["pseudo"], result["pseudo_foreground"], result["kept"] = pseudo.detach(), target.mean(), kept.mean()
            if self.contrastive_weight:
                label = torch.cat((labelled["label"].to(target), target)) if labelled else target
                with torch.no_grad():
                    theirs = self.teacher_head(seen)
                numbers = self.network.numbers(tasks, len(image))
                contrast = self._contrast(self.head(features), theirs, probability, label, numbers, count, share)
                losses.append(self.contrastive_weight * contrast)
                result["contrast"] = contrast.detach()
        result["loss"] = torch.stack(losses).sum()
        return result

    def _contrast(
        self,
        ours: Tensor,
        theirs: Tensor,
        probability: Tensor,
        label: Tensor,
        numbers: Tensor,
        count: int,
        share: float,
    ) -> Tensor:
        """L_contrast of a batch.

        Args:
            ours, theirs: (B, C, h, w), of student and teacher.
            probability, label: (B, 1, H, W), of the teacher, and true or pseudo; both are brought to h × w.
            numbers: (B,), of the tasks.
            count: how many images, the first ones, have true labels: all of their pixels are sure, and may be negatives.
            share: α_t.
        """
        size = ours.shape[-2:]
        p = functional.interpolate(probability, size, mode="bilinear", align_corners=False)[:, 0]
        foreground = functional.interpolate(label, size, mode="nearest")[:, 0] > 0
        doubt = entropy(p)
        low, high = (doubt[count:].flatten().quantile(q) for q in (share, 1 - share))
        known = (torch.arange(len(p), device=p.device) < count)[:, None, None]
        sure, unsure = known | (doubt <= low), (doubt >= high) & (share > 0)
        ours, theirs = (one.permute(0, 2, 3, 1).float() for one in (ours, theirs))
        losses = []
        for number in numbers.unique().tolist():
            own = (numbers == number)[:, None, None]
            for kind in (0, 1):
                of_class = p if kind else 1 - p
                rank = (of_class < 0.5).long()  # 0 where the class is the likelier of two
                member = foreground == bool(kind)
                missed = known & ~member & (rank < self.low_rank) & (of_class > 0.5)
                negative = own & (missed | (~known & unsure & (rank >= self.low_rank)))
                self.bank.push(2 * number + kind, theirs[negative])
                anchors, memory = ours[own & member & sure & (of_class > ANCHOR)], self.bank.of(2 * number + kind)
                if len(anchors) and len(memory):
                    losses.append(self._nearer(anchors, theirs[own & member & sure].mean(0), memory))
        return torch.stack(losses).mean() if losses else 0 * ours.sum()

    def _nearer(self, anchors: Tensor, positive: Tensor, memory: Tensor) -> Tensor:
        """How much nearer anchors (A, C) are to a positive (C,) than to vectors of the memory (M, C), by cosines."""
        chosen = anchors[torch.randint(len(anchors), (self.queries,)).to(anchors.device)]
        against = memory[torch.randint(len(memory), (self.queries, self.negatives)).to(memory.device)]
        every = torch.cat((positive.expand(self.queries, 1, -1), against), 1)
        cosines = functional.cosine_similarity(chosen[:, None], every, dim=2) / self.temperature
        return functional.cross_entropy(cosines, torch.zeros(self.queries, dtype=torch.int64, device=cosines.device))

"""UniMatch V2: two strong views in one pass, whose dropped feature channels complement each other, and an EMA teacher."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from propl_monai.common.options import switch
from propl_monai.model.encoder import Features
from propl_monai.model.networks.base import Segmenter
from propl_monai.training.averages import averaged
from propl_monai.training.confidence import check_threshold, confident, hard
from propl_monai.training.cutmix import draw_for
from propl_monai.training.methods.base import Batch, Method
from propl_monai.training.methods.weak_to_strong import STRONG_VIEWS, mixed, two_strong_views, weak_probability


class UniMatchV2Method(Method):
    """L = L_x + λ · ½ (L_s1 + L_s2), over the confident pixels of the teacher's labels of the weak view.

    Yang et al., TPAMI 2025. A channel that one strong view loses is doubled in the other, M ~ 2 · Bernoulli(½) and 2 - M;
    half of the images are left whole, as in the code. There all maps of a ViT have one width and share M: here each of
    v1 … v4 has its own, and finer maps are left whole. Paper and code halve the sum with L_x, which only halves the
    learning rate: here they do not. Their DINOv2 with DPT and its learning rates are left to the choice of network and
    preset. The code reports student and teacher; here the teacher predicts. CutMix pairs images of one task. Labelled and
    strong images go through the network together. L_sup has Dice beside the cross-entropy, as all methods here.

    Args:
        network: the student, trained in place; one that gives features.
        confidence: τ; 0.5 lets every pixel count.
        complementary: drop channels at all; without, both views keep theirs.
        unlabelled_weight: λ.
        cutmix: probability that an image of a strong view gets a box of another of its task, see `cutmix`.
        decay: of the teacher, see `averages.averaged`.
    """

    name = "unimatch_v2"

    def __init__(
        self,
        network: Segmenter,
        confidence: float = 0.95,
        complementary: bool = True,
        unlabelled_weight: float = 1.0,
        cutmix: float = 0.5,
        decay: float = 0.996,
    ) -> None:
        super().__init__(network)
        self.confidence, self.complementary = (
            check_threshold(self.name, confidence),
            switch("complementary", complementary),
        )
        self.unlabelled_weight, self.cutmix = unlabelled_weight, cutmix
        self.teacher = averaged(network, decay)

    @property
    def predictor(self) -> Segmenter:
        """The teacher."""
        return cast(Segmenter, self.teacher.module)

    def step(self, labelled: Batch | None, unlabelled: Batch | None, progress: float) -> dict[str, Tensor]:
        """Losses of one pair of batches; see `Method.step`. The unlabelled batch has a second strong view, "image_strong_2".

        Returns:
            "loss", its parts "supervised" and "pseudo", "confident" (share of the pixels), "pseudo_foreground", and
            "logits" of the labelled batch.
        """
        drawings = [draw_for(unlabelled, self.cutmix) for _ in STRONG_VIEWS] if unlabelled else []
        views, batches = ([labelled["image"]], [labelled]) if labelled else ([], [])
        if unlabelled:
            pairs = zip(drawings, two_strong_views(self, unlabelled), strict=True)
            views += [mixed(drawing, view)[0] for drawing, view in pairs]
            batches += [unlabelled] * 2
        tasks, count = self.tasks_of(batches), len(labelled["image"]) if labelled else 0
        features = self.network.features(torch.cat(views), tasks)
        if unlabelled and self.complementary:
            features = complementary_dropout(features, count)
        logits = self.network.logits(features, tasks, self.decoders[0])
        result: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        if labelled:
            losses.append(self.on_labels(logits[:count], labelled, result))
        if unlabelled:
            probability = weak_probability(self, self.predictor, unlabelled)
            target, certain = hard(probability), confident(probability, self.confidence)
            each = zip(logits[count:].chunk(2), drawings, strict=True)
            pseudo = torch.stack([self.loss(one, *mixed(drawing, target, certain)) for one, drawing in each]).mean()
            losses.append(self.unlabelled_weight * pseudo)
            result["pseudo"], result["pseudo_foreground"] = pseudo.detach(), target.mean()
            result["confident"] = certain.mean()
        result["loss"] = torch.stack(losses).sum()
        return result


def complementary_dropout(features: Features, first: int) -> Features:
    """v1 … v4 with channels dropped in one of two views and doubled in the other; half of the images are left whole.

    Args:
        features: of `first` images that are left whole, and then of both views of U others, one view behind the other.
        first: ≥ 0.
    """
    count = (len(features.v4) - first) // 2
    whole = (torch.randperm(count) < count // 2)[:, None]

    def drop(maps: Tensor) -> Tensor:
        mask = torch.where(whole, 1.0, 2.0 * torch.rand(count, maps.shape[1]).round())
        both = torch.cat((torch.ones(first, maps.shape[1]), mask, 2 - mask))
        return maps * both[..., None, None].to(maps)

    return features._replace(v1=drop(features.v1), v2=drop(features.v2), v3=drop(features.v3), v4=drop(features.v4))

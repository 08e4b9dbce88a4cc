"""UniMatch: FixMatch with two strong views of the image, and one of its features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from propl_monai.model.networks.base import Segmenter
from propl_monai.training.confidence import check_threshold, confident, hard
from propl_monai.training.cutmix import draw_for
from propl_monai.training.methods.base import Batch, Method
from propl_monai.training.methods.weak_to_strong import STRONG_VIEWS, mixed, two_strong_views


class UniMatchMethod(Method):
    """L = L_x + λ · (½ L_fp + ¼ L_s1 + ¼ L_s2), each of the three over the confident pixels of one pseudo-label.

    Yang et al., CVPR 2023, eq. 5 and Algorithm 1 (λ = μ = ½ there); s1 and s2 are strong views of the image, fp the weak view
    whose features are dropped channel by channel. Paper and code halve the sum with L_x, which only halves the learning
    rate: here they do not, as in `FixMatchMethod`, and λ = 1 is theirs. All views go through the network together, where the
    code takes the strong ones apart; the pseudo-label is the weak view's own prediction in that pass. CutMix draws its
    boxes anew for each strong view, among images of one task. The code's medical part trains unlabelled pixels with Dice
    alone, its main part with cross-entropy alone; here both, as in all methods.

    Args:
        network: trained in place; one that gives features.
        confidence: τ of `FixMatchMethod`.
        feature_dropout: rate, of whole channels of every feature map.
        unlabelled_weight: λ.
        cutmix: probability that an image of a strong view gets a box of another of its task, see `cutmix`.
    """

    name = "unimatch"

    def __init__(
        self,
        network: Segmenter,
        confidence: float = 0.95,
        feature_dropout: float = 0.5,
        unlabelled_weight: float = 1.0,
        cutmix: float = 0.5,
    ) -> None:
        super().__init__(network)
        self.confidence, self.feature_dropout = check_threshold(self.name, confidence), feature_dropout
        self.unlabelled_weight, self.cutmix = unlabelled_weight, cutmix

    def step(self, labelled: Batch | None, unlabelled: Batch | None, progress: float) -> dict[str, Tensor]:
        """Losses of one pair of batches; see `Method.step`. The unlabelled batch has a second strong view, "image_strong_2".

        Returns:
            "loss", its parts "supervised", "pseudo_strong" and "pseudo_features", "pseudo" (their weighted sum),
            "confident" (share of the pixels), "pseudo_foreground", and "logits" of the labelled batch.
        """
        drawings = [draw_for(unlabelled, self.cutmix) for _ in STRONG_VIEWS] if unlabelled else []
        views = [labelled["image"]] if labelled else []
        batches = [labelled] if labelled else []
        if unlabelled:
            strong = two_strong_views(self, unlabelled)
            views += [*(mixed(*pair)[0] for pair in zip(drawings, strong, strict=True)), unlabelled["image"]]
            batches += [unlabelled] * 3
        tasks, decoder = self.tasks_of(batches), self.decoders[0]
        features = self.network.features(torch.cat(views), tasks)
        logits = self.network.logits(features, tasks, decoder)
        count = len(labelled["image"]) if labelled else 0
        result: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        if labelled:
            losses.append(self.on_labels(logits[:count], labelled, result))
        if unlabelled:
            size = len(unlabelled["image"])
            dropped = features.changed(lambda maps: functional.dropout2d(maps[-size:], self.feature_dropout))
            perturbed = self.network.logits(dropped, self.tasks_of([unlabelled]), decoder)
            *each, weak = logits[count:].chunk(3)
            probability = weak.detach().float().sigmoid()
            target, certain = hard(probability), confident(probability, self.confidence)
            pairs = zip(each, drawings, strict=True)
            strong_loss = torch.stack(
                [self.loss(one, *mixed(drawing, target, certain)) for one, drawing in pairs]
            ).mean()
            feature_loss = self.loss(perturbed, target, certain)
            losses.append(self.unlabelled_weight * (strong_loss + feature_loss) / 2)
            result["pseudo"], result["pseudo_strong"] = losses[-1].detach(), strong_loss.detach()
            result["pseudo_features"], result["confident"] = feature_loss.detach(), certain.mean()
            result["pseudo_foreground"] = target.mean()
        result["loss"] = torch.stack(losses).sum()
        return result

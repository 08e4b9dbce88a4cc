"""Cross pseudo supervision: two networks that started differently teach each other."""

from __future__ import annotations

import torch
from torch import Tensor

from propl_monai.model.networks.base import Segmenter
from propl_monai.training.confidence import hard
from propl_monai.training.cutmix import cutmix, draw_for, taught_view
from propl_monai.training.methods.base import Batch, Method
from propl_monai.training.methods.weak_to_strong import weak_probability


class CPSMethod(Method):
    """L = Σ_k L_sup(f_k(x_l), y) + λ · Σ_k L_sup(f_k(x), [f_other(x) > 0.5]), the second sum over labelled and unlabelled x.

    Chen et al., CVPR 2021, eqs. 2-5; f_1 is the network, f_2 one of the same options with its own random start (both share
    the pretrained encoder's, as in the paper). Labels are hard, every pixel counts, nothing is detached but the labels. Paper
    and code agree in this; the code's λ is 1.5 (VOC) or 6 (Cityscapes). As in the paper's variant with CutMix, labels of
    unlabelled images are made on the weak view and mixed; the code's variant leaves labelled images out of the second sum,
    and makes these labels in train mode and records BatchNorm
    statistics of that pass, here it does not. f_1 predicts in the end, as there.

    Args:
        network: f_1, trained in place.
        unlabelled_weight: λ.
        cutmix: probability that an unlabelled image gets a box of another of its task, see `cutmix`.
    """

    name = "cps"

    def __init__(self, network: Segmenter, unlabelled_weight: float = 1.5, cutmix: float = 0.5) -> None:
        super().__init__(network)
        self.unlabelled_weight, self.cutmix = unlabelled_weight, cutmix
        self.second = network.another()

    def step(self, labelled: Batch | None, unlabelled: Batch | None, progress: float) -> dict[str, Tensor]:
        """Losses of one pair of batches; see `Method.step`.

        Returns:
            "loss", its parts "supervised" and "pseudo" (of both networks), "disagreement" (share of unlabelled pixels),
            "pseudo_foreground", and the first network's "logits" of the labelled batch.
        """
        networks = (self.network, self.second)
        drawing = draw_for(unlabelled, self.cutmix) if unlabelled else None
        batches = [batch for batch in (labelled, unlabelled) if batch]
        views = [labelled["image"]] if labelled else []
        if unlabelled:
            views.append(taught_view(unlabelled, drawing))
        image, tasks = torch.cat(views), self.tasks_of(batches)
        each = [network(image, task=tasks, decoder=self.decoders[0]) for network in networks]
        count = len(labelled["image"]) if labelled else 0
        result: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        targets = [hard(logits.detach().float().sigmoid()) for logits in each]
        if labelled:
            losses += [self.loss(logits[:count], labelled["label"]) for logits in each]
            result["supervised"], result["logits"] = torch.stack(losses).sum().detach(), each[0][:count].detach()
        if unlabelled:
            taught = [hard(weak_probability(self, network, unlabelled)) for network in networks]
            mixed = taught if drawing is None else [cutmix(drawing, target) for target in taught]
            targets = [torch.cat((own[:count], other)) for own, other in zip(targets, mixed, strict=True)]
            result["disagreement"] = (taught[0] != taught[1]).float().mean()
        pseudo = self.loss(each[0], targets[1]) + self.loss(each[1], targets[0])
        result["pseudo"], result["pseudo_foreground"] = pseudo.detach(), targets[1].mean()
        result["loss"] = torch.stack([*losses, self.unlabelled_weight * pseudo]).sum()
        return result

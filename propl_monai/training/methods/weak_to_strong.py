"""What methods share whose pseudo-labels come from the weak view and teach the strong one; a subclass says who makes them."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from propl_monai.errors import ProPLError
from propl_monai.model.networks.base import Segmenter
from propl_monai.training.batch_norm import unrecorded_statistics
from propl_monai.training.cutmix import CutMix, cutmix, draw_for, taught_view
from propl_monai.training.methods.base import Batch, Method

STRONG_VIEWS = ("image_strong", "image_strong_2")


class WeakToStrongMethod(Method):
    """L = L_sup(f(x_l), y) + w(progress) · L_sup(f(strong x_u), ŷ), f the first decoder; one pass sees both batches.

    Args:
        network: trained in place.
        unlabelled_weight: λ, of which `weight` may make something else in the course of the training.
        cutmix: probability that an image of the strong view gets a box of another of its task, see `cutmix`.
    """

    def __init__(self, network: Segmenter, unlabelled_weight: float = 1.0, cutmix: float = 0.0) -> None:
        super().__init__(network)
        self.unlabelled_weight, self.cutmix = unlabelled_weight, cutmix

    @abstractmethod
    def teach(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The target on the weak view, (B, 1, H, W) in [0, 1], and its weight, of that shape, or None for 1."""

    def weight(self, progress: float) -> float:
        """w: λ over the whole training."""
        return self.unlabelled_weight

    def step(self, labelled: Batch | None, unlabelled: Batch | None, progress: float) -> dict[str, Tensor]:
        """Losses of one pair of batches; see `Method.step`. The student sees both in one pass.

        Returns:
            "loss", its parts "supervised" and "pseudo" (before its weight), "pseudo_weight" (w), "pseudo_foreground"
            (the mean of ŷ), where pixels have weights "confident" (their mean), and "logits" of the labelled batch.
        """
        drawing = draw_for(unlabelled, self.cutmix) if unlabelled else None
        views = [labelled["image"]] if labelled else []
        if unlabelled:
            views.append(taught_view(unlabelled, drawing))
        logits = self.student(torch.cat(views), [batch for batch in (labelled, unlabelled) if batch])
        count = len(labelled["image"]) if labelled else 0
        result: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        if labelled:
            losses.append(self.on_labels(logits[:count], labelled, result))
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
        weight = self.weight(progress)
        result["pseudo"], result["pseudo_foreground"] = loss.detach(), target.mean()
        result["pseudo_weight"] = torch.tensor(weight, device=loss.device)
        if certainty is not None:
            result["confident"] = certainty.mean()
        return weight * loss


@torch.no_grad()
def weak_probability(method: Method, network: Segmenter, batch: Batch) -> Tensor:
    """What a network says to the weak view, (B, 1, H, W) in [0, 1], in the mode that it is in; no statistics are recorded."""
    with unrecorded_statistics(network):
        logits = network(batch["image"], task=method.tasks_of([batch]), decoder=method.decoders[0])
    return logits.float().sigmoid()


def two_strong_views(method: Method, batch: Batch) -> list[Tensor]:
    """Both strong views of an unlabelled batch, (B, 1, H, W) each; one in two places would be another method."""
    for key in STRONG_VIEWS:
        if key not in batch:
            cure = f"set strong_view above 0 and strong_views to 2, as {method.name}.json does"
            raise ProPLError(method.name, f"needs two strong views, and the unlabelled batch has no {key}", cure)
    return [batch[key] for key in STRONG_VIEWS]


def mixed(drawing: CutMix | None, *maps: Tensor) -> list[Tensor]:
    """Maps after a drawing; as they are without one."""
    return list(maps) if drawing is None else [cutmix(drawing, one) for one in maps]

"""ST++: self-training in stages, on the reliable unlabelled images first."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from propl_monai.errors import ProPLError
from propl_monai.model.networks.base import Segmenter
from propl_monai.model.views import Seen, check_views, look
from propl_monai.training.confidence import hard
from propl_monai.training.cutmix import taught_view
from propl_monai.training.methods.base import Batch, Method
from propl_monai.training.pseudo_labels import LEVELS, Lesson, PseudoLabels

VIEWS = ("as-is", "mirror", "scale 0.85", "scale 1.15")
STAGES = 3  # labels alone; with the reliable half; with all


class STPPMethod(Method):
    """L = L_sup(f(x_l), y) + λ · L_sup(f(strong x_u), ŷ), ŷ the hard mask that f had at the beginning of the stage.

    Yang et al., CVPR 2022, Algorithm 2, in three stages of `rounds.Rounds` (rounds 2): labels alone; then also the half of
    the unlabelled images whose masks changed least while the first stage went on; then all, with new masks. Reliability
    is the mean IoU of the masks after 1/3 and 2/3 of the first stage with the last one (eq. 3). As in the code, masks are the
    mean over views of the image, hard, and no pixel is left out.

    Where the paper counts classes, a task has one: the IoU is the target's, two empty masks count as 1, and each task gives
    its own half, or small targets would never be reliable. Paper and code start each stage from the pretrained encoder and
    train it as long as the first; here all stages share one budget and go on from the last weights. An unreliable image
    is drawn with weight 0.

    Args:
        network: trained in place.
        views: names, see `views.view_of`, over which masks are averaged.
        reliable: share of the unlabelled images of each task that the second stage learns from.
        unlabelled_weight: λ.
    """

    name = "st_pp"
    teacher = "offline"  # `Rounds` makes the pseudo-labels

    def __init__(
        self,
        network: Segmenter,
        views: Sequence[str] = VIEWS,
        reliable: float = 0.5,
        unlabelled_weight: float = 1.0,
    ) -> None:
        super().__init__(network)
        if not 0 < reliable <= 1:
            raise ProPLError("st_pp reliable", f"{reliable} is outside 0…1", "give a share above 0, 1 for all images")
        self.views, self.reliable, self.unlabelled_weight = check_views(views), reliable, unlabelled_weight
        self.earlier = nn.ModuleList(copy.deepcopy(network).requires_grad_(False).eval() for _ in range(STAGES - 1))
        self.register_buffer("taken", torch.tensor(0))  # how many of `earlier` hold weights of this training
        self._due = 0  # how many should, at the last step of this process
        # Of the file of pseudo-labels that the present stage learns from; kept with the weights, for a resumed run.
        self.register_buffer("pseudo_labels_sha256", torch.zeros(32, dtype=torch.uint8))

    def train(self, mode: bool = True) -> STPPMethod:
        """Training mode for the network alone."""
        super().train(mode)
        self.earlier.eval()
        return self

    def step(self, labelled: Batch | None, unlabelled: Batch | None, progress: float) -> dict[str, Tensor]:
        """Losses of one pair of batches; see `Method.step`. The unlabelled one holds what `Rounds` adds.

        Returns:
            "loss", its parts "supervised" and "pseudo", "picture_weight" (share of reliable images), "pseudo_foreground",
            and "logits" of the labelled batch.
        """
        self._remember(progress)
        views = [labelled["image"]] if labelled else []
        if unlabelled:
            views.append(taught_view(unlabelled, None))
        logits = self.student(torch.cat(views), [batch for batch in (labelled, unlabelled) if batch])
        count = len(labelled["image"]) if labelled else 0
        result: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        if labelled:
            losses.append(self.on_labels(logits[:count], labelled, result))
        if unlabelled:
            if "pseudo_label" not in unlabelled:
                raise ProPLError("st_pp", "the unlabelled images have no pseudo-labels", "add the handler Rounds")
            target, inside = hard(unlabelled["pseudo_label"].float() / LEVELS), unlabelled["certainty"].float() / LEVELS
            weight = unlabelled["picture_weight"].float()
            share = weight.mean()
            pseudo = self.loss(logits[count:], target, inside, weight) / share.clamp_min(1 / len(weight))
            losses.append(self.unlabelled_weight * pseudo)
            result["pseudo"], result["picture_weight"] = pseudo.detach(), share
            result["pseudo_foreground"] = target.mean()
        result["loss"] = torch.stack(losses).sum()
        return result

    def _remember(self, progress: float) -> None:
        """Keep the weights after each third of the first stage but the last."""
        due = min(int(progress * STAGES**2 + 1e-9), len(self.earlier))
        if due == self._due:  # so that a GPU is not waited for at every step
            return
        self._due, taken = due, int(self.get_buffer("taken"))
        if taken < due:
            self.earlier[taken].load_state_dict(self.network.state_dict())
            self.get_buffer("taken").add_(1)

    @torch.no_grad()
    def teach(self, image: Tensor, task: Sequence[str] | None = None) -> tuple[Lesson, Tensor]:
        """The masks of images by their views, with their reliability as weight, and the mean variance of the views.

        Args:
            image: (B, 1, H, W), as the network wants it.
            task: B names, or None for the default task.
        """
        training = self.network.training
        self.network.eval()
        seen = [self._seen(each, image, task) for each in (self.network, *self.earlier)]
        self.network.train(training)
        last, *others = [hard(one.mean) > 0 for one in seen]
        agreement = torch.stack([_iou(one, last) for one in others]).mean(0)
        return Lesson(last.float(), torch.ones_like(seen[0].mean), agreement), seen[0].variance.mean()

    def _seen(self, network: nn.Module, image: Tensor, task: Sequence[str] | None) -> Seen:
        names = None if task is None else [*task] * len(self.views)
        return look(
            lambda shown: network(shown, task=names, decoder=self.decoders[0]).float().sigmoid(), image, self.views
        )

    @property
    def lesson_options(self) -> dict[str, Any]:
        """What pseudo-labels depend on beside the network."""
        return {"views": list(self.views), "reliable": self.reliable}

    def chosen(self, labels: PseudoLabels, tasks: Sequence[str | None], stage: int) -> PseudoLabels:
        """Weight 1 for the most reliable images of each task, 0 for the others; from the third stage on 1 for all."""
        if stage > 1:
            return labels._replace(picture_weight=torch.ones_like(labels.picture_weight))
        weight = torch.zeros_like(labels.picture_weight)
        for name in dict.fromkeys(tasks):
            own = torch.tensor([number for number, task in enumerate(tasks) if task == name])
            best = labels.picture_weight[own].argsort(descending=True, stable=True)
            weight[own[best[: math.ceil(self.reliable * len(own))]]] = 1
        return labels._replace(picture_weight=weight)


def _iou(one: Tensor, other: Tensor) -> Tensor:
    """Of masks (B, 1, H, W), for each image; 1 where both are empty."""
    both, either = (one & other).flatten(1).sum(1), (one | other).flatten(1).sum(1)
    return torch.where(either > 0, both / either.clamp_min(1), torch.ones_like(both, dtype=torch.float32))

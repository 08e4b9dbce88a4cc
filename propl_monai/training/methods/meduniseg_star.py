"""MedUniSeg*: first all tasks together, then some of them anew, by new parts of a network that otherwise stays as it is."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from monai.losses import DeepSupervisionLoss
from torch import Tensor

from propl_monai.errors import ProPLError
from propl_monai.model.networks.meduniseg_star import MedUniSegStar
from propl_monai.training.methods.base import Batch
from propl_monai.training.methods.deep_supervision import DeepSupervisionMethod


class MedUniSegStarMethod(DeepSupervisionMethod):
    """Deep supervision of all tasks for a share of the training, then of the tasks to relearn, by the new parts alone.

    Ye et al., "MedUniSeg", section 5.4. There the first stage is a training of its own, and so it can be here: with weights
    of a MedUniSeg to start from, set `joint` to 0. In the second stage images of other tasks have no weight in the loss: what
    the network says of them no longer changes. The heads of coarser maps learn in both stages.

    Args:
        network: `MedUniSegStar`, trained in place.
        joint: share of the training that the first stage has, from 0 to 1.
    """

    name = "meduniseg_star"
    only = "meduniseg_star"
    network: MedUniSegStar

    def __init__(self, network: MedUniSegStar, joint: float = 0.5) -> None:
        super().__init__(network)
        if not 0 <= joint <= 1:
            raise ProPLError("joint", f"{joint!r} is not from 0 to 1", "give 0.5, or 0 with weights to start from")
        self.joint = joint

    def step(self, labelled: Batch | None, unlabelled: Batch | None, progress: float) -> dict[str, Tensor]:
        """Loss of one labelled batch; see `Method.step`. "relearnt" is the share of images that count in the second stage."""
        assert labelled is not None, "PairedLoader always gives a labelled batch where there are labels"
        relearning = progress >= self.joint
        if self.joint == 0 and not self.network.started:
            fact = "hold no weights of meduniseg, and the first stage, which would learn them, is left out (joint 0)"
            raise ProPLError("encoder_weights", fact, "name its model.safetensors, or set joint above 0")
        self.network.freeze(relearning)
        if not relearning:
            return super().step(labelled, unlabelled, progress)
        each, result = self.levels(labelled), cast(dict[str, Tensor], {})
        self.on_labels(each[0], labelled, result)
        share = self.network.share(self.network.numbers(self.tasks_of([labelled]), len(labelled["image"])))
        weight = share / share.mean().clamp(min=1 / len(share))  # the mean over the images that count
        loss: Any = partial(self.loss, image_weight=weight)
        total = DeepSupervisionLoss(loss, weights=self.weights)(each, labelled["label"])
        return {"loss": total, "relearnt": share.mean(), **result}

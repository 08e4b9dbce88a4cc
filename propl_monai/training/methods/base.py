"""The interface of training methods: a network to train, one step, and the network that predicts in the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from propl_monai.model.network import ProPL
from propl_monai.training.losses import BCEDiceLoss

Batch = dict  # {"image": (B, 1, H, W), "task": [B names]}, see `Method.step`


class Method(nn.Module, ABC):
    """A way to train a `ProPL`. Trainer, checkpoints and validation use this interface only.

    Args:
        network: trained in place.

    Attributes:
        name: in the registry and in run.json.
        decoders: those of `predictor` that are trained, and so may be chosen on the validation cases.
        uses_unlabelled: false where the unlabelled batch is ignored; then there must be a labelled one.
    """

    name: ClassVar[str]
    decoders: ClassVar[tuple[str, ...]]
    uses_unlabelled: ClassVar[bool] = True
    network: ProPL

    def __init__(self, network: ProPL) -> None:
        super().__init__()
        self.network = network
        self.loss = BCEDiceLoss()

    @property
    def predictor(self) -> ProPL:
        """The network that is validated, saved and used for prediction; the trained one by default."""
        return self.network

    @abstractmethod
    def step(self, labelled: Batch | None, unlabelled: Batch | None, progress: float) -> dict[str, Tensor]:
        """Losses of one pair of batches, of which one may be missing.

        Args:
            labelled: {"image": (B, 1, H, W), "label": (B, 1, H, W) in {0, 1}, "task": [B names]}, or None. Without
                "task" all images are of the network's default task.
            unlabelled: the same without "label", and with "image_strong" (B, 1, H, W), a second view of the same
                geometry, where the transform makes one; or None.
            progress: from 0 to 1 over the training.

        Returns:
            "loss", the scalar to descend; its parts and other scalars for the log; and "logits" (B, 1, H, W) of the
            labelled batch where there is one. All but "loss" are detached.
        """

    def forward(self, labelled: Batch | None, unlabelled: Batch | None, progress: float) -> dict[str, Tensor]:
        """`step`, under the name that `DistributedDataParallel` wraps."""
        return self.step(labelled, unlabelled, progress)

    def after_step(self) -> None:
        """Called after the optimizer has changed `network`; not after a step that was skipped as not finite."""

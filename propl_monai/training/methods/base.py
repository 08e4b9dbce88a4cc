"""The interface of training methods: a network to train, one step, and the network that predicts in the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from propl_monai.errors import ProPLError
from propl_monai.model.networks.base import Segmenter
from propl_monai.model.networks.registry import NETWORKS
from propl_monai.training.losses import BCEDiceLoss

Batch = dict  # {"image": (B, 1, H, W), "task": [B names]}, see `Method.step`


class Method(nn.Module, ABC):
    """A way to train a network. Trainer, checkpoints and validation use this interface only.

    Args:
        network: trained in place; any of the registry, unless the method names one.

    Attributes:
        name: in the registry and in run.json.
        only: the name of the one network that this method can train; None for any.
        uses_unlabelled: false where the unlabelled batch is ignored; then there must be a labelled one.
        follows: of an average (`averages.averaged`), by its attribute, the attribute that it follows; else the network.
    """

    name: ClassVar[str]
    only: ClassVar[str | None] = None
    uses_unlabelled: ClassVar[bool] = True
    follows: ClassVar[Mapping[str, str]] = {}
    network: Segmenter

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        if self.only and not isinstance(network, NETWORKS[self.only]):
            cure = f"take the network {self.only}, or another method"
            raise ProPLError(f"method '{self.name}'", f"trains network {self.only}, not '{network.name}'", cure)
        self.network = network
        self.loss = BCEDiceLoss()

    @property
    def names(self) -> dict[str, str]:
        """Method and network by name, for run.json."""
        return {"method": self.name, "network": self.network.name}

    @property
    def decoders(self) -> tuple[str, ...]:
        """The decoders of `predictor` that are trained, and so may be chosen on the validation cases."""
        return self.network.decoders[:1]

    @property
    def predictor(self) -> Segmenter:
        """The network that is validated, saved and used for prediction; the trained one by default."""
        return self.network

    @abstractmethod
    def step(self, labelled: Batch | None, unlabelled: Batch | None, progress: float) -> dict[str, Tensor]:
        """Losses of one pair of batches, of which one may be missing.

        Args:
            labelled: {"image": (B, 1, H, W), "label": (B, 1, H, W) in {0, 1}, "task": [B names],
                "source": [B names of data sets]}, or None. Without "task" all images are of the network's default task.
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

    def student(self, image: Tensor, batches: Sequence[Batch]) -> Tensor:
        """Logits (B, 1, H, W) of the first decoder, for the images of several batches, one batch behind the other.

        Args:
            image: (B, 1, H, W), views of these images; one pass, so that BatchNorm sees them together.
            batches: the tasks are theirs.
        """
        return self.network(image, task=self.tasks_of(batches), decoder=self.decoders[0])

    def tasks_of(self, batches: Sequence[Batch]) -> list[str] | None:
        """The task of each image of several batches; None, the default task, where one has none and there is no default."""
        default, names = self.network.default_task, []
        for batch in batches:
            if "task" not in batch and default is None:
                return None
            names += batch.get("task", [default] * len(batch["image"]))
        return names

    def on_labels(self, logits: Tensor, labelled: Batch, result: dict[str, Tensor]) -> Tensor:
        """The loss of a labelled batch, scalar; its value and the logits go to `result`."""
        loss = self.loss(logits, labelled["label"])
        result["supervised"], result["logits"] = loss.detach(), logits.detach()
        return loss

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but averages of the network (`averages.averaged`), which teach in eval mode."""
        super().train(mode)
        for average in self._averages().values():
            average.eval()
        return self

    def after_step(self) -> None:
        """Move averages towards what they follow, after the optimizer has changed it; not after a step that was skipped."""
        for name, average in self._averages().items():
            average.update_parameters(self.get_submodule(self.follows.get(name, "network")))

    def _averages(self) -> dict[str, AveragedModel]:
        return {name: part for name, part in self.named_children() if isinstance(part, AveragedModel)}

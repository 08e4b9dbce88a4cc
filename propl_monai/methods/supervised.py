"""The control without pseudo-labels: the same network, its decoder sd, and the labelled images alone."""

from __future__ import annotations

from torch import Tensor, nn

from propl_monai.losses import BCEDiceLoss
from propl_monai.network import ProPL


class SupervisedMethod(nn.Module):
    """L = L_sup(sd(x_l), y); the unlabelled batch is ignored.

    Args:
        network: trained in place.
    """

    def __init__(self, network: ProPL) -> None:
        super().__init__()
        self.network = network
        self.loss = BCEDiceLoss()

    def step(self, labelled: dict | None, unlabelled: dict | None, progress: float) -> dict[str, Tensor]:
        """Loss of one labelled batch; see the package docstring for its form."""
        assert labelled is not None, "PairedLoader always gives a labelled batch where there are labels"
        logits = self.network(labelled["image"], task=labelled.get("task"), decoder="sd")
        loss = self.loss(logits, labelled["label"])
        return {"loss": loss, "supervised": loss.detach(), "logits": logits.detach()}

    forward = step

"""The control without pseudo-labels: the same network, its first decoder, and the labelled images alone."""

from __future__ import annotations

from torch import Tensor

from propl_monai.training.methods.base import Batch, Method


class SupervisedMethod(Method):
    """L = L_sup(f(x_l), y), f by the first decoder (ProPL's sd); the unlabelled batch is ignored.

    Args:
        network: trained in place.
    """

    name = "supervised"
    uses_unlabelled = False

    def step(self, labelled: Batch | None, unlabelled: Batch | None, progress: float) -> dict[str, Tensor]:
        """Loss of one labelled batch; see `Method.step`."""
        assert labelled is not None, "PairedLoader always gives a labelled batch where there are labels"
        result: dict[str, Tensor] = {}
        loss = self.on_labels(self.student(labelled["image"], [labelled]), labelled, result)
        return {"loss": loss, **result}

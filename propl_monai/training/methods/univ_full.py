"""Univ-full: pixels of unlabelled images are drawn towards class embeddings of their own task and of others."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from propl_monai.errors import ProPLError
from propl_monai.model.networks.base import Segmenter
from propl_monai.training.methods.base import Batch, Method

WIDTH = 100  # of the space that pixels and embeddings share
DECAY = 0.9  # of an embedding, when a labelled batch shows its class


class UnivFullMethod(Method):
    """L = L_sup(f(x_l), y) + α · H_cross(x_u) + β · H_within(x_u), entropies of unlabelled positions over class embeddings.

    Kalluri et al., ICCV 2019. A position of v4, projected to 100 channels, is compared with the embeddings of the
    classes of a data set; the entropy of the softmax of these cosines is low where one class fits. The data sets are tasks
    here, with background and foreground as classes: H_within takes those of the image's own task, H_cross the mean over the
    other tasks. One head per data set is what the network `library` has; any network that gives features will do.

    In the paper an embedding is the centroid of the labelled features of its class. The code has its update commented out, so
    that they stay random: here the paper, with a running average over batches. Cosines are divided by a temperature, without
    which two of them, in -1 … 1, could not have an entropy below 0.36; the code has no temperature, and does not normalise
    positions, only embeddings. The code knows two data sets; here `others` of them
    are drawn at each step. No pseudo-label is made. Backgrounds of these tasks are much alike, so that
    the cross term can say little.

    Args:
        network: trained in place; one that gives features.
        cross_weight: α.
        within_weight: β.
        others: how many other tasks H_cross takes at a step.
        temperature: of the softmax.
    """

    name = "univ_full"

    def __init__(
        self,
        network: Segmenter,
        cross_weight: float = 0.5,
        within_weight: float = 0.5,
        others: int = 2,
        temperature: float = 0.1,
    ) -> None:
        super().__init__(network)
        if temperature <= 0:
            raise ProPLError(
                "univ_full temperature", f"{temperature} is not above 0", "give a small number, such as 0.1"
            )
        self.cross_weight, self.within_weight = cross_weight, within_weight
        self.others, self.temperature = others, temperature
        self.project = nn.Conv2d(network.widths[3], WIDTH, 1)
        start = torch.randn(max(1, len(network.task_names)), 2, WIDTH)
        self.register_buffer("embeddings", functional.normalize(start, dim=2))

    def step(self, labelled: Batch | None, unlabelled: Batch | None, progress: float) -> dict[str, Tensor]:
        """Losses of one pair of batches; see `Method.step`.

        Returns:
            "loss", its parts "supervised", "within" and "cross", and "logits" of the labelled batch.
        """
        batches = [batch for batch in (labelled, unlabelled) if batch]
        image, tasks = torch.cat([batch["image"] for batch in batches]), self.tasks_of(batches)
        features = self.network.features(image, tasks)
        numbers = self.network.numbers(tasks, len(image))
        count = len(labelled["image"]) if labelled else 0
        result: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        space = functional.normalize(self.project(features.v4).float(), dim=1)
        if labelled:
            own = features.changed(lambda maps: maps[:count])
            logits = self.network.logits(own, self.tasks_of([labelled]), self.decoders[0])
            losses.append(self.on_labels(logits, labelled, result))
            self._learn_embeddings(space[:count], labelled["label"], numbers[:count])
        if unlabelled:
            within, cross = self._entropies(space[count:], numbers[count:])
            losses.append(self.within_weight * within + self.cross_weight * cross)
            result["within"], result["cross"] = within.detach(), cross.detach()
        result["loss"] = torch.stack(losses).sum()
        return result

    @torch.no_grad()
    def _learn_embeddings(self, space: Tensor, label: Tensor, numbers: Tensor) -> None:
        """Move the embeddings of the tasks of a labelled batch to the centroids of their classes."""
        share = functional.adaptive_avg_pool2d(
            label.to(space), (space.shape[2], space.shape[3])
        )  # (B, 1, h, w), of foreground
        embeddings = self.get_buffer("embeddings")
        for number in numbers.unique().tolist():
            own = numbers == number
            for kind, weight in enumerate((1 - share[own], share[own])):
                centroid = (weight * space[own]).sum((0, 2, 3))
                if centroid.any():
                    moved = DECAY * embeddings[number, kind] + (1 - DECAY) * functional.normalize(centroid, dim=0)
                    embeddings[number, kind] = functional.normalize(moved, dim=0)

    def _entropies(self, space: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """H_within and H_cross of positions (B, 100, h, w), in nats, at most log 2; 0 for the latter with one task."""
        embeddings = self.get_buffer("embeddings").clone()  # of this step, whatever later ones write into the buffer
        count, drawn = len(embeddings), min(self.others, len(embeddings) - 1)
        within = self._entropy(space, embeddings[numbers])
        steps = torch.randperm(count - 1)[:drawn] + 1  # from the own task to another
        each = [self._entropy(space, embeddings[(numbers + step) % count]) for step in steps.tolist()]
        return within, torch.stack(each).mean() if each else 0 * within

    def _entropy(self, space: Tensor, pair: Tensor) -> Tensor:
        """Mean entropy of positions over one pair of embeddings (B, 2, 100) for each image."""
        logits = torch.einsum("bchw,bkc->bkhw", space, pair) / self.temperature
        return -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()

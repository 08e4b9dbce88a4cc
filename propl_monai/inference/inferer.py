"""The inferer: encodes a batch once and decodes it for every task that is wanted."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

from propl_monai import tasks as registry
from propl_monai.common.options import switch
from propl_monai.model import uplc
from propl_monai.model.encoder import Features
from propl_monai.model.network import ProPL, mean_logits

ROWS = 8  # pairs of image and task that are decoded together: fewer waste time on small batches, more only memory
logger = logging.getLogger(__name__)


class PromptInferer(Inferer):
    """Encodes a batch once and decodes it for every task that is asked for, several tasks together where images are few.

    A network rounds differently in batches of another size: a logit may change by up to about 1e-4 with the batch and
    the number of tasks.

    Args:
        tasks: one name or several; None when the batch brings its own, see `__call__`.
        decoder: "sd", "pd", "mean", or None for the network's choice.
        uncertainty_passes: N perturbed passes of decoder sd for the variance of eq. 4; 0 for none.
        perturbation, strength: of these passes, see `uplc.perturb`.
        tta: average the probabilities with those of the picture mirrored left to right. The network then answers as if
            it did not know left from right; see docs/predict.md before using it on hearts. The variance is that of the
            picture as it is.
        seed: of the perturbations, drawn anew for every image and task, so that neither the batch nor the order of the
            images changes a result; None draws them from torch's generator as it stands.
    """

    def __init__(
        self,
        tasks: str | Sequence[str] | None = None,
        decoder: str | None = None,
        uncertainty_passes: int = 0,
        perturbation: str = "element",
        strength: float = 0.3,
        tta: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.tasks = None if tasks is None else [task.name for task in registry.find_all(tasks)]
        self.decoder, self.passes = decoder, uncertainty_passes
        self.perturbation, self.strength = perturbation, strength
        self.tta, self.seed = switch("tta", tta), seed

    def __call__(self, inputs: Tensor, network: ProPL, task: Sequence[str] | None = None, *_: Any, **__: Any) -> Tensor:
        """Segment a batch.

        Args:
            inputs: (B, 1, H, W), normalised.
            network: a `ProPL`.
            task: the task of each image; stands in for `tasks` when that is None.

        Returns:
            Logits (B, K, H, W) for K tasks (1 when `task` is used), followed by K variances in [0, 0.25] when
            uncertainty is wanted.
        """
        if self.passes:
            network.require_decoder("sd", "uncertainty")
        asked: Sequence[str | Sequence[str] | None] = [task] if self.tasks is None else self.tasks
        texts = [network.text(names, len(inputs)) for names in asked]
        features = network.encode(inputs)
        maps = self.logits(network, features, texts)
        if self.tta:
            mirrored = self.logits(network, network.encode(inputs.flip(-1)), texts)
            maps = mean_logits(maps, mirrored.flip(-1))
        variances = [self._variance(network, features, text) for text in texts] if self.passes else []
        return torch.cat([maps, *variances], dim=1)

    def logits(self, network: ProPL, features: Features, texts: Sequence[Tensor]) -> Tensor:
        """Decode features of a batch for K texts, each (B, L, E), to logits (B, K, H, W), float32."""
        decoder = self.decoder or network.chosen_decoder
        together = max(1, ROWS // len(features.v4))
        each: list[Tensor] = []
        for start in range(0, len(texts), together):
            some = texts[start : start + together]
            rows = network.decode(_repeated(features, len(some)), torch.cat(list(some)), decoder)
            each += rows.float().chunk(len(some))
        return torch.cat(each, dim=1)

    def _variance(self, network: ProPL, features: Features, text: Tensor) -> Tensor:
        if self.seed is None:
            return self._spread(network, features, text)
        each = []
        for index in range(len(text)):
            with _seeded(self.seed, text.device):
                each.append(self._spread(network, _only(features, index), text[index : index + 1]))
        return torch.cat(each)

    def _spread(self, network: ProPL, features: Features, text: Tensor) -> Tensor:
        passes = uplc.stochastic_passes(
            lambda v4: network.decode(features._replace(v4=v4), text, "sd"),
            features.v4,
            self.passes,
            self.perturbation,
            self.strength,
        )
        return uplc.mean_and_variance(passes)[1]


def _only(features: Features, index: int) -> Features:
    """The features of one image of a batch."""
    one = slice(index, index + 1)
    return features._replace(v1=features.v1[one], v2=features.v2[one], v3=features.v3[one], v4=features.v4[one])


def _repeated(features: Features, times: int) -> Features:
    """The features of a batch, so many times one after the other."""
    if times == 1:
        return features
    v1, v2, v3, v4 = (torch.cat([one] * times) for one in features[:4])
    return features._replace(v1=v1, v2=v2, v3=v3, v4=v4)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from a seed, and leave torch's generators as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield

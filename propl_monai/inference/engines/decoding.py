"""Encodes a batch once and decodes it for every wanted task: what torch does in every prediction, with MONAI or without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from propl_monai import tasks as registry
from propl_monai.common.options import switch
from propl_monai.errors import ProPLError
from propl_monai.model import uplc
from propl_monai.model.encoder import Features
from propl_monai.model.network import ProPL, mean_logits
from propl_monai.model.networks.base import Segmenter
from propl_monai.model.views import check_views, look

ROWS = 8  # pairs of image and task decoded together: fewer waste time on small batches, more cost only memory


class TaskDecoder:
    """Encodes a batch once and decodes it for every wanted task, several tasks together where images are few.

    A network rounds differently in batches of another size: a logit may change by up to about 1e-4 with the batch and
    the number of tasks.

    Args:
        tasks: one name or several; None when the batch brings its own, see `__call__`.
        decoder: "sd", "pd", "mean", or None for the network's choice.
        uncertainty_passes: N perturbed passes of decoder sd for the variance of eq. 4; 0 for none.
        perturbation, strength: of these passes, see `uplc.perturb`.
        views: names of `model.views`, for a variance over views of the picture, by the decoder that segments; instead of
            perturbed passes.
        tta: average the probabilities with those of the picture mirrored left to right. The network then answers as if
            it did not know left from right; see docs/predict.md before using it on hearts. The variance is that of the
            picture as it is.
        seed: of the perturbations, which start from it for every image and task, so that neither the batch nor the order
            of the images changes a result, nor the caller's random state; None draws from torch's own generator.

    Attributes:
        pooled: of the last batch, (B, C), see `Features.pooled`, of the pictures as they are; None for a network whose
            features depend on the task.
    """

    pooled: Tensor | None = None

    def __init__(
        self,
        tasks: str | Sequence[str] | None = None,
        decoder: str | None = None,
        uncertainty_passes: int = 0,
        perturbation: str = "element",
        strength: float = 0.3,
        tta: bool = False,
        seed: int | None = None,
        views: Sequence[str] = (),
    ) -> None:
        self.tasks = None if tasks is None else [task.name for task in registry.find_all(tasks)]
        self.decoder, self.passes = decoder, uncertainty_passes
        self.perturbation, self.strength = perturbation, strength
        self.views = check_views(views) if views else ()
        if self.views and self.passes:
            raise ProPLError("uncertainty", "is wanted both of passes and of views", "leave out one of them")
        self.tta, self.seed = switch("tta", tta), seed

    def __call__(
        self, inputs: Tensor, network: Segmenter, task: Sequence[str] | None = None, *_: Any, **__: Any
    ) -> Tensor:
        """Segment a batch.

        Args:
            inputs: (B, 1, H, W), normalised.
            network: of the registry; only ProPL gives variances of perturbed passes.
            task: the task of each image, used when `tasks` is None.

        Returns:
            Logits (B, K, H, W) for K tasks (1 when `task` is used), followed by K variances in [0, 0.25] when
            uncertainty is wanted.
        """
        if self.passes:
            network.require_uncertainty()
        wanted: Sequence[str | Sequence[str] | None] = [task] if self.tasks is None else self.tasks
        if not isinstance(network, ProPL):
            return self._task_by_task(inputs, network, wanted)
        texts = [network.text(names, len(inputs)) for names in wanted]
        features = network.encode(inputs)
        self.pooled = features.pooled()
        maps = self.logits(network, features, texts)
        if self.tta:
            mirrored = self.logits(network, network.encode(inputs.flip(-1)), texts)
            maps = mean_logits(maps, mirrored.flip(-1))
        if self.views:
            variances = [
                self._variance_of_views(inputs, lambda some: self.logits(network, network.encode(some), texts))
            ]
        else:
            variances = [self._variance(network, features, text) for text in texts] if self.passes else []
        return torch.cat([maps, *variances], dim=1)

    def _variance_of_views(self, inputs: Tensor, logits: Callable[[Tensor], Tensor]) -> Tensor:
        """Eq. 4 over views, (B, K, H, W); one view at a time, so that memory does not grow with their number."""

        def predict(seen: Tensor) -> Tensor:
            return torch.cat([logits(some).sigmoid() for some in seen.chunk(len(self.views))])

        return look(predict, inputs, self.views).variance

    def _task_by_task(self, inputs: Tensor, network: Segmenter, wanted: Sequence[str | Sequence[str] | None]) -> Tensor:
        """The plain way, for a network of any kind; one that encodes once for all tasks does so."""

        pooled: list[Tensor] = []

        def maps(image: Tensor) -> Tensor:
            if network.encodes_once:
                features = network.features(image)
                pooled.append(features.pooled())
                each = [network.logits(features, names, self.decoder) for names in wanted]
            else:
                each = [network(image, task=names, decoder=self.decoder) for names in wanted]
            return torch.cat(each, dim=1).float()

        found = maps(inputs)
        self.pooled = pooled[0] if pooled else None
        if self.tta:
            found = mean_logits(found, maps(inputs.flip(-1)).flip(-1))
        return torch.cat([found, self._variance_of_views(inputs, maps)], dim=1) if self.views else found

    def logits(self, network: ProPL, features: Features, texts: Sequence[Tensor]) -> Tensor:
        """Decode features of a batch for K texts, each (B, L, E), to logits (B, K, H, W), float32."""
        decoder = self.decoder or network.chosen_decoder
        together = max(1, ROWS // len(features.v4))
        maps: list[Tensor] = []
        for start in range(0, len(texts), together):
            some = texts[start : start + together]
            count = len(some)
            repeated = features.changed(partial(_repeat, times=count)) if count > 1 else features
            maps += network.decode(repeated, torch.cat(list(some)), decoder).float().chunk(count)
        return torch.cat(maps, dim=1)

    def _variance(self, network: ProPL, features: Features, text: Tensor) -> Tensor:
        """The variance of eq. 4, (B, 1, H, W); image by image where each starts from the seed."""
        if self.seed is not None and len(text) > 1:
            rows = [slice(index, index + 1) for index in range(len(text))]
            return torch.cat([self._variance(network, features.changed(itemgetter(row)), text[row]) for row in rows])

        def decode(v4: Tensor) -> Tensor:
            return network.decode(features._replace(v4=v4), text, "sd")

        generator = None if self.seed is None else torch.Generator(text.device).manual_seed(self.seed)
        settings = self.passes, self.perturbation, self.strength, generator
        return uplc.mean_and_variance(uplc.stochastic_passes(decode, features.v4, *settings))[1]


def _repeat(rows: Tensor, times: int) -> Tensor:
    return torch.cat([rows] * times)

"""ProPL's training step: labels supervise decoder sd, calibrated pseudo-labels of sd supervise decoder pd."""

from __future__ import annotations

from operator import itemgetter

import torch
from torch import Tensor

from propl_monai.common.options import switch
from propl_monai.model import uplc
from propl_monai.model.encoder import Features
from propl_monai.model.network import DECODERS, ProPL
from propl_monai.training.batch_norm import unrecorded_statistics
from propl_monai.training.cutmix import CutMix, cutmix, draw_for, taught_view
from propl_monai.training.methods.base import Batch, Method


class ProPLMethod(Method):
    """L = L_sup(sd(x_l), y) + λ · L_sup(pd(x_u), ŷ), ŷ by UPLC from N perturbed passes of sd (eqs. 4-5).

    The encoder runs once per step, on both batches together. The N passes run without gradient; in them BatchNorm
    normalises by the batch, as everywhere in training, and does not record it, so that the running statistics of sd,
    which inference uses, come from its training batches alone. (The released code runs the whole network N + 1 times
    with gradients and records every pass; its losses are the same.)

    With passes 1 and strength 0 UPLC is off: the variance is 0 and the pseudo-label the plain prediction of sd.

    Args:
        network: trained in place.
        passes: N; the paper adopts 2, the released scripts 3.
        perturbation: see `uplc.perturb`.
        strength: dropout rate, or share of noise; the paper's 0.3.
        power: p in exp(-variance**p); paper 1, released code 2.
        pseudo_label: "soft" (paper), "hard" (released code), or "weighted".
        unlabelled_weight: λ; the paper gives none, so 1; released code 6.
        supervise_pd: labels supervise pd as well; not in the paper.
        cutmix: probability that an image of pd gets a box of another of its task, see `cutmix`; not in the paper.
    """

    name = "propl"
    only = "propl"
    decoders = DECODERS
    network: ProPL

    def __init__(
        self,
        network: ProPL,
        passes: int = 2,
        perturbation: str = "element",
        strength: float = 0.3,
        power: int = 1,
        pseudo_label: str = "soft",
        unlabelled_weight: float = 1.0,
        supervise_pd: bool = False,
        cutmix: float = 0.0,
    ) -> None:
        super().__init__(network)
        self.passes, self.perturbation, self.strength = passes, perturbation, strength
        self.power, self.pseudo_label = power, pseudo_label
        self.unlabelled_weight, self.supervise_pd = unlabelled_weight, switch("supervise_pd", supervise_pd)
        self.cutmix = cutmix

    def step(self, labelled: Batch | None, unlabelled: Batch | None, progress: float) -> dict[str, Tensor]:
        """Losses of one pair of batches; see `Method.step`.

        Returns:
            "loss", its parts "supervised" and "pseudo", the means "uncertainty" (of the variance) and
            "pseudo_foreground" (of ŷ), and "logits" of the labelled batch.
        """
        drawing = draw_for(unlabelled, self.cutmix) if unlabelled else None
        views = [labelled["image"]] if labelled else []
        if unlabelled:
            views.append(taught_view(unlabelled, drawing))
        features = self.network.encode(torch.cat(views))
        count = len(labelled["image"]) if labelled else 0
        result: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        if labelled:
            losses.append(self._supervised(features.changed(itemgetter(slice(0, count))), labelled, result))
        if unlabelled:
            losses.append(self._pseudo(features.changed(itemgetter(slice(count, None))), unlabelled, drawing, result))
        result["loss"] = torch.stack(losses).sum()
        return result

    def _supervised(self, features: Features, batch: Batch, result: dict[str, Tensor]) -> Tensor:
        text = self.network.text(batch.get("task"), len(batch["image"]))
        loss = self.on_labels(self.network.decode(features, text, "sd"), batch, result)
        if self.supervise_pd:
            loss = loss + self.loss(self.network.decode(features, text, "pd"), batch["label"])
        return loss

    def _pseudo(self, features: Features, batch: Batch, drawing: CutMix | None, result: dict[str, Tensor]) -> Tensor:
        text = self.network.text(batch.get("task"), len(batch["image"]))
        seen = features
        if "image_strong" in batch or drawing:
            with torch.no_grad(), unrecorded_statistics(self.network.encoder):
                seen = self.network.encode(batch["image"])
        mean, variance = self.teach(seen, text)
        target, weight = uplc.pseudo_label(mean, variance, self.pseudo_label, self.power)
        if drawing:
            target = cutmix(drawing, target)
            weight = None if weight is None else cutmix(drawing, weight)
        loss = self.loss(self.network.decode(features, text, "pd"), target, weight)
        result["pseudo"], result["uncertainty"] = loss.detach(), variance.mean()
        result["pseudo_foreground"] = target.mean()
        return self.unlabelled_weight * loss

    @torch.no_grad()
    def teach(self, features: Features, text: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance, (B, 1, H, W) each, over N passes of sd with perturbed v4; float32."""
        with unrecorded_statistics(self.network.decoder_sd):
            passes = uplc.stochastic_passes(
                lambda v4: self.network.decode(features._replace(v4=v4), text, "sd"),
                features.v4,
                self.passes,
                self.perturbation,
                self.strength,
            )
            return uplc.mean_and_variance(passes)

"""VCLIPSeg: two decoders label for each other, and what they agree on must look like the sentence that it is asked by."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from propl_monai.common.options import switch
from propl_monai.errors import ProPLError, unknown
from propl_monai.model.encoder import STRIDES
from propl_monai.model.networks.vclipseg import VCLIPSeg, layers
from propl_monai.training.confidence import hard, ramp
from propl_monai.training.losses import dice_loss
from propl_monai.training.methods.base import Batch, Method

KINDS = ("soft", "hard")


class VisionTextConsistency(nn.Module):
    """The vision-text consistency module (VTCM), eqs. 4-5; it serves training alone.

    Args:
        channels: C, of the map.
        text_width: E, of a sentence's embedding.
        spatial_dims: 2 for images, 3 for volumes.
    """

    def __init__(self, channels: int, text_width: int, spatial_dims: int = 2) -> None:
        super().__init__()
        convolution, _, _ = layers(spatial_dims)
        self.project = nn.Sequential(
            convolution(channels, channels, 1), nn.ReLU(), convolution(channels, text_width, 1)
        )

    def forward(self, seen: Tensor, areas: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """1 - cosine of a class's prototype and its sentence, averaged over the prototypes that there are.

        Args:
            seen: (B, C, …), a map.
            areas: (B, 2, …) of the same positions, the share of each that counts for background and for target.
            texts: (B, 2, E), sentences of both; they get no gradient.

        Returns:
            The loss, a scalar in [0, 2], 0 without any prototype; and the share of prototypes that there are.
        """
        vectors = functional.normalize(self.project(seen).float(), dim=1).flatten(2)
        areas = areas.float().flatten(2)
        total = areas.sum(2)
        present = (total > 0).float()
        # An empty class has a prototype of 0 and no weight: the mean over no position would be NaN.
        prototypes = torch.einsum("ben,bcn->bce", vectors, areas) / (total + (1 - present)).unsqueeze(2)
        distance = 1 - functional.cosine_similarity(prototypes, texts.detach().float(), dim=2)
        return (present * distance).sum() / present.sum().clamp_min(1), present.mean()


def agreed_areas(label: Tensor, logits: tuple[Tensor, Tensor], stride: int) -> Tensor:
    """Where both decoders are right, as shares of the cells of a coarser map.

    Args:
        label: (B, 1, …) in {0, 1}.
        logits: of both decoders, the same shape.
        stride: of the cells; the last ones may reach beyond the image, and what lies there does not count.

    Returns:
        (B, 2, …), in [0, 1]: the share of each cell that is background, and that is target, and was found by both.
    """
    target = label > 0
    right = (logits[0] > 0).eq(target) & (logits[1] > 0).eq(target)
    maps = torch.cat((right & ~target, right & target), 1).float()
    maps = functional.pad(maps, [edge for length in reversed(label.shape[2:]) for edge in (0, -length % stride)])
    return (functional.avg_pool2d if label.ndim == 4 else functional.avg_pool3d)(maps, stride)


def decoder_weights(losses: Tensor, temperature: float = 1.0) -> Tensor:
    """The weights of the dynamic labelling branch (DLB), eqs. 7-8: the decoder with the smaller loss counts more.

    Args:
        losses: (D,), Dice losses on labelled images, in [0, 1].
        temperature: 1 is the paper's, where weights of two decoders lie between 0.44 and 0.56; smaller spreads them.

    Returns:
        (D,), with sum 1.
    """
    return ((1 - losses.sigmoid()) / temperature).softmax(0)


class VCLIPSegMethod(Method):
    """L = Σ_k L_sup(f_k(x_l), y) + λ_r · L_reg + λ_u · ramp · Σ_k L_sup(f_k(x_u), P), P = w_1 p_1 + w_2 p_2, k = 1, 2.

    Li et al., MICCAI 2024, eqs. 4-11. Both decoders learn labels, and on unlabelled images P, the mean of their probabilities
    weighted by how well each does on the labelled images of the batch (`decoder_weights`). L_reg pulls what both find rightly
    in labelled images towards its sentence (`VisionTextConsistency`).

    Where paper and code differ, this follows the paper: P is soft (the code's is hard) and teaches unlabelled images alone
    (all of them there), the labelled loss has weight 1 (½ there), and one projector serves both decoders (one each
    there). What it projects has length 1 over its channels; the code divides by the length along the last axis of the map.
    The ramp exp(-5(1 - t)²) runs over the whole training; the code's ends after 6,000 of 15,000 steps, and the paper does
    not say. L_sup is cross-entropy and Dice for labels too (Dice alone in both), as in all methods here. A prototype belongs
    to one image and class, as sentences differ between the tasks of a batch, and counts pixels by the share of a cell that
    they fill, as stride 32 would lose small targets; one without pixels is left out, which makes NaN in the code. Both
    leave the learning rate constant; here it decays as for all methods.

    Args:
        network: trained in place.
        unlabelled_weight: λ_u.
        consistency_weight: λ_r.
        dynamic: weigh the decoders by their losses; false takes their plain mean.
        temperature: of the weights, see `decoder_weights`.
        pseudo_label: "soft", P itself, or "hard", whether it exceeds 0.5, as in the code.
    """

    name = "vclipseg"
    only = "vclipseg"
    network: VCLIPSeg

    def __init__(
        self,
        network: VCLIPSeg,
        unlabelled_weight: float = 1.0,
        consistency_weight: float = 0.5,
        dynamic: bool = True,
        temperature: float = 1.0,
        pseudo_label: str = "soft",
    ) -> None:
        super().__init__(network)
        if pseudo_label not in KINDS:
            raise unknown("vclipseg pseudo_label", "pseudo-label", pseudo_label, KINDS)
        if not temperature > 0:
            raise ProPLError(
                "vclipseg temperature", f"{temperature} is not above 0", "give 1, or less for other weights"
            )
        self.unlabelled_weight, self.consistency_weight = unlabelled_weight, consistency_weight
        self.dynamic, self.temperature = switch("dynamic", dynamic), temperature
        self.pseudo_label = pseudo_label
        self.consistency = VisionTextConsistency(network.encoder.channels[-1], network.text_shape[1])

    def step(self, labelled: Batch | None, unlabelled: Batch | None, progress: float) -> dict[str, Tensor]:
        """Losses of one pair of batches; see `Method.step`. One pass sees both.

        Returns:
            "loss", its parts "supervised" (both decoders), "consistency" (L_reg) and "pseudo" (both decoders), "prototypes"
            (share of those that there are), "first_weight" (w_1), "pseudo_weight", "pseudo_foreground", and the first
            decoder's "logits" of the labelled batch.
        """
        batches = [batch for batch in (labelled, unlabelled) if batch]
        image = torch.cat([batch["image"] for batch in batches])
        text = self.network.text(self.tasks_of(batches), len(image))
        prompted = self.network.prompted(self.network.features(image), text)
        first, second = self.network.both(prompted)
        count = len(labelled["image"]) if labelled else 0
        result: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        weights = torch.full((2,), 0.5, device=image.device)
        if labelled:
            known = first[:count], second[:count]
            other = self.loss(known[1], labelled["label"])
            losses += [self.on_labels(known[0], labelled, result), other]
            result["supervised"] = result["supervised"] + other.detach()
            areas = agreed_areas(labelled["label"], known, STRIDES[-1])
            texts = self.network.sentences_of(text[:count])
            reg, result["prototypes"] = self.consistency(prompted.v4[:count], areas, texts)
            losses.append(self.consistency_weight * reg)
            result["consistency"] = reg.detach()
            if self.dynamic:
                weights = self._weights(known, labelled["label"])
        if unlabelled:
            free = first[count:], second[count:]
            each = [logits.detach().float().sigmoid() for logits in free]
            target = weights[0] * each[0] + weights[1] * each[1]  # eq. 9
            target = hard(target) if self.pseudo_label == "hard" else target
            pseudo = self.loss(free[0], target) + self.loss(free[1], target)
            weight = self.unlabelled_weight * ramp(progress)
            losses.append(weight * pseudo)
            result["pseudo"], result["pseudo_weight"] = pseudo.detach(), torch.tensor(weight, device=image.device)
            result["pseudo_foreground"], result["first_weight"] = hard(target).mean(), weights[0]
        return {**result, "loss": torch.stack(losses).sum()}

    @torch.no_grad()
    def _weights(self, logits: tuple[Tensor, Tensor], label: Tensor) -> Tensor:
        losses = [dice_loss(each.float().sigmoid(), label.float()).mean() for each in logits]
        return decoder_weights(torch.stack(losses), self.temperature)

"""VerSemi: a synthetic task asks for every target of a mixed image, and must agree with all other tasks together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from propl_monai.common.options import switch
from propl_monai.errors import ProPLError, unknown
from propl_monai.model.networks.versemi import VerSemi
from propl_monai.tasks import share_images
from propl_monai.training.confidence import hard
from propl_monai.training.cutmix import boxes_of, inside
from propl_monai.training.losses import SMOOTH
from propl_monai.training.methods.base import Batch, Method

AGGREGATES = ("all", "tasks_in_mix")


class Mixed(NamedTuple):
    """N images, each with a box of another one in it.

    Attributes:
        image: (N, 1, H, W), the outer image with the box of the inner one.
        box: (N, 1, H, W) bool, true where the inner image shows.
        outer, inner: (N,) int64, the tasks of both.
    """

    image: Tensor
    box: Tensor
    outer: Tensor
    inner: Tensor


class VerSemiMethod(Method):
    """Two stages. First L_sup + L_chaos + L_spec on labels alone, then L_sup + L_chaos + L_box + λ · L_con.

    Zeng et al., IEEE TMI 2025. Its text was not at hand, so this follows the released code, and the abstract, which agrees
    with it. The batch is cut into halves; the images of the first get a box of those of the second, whatever their tasks.

    * L_sup: the head of its task learns the label of each whole image.
    * L_chaos: the synthetic head learns the foreground of both images in the mixed one.
    * L_spec: the heads of both tasks learn their own foreground in it, and silence on the other's; first stage only. Without
      it, nothing would tell a head what to say to images of other organs, and L_con takes the answers of all heads.
    * L_con: in unlabelled images with a box of a labelled one, the synthetic head and the largest probability of the other
      heads learn from each other by Dice; neither is detached. L_box: the synthetic head learns the label in that box.

    The code leaves its second stage commented out, with an averaged network and ramps that it computes and never uses, which
    are not here. L_sup is cross-entropy and Dice, the others are Dice over the batch with squared areas, as there, where
    it is smoothed by 1e-5 (here 1, as everywhere). In L_box the code's mask has an axis more than the probabilities, so
    that each image also learns its label in the boxes of the others, where it shows an unlabelled image: here in its own.
    The code has a constant learning rate and halves of equal size; here the image that is left over in an odd batch is not
    mixed, and any number of unlabelled images will do.

    **Unknown pixels.** There, each data set has one target and no other data set's. Here the left atrium, the left ventricle
    and the myocardium share their images, and the mask of one is not all that the synthetic head should find. Where tasks
    share images (`tasks.share_images`), background of one task is unknown to the others and to the synthetic head, and has
    weight 0; elsewhere it is background of all.

    Args:
        network: trained in place.
        warmup_fraction: the first stage's share of the training.
        aggregate_over: whose probabilities L_con takes: of "all" tasks, or of "tasks_in_mix", those of both images and
            those that share images with them.
        side: of the box in the first stage, as a share of the image's sides.
        later_sides: smallest and largest side in the second stage, where it is drawn for each image.
        chaos_weight: of L_chaos and L_box.
        specific_weight: of L_spec.
        unlabelled_weight: λ.
        mask_unknown: give unknown pixels no weight; false treats them as background, as one data set for each task allows.
    """

    name = "versemi"
    only = "versemi"
    network: VerSemi
    shared: Tensor

    def __init__(
        self,
        network: VerSemi,
        warmup_fraction: float = 0.5,
        aggregate_over: str = "all",
        side: float = 2 / 3,
        later_sides: Sequence[float] = (0.3, 0.6),
        chaos_weight: float = 1.0,
        specific_weight: float = 1.0,
        unlabelled_weight: float = 1.0,
        mask_unknown: bool = True,
    ) -> None:
        super().__init__(network)
        if aggregate_over not in AGGREGATES:
            raise unknown("versemi aggregate_over", "choice", aggregate_over, AGGREGATES)
        shares = [
            ("warmup_fraction", warmup_fraction),
            ("side", side),
            *(("later_sides", each) for each in later_sides),
        ]
        for option, share in shares:
            if not 0 <= share <= 1:
                raise ProPLError(f"versemi {option}", f"{share} is outside 0…1", "give shares from 0 to 1")
        if len(later_sides) != 2:
            raise ProPLError(
                "versemi later_sides", f"are {len(later_sides)} numbers", "give the smallest and the largest"
            )
        self.warmup_fraction, self.aggregate_over = warmup_fraction, aggregate_over
        self.side, self.later_sides = side, tuple(later_sides)
        self.chaos_weight, self.specific_weight = chaos_weight, specific_weight
        self.unlabelled_weight = unlabelled_weight
        names, mask = network.task_names, switch("mask_unknown", mask_unknown)
        shared = torch.tensor([[mask and share_images(one, other) for other in names] for one in names])
        self.register_buffer("shared", shared, persistent=False)  # (K, K)

    def step(self, labelled: Batch | None, unlabelled: Batch | None, progress: float) -> dict[str, Tensor]:
        """Losses of one pair of batches; see `Method.step`. One pass sees all images, mixed and whole.

        Returns:
            "loss", its parts "supervised", "chaos", "specific", "pseudo" (L_con) and "boxed" (L_box) before their weights, as
            far as the stage and the batch have them; "unknown" (share of the pixels in L_chaos), "pseudo_foreground" (of
            the aggregate), and "logits" of the labelled batch.
        """
        first = labelled is not None and progress < self.warmup_fraction
        whole = self._numbers(labelled) if labelled else None
        pairs = self._pairs(labelled, whole, first) if labelled and whole is not None else None
        others = None if first or not unlabelled else self._with_boxes(unlabelled, labelled, whole)
        images = ([labelled["image"]] if labelled else []) + [mixed.image for mixed in (pairs, others) if mixed]
        maps, pooled = self.network.decoder.shown(self.network.features(torch.cat(images)))
        result: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        place = 0
        if labelled and whole is not None:
            place, half = len(whole), len(whole) // 2
            logits = self.network.heads((maps[:place], pooled[:place]), whole[:, None])
            losses.append(self.on_labels(logits, labelled, result))
            if pairs:
                seen, place = (maps[place : place + half], pooled[place : place + half]), place + half
                labels = labelled["label"][:half], labelled["label"][half : 2 * half]
                losses += self._on_pairs(pairs, seen, labels, first, result)
        if others:
            inner = labelled["label"][_rows(len(others.image), labelled)] if labelled else None
            losses += self._on_unlabelled(others, (maps[place:], pooled[place:]), inner, result)
        result["loss"] = torch.stack(losses).sum()
        return result

    def _numbers(self, batch: Batch) -> Tensor:
        return self.network.numbers(self.tasks_of([batch]), len(batch["image"]))

    def _pairs(self, labelled: Batch, numbers: Tensor, first: bool) -> Mixed | None:
        """The first half of a labelled batch with boxes of the second half; None for a single image."""
        half = len(numbers) // 2
        if not half:
            return None
        image, sides = labelled["image"], torch.full((half,), self.side) if first else self._sides(half)
        return paste(image[:half], image[half : 2 * half], sides, numbers[:half], numbers[half : 2 * half])

    def _with_boxes(self, unlabelled: Batch, labelled: Batch | None, numbers: Tensor | None) -> Mixed:
        """Unlabelled images with boxes of labelled ones, or without any, of each other."""
        image, own = unlabelled["image"], self._numbers(unlabelled)
        sides = self._sides(len(image))
        if labelled is None or numbers is None:
            return paste(image, image.roll(1, 0), sides, own, own.roll(1, 0))
        rows = _rows(len(image), labelled)
        return paste(image, labelled["image"][rows], sides, own, numbers[rows])

    def _sides(self, count: int) -> Tensor:
        smallest, largest = self.later_sides
        return smallest + (largest - smallest) * torch.rand(count)

    def _on_pairs(
        self,
        pairs: Mixed,
        seen: tuple[Tensor, Tensor],
        labels: tuple[Tensor, Tensor],
        first: bool,
        result: dict[str, Tensor],
    ) -> list[Tensor]:
        asked = [torch.full_like(pairs.outer, self.network.synthetic)] + ([pairs.outer, pairs.inner] if first else [])
        probability = self.network.heads(seen, torch.stack(asked, 1)).float().sigmoid()
        target, known = union(pairs, *labels, self.shared)
        chaos = squared_dice(probability[:, :1], target, known)
        result["chaos"], result["unknown"] = chaos.detach(), 1 - known.mean()
        losses = [self.chaos_weight * chaos]
        if first:
            own = specific(pairs, *labels, self.shared)
            each = [squared_dice(probability[:, n : n + 1], *pair) for n, pair in enumerate(own, 1)]
            result["specific"] = torch.stack(each).mean().detach()
            losses.append(self.specific_weight * torch.stack(each).mean())
        return losses

    def _on_unlabelled(
        self, mixed: Mixed, seen: tuple[Tensor, Tensor], label: Tensor | None, result: dict[str, Tensor]
    ) -> list[Tensor]:
        count = self.network.synthetic
        numbers = torch.arange(count + 1, device=mixed.outer.device).expand(len(mixed.outer), -1)
        probability = self.network.heads(seen, numbers).float().sigmoid()
        others, synthetic = probability[:, :count], probability[:, count:]
        wanted = torch.ones_like(numbers[:, :count], dtype=torch.bool)
        if self.aggregate_over == "tasks_in_mix":
            wanted = in_mix(mixed, self.shared)
        target = aggregate(others, wanted)
        consistency = squared_dice(synthetic, target, torch.ones_like(target))
        result["pseudo"], result["pseudo_foreground"] = consistency.detach(), hard(target.detach()).mean()
        losses = [self.unlabelled_weight * consistency]
        if label is not None:
            target, known = union(mixed, torch.zeros_like(label), label, self.shared)
            boxed = squared_dice(synthetic, target, known * mixed.box)
            result["boxed"] = boxed.detach()
            losses.append(self.chaos_weight * boxed)
        return losses


def _rows(count: int, labelled: Batch) -> Tensor:
    """The labelled image for each of several unlabelled ones, all of them in turn."""
    image = labelled["image"]
    return torch.arange(count, device=image.device) % len(image)


def paste(outside: Tensor, within: Tensor, side: Tensor, outer: Tensor, inner: Tensor) -> Mixed:
    """Images (N, 1, H, W) with a box of another each, of sides (N,) as shares of theirs; the tasks of both, (N,)."""
    box = inside(boxes_of(side, outside.shape[-2], outside.shape[-1]), outside)
    return Mixed(torch.where(box, within, outside), box, outer, inner)


def union(mixed: Mixed, outside: Tensor, within: Tensor, shared: Tensor) -> tuple[Tensor, Tensor]:
    """What the synthetic head should find in mixed images, and where that is known.

    Args:
        mixed: N images.
        outside, within: (N, 1, H, W) in {0, 1}, labels of the outer and the inner images for their own tasks.
        shared: (K, K) bool, which tasks share images.

    Returns:
        Target and weight, both (N, 1, H, W) in {0, 1}: the label of the image that a pixel is of; known are foreground, and
        background of tasks that share their images with no other.
    """
    target = torch.where(mixed.box, within, outside).float()
    alone = ~shared.any(1)
    background = torch.where(mixed.box, _pixels(alone[mixed.inner]), _pixels(alone[mixed.outer]))
    return target, ((target > 0) | background).float()


def specific(
    mixed: Mixed, outside: Tensor, within: Tensor, shared: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """What the heads of the outer and of the inner task should find in mixed images, and where that is known.

    Args:
        mixed, outside, within, shared: see `union`.

    Returns:
        For each of both heads target and weight, (N, 1, H, W) in {0, 1}: its own label on its own image; on the other image
        that one's label where the tasks are the same, nothing where they are not, and unknown where they share images.
    """
    same, apart = _pixels(mixed.outer == mixed.inner), _pixels(~shared[mixed.outer, mixed.inner])
    of_outer = torch.where(mixed.box, within * same, outside).float(), (~mixed.box | apart).float()
    of_inner = torch.where(mixed.box, within, outside * same).float(), (mixed.box | apart).float()
    return of_outer, of_inner


def in_mix(mixed: Mixed, shared: Tensor) -> Tensor:
    """The tasks whose targets mixed images may show, (N, K) bool: those of both images, and those that share images with
    them."""
    seen = shared | torch.eye(len(shared), dtype=torch.bool, device=shared.device)
    return seen[mixed.outer] | seen[mixed.inner]


def aggregate(probability: Tensor, wanted: Tensor) -> Tensor:
    """The largest probability (N, K, H, W) among the wanted tasks (N, K), bool; (N, 1, H, W)."""
    return (probability * wanted[..., None, None]).amax(1, keepdim=True)


def squared_dice(probability: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Dice loss with squared areas, of the known pixels of a batch together; 0 where both are equal, also if soft.

    Args:
        probability, target: (N, 1, H, W), in [0, 1].
        known: (N, 1, H, W), in {0, 1}.

    Returns:
        A scalar in [0, 1].
    """
    # Not monai's MaskedDiceLoss: it looks into the mask, and so would wait for a GPU.
    overlap, areas = (known * probability * target).sum(), (known * (probability.square() + target.square())).sum()
    return 1 - (2 * overlap + SMOOTH) / (areas + SMOOTH)


def _pixels(each: Tensor) -> Tensor:
    """One value per image (N,) as (N, 1, 1, 1)."""
    return each[:, None, None, None]

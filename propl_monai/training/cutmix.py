"""CutMix within a task: partners and boxes are drawn once and applied to images, targets and weights alike.

CutMix (Yun et al., ICCV 2019) replaces a box of one image by that of another; for semi-supervised segmentation (French
et al., BMVC 2020) the pseudo-labels are cut and pasted in the same way. Here both images have the same task: a pasted
pseudo-label says nothing about any target but that of its prompt.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Beta

from propl_monai.errors import ProPLError


class CutMix(NamedTuple):
    """One drawing for a batch of B images.

    Attributes:
        partners: (B,) int64, the image that gives its box to each.
        boxes: (B, 4) int64, top, left, bottom, right in pixels, the last two exclusive; empty where nothing is mixed.
    """

    partners: Tensor
    boxes: Tensor


def draw_cutmix(
    tasks: Sequence[str],
    height: int,
    width: int,
    probability: float,
    only: Collection[str] | None = None,
    beta: tuple[float, float] = (1.0, 1.0),
) -> CutMix:
    """Draw partners and boxes from torch's generator; the number of draws depends on the batch size alone.

    A box has the aspect ratio of the image and lies inside it, and its share of the area is uniform in 0…1 (Yun et al.)
    unless `beta` says otherwise.

    Args:
        tasks: one name per image, B ≥ 1.
        height, width: of the images in pixels.
        probability: that an image gets a box; an image that is alone with its task in the batch stays whole.
        only: the tasks whose images are mixed; None for all.
        beta: α and β of a beta distribution of the share; (1, 1) is uniform.
    """
    if not 0 <= probability <= 1:
        raise ProPLError("cutmix", f"{probability} is outside 0…1", "give a probability from 0 (never) to 1 (always)")
    count = len(tasks)
    kinds = {task: number for number, task in enumerate(dict.fromkeys(tasks))}
    codes = torch.tensor([kinds[task] for task in tasks])
    fitting = (codes[:, None] == codes) & ~torch.eye(count, dtype=torch.bool)
    partners = torch.rand(count, count).masked_fill(~fitting, -1).argmax(1)
    mixed = fitting.any(1) & (torch.rand(count) < probability)
    mixed &= torch.tensor([only is None or task in only for task in tasks])
    area = torch.rand(count) if beta == (1.0, 1.0) else Beta(*beta).sample((count,))
    return CutMix(torch.where(mixed, partners, torch.arange(count)), boxes_of(area.sqrt() * mixed, height, width))


def boxes_of(side: Tensor, height: int, width: int) -> Tensor:
    """Boxes (N, 4) inside an image, of its aspect ratio, at random places; `side` (N,) is their share of height and width."""
    rows, columns = (side * height).round().long(), (side * width).round().long()
    top = (torch.rand(len(side)) * (height - rows + 1)).long()
    left = (torch.rand(len(side)) * (width - columns + 1)).long()
    return torch.stack((top, left, top + rows, left + columns), 1)


def draw_for(batch: Mapping[str, Any], probability: float, only: Collection[str] | None = None) -> CutMix | None:
    """Partners and boxes for a batch, see `draw_cutmix`; None, without any random draw, if the probability is 0."""
    if probability == 0:
        return None
    count, _, height, width = batch["image"].shape
    return draw_cutmix(batch.get("task", [""] * count), height, width, probability, only)


def taught_view(batch: Mapping[str, Any], drawing: CutMix | None) -> Tensor:
    """The student's view of an unlabelled batch: the strong view if there is one, mixed if there is a drawing."""
    image = batch.get("image_strong", batch["image"])
    return image if drawing is None else cutmix(drawing, image)


def cutmix(drawing: CutMix, maps: Tensor) -> Tensor:
    """Each map with the box of its partner's in place of its own.

    Args:
        drawing: for B maps of this height and width.
        maps: (B, C, H, W): images, targets or weights; not changed.
    """
    return torch.where(inside(drawing.boxes, maps), maps[drawing.partners.to(maps.device)], maps)


def inside(boxes: Tensor, maps: Tensor) -> Tensor:
    """Where maps (B, C, H, W) lie in their boxes (B, 4), as bool (B, 1, H, W) on the device of the maps."""
    # A few numbers go to that device, not a mask as large as the maps.
    top, left, bottom, right = (edge[:, None, None, None] for edge in boxes.to(maps.device).unbind(1))
    rows = torch.arange(maps.shape[-2], device=maps.device)[:, None]
    columns = torch.arange(maps.shape[-1], device=maps.device)
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)

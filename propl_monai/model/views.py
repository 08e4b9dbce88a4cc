"""Views of a picture, by name: what a network sees in another way, and how its maps are turned back. Pure functions.

UPLC (eq. 4) asks how far N passes differ. Here they differ in what the network sees. A view is "as-is", "mirror" (left and
right), "scale f" (f times the size about the centre), "gamma f" (above 1 darker) or "gain f" (grey levels times f). Grey
levels count from the darkest of each picture, which stands for black, to its brightest, so that views act on pictures in any
normalisation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from propl_monai.errors import ProPLError, unknown
from propl_monai.model.uplc import THRESHOLD

VIEWS = ("as-is", "mirror", "scale 0.85", "scale 1.15", "gamma 1.3", "gamma 0.75")
KINDS = {"as-is": False, "mirror": False, "scale": True, "gamma": True, "gain": True}  # whether a factor follows
FACTORS = (0.25, 4.0)


class View(NamedTuple):
    """What a name says; the factor of a view without one is 1."""

    kind: str
    factor: float


class Seen(NamedTuple):
    """What the views of B pictures agree on.

    Attributes:
        mean, variance: (B, 1, H, W), eq. 4 over the views that show a pixel.
        agreement: (B,), mean over the views of the Dice of a view's mask with that of the mean; both empty counts as 1.
    """

    mean: Tensor
    variance: Tensor
    agreement: Tensor


def view_of(name: str) -> View:
    """The view of a name, such as "mirror" or "gamma 1.3"."""
    kind, _, text = str(name).partition(" ")
    if kind not in KINDS:
        raise unknown("views", "view", name, VIEWS)
    if not KINDS[kind] and not text:
        return View(kind, 1.0)
    factor = float(text) if KINDS[kind] and re.fullmatch(r"\d+(\.\d+)?", text) else 0.0
    if not FACTORS[0] <= factor <= FACTORS[1]:
        form = f"{kind} 1.2, with a number from {FACTORS[0]} to {FACTORS[1]}" if KINDS[kind] else kind
        raise ProPLError("views", f"'{name}' is not a view", f"write {form}")
    return View(kind, factor)


def check_views(names: Sequence[str]) -> tuple[str, ...]:
    """The names of a list of views; refused where two are the same, or no view shows the border of a picture."""
    if isinstance(names, str) or not names:
        raise ProPLError("views", f"{names!r} is not a list of views", f"give one such as {list(VIEWS)}")
    views = [view_of(name) for name in names]
    if len(set(views)) < len(views):
        raise ProPLError("views", f"{list(names)} holds a view twice", "name each once")
    if all(view.kind == "scale" and view.factor > 1 for view in views):
        raise ProPLError("views", f"{list(names)} never shows the border of a picture", "add 'as-is'")
    return tuple(names)


def apply(name: str, image: Tensor) -> Tensor:
    """A view of pictures. What lies outside a shrunken picture is black.

    Args:
        name: of the view.
        image: (B, 1, H, W), float, in any normalisation; not changed.
    """
    kind, factor = view_of(name)
    if kind == "mirror":
        return image.flip(-1)
    if kind == "as-is":
        return image
    black, white = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
    if kind == "scale":
        return _enlarged(image - black, factor, "zeros") + black
    if kind == "gain":
        return torch.minimum((image - black) * factor + black, white)
    span = (white - black).clamp_min(torch.finfo(image.dtype).tiny)
    return ((image - black) / span) ** factor * span + black


def undo(name: str, maps: Tensor) -> Tensor:
    """Maps (B, 1, H, W) of a view in the frame of the picture; only pixels that are `covered` mean something."""
    kind, factor = view_of(name)
    if kind == "mirror":
        return maps.flip(-1)
    return _enlarged(maps, 1 / factor, "border") if kind == "scale" else maps


def covered(name: str, height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Which pixels of the picture a view shows, (H, W) bool: all, but for the border that enlarging pushes out."""
    kind, factor = view_of(name)
    reach = factor if kind == "scale" else 1.0
    places = (torch.arange(size, device=device) for size in (height, width))
    rows, columns = ((((2 * place + 1) / len(place) - 1) * reach).abs() <= 1 for place in places)
    return rows[:, None] & columns


def look(predict: Callable[[Tensor], Tensor], image: Tensor, names: Sequence[str]) -> Seen:
    """Mean, variance and agreement of K views of B pictures.

    Args:
        predict: (K · B, 1, H, W), all pictures in the first view, then in the next, to probabilities of that shape.
        image: (B, 1, H, W), as the network wants it.
        names: of the K views, see `check_views`.
    """
    shown = predict(torch.cat([apply(name, image) for name in names])).float().chunk(len(names))
    maps = torch.stack([undo(name, each) for name, each in zip(names, shown, strict=True)])
    height, width = image.shape[-2:]
    inside = torch.stack([covered(name, height, width, image.device) for name in names])[:, None, None]
    count = inside.sum(0)
    mean = (maps * inside).sum(0) / count
    variance = ((maps - mean).square() * inside).sum(0) / count
    return Seen(mean, variance, _agreement(maps, mean, inside))


def _agreement(maps: Tensor, mean: Tensor, inside: Tensor) -> Tensor:
    each, whole = (maps > THRESHOLD) & inside, (mean > THRESHOLD) & inside
    both, total = (each & whole).sum((2, 3, 4)), each.sum((2, 3, 4)) + whole.sum((2, 3, 4))
    return torch.where(total > 0, 2 * both / total.clamp_min(1), torch.ones_like(total, dtype=torch.float32)).mean(0)


def _enlarged(pixels: Tensor, factor: float, outside: str) -> Tensor:
    """Pixels at `factor` times their size about the centre, on the same grid, bilinear."""
    turn = pixels.new_tensor([[1 / factor, 0, 0], [0, 1 / factor, 0]]).expand(len(pixels), 2, 3)
    grid = functional.affine_grid(turn, list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, mode="bilinear", padding_mode=outside, align_corners=False)

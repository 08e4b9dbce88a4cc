"""Resizing without torch: grey levels to the network's grid, and its maps back to the size of a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image


def shrink(grey: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Grey levels (H, W) to uint8 (rows, columns) by the antialiased bilinear filter, which torch took from Pillow.

    Both sum in floating point; a sum near half a grey level may be rounded to either side.
    """
    resized = Image.fromarray(grey.astype(np.float32)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.rint(np.asarray(resized)).clip(0, 255).astype(np.uint8)


def enlarge(maps: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Float32 maps (C, rows, columns) to (C, H, W), bilinear between pixel centres and without a filter.

    Where an axis grows, that is what Pillow does; where it shrinks, Pillow would filter, so two neighbours are mixed here.
    """
    for axis, length in ((1, size[0]), (2, size[1])):
        if length < maps.shape[axis]:
            maps = _mixed(maps, axis, length)
    turned = (size[1], size[0])
    return np.stack([np.asarray(Image.fromarray(one).resize(turned, Image.Resampling.BILINEAR)) for one in maps])


def _mixed(maps: np.ndarray, axis: int, length: int) -> np.ndarray:
    """Each new pixel from the two old ones around its centre."""
    old = maps.shape[axis]
    centres = ((np.arange(length) + 0.5) * (old / length) - 0.5).clip(0, old - 1)
    below = np.floor(centres).astype(np.intp)
    share = (centres - below).astype(np.float32).reshape([-1 if one == axis else 1 for one in range(maps.ndim)])
    first, second = maps.take(below, axis), maps.take(np.minimum(below + 1, old - 1), axis)
    return np.ascontiguousarray(first * (1 - share) + second * share)

"""Resizing without torch: grey levels to the network's grid, and its maps back to the size of a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

ROUNDING = 5e-7  # of the largest value: eight times what four float32 lose where they are mixed


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


def exceeding(values: np.ndarray, size: Sequence[int], edge: float, near: float) -> np.ndarray | None:
    """Where `enlarge` of one map exceeds a value, bool (H, W), found without enlarging what is all above or all below.

    Between pixel centres nothing exceeds the greatest of the four around it, so only cells that the edge crosses are mixed.

    Args:
        values: float32 (rows, columns).
        size: (H, W).
        edge: the value.
        near: how close to it nothing is said.

    Returns:
        None where it takes more: where some pixel lies near the edge, where the edge crosses most of the map (as in noise),
        or where an axis shrinks.
    """
    if size[0] < values.shape[0] or size[1] < values.shape[1]:
        return None
    near += ROUNDING * float(np.abs(values).max())
    rows, next_rows, down = _neighbours(values.shape[0], size[0])
    columns, next_columns, right = _neighbours(values.shape[1], size[1])
    below = np.vstack([values[1:], values[-1:]])
    low, high = np.minimum(values, below), np.maximum(values, below)
    low = np.minimum(low, np.hstack([low[:, 1:], low[:, -1:]]))
    high = np.maximum(high, np.hstack([high[:, 1:], high[:, -1:]]))
    cells = (low > edge + near).astype(np.uint8)
    cells[(low <= edge + near) & (high >= edge - near)] = 2
    found = cells.take(columns, 1).take(rows, 0)
    crossed = np.flatnonzero(found > 1)
    if 4 * len(crossed) > found.size:
        return None
    y, x = np.divmod(crossed, size[1])
    top, bottom, left, other = rows[y], next_rows[y], columns[x], next_columns[x]
    share, rest = right[x], 1 - right[x]
    exact = values.astype(np.float64)
    upper = exact[top, left] * rest + exact[top, other] * share
    lower = exact[bottom, left] * rest + exact[bottom, other] * share
    mixed = upper * (1 - down[y]) + lower * down[y]
    if (np.abs(mixed - edge) <= near).any():
        return None
    found.ravel()[crossed] = mixed > edge
    return found.view(np.bool_)


def _mixed(maps: np.ndarray, axis: int, length: int) -> np.ndarray:
    """Each new pixel from the two old ones around its centre."""
    below, above, weights = _neighbours(maps.shape[axis], length)
    share = weights.astype(np.float32).reshape([-1 if one == axis else 1 for one in range(maps.ndim)])
    first, second = maps.take(below, axis), maps.take(above, axis)
    return np.ascontiguousarray(first * (1 - share) + second * share)


def _neighbours(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `new` pixels, the two of `old` pixels around its centre, and the share of the second."""
    centres = ((np.arange(new) + 0.5) * (old / new) - 0.5).clip(0, old - 1)
    below = np.floor(centres).astype(np.intp)
    return below, np.minimum(below + 1, old - 1), centres - below

"""Outlines of a mask as polygons."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import find_objects, label
from scipy.spatial import cKDTree
from skimage.measure import find_contours

# Just above one half: corners lie within a hundredth of a pixel of the mask's edge, inside the target's own pixels, so that a
# program that cuts off decimals (as those that fill polygons through OpenCV do) still lands in them.
_LEVEL = 0.51


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """One polygon for each part of a mask whose pixels touch at their sides.

    Filled by the rule that a pixel belongs to the polygon which holds its centre (even-odd), they give the mask again. Holes
    are cut out: the polygon runs to each hole and back on the same line.

    Args:
        mask: bool (H, W).

    Returns:
        (N, 2) each, x and y in pixels, 0 at the outer edge of the first pixel; not closed, the last corner is not the first.
    """
    parts, _ = label(mask)
    found = []
    for number, place in enumerate(find_objects(parts), start=1):
        inner = np.pad(parts[place] == number, 1)
        rings = [ring[:-1] for ring in find_contours(inner.astype(np.float64), _LEVEL)]
        rings.sort(key=lambda ring: -np.ptp(ring[:, 0]))  # the outer one is the tallest
        corner = np.array([place[0].start, place[1].start]) - 1 + 0.5
        found.append(_without_straight(_joined(rings) + corner)[:, ::-1])
    return found


def _joined(rings: list[np.ndarray]) -> np.ndarray:
    """One ring of an outer one and its holes, each joined by the shortest line to what is joined already."""
    joined, *holes = rings
    while holes:
        tree = cKDTree(joined)
        nearest = [(*_least(tree.query(hole)), index) for index, hole in enumerate(holes)]
        _, at, start, index = min(nearest)
        hole = np.roll(holes.pop(index), -start, axis=0)
        joined = np.concatenate([joined[: at + 1], hole, hole[:1], joined[at:]])
    return joined


def _least(answer: tuple[np.ndarray, np.ndarray]) -> tuple[float, int, int]:
    """Least distance, index in what is joined, index in the hole."""
    distances, indices = answer
    start = int(distances.argmin())
    return float(distances[start]), int(indices[start]), start


def _without_straight(ring: np.ndarray) -> np.ndarray:
    """The ring without corners on a straight line between their neighbours."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turn = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    onward = (before * after).sum(axis=1) > 0  # a line that runs back on itself keeps its end
    return ring[(np.abs(turn) > 1e-9) | ~onward]

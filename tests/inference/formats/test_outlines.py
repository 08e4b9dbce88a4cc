"""Polygons give their mask again: by the centres of pixels (Pillow's even-odd rule and our own), for any form."""

from __future__ import annotations

import numpy as np
import pytest
from format_samples import blobs

from propl_monai.inference.formats.outlines import outlines


def inside(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels whose centres lie in a polygon, by the number of edges to their right (even-odd)."""
    y, x = np.mgrid[:height, :width] + 0.5
    found = np.zeros((height, width), bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 != y1:
            crossing = (y0 <= y) != (y1 <= y)
            found ^= crossing & (x < x0 + (y - y0) / (y1 - y0) * (x1 - x0))
    return found


def ring(size: int = 12) -> np.ndarray:
    """A frame with two holes, one of which holds an island."""
    mask = np.zeros((size, 2 * size), bool)
    mask[1:-1, 1:-1] = True
    mask[3:9, 3:9] = False
    mask[5:7, 5:7] = True
    mask[2, 15:20] = False
    return mask


SHAPES = {
    **{f"blobs {seed}": blobs(seed, grain=0.5 + seed / 4) for seed in range(6)},
    "noise": np.random.default_rng(0).random((15, 19)) > 0.5,
    "holes": ring(),
    "one pixel": np.eye(1, 5, 3, dtype=bool),
    "corners": np.eye(5, dtype=bool),
    "all": np.ones((4, 6), bool),
    "nothing": np.zeros((4, 6), bool),
}


@pytest.mark.parametrize("name", SHAPES)
def test_polygons_give_the_mask_again(name: str) -> None:
    mask = SHAPES[name]
    again = np.zeros(mask.shape, int)
    for polygon in outlines(mask):
        again += inside(polygon, *mask.shape)
    np.testing.assert_array_equal(again, mask)


def test_one_polygon_for_each_part_with_few_corners() -> None:
    assert len(outlines(ring())) == 2  # and the island
    (square,) = outlines(np.ones((40, 60), bool))
    assert len(square) == 8 and square.min() >= 0 and (square.max(axis=0) <= (60, 40)).all()
    assert np.allclose(square.max(axis=0), (60, 40), atol=0.02)

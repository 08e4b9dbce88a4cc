"""Resizing by Pillow and NumPy against torch, which trained the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import speckle

from propl_monai.data.grid import from_grid, to_grid
from propl_monai.images.resize import enlarge, exceeding, shrink


@pytest.mark.parametrize("size", [(97, 131), (20, 31), (64, 48), (7, 150), (1, 1)])
def test_grey_levels_are_those_of_torch_but_for_ties(size: tuple[int, int]) -> None:
    grey = speckle(*size)
    found, wanted = shrink(grey, (48, 64)), to_grid(torch.from_numpy(grey)[None].float(), (48, 64))[0].numpy()
    assert found.dtype == np.uint8 and found.shape == (48, 64)
    assert np.abs(found.astype(int) - wanted).max() <= 1 and (found != wanted).mean() < 0.01


@pytest.mark.parametrize("size", [(97, 131), (20, 31), (48, 64), (7, 150), (100, 20), (1, 1)])
def test_maps_are_those_of_torch(size: tuple[int, int]) -> None:
    maps = np.random.default_rng(0).normal(0, 10, (3, 48, 64)).astype(np.float32)
    found, wanted = enlarge(maps, size), from_grid(torch.from_numpy(maps), size).numpy()
    assert found.dtype == np.float32 and found.shape == (3, *size)
    np.testing.assert_allclose(found, wanted, atol=1e-3, rtol=0)  # torch computes places in float32, noise is steep


SMOOTH = enlarge(np.random.default_rng(2).normal(0, 10, (1, 7, 9)).astype(np.float32), (48, 64))[0]  # shallow and steep


@pytest.mark.parametrize("size", [(97, 131), (200, 150), (48, 64)])
@pytest.mark.parametrize("edge", [0.0, 4.5, 1000.0])
def test_what_exceeds_an_edge_is_what_the_enlarged_map_says(size: tuple[int, int], edge: float) -> None:
    found, wanted = exceeding(SMOOTH, size, edge, 1e-6), enlarge(SMOOTH[None], size)[0] > edge
    assert found is not None and found.dtype == np.bool_ and np.array_equal(found, wanted)
    assert (edge == 1000) == (not wanted.any())


def test_where_the_whole_map_must_be_enlarged() -> None:
    """A smaller picture, noise, and a pixel as near to the edge as was asked for."""
    noise = np.random.default_rng(0).normal(0, 10, (48, 64)).astype(np.float32)
    assert exceeding(SMOOTH, (47, 64), 0.0, 1e-6) is None and exceeding(noise, (97, 131), 0.0, 1e-6) is None
    near = float(np.abs(enlarge(SMOOTH[None], (97, 131))).min())
    assert exceeding(SMOOTH, (97, 131), 0.0, near + 1e-3) is None

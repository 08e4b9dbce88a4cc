"""Strong views by random operations: drawn per picture, of a known kind, in range, and from the picture's own seed."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from propl_monai.data.intensity import OPERATIONS, RandIntensityOps, strong
from propl_monai.errors import ProPLError

PICTURE = 0.1 + 0.6 * torch.rand(1, 40, 48, generator=torch.Generator().manual_seed(0))
BYTES = (PICTURE * 255).round().to(torch.uint8)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_keep_type_and_shape_and_act(name: str) -> None:
    low, high = (OPERATIONS[name](BYTES, share) for share in (0.0, 0.99))
    assert low.dtype == high.dtype == torch.uint8 and low.shape == high.shape == BYTES.shape
    acts = not (torch.equal(low, BYTES) and torch.equal(high, BYTES))  # the weakest blur and eight bits change nothing
    assert acts is (name != "identity")
    assert torch.equal(low, high) is (name in ("identity", "autocontrast", "equalise"))


def test_solarise_and_posterise_by_hand() -> None:
    grey = torch.tensor([[[0, 100, 200, 255]]], dtype=torch.uint8)
    assert OPERATIONS["solarise"](grey, 149 / 255).tolist() == [[[0, 100, 55, 0]]]  # above 150 inverted
    assert OPERATIONS["posterise"](grey, 0.0).tolist() == [[[0, 96, 192, 240]]]  # four bits


def test_one_to_three_operations_each_as_often() -> None:
    change, counts, lengths = RandIntensityOps("image").set_random_state(0), Counter[str](), Counter[int]()
    for _ in range(600):
        change.randomize()
        names = [name for name, _ in change.drawn]
        assert len(set(names)) == len(names)
        lengths[len(names)] += 1
        counts.update(names)
    assert set(lengths) == {1, 2, 3} and min(lengths.values()) > 150
    assert set(counts) == set(OPERATIONS) and min(counts.values()) > 80


def test_a_seed_gives_one_view_and_the_picture_stays() -> None:
    change, before = RandIntensityOps("image"), PICTURE.clone()
    views = [change.set_random_state(seed)({"image": PICTURE})["image"] for seed in (1, 1, 2)]
    assert torch.equal(views[0], views[1]) and not torch.equal(views[0], views[2])
    assert torch.equal(PICTURE, before) and all(0 <= view.min() and view.max() <= 1 for view in views)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ProPLError, match="unknown kind of strong view 'augseg'"):
        strong("image", 1.0, "augseg")
    assert len(strong("image", 1.0, "random")) == 1 and len(strong("image", 0.5)) == 5

"""CutMix by hand on pictures of 4 × 4, and what is drawn."""

from __future__ import annotations

import pytest
import torch

from propl_monai.errors import ProPLError
from propl_monai.training.cutmix import CutMix, cutmix, draw_cutmix, draw_for, taught_view

HEART, NECK = "left atrium", "thyroid gland"


def test_boxes_by_hand() -> None:
    """Picture 0 takes the two rows in the middle of 2, picture 1 stays, picture 2 takes a corner of 0."""
    maps = torch.stack([torch.full((1, 4, 4), value) for value in (1.0, 2.0, 3.0)])
    drawing = CutMix(torch.tensor([2, 1, 0]), torch.tensor([[1, 0, 3, 4], [2, 2, 2, 2], [0, 3, 2, 4]]))
    first = [[1, 1, 1, 1], [3, 3, 3, 3], [3, 3, 3, 3], [1, 1, 1, 1]]
    last = [[3, 3, 3, 1], [3, 3, 3, 1], [3, 3, 3, 3], [3, 3, 3, 3]]
    mixed = cutmix(drawing, maps)
    assert mixed[:, 0].tolist() == [first, [[2] * 4] * 4, last]
    assert maps.amax((1, 2, 3)).tolist() == maps.amin((1, 2, 3)).tolist() == [1, 2, 3]  # left as they were


def test_every_channel_is_mixed_alike() -> None:
    maps = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    drawing = CutMix(torch.tensor([1, 0]), torch.tensor([[0, 0, 4, 4], [0, 0, 1, 1]]))
    mixed = cutmix(drawing, maps)
    assert torch.equal(mixed[0], maps[1])
    assert torch.equal(mixed[1, :, 0, 0], maps[0, :, 0, 0]) and torch.equal(mixed[1, :, 1:], maps[1, :, 1:])


def test_partners_have_the_same_task_and_are_others() -> None:
    torch.manual_seed(0)
    tasks = [HEART, NECK, HEART, NECK, HEART, "ovarian tumor"]
    givers = set()
    for _ in range(50):
        partners = draw_cutmix(tasks, 8, 8, 1.0).partners.tolist()
        assert all(tasks[giver] == task for giver, task in zip(partners, tasks, strict=True))
        assert all(giver != number for number, giver in enumerate(partners[:5])) and partners[5] == 5
        givers.add(partners[0])
    assert givers == {2, 4}


def test_a_picture_alone_with_its_task_stays_whole() -> None:
    torch.manual_seed(0)
    maps = torch.rand(2, 1, 8, 8)
    for _ in range(20):
        assert torch.equal(cutmix(draw_cutmix([HEART, NECK], 8, 8, 1.0), maps), maps)
    assert torch.equal(cutmix(draw_cutmix([HEART], 8, 8, 1.0), maps[:1]), maps[:1])


def test_boxes_lie_inside_and_their_share_of_the_area_is_uniform() -> None:
    torch.manual_seed(0)
    top, left, bottom, right = draw_cutmix([HEART] * 2000, 40, 60, 1.0).boxes.unbind(1)
    assert 0 <= top.min() and bottom.max() <= 40 and 0 <= left.min() and right.max() <= 60
    assert bool((top <= bottom).all() and (left <= right).all())
    share = ((bottom - top) * (right - left) / (40 * 60)).sort().values
    assert (share - torch.linspace(0, 1, 2000)).abs().max() < 0.05
    assert top.unique().numel() > 30 and left.unique().numel() > 45


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_so_often_as_asked(probability: float) -> None:
    torch.manual_seed(0)
    mixed = draw_cutmix([HEART] * 2000, 64, 64, probability).partners != torch.arange(2000)
    assert mixed.float().mean().item() == pytest.approx(probability, abs=0.03)


def test_what_is_drawn_depends_on_the_state_of_torch_alone() -> None:
    def draw(seed: int, tasks: list[str]) -> tuple[list, float]:
        torch.manual_seed(seed)
        return draw_cutmix(tasks, 32, 32, 0.5).boxes.tolist(), torch.rand(()).item()

    assert draw(1, [HEART] * 6) == draw(1, [HEART] * 6)
    assert draw(1, [HEART] * 6)[0] != draw(2, [HEART] * 6)[0]
    assert draw(1, [HEART] * 6)[1] == draw(1, [HEART, NECK] * 3)[1]  # what follows does not depend on the tasks


def test_probability_zero_draws_nothing_at_all() -> None:
    batch = {"image": torch.rand(2, 1, 8, 8), "image_strong": torch.rand(2, 1, 8, 8), "task": [HEART, HEART]}
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert draw_for(batch, 0.0) is None and torch.equal(torch.get_rng_state(), before)
    assert taught_view(batch, None) is batch["image_strong"]
    drawing = draw_for(batch, 1.0)
    assert drawing is not None
    assert torch.equal(taught_view(batch, drawing), cutmix(drawing, batch["image_strong"]))


def test_without_tasks_all_pictures_are_of_the_default_task() -> None:
    torch.manual_seed(0)
    drawing = draw_for({"image": torch.rand(2, 1, 8, 8)}, 1.0)
    assert drawing is not None and drawing.partners.tolist() == [1, 0]


@pytest.mark.parametrize("probability", [-0.1, 1.5])
def test_no_probability(probability: float) -> None:
    with pytest.raises(ProPLError, match=r"cutmix: .* is outside 0…1"):
        draw_cutmix([HEART], 8, 8, probability)


def test_tasks_that_are_not_named_stay_whole() -> None:
    torch.manual_seed(0)
    batch = {"image": torch.rand(6, 1, 8, 8), "task": [HEART, NECK] * 3}
    drawing = draw_for(batch, 1.0, [NECK])
    assert drawing is not None
    mixed = cutmix(drawing, batch["image"])
    assert torch.equal(mixed[::2], batch["image"][::2]) and not torch.equal(mixed[1::2], batch["image"][1::2])
    # Nothing else changes: the others get the boxes that they would get with all tasks.
    torch.manual_seed(0)
    _ = torch.rand(6, 1, 8, 8)
    whole = draw_for(batch, 1.0)
    assert whole is not None and torch.equal(whole.boxes[1::2], drawing.boxes[1::2])

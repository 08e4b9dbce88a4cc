"""VerSemi by hand: what each head learns on which pixel, the unknown pixels of images that tasks share, and its stages."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from factories import TINY_ENCODER
from torch import Tensor
from worked import wave

from propl_monai.errors import ProPLError
from propl_monai.model.networks.versemi import VerSemi
from propl_monai.training.cutmix import inside
from propl_monai.training.losses import BCEDiceLoss
from propl_monai.training.methods.versemi import (
    Mixed,
    VerSemiMethod,
    aggregate,
    in_mix,
    paste,
    specific,
    squared_dice,
    union,
)

# Of the network's eight tasks, in their order.
BREAST, HEAD, ATRIUM, VENTRICLE, MYOCARDIUM, OVARY, GLAND, NODULE = range(8)
NAMES = ["breast cancer", "fetal head", "left atrium", "left ventricle", "myocardium", "ovarian tumor"]
NAMES += ["thyroid gland", "thyroid nodule"]


@pytest.fixture(scope="module")
def start() -> VerSemi:
    torch.manual_seed(0)
    return VerSemi(TINY_ENCODER)


@pytest.fixture(scope="module")
def shared(start: VerSemi) -> Tensor:
    return VerSemiMethod(start).shared


def method(start: VerSemi, **options: Any) -> VerSemiMethod:
    return VerSemiMethod(copy.deepcopy(start), **options).train()


def batch(seed: int, tasks: list[int], labelled: bool = False) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    image, other = (torch.randn(len(tasks), 1, 64, 64, generator=generator) for _ in range(2))
    label = {"label": (other > 0.5).float()} if labelled else {}
    return {"image": image, "task": [NAMES[task] for task in tasks]} | label


def rows(text: str) -> Tensor:
    """A map (1, 1, H, W) of digits, one row a line."""
    return torch.tensor([[[[float(digit) for digit in row] for row in text.split()]]])


def mixed(outer: int, inner: int) -> Mixed:
    """Of 2 × 4 pixels, whose right half is the box."""
    box = rows("0011 0011") > 0
    return Mixed(torch.zeros(1, 1, 2, 4), box, torch.tensor([outer]), torch.tensor([inner]))


OUTSIDE, WITHIN = rows("1011 0000"), rows("1110 0001")


# --- what is shared, and what follows for labels


def test_which_tasks_share_images_follows_from_their_organs(shared: Tensor) -> None:
    pairs = {(one, other) for one, other in shared.nonzero().tolist() if one < other}
    assert pairs == {(ATRIUM, VENTRICLE), (ATRIUM, MYOCARDIUM), (VENTRICLE, MYOCARDIUM), (GLAND, NODULE)}
    assert torch.equal(shared, shared.T) and not shared.diagonal().any()


def test_the_union_of_two_data_sets_is_known_everywhere(shared: Tensor) -> None:
    target, known = union(mixed(BREAST, OVARY), OUTSIDE, WITHIN, shared)
    assert torch.equal(target, rows("1010 0001")) and bool(known.all())


def test_the_union_label_trap(shared: Tensor) -> None:
    """A label of the left atrium does not say where the ventricle is: its background is unknown to the synthetic head."""
    target, known = union(mixed(BREAST, ATRIUM), OUTSIDE, WITHIN, shared)
    assert torch.equal(target, rows("1010 0001"))
    assert torch.equal(known, rows("1110 1101"))  # the whole left half, and in the box the foreground alone
    _, known = union(mixed(VENTRICLE, GLAND), OUTSIDE, WITHIN, shared)
    assert torch.equal(known, rows("1010 0001"))
    _, known = union(mixed(VENTRICLE, GLAND), OUTSIDE, WITHIN, torch.zeros_like(shared))
    assert bool(known.all())  # as the released code has it, for one data set a task


def test_each_head_learns_its_own_foreground_and_silence_on_the_other_image(shared: Tensor) -> None:
    outer, inner = specific(mixed(BREAST, ATRIUM), OUTSIDE, WITHIN, shared)
    assert torch.equal(outer[0], rows("1000 0000")) and torch.equal(inner[0], rows("0010 0001"))
    assert bool(outer[1].all()) and bool(inner[1].all())


def test_heads_of_one_organ_learn_nothing_on_each_other_s_image(shared: Tensor) -> None:
    outer, inner = specific(mixed(VENTRICLE, ATRIUM), OUTSIDE, WITHIN, shared)
    assert torch.equal(outer[1], rows("1100 1100")) and torch.equal(inner[1], rows("0011 0011"))


def test_heads_of_the_same_task_learn_both_images(shared: Tensor) -> None:
    """Halves of one task: the mixed label for both, all of it known."""
    outer, inner = specific(mixed(ATRIUM, ATRIUM), OUTSIDE, WITHIN, shared)
    assert torch.equal(outer[0], rows("1010 0001")) and torch.equal(inner[0], outer[0])
    assert bool(outer[1].all()) and bool(inner[1].all())


def test_tasks_in_a_mix_are_those_of_its_images_and_what_these_may_show_beside(shared: Tensor) -> None:
    found = in_mix(mixed(ATRIUM, BREAST), shared)
    assert found.nonzero()[:, 1].tolist() == [BREAST, ATRIUM, VENTRICLE, MYOCARDIUM]
    found = in_mix(mixed(ATRIUM, BREAST), torch.zeros_like(shared))
    assert found.nonzero()[:, 1].tolist() == [BREAST, ATRIUM]


def test_the_aggregate_is_the_largest_of_the_wanted_probabilities() -> None:
    probability = torch.tensor([0.2, 0.9, 0.4, 0.6, 0.1, 0.3]).reshape(1, 3, 1, 2)
    assert aggregate(probability, torch.tensor([[True, True, True]])).flatten().tolist() == pytest.approx([0.4, 0.9])
    assert aggregate(probability, torch.tensor([[False, True, True]])).flatten().tolist() == pytest.approx([0.4, 0.6])


def test_a_box_has_its_side_and_shows_the_inner_image() -> None:
    torch.manual_seed(0)
    outside, within = torch.zeros(3, 1, 30, 60), torch.ones(3, 1, 30, 60)
    tasks = torch.zeros(3, dtype=torch.int64)
    found = paste(outside, within, torch.tensor([0.0, 0.5, 2 / 3]), tasks, tasks)
    assert found.image.sum((1, 2, 3)).tolist() == [0, 15 * 30, 20 * 40]
    assert torch.equal(found.image, found.box.float())


# --- losses by hand


def by_hand(probability: Tensor, target: Tensor, weight: Tensor) -> float:
    p, t = probability * weight, target * weight
    return float(1 - (2 * (p * t).sum() + 1) / ((p * p).sum() + (t * t).sum() + 1))


def test_dice_counts_known_pixels_only_and_squares_areas() -> None:
    p, t, w = rows("1000 0000") * 0.5, rows("1100 0000"), rows("1011 1111")
    # On the known pixels: overlap 0.5, squared areas 0.25 and 1.
    assert float(squared_dice(p, t, w)) == pytest.approx(1 - 2 / 2.25)
    equal = torch.full((1, 1, 2, 4), 0.3)
    assert float(squared_dice(equal, equal, torch.ones_like(equal))) == pytest.approx(0)


def test_the_first_stage(start: VerSemi, shared: Tensor) -> None:
    given, made = batch(1, [BREAST, ATRIUM, VENTRICLE, OVARY], True), method(start)
    torch.manual_seed(4)
    found = made(given, batch(2, [HEAD] * 3), 0.49)
    torch.manual_seed(4)
    numbers = torch.tensor([BREAST, ATRIUM, VENTRICLE, OVARY])
    pairs = paste(given["image"][:2], given["image"][2:], torch.full((2,), 2 / 3), numbers[:2], numbers[2:])
    labels = given["label"][:2], given["label"][2:]
    with torch.no_grad():
        net = copy.deepcopy(start).train()
        maps, pooled = net.decoder.shown(net.features(torch.cat((given["image"], pairs.image))))
        own = net.heads((maps[:4], pooled[:4]), numbers[:, None])
        asked = torch.stack((numbers[:2], numbers[2:], torch.full((2,), 8)), 1)
        probability = net.heads((maps[4:], pooled[4:]), asked).sigmoid()
        supervised = float(BCEDiceLoss()(own, given["label"]))
        chaos = by_hand(probability[:, 2:], *union(pairs, *labels, shared))
        each = specific(pairs, *labels, shared)
        special = (by_hand(probability[:, :1], *each[0]) + by_hand(probability[:, 1:2], *each[1])) / 2
    assert torch.equal(found["logits"], own) and "pseudo" not in found
    assert float(found["supervised"]) == pytest.approx(supervised, abs=1e-5)
    assert float(found["chaos"]) == pytest.approx(chaos, abs=1e-5)
    assert float(found["specific"]) == pytest.approx(special, abs=1e-5)
    assert found["loss"].item() == pytest.approx(supervised + chaos + special, abs=1e-4)
    assert 0 < float(found["unknown"]) < 1


def test_the_second_stage(start: VerSemi, shared: Tensor) -> None:
    first, second = batch(1, [BREAST, ATRIUM], True), batch(2, [HEAD, GLAND, MYOCARDIUM])
    made = method(start, unlabelled_weight=2.0, aggregate_over="tasks_in_mix")
    torch.manual_seed(4)
    found = made(first, second, 0.5)
    torch.manual_seed(4)
    numbers, others = torch.tensor([BREAST, ATRIUM]), torch.tensor([HEAD, GLAND, MYOCARDIUM])
    pairs = paste(first["image"][:1], first["image"][1:], 0.3 + 0.3 * torch.rand(1), numbers[:1], numbers[1:])
    rows = torch.tensor([0, 1, 0])
    pasted = paste(second["image"], first["image"][rows], 0.3 + 0.3 * torch.rand(3), others, numbers[rows])
    with torch.no_grad():
        net = copy.deepcopy(start).train()
        maps, pooled = net.decoder.shown(net.features(torch.cat((first["image"], pairs.image, pasted.image))))
        own = net.heads((maps[:2], pooled[:2]), numbers[:, None])
        one = net.heads((maps[2:3], pooled[2:3]), torch.tensor([[8]]))
        three = net.heads((maps[3:], pooled[3:]), torch.arange(9).expand(3, 9))
        supervised = float(BCEDiceLoss()(own, first["label"]))
        chaos = by_hand(one.sigmoid(), *union(pairs, first["label"][:1], first["label"][1:], shared))
        all_heads, label = three.sigmoid(), first["label"][rows]
        target = aggregate(all_heads[:, :8], in_mix(pasted, shared))
        consistency = by_hand(all_heads[:, 8:], target, torch.ones_like(target))
        background = ~shared.any(1)[numbers[rows]][:, None, None, None]
        boxed = by_hand(all_heads[:, 8:], label, pasted.box * ((label > 0) | background))
    assert float(found["chaos"]) == pytest.approx(chaos, abs=1e-5) and "specific" not in found
    assert float(found["pseudo"]) == pytest.approx(consistency, abs=1e-5)
    assert float(found["boxed"]) == pytest.approx(boxed, abs=1e-5)
    assert found["loss"].item() == pytest.approx(supervised + chaos + boxed + 2 * consistency, abs=1e-4)


def test_both_sides_of_the_consistency_learn(start: VerSemi) -> None:
    """Without labels there is nothing else, and the head of a task that no image has learns too."""
    made = method(start)
    made(None, batch(2, [HEAD, GLAND]), 0.9)["loss"].backward()
    weight = made.network.decoder.controller.weight.grad
    assert weight is not None and bool(weight[:, -9:].any(0)[[HEAD, BREAST, 8]].all())


def test_a_batch_of_one_heart_teaches_the_synthetic_head_its_foreground_alone(start: VerSemi) -> None:
    """The trap in the whole method: what the label of the atrium leaves out may be lit or dark, the loss is the same."""
    given = batch(1, [ATRIUM, VENTRICLE], True)
    given["label"][:] = 0
    torch.manual_seed(4)
    found = method(start)(given, None, 0.1)
    assert float(found["unknown"]) == 1 and float(found["chaos"]) == 0
    torch.manual_seed(4)
    released = method(start, mask_unknown=False)(given, None, 0.1)
    assert float(released["unknown"]) == 0 and float(released["chaos"]) > 0.5


# --- its parts


@pytest.mark.parametrize(
    ("progress", "off"),
    [
        (0.1, {"chaos_weight": 0.0}),
        (0.1, {"specific_weight": 0.0}),
        (0.1, {"side": 0.2}),
        (0.1, {"mask_unknown": False}),
        (0.1, {"warmup_fraction": 0.0}),
        (0.9, {"chaos_weight": 0.0}),
        (0.9, {"unlabelled_weight": 0.0}),
        (0.9, {"aggregate_over": "tasks_in_mix"}),
        (0.9, {"later_sides": (0.9, 0.9)}),
        (0.9, {"mask_unknown": False}),
        (0.9, {"warmup_fraction": 1.0}),
    ],
)
def test_its_parts_change_the_loss(start: VerSemi, progress: float, off: dict[str, Any]) -> None:
    losses = []
    for options in ({}, off):
        torch.manual_seed(4)
        made = method(start, **options)
        losses.append(made(batch(1, [BREAST, ATRIUM], True), batch(2, [HEAD, NODULE]), progress)["loss"].item())
    assert abs(losses[0] - losses[1]) > 1e-4


def test_refusals(start: VerSemi) -> None:
    for option, value in (("warmup_fraction", 50), ("side", -0.1), ("later_sides", (0.3, 1.2))):
        with pytest.raises(ProPLError, match=f"versemi {option}: .* is outside 0…1"):
            VerSemiMethod(start, **{option: value})  # type: ignore[arg-type]
    with pytest.raises(ProPLError, match="versemi aggregate_over: unknown choice 'both'"):
        VerSemiMethod(start, aggregate_over="both")
    with pytest.raises(ProPLError, match="versemi later_sides: are 1 numbers"):
        VerSemiMethod(start, later_sides=(0.3,))
    given = batch(1, [BREAST], True)
    del given["task"]
    with pytest.raises(ProPLError, match="task: none was given"):
        method(start)(given, None, 0.1)


def test_the_numbers_of_the_released_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """maxwell0027/VerSemi at e331a7b: a step of each stage with heads that see single pixels, and its smoothing of 1e-5.

    L_box is that of one image: in a larger batch the code's mask has an axis more than its probabilities.
    """
    monkeypatch.setattr("propl_monai.training.methods.versemi.SMOOTH", 1e-5)
    slope, shift = torch.tensor([2.0, -1.5, 1.0, 0.5, 1.2]), torch.tensor([-0.5, 0.2, -1.0, 0.3, -0.1])

    def head(image: Tensor, number: list[int]) -> Tensor:
        return (image * slope[number][:, None, None, None] + shift[number][:, None, None, None]).sigmoid()

    image, label = wave(4, 1, 4, 6), (wave(4, 1, 4, 6, phase=2) > 0.3).float()
    box = inside(torch.tensor([[1, 1, 3, 5], [0, 2, 2, 6]]), image[:2])
    apart, synthetic = torch.zeros(5, 5, dtype=torch.bool), [4, 4]  # one data set a task
    pairs = Mixed(torch.where(box, image[2:], image[:2]), box, torch.tensor([0, 1]), torch.tensor([2, 1]))
    chaos = squared_dice(head(pairs.image, synthetic), *union(pairs, label[:2], label[2:], apart))
    assert float(chaos) == pytest.approx(0.502933, abs=1e-6)
    outer, inner = specific(pairs, label[:2], label[2:], apart)
    assert float(squared_dice(head(pairs.image, [0, 1]), *outer)) == pytest.approx(0.408364, abs=1e-6)
    assert float(squared_dice(head(pairs.image, [2, 1]), *inner)) == pytest.approx(0.339794, abs=1e-6)

    unknown = torch.tensor([3, 3])
    free = Mixed(torch.where(box, image[:2], wave(2, 1, 4, 6, phase=3)), box, unknown, torch.tensor([0, 1]))
    heads = torch.cat([head(free.image, [number] * 2) for number in range(4)], 1)
    target = aggregate(heads, torch.ones(2, 4, dtype=torch.bool))
    consistency = squared_dice(head(free.image, synthetic), target, torch.ones_like(target))
    assert float(consistency) == pytest.approx(0.117267, abs=1e-6)
    first = Mixed(free.image[:1], box[:1], unknown[:1], torch.tensor([0]))
    target, known = union(first, torch.zeros(1, 1, 4, 6), label[:1], apart)
    boxed = squared_dice(head(first.image, [4]), target, known * first.box)
    assert float(boxed) == pytest.approx(0.401024, abs=1e-6)

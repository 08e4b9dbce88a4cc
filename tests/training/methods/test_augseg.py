"""AugSeg by hand: whom labelled boxes help, and what the mixed images learn."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from worked import CrossEntropy, Pointwise, labelled, unlabelled

from propl_monai import ProPL
from propl_monai.training.cutmix import CutMix
from propl_monai.training.losses import BCEDiceLoss
from propl_monai.training.methods.augseg import AugSegMethod, sureness


def batch(seed: int, tasks: list[str], labelled: bool = False) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    image, other = (torch.randn(len(tasks), 1, 64, 64, generator=generator) for _ in range(2))
    return {"image": image, "task": tasks} | ({"label": (other > 0).float()} if labelled else {"image_strong": other})


ONE = ["left atrium"]
DOUBT = torch.full((4, 1, 64, 64), 0.5)


def test_doubtful_images_get_boxes_of_labelled_images_of_their_task(net: ProPL) -> None:
    """The trap: the original pastes any labelled image, here a box of another target would lie about this prompt."""
    method = AugSegMethod(net)
    first, second = batch(1, ["TN", "LA", "TN"], True), batch(2, ["LA", "MD", "TN", "LA"])
    areas = []
    for seed in range(40):
        torch.manual_seed(seed)
        drawing = method._draw_aid(first, second, DOUBT)
        assert drawing.partners[0] == drawing.partners[3] == 5 and drawing.partners[2] in (4, 6)
        assert drawing.partners[1] == 1 and drawing.partners[4:].tolist() == [4, 5, 6]  # no partner; labelled ones stay
        top, left, bottom, right = drawing.boxes[0].tolist()
        areas.append((bottom - top) * (right - left) / 64**2)
        assert (drawing.boxes[[1, 4, 5, 6], 2] == drawing.boxes[[1, 4, 5, 6], 0]).all()  # of no height
    assert 0.15 < sum(areas) / len(areas) < 0.25  # 1 - λ, λ of mean 0.8
    sure = method._draw_aid(first, second, torch.ones(4, 1, 64, 64))
    assert sure.partners.tolist() == [0, 1, 2, 3, 4, 5, 6]  # s = 1: never


def test_a_box_brings_its_label_and_counts(net: ProPL) -> None:
    """A teacher in doubt everywhere: no pixel of its own counts, those of the box do, with the label's mask."""
    first, second = batch(1, ONE, True), batch(2, ONE)
    method = AugSegMethod(copy.deepcopy(net), confidence=0.99, cutmix=0.0).train()
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.zero_()
    torch.manual_seed(1)
    found = method(first, second, 0.5)
    torch.manual_seed(1)
    top, left, bottom, right = method._draw_aid(first, second, DOUBT[:1]).boxes[0].tolist()
    box = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    box[..., top:bottom, left:right] = True
    with torch.no_grad():
        mixed = torch.where(box, first["image"], second["image_strong"])
        logits = copy.deepcopy(net).train()(torch.cat((first["image"], mixed)), task=ONE * 2, decoder="sd")
        pseudo = BCEDiceLoss()(logits[1:], first["label"] * box, box.float())
    assert float(found["aided"]) == 1 and float(found["confident"]) == pytest.approx(float(box.float().mean()))
    assert float(found["pseudo"]) == pytest.approx(float(pseudo), abs=1e-5)
    assert found["loss"].item() == pytest.approx(float(BCEDiceLoss()(logits[:1], first["label"]) + pseudo), abs=1e-5)


@pytest.mark.parametrize(
    "off", [{"label_aid": False}, {"cutmix": 0.0}, {"unlabelled_weight": 0.0}, {"confidence": 0.7}]
)
def test_its_parts_change_the_loss(net: ProPL, off: dict[str, Any]) -> None:
    losses = []
    for options in ({}, off):
        torch.manual_seed(3)
        method = AugSegMethod(copy.deepcopy(net), **{"confidence": 0.5, **options}).train()
        losses.append(method(batch(1, ONE * 2, True), batch(2, ONE * 2), 0.5)["loss"].item())
    assert abs(losses[0] - losses[1]) > 1e-4


def test_the_numbers_of_the_released_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """ZhenZHAO/AugSeg at 7ead870: the confidence of images, and the loss where the first has a box of a labelled one."""
    method = AugSegMethod(Pointwise(), cutmix=0.0).train()
    with torch.no_grad():
        probability = method.network(unlabelled()["image"], task="breast cancer").sigmoid()
    assert sureness(probability).tolist() == pytest.approx([0.517521, 0.419952], abs=1e-5)
    boxes = torch.tensor([[1, 0, 3, 3], *[[0, 0, 0, 0]] * 3])
    monkeypatch.setattr(method, "_draw_aid", lambda *_: CutMix(torch.tensor([2, 1, 2, 3]), boxes))
    method.loss = CrossEntropy()  # type: ignore[assignment]
    found = method(labelled(), unlabelled(), 0.5)
    assert float(found["confident"]) == 0.4375
    assert float(found["pseudo"]) == pytest.approx(0.252038, abs=1e-6)

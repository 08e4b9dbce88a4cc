"""Bidirectional copy-paste by hand: who exchanges a box with whom, and which pixels are learnt from which label."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from worked import CrossEntropy, Pointwise, labelled, unlabelled

from propl_monai import ProPL
from propl_monai.errors import ProPLError
from propl_monai.training.cutmix import CutMix
from propl_monai.training.losses import BCEDiceLoss
from propl_monai.training.methods.bcp import BCPMethod, draw_exchange


def batch(seed: int, tasks: list[str], labelled: bool = False) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    image, other = (torch.randn(len(tasks), 1, 64, 64, generator=generator) for _ in range(2))
    return {"image": image, "task": tasks} | ({"label": (other > 0).float()} if labelled else {})


def test_pairs_have_one_task_and_one_box() -> None:
    """The trap: a box of another target is background under this prompt, or so the pasted label would say."""
    tasks = ["TG", "LA", "LA", "MD", "LA", "TG", "TN", "LA"]
    for seed in range(30):
        torch.manual_seed(seed)
        drawing = draw_exchange(tasks, 4, 60, 90, 2 / 3)
        for one, other in enumerate(drawing.partners.tolist()):
            top, left, bottom, right = drawing.boxes[one].tolist()
            assert drawing.partners[other] == one and tasks[one] == tasks[other]
            assert torch.equal(drawing.boxes[one], drawing.boxes[other])
            if one != other:
                assert (one < 4) != (other < 4) and (bottom - top, right - left) == (40, 60)
                assert 0 <= top <= 20 and 0 <= left <= 30
        assert drawing.partners[[3, 6]].tolist() == [3, 6]  # alone with their tasks
        assert (drawing.partners != torch.arange(8)).sum() == 6


def test_mixed_images_learn_labels_on_labelled_pixels_and_the_teacher_s_on_the_others(net: ProPL) -> None:
    first, second = batch(1, ["left atrium"], labelled=True), batch(2, ["left atrium"])
    torch.manual_seed(4)
    method = BCPMethod(copy.deepcopy(net), largest_component=False, unlabelled_weight=0.5).train()
    found = method(first, second, 0.5)
    torch.manual_seed(4)
    top, left, bottom, right = draw_exchange(["a", "a"], 1, 64, 64, 2 / 3).boxes[0].tolist()
    box = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    box[..., top:bottom, left:right] = True
    with torch.no_grad():
        taught = (copy.deepcopy(net).eval()(second["image"], task="left atrium", decoder="sd") > 0).float()
        inward = torch.where(box, second["image"], first["image"]), torch.where(box, taught, first["label"])
        outward = torch.where(box, first["image"], second["image"]), torch.where(box, first["label"], taught)
        logits = copy.deepcopy(net).train()(torch.cat((inward[0], outward[0])), task=["left atrium"] * 2, decoder="sd")
        inside, outside = (one / one.mean() for one in (box.float(), 1 - box.float()))  # means over these pixels alone
        loss = BCEDiceLoss()
        on_labels = loss(logits[:1], inward[1], outside) + loss(logits[1:], outward[1], inside)
        on_pseudo = loss(logits[:1], inward[1], inside) + loss(logits[1:], outward[1], outside)
    assert found["supervised"].item() == pytest.approx(float(on_labels), abs=1e-5)
    assert found["loss"].item() == pytest.approx(float(on_labels + 0.5 * on_pseudo), abs=1e-5)
    assert float(found["mixed"]) == 1


def test_its_parts_change_the_loss(net: ProPL) -> None:
    losses = {}
    for name, options in {"whole": {}, "side": {"side": 0.0}, "α": {"unlabelled_weight": 0.0}}.items():
        torch.manual_seed(4)
        method = BCPMethod(copy.deepcopy(net), **options).train()  # type: ignore[arg-type]
        losses[name] = method(batch(1, ["left atrium"] * 2, True), batch(2, ["left atrium"] * 2), 0.5)["loss"].item()
    assert len({round(value, 4) for value in losses.values()}) == 3


def test_the_first_quarter_mixes_labelled_images_with_each_other(net: ProPL) -> None:
    method = BCPMethod(net, largest_component=False).train()
    torch.manual_seed(0)
    early = method(batch(1, ["left atrium"] * 2, True), batch(2, ["left atrium"] * 2), 0.24)
    assert "pseudo" not in early and float(early["mixed"]) == 1 and early["logits"].shape == (2, 1, 64, 64)
    assert early["loss"].item() == pytest.approx(early["supervised"].item())
    assert "pseudo" in method(batch(1, ["left atrium"] * 2, True), batch(2, ["left atrium"] * 2), 0.25)


def test_the_largest_component_of_a_pseudo_label_is_kept(net: ProPL) -> None:
    given = batch(2, ["left atrium"] * 2)
    whole, largest = (BCPMethod(net, largest_component=switch).teach(given) for switch in (False, True))
    assert largest.shape == whole.shape and bool((largest <= whole).all()) and 0 < largest.sum() < whole.sum()


def test_options_out_of_range_are_refused(net: ProPL) -> None:
    for option in ("side", "warmup"):
        with pytest.raises(ProPLError, match=f"bcp {option}: 1.0 is outside"):
            BCPMethod(net, **{option: 1.0})  # type: ignore[arg-type]


def test_the_numbers_of_the_released_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepMed-Lab-ECNU/BCP at 7879f98, ACDC: the cross-entropies of both mixed images, α on pseudo-labels."""
    drawing = CutMix(torch.tensor([1, 0]), torch.tensor([[1, 2, 3, 5]] * 2))
    monkeypatch.setattr("propl_monai.training.methods.bcp.draw_exchange", lambda *_: drawing)
    method = BCPMethod(Pointwise(), largest_component=False).train()
    method.loss = CrossEntropy()  # type: ignore[assignment]
    first, second = ({key: value[:1] for key, value in given.items()} for given in (labelled(), unlabelled()))
    assert method(first, second, 0.5)["loss"].item() == pytest.approx(3.721988, abs=1e-5)

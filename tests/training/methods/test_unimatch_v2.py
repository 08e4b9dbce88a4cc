"""UniMatch V2 by hand: channels that complement each other, and the teacher's labels for both strong views."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from worked import CrossEntropy, Pointwise, drawings, labelled, unlabelled

from propl_monai import ProPL
from propl_monai.errors import ProPLError
from propl_monai.model.encoder import Features
from propl_monai.training.losses import BCEDiceLoss
from propl_monai.training.methods.unimatch_v2 import UniMatchV2Method, complementary_dropout

TASKS = ["left atrium", "left atrium"]
ALL = {"confidence": 0.5, "cutmix": 1.0}


def batch(seed: int, labelled: bool = False) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    image, other, third = (torch.randn(2, 1, 64, 64, generator=generator) for _ in range(3))
    views = {"image_strong": other, "image_strong_2": third}
    return {"image": image, "task": TASKS} | ({"label": (other > 0).float()} if labelled else views)


def result_of(net: ProPL, **options: Any) -> dict[str, Tensor]:
    torch.manual_seed(5)
    return UniMatchV2Method(copy.deepcopy(net), **{**ALL, **options}).train()(batch(1, True), batch(2), 0.5)


def test_a_channel_that_one_view_loses_is_doubled_in_the_other() -> None:
    """In half of the images; the others, and labelled ones, are left whole."""
    torch.manual_seed(0)
    maps = [torch.ones(3 + 2 * 4, 32, 2, 2) for _ in range(4)]
    found = complementary_dropout(Features(*maps, 64, 64, (torch.ones(11, 3, 9, 9),)), 3)
    assert torch.equal(found.finer[0], torch.ones(11, 3, 9, 9))
    for one in found[:4]:
        first, second = one[3:].chunk(2)
        assert torch.equal(one[:3], maps[0][:3]) and torch.equal(first + second, torch.full_like(first, 2))
        whole = (first == 1).flatten(1).all(1)
        assert int(whole.sum()) == 2 and set(first[~whole].unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(found.v1, found.v2)  # each map has a mask of its own


def test_both_strong_views_learn_the_teacher_s_labels(net: ProPL) -> None:
    """Without dropout and CutMix, from one pass; the teacher labels in eval mode, and predicts in the end."""
    first, second = batch(1, True), batch(2)
    found = result_of(net, complementary=False, cutmix=0.0)
    image = torch.cat((first["image"], second["image_strong"], second["image_strong_2"]))
    with torch.no_grad():
        logits = copy.deepcopy(net).train()(image, task=TASKS * 3, decoder="sd")
        target = (copy.deepcopy(net).eval()(second["image"], task=TASKS, decoder="sd") > 0).float()
    pseudo = sum(BCEDiceLoss()(logits[at : at + 2], target) for at in (2, 4)) / 2
    assert float(found["pseudo"]) == pytest.approx(float(pseudo), abs=1e-5)
    assert found["loss"].item() == pytest.approx(float(BCEDiceLoss()(logits[:2], first["label"]) + pseudo), abs=1e-5)
    method = UniMatchV2Method(net)
    assert method.predictor is method.teacher.module


@pytest.mark.parametrize(
    "off", [{"complementary": False}, {"cutmix": 0.0}, {"confidence": 0.6}, {"unlabelled_weight": 0.0}]
)
def test_its_parts_change_the_loss(net: ProPL, off: dict[str, Any]) -> None:
    assert abs(result_of(net, **off)["loss"] - result_of(net)["loss"]) > 1e-4


def test_the_second_strong_view_must_be_there(net: ProPL) -> None:
    given = batch(2)
    del given["image_strong_2"]
    with pytest.raises(ProPLError, match=r"unimatch_v2: needs two strong views, .* as unimatch_v2.json does"):
        UniMatchV2Method(net).train()(None, given, 0.5)


def test_the_numbers_of_the_released_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """LiheYoung/UniMatch-V2 at f6afb4d, without dropped channels: twice its loss, which is half of the sum."""
    each = iter(drawings())
    monkeypatch.setattr("propl_monai.training.methods.unimatch_v2.draw_for", lambda *_: next(each))
    method = UniMatchV2Method(Pointwise(), complementary=False).train()
    method.loss = CrossEntropy()  # type: ignore[assignment]
    found = method(labelled(), unlabelled(), 0.5)
    assert float(found["pseudo"]) == pytest.approx(0.397111, abs=1e-6)
    assert found["loss"].item() == pytest.approx(2.003459, abs=1e-5)

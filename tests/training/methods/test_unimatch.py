"""UniMatch by hand: two strong views and one of the features, all taught by one pseudo-label."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from worked import CrossEntropy, Pointwise, drawings, labelled, unlabelled

from propl_monai import ProPL
from propl_monai.errors import ProPLError
from propl_monai.training.losses import BCEDiceLoss
from propl_monai.training.methods.unimatch import UniMatchMethod

TASKS = ["left atrium", "left atrium"]
ALL = {"confidence": 0.5, "feature_dropout": 0.5, "unlabelled_weight": 1.0, "cutmix": 1.0}


def batch(seed: int, labelled: bool = False) -> dict:
    generator = torch.Generator().manual_seed(seed)
    image, other, third = (torch.randn(2, 1, 64, 64, generator=generator) for _ in range(3))
    views = {"image_strong": other, "image_strong_2": third}
    return {"image": image, "task": TASKS} | ({"label": (other > 0).float()} if labelled else views)


def result_of(net: ProPL, **options: float) -> dict[str, Tensor]:
    torch.manual_seed(5)
    return UniMatchMethod(copy.deepcopy(net), **{**ALL, **options}).train()(batch(1, True), batch(2), 0.5)


def test_half_the_weight_is_the_features_and_a_quarter_each_strong_view(net: ProPL) -> None:
    """Without dropout and CutMix, from one pass of all views in train mode."""
    first, second = batch(1, True), batch(2)
    found = result_of(net, feature_dropout=0.0, cutmix=0.0)
    image = torch.cat((first["image"], second["image_strong"], second["image_strong_2"], second["image"]))
    with torch.no_grad():
        logits = copy.deepcopy(net).train()(image, task=TASKS * 4, decoder="sd")
        target = (logits[6:] > 0).float()
        losses = [BCEDiceLoss()(logits[at : at + 2], target) for at in (2, 4)]
    assert float(found["pseudo_strong"]) == pytest.approx(float(sum(losses)) / 2, abs=1e-5)
    expected = BCEDiceLoss()(logits[:2], first["label"]) + (losses[0] + losses[1]) / 4 + found["pseudo_features"] / 2
    assert found["loss"].item() == pytest.approx(float(expected), abs=1e-5)


def test_its_parts_change_the_loss(net: ProPL) -> None:
    whole = result_of(net)
    assert abs(result_of(net, feature_dropout=0.0)["pseudo_features"] - whole["pseudo_features"]) > 1e-4
    assert abs(result_of(net, cutmix=0.0)["pseudo_strong"] - whole["pseudo_strong"]) > 1e-4
    assert abs(result_of(net, confidence=0.6)["loss"] - whole["loss"]) > 1e-4
    assert abs(result_of(net, unlabelled_weight=0.0)["loss"] - whole["loss"]) > 1e-4


def test_whole_channels_are_dropped_from_every_map_of_the_weak_view(
    net: ProPL, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    logits = ProPL.logits

    def look(self: ProPL, features: object, *rest: object) -> Tensor:
        seen.append(features)
        return logits(self, features, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(ProPL, "logits", look)
    result_of(net)
    plain, dropped = seen
    for one, other in zip(plain[:4], dropped[:4], strict=True):
        weak, ratio = one[-2:], other / one[-2:]
        channels = ratio.nanmean((2, 3))
        assert other.shape == weak.shape and 0 < int((channels == 0).sum()) < channels.numel()
        kept = ratio[(channels > 0)[..., None, None].expand_as(ratio)]
        torch.testing.assert_close(kept[kept.isfinite()], torch.full_like(kept[kept.isfinite()], 2.0))


def test_the_second_strong_view_must_be_there(net: ProPL) -> None:
    """One view in two places would look like UniMatch, and be FixMatch."""
    given = batch(2)
    del given["image_strong_2"]
    with pytest.raises(ProPLError, match="no image_strong_2; set strong_view above 0 and strong_views to 2"):
        UniMatchMethod(net).train()(None, given, 0.5)


def test_the_numbers_of_the_released_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """LiheYoung/UniMatch at 0324f3d, without dropout: twice its loss, which is half of the sum."""
    each = iter(drawings())
    monkeypatch.setattr("propl_monai.training.methods.unimatch.draw_for", lambda *_: next(each))
    method = UniMatchMethod(Pointwise(), feature_dropout=0.0).train()
    method.loss = CrossEntropy()  # type: ignore[assignment]
    found = method(labelled(), unlabelled(), 0.5)
    assert float(found["pseudo_strong"]) == pytest.approx((0.094804 + 0.699418) / 2, abs=1e-6)
    assert float(found["pseudo_features"]) == pytest.approx(0.010375, abs=1e-6)
    assert float(found["confident"]) == 0.375
    assert found["loss"].item() == pytest.approx(1.810091, abs=1e-5)

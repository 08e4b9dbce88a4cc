"""Cross pseudo supervision by hand: each network learns from the other, never from itself."""

from __future__ import annotations

import copy

import pytest
import torch
from worked import CrossEntropy, Pointwise, drawings, unlabelled

from propl_monai import ProPL
from propl_monai.training.losses import BCEDiceLoss
from propl_monai.training.methods.cps import CPSMethod

TASKS = ["left atrium", "left atrium"]


def batch(seed: int, labelled: bool = False) -> dict:
    generator = torch.Generator().manual_seed(seed)
    image, other = (torch.randn(2, 1, 64, 64, generator=generator) for _ in range(2))
    return {"image": image, "task": TASKS} | ({"label": (other > 0).float()} if labelled else {})


def method(net: ProPL, **options: float) -> CPSMethod:
    torch.manual_seed(3)
    return CPSMethod(copy.deepcopy(net), **options).train()


def test_each_network_learns_the_other_s_mask_on_labelled_and_unlabelled_images(net: ProPL) -> None:
    first, second = batch(1, True), batch(2)
    made = method(net, unlabelled_weight=1.5, cutmix=0.0)
    image = torch.cat((first["image"], second["image"]))
    networks = [copy.deepcopy(each) for each in (made.network, made.second)]
    found = made(first, second, 0.5)
    with torch.no_grad():
        logits = [each(image, task=TASKS * 2, decoder="sd") for each in networks]
        alone = [each(second["image"], task=TASKS, decoder="sd") for each in networks]  # as BatchNorm sees them
        masks = [torch.cat((own[:2], other)).gt(0).float() for own, other in zip(logits, alone, strict=True)]
        pseudo = BCEDiceLoss()(logits[0], masks[1]) + BCEDiceLoss()(logits[1], masks[0])
        supervised = sum(BCEDiceLoss()(each[:2], first["label"]) for each in logits)
    assert float(found["pseudo"]) == pytest.approx(float(pseudo), abs=1e-4)
    assert found["loss"].item() == pytest.approx(float(supervised + 1.5 * pseudo), abs=1e-4)
    assert 0 < float(found["disagreement"]) < 1


def test_two_equal_networks_would_teach_each_other_nothing_new(net: ProPL) -> None:
    """The idea off: with one start for both, no pixel is in dispute."""
    made = method(net, cutmix=0.0)
    whole = made(None, batch(2), 0.5)
    made.second.load_state_dict(made.network.state_dict())
    same = made(None, batch(2), 0.5)
    assert float(same["disagreement"]) == 0 and abs(same["loss"] - whole["loss"]) > 1e-4


def test_the_second_network_starts_elsewhere_from_the_same_encoder(net: ProPL) -> None:
    made = method(net)
    for name, value in made.network.encoder.state_dict().items():
        assert torch.equal(value, made.second.get_submodule("encoder").state_dict()[name])
    assert not torch.equal(made.network.decoder_sd.out.conv.conv.weight, made.second.decoder_sd.out.conv.conv.weight)
    assert made.predictor is made.network


@pytest.mark.parametrize("off", [{"unlabelled_weight": 0.0}, {"cutmix": 0.0}])
def test_its_parts_change_the_loss(net: ProPL, off: dict) -> None:
    made = method(net, cutmix=1.0)
    losses = []
    for options in ({}, off):
        one = copy.deepcopy(made)
        vars(one).update(options)
        torch.manual_seed(8)
        losses.append(one(batch(1, True), batch(2), 0.5)["loss"])
    assert abs(losses[0] - losses[1]) > 1e-4


def test_the_numbers_of_the_released_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """charlesCXK/TorchSemiSeg at 5e0c29c, its variant with CutMix, whose second sum is over unlabelled images alone."""
    monkeypatch.setattr("propl_monai.training.methods.cps.draw_for", lambda *_: drawings()[0])
    monkeypatch.setattr(Pointwise, "another", lambda self: Pointwise(-2.0, 0.3))
    method = CPSMethod(Pointwise()).train()
    method.loss = CrossEntropy()  # type: ignore[assignment]
    weak_only = {key: value for key, value in unlabelled().items() if "strong" not in key}
    assert method(None, weak_only, 0.5)["loss"].item() == pytest.approx(5.581980, abs=1e-5)

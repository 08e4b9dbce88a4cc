"""VCLIPSeg by hand: prototypes and their sentences, weights of decoders, labels of both; and classes without a pixel."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from factories import TINY_ENCODER
from torch import Tensor, nn
from worked import filled, wave

from propl_monai.errors import ProPLError
from propl_monai.model.networks.vclipseg import VCLIPSeg
from propl_monai.training.losses import BCEDiceLoss, dice_loss
from propl_monai.training.methods.vclipseg import VCLIPSegMethod, VisionTextConsistency, agreed_areas, decoder_weights

TASKS = ["left atrium", "myocardium"]


@pytest.fixture(scope="module")
def start() -> VCLIPSeg:
    torch.manual_seed(0)
    return VCLIPSeg(TINY_ENCODER)


def method(start: VCLIPSeg, **options: Any) -> VCLIPSegMethod:
    torch.manual_seed(3)
    return VCLIPSegMethod(copy.deepcopy(start), **options).train()


def batch(seed: int, labelled: bool = False) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    image, other = (torch.randn(2, 1, 64, 64, generator=generator) for _ in range(2))
    return {"image": image, "task": TASKS} | ({"label": (other > 0).float()} if labelled else {})


# --- VTCM


def plain() -> VisionTextConsistency:
    """With vectors that are the map itself."""
    made = VisionTextConsistency(2, 2)
    made.project = nn.Identity()  # type: ignore[assignment]
    return made


SEEN = torch.tensor([[3.0, 0, 0, 3], [0, 2, 2, 0]]).reshape(1, 2, 1, 4)  # (1, 0), (0, 1), (0, 1), (1, 0) as directions
TEXTS = torch.tensor([[[5.0, 0], [0, -1]]])


def test_prototypes_against_their_sentences_by_hand() -> None:
    """Background: the first and half of the second position, (2/3, 1/3). Target: the third, opposite to its sentence."""
    areas = torch.tensor([[1.0, 0.5, 0, 0], [0, 0, 0.25, 0]]).reshape(1, 2, 1, 4)
    loss, present = plain()(SEEN, areas, TEXTS)
    assert float(loss) == pytest.approx(((1 - 2 / math.sqrt(5)) + 2) / 2, abs=1e-6) and float(present) == 1


def test_a_class_without_a_pixel_is_left_out() -> None:
    """The trap: the mean of no position is NaN, and with it all weights."""
    areas = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]]).reshape(1, 2, 1, 4)
    loss, present = plain()(SEEN, areas, TEXTS)
    assert float(loss) == pytest.approx(0, abs=1e-6) and float(present) == 0.5
    made, seen = VisionTextConsistency(2, 2), SEEN.clone().requires_grad_()
    loss, present = made(seen, torch.zeros(1, 2, 1, 4), TEXTS)
    loss.backward()
    assert loss.item() == present.item() == 0
    assert all(bool(one.grad.isfinite().all()) for one in (seen, *made.parameters()) if one.grad is not None)


def test_sentences_are_not_pulled_to_prototypes() -> None:
    texts = TEXTS.clone().requires_grad_()
    plain()(SEEN.clone().requires_grad_(), torch.ones(1, 2, 1, 4), texts)[0].backward()
    assert texts.grad is None


def test_areas_count_what_both_decoders_find_in_the_image() -> None:
    """Cells of 2 × 2 pixels, the last of them half outside the picture of 2 × 5."""
    label = torch.tensor([[1.0, 1, 0, 0, 1], [1, 0, 0, 0, 0]]).reshape(1, 1, 2, 5)
    first = torch.tensor([[9.0, 9, -9, 9, 9], [-9, -9, -9, -9, -9]]).reshape(1, 1, 2, 5)
    second = torch.tensor([[9.0, -9, -9, -9, 9], [9, -9, -9, -9, -9]]).reshape(1, 1, 2, 5)
    background, target = agreed_areas(label, (first, second), 2)[0, :, 0].tolist()
    assert background == [0.25, 0.75, 0.25] and target == [0.25, 0, 0.25]


def test_a_tiny_volume() -> None:
    torch.manual_seed(0)
    label, first, second = torch.rand(1, 1, 8, 8, 6).round(), torch.randn(1, 1, 8, 8, 6), torch.randn(1, 1, 8, 8, 6)
    areas = agreed_areas(label, (first, second), 4)
    assert areas.shape == (1, 2, 2, 2, 2)
    right = (label > 0).eq(first > 0) & (label > 0).eq(second > 0)
    assert float(areas.sum()) == pytest.approx(int(right.sum()) / 64)
    made = VisionTextConsistency(4, 6, spatial_dims=3)
    loss, _ = made(torch.randn(1, 4, 2, 2, 2), areas, torch.randn(1, 2, 6))
    loss.backward()
    assert 0 < loss < 2 and all(p.grad is not None and bool(p.grad.any()) for p in made.parameters())
    volumes = first.requires_grad_(), second
    weights = decoder_weights(torch.stack([dice_loss(each.sigmoid(), label).mean() for each in volumes]))
    target = sum(w * each.sigmoid() for w, each in zip(weights, volumes, strict=True)).detach()
    assert BCEDiceLoss()(first, target).isfinite()


# --- DLB


def test_weights_of_decoders_by_hand() -> None:
    """Losses 0 and 1: e^(1 - 0.5) against e^(1 - 0.731), which is all that two decoders can differ by."""
    one, other = math.exp(0.5), math.exp(1 - 1 / (1 + math.exp(-1)))
    found = decoder_weights(torch.tensor([0.0, 1.0]))
    assert found.tolist() == pytest.approx([one / (one + other), other / (one + other)])
    assert found.tolist() == pytest.approx([0.5575, 0.4425], abs=1e-4)
    assert decoder_weights(torch.tensor([0.0, 1.0]), 0.05)[0] > 0.98
    assert decoder_weights(torch.tensor([0.4, 0.4])).tolist() == [0.5, 0.5]


# --- the step


def expected(made: VCLIPSegMethod, first: dict[str, Any], second: dict[str, Any]) -> dict[str, Tensor]:
    with torch.no_grad():
        net, loss = copy.deepcopy(made.network), BCEDiceLoss()
        text = net.text(TASKS * 2, 4)
        prompted = net.prompted(net.features(torch.cat((first["image"], second["image"]))), text)
        a, b = net.both(prompted)
        areas = agreed_areas(first["label"], (a[:2], b[:2]), 32)
        weights = decoder_weights(
            torch.stack([dice_loss(each[:2].sigmoid(), first["label"]).mean() for each in (a, b)])
        )
        target = weights[0] * a[2:].sigmoid() + weights[1] * b[2:].sigmoid()
        return {
            "supervised": loss(a[:2], first["label"]) + loss(b[:2], first["label"]),
            "consistency": made.consistency(prompted.v4[:2], areas, net.sentences_of(text[:2]))[0],
            "pseudo": loss(a[2:], target) + loss(b[2:], target),
            "logits": a[:2],
        }


def test_a_step_by_hand(start: VCLIPSeg) -> None:
    first, second, made = batch(1, True), batch(2), method(start, unlabelled_weight=2.0, consistency_weight=0.5)
    wanted = expected(copy.deepcopy(made), first, second)
    found = made(first, second, 0.5)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
    ramp = math.exp(-5 * 0.25)
    whole = wanted["supervised"] + 0.5 * wanted["consistency"] + 2 * ramp * wanted["pseudo"]
    assert found["loss"].item() == pytest.approx(float(whole), abs=1e-4)
    assert float(found["prototypes"]) == 1 and float(found["first_weight"]) != 0.5


def test_pseudo_labels_have_no_gradient_and_both_decoders_learn_them(start: VCLIPSeg) -> None:
    made = method(start)
    made(None, batch(2), 1.0)["loss"].backward()
    for decoder in (made.network.decoder, made.network.second_decoder):
        assert all(p.grad is not None and bool(p.grad.any()) for p in decoder.parameters())


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_labels_of_one_class_alone_are_finite(start: VCLIPSeg, value: float) -> None:
    made, given = method(start), batch(1, True)
    given["label"][:] = value
    found = made(given, batch(2), 1.0)
    found["loss"].backward()
    assert all(bool(each.isfinite().all()) for each in found.values()) and float(found["prototypes"]) <= 0.5
    assert all(bool(p.grad.isfinite().all()) for p in made.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    "off",
    [
        {"unlabelled_weight": 0.0},
        {"consistency_weight": 0.0},
        {"dynamic": False},
        {"temperature": 0.05},
        {"pseudo_label": "hard"},
    ],
)
def test_its_parts_change_the_loss(start: VCLIPSeg, off: dict[str, Any]) -> None:
    losses = [method(start, **options)(batch(1, True), batch(2), 1.0)["loss"].item() for options in ({}, off)]
    assert abs(losses[0] - losses[1]) > 1e-5


def test_without_prompts_of_positions_the_loss_is_another(start: VCLIPSeg) -> None:
    silent = copy.deepcopy(start)
    for parameter in silent.voxel_prompts.project.parameters():
        nn.init.zeros_(parameter)
    losses = [method(each)(batch(1, True), batch(2), 1.0)["loss"].item() for each in (start, silent)]
    assert abs(losses[0] - losses[1]) > 1e-4


def test_refusals(start: VCLIPSeg) -> None:
    with pytest.raises(ProPLError, match="vclipseg pseudo_label: unknown pseudo-label 'firm'"):
        VCLIPSegMethod(start, pseudo_label="firm")
    with pytest.raises(ProPLError, match="vclipseg temperature: 0 is not above 0"):
        VCLIPSegMethod(start, temperature=0)


# --- numbers of the released code, SmileJET/VCLIPSeg at fe50145


def test_the_released_prototypes() -> None:
    """With vectors of length 1 over their channels: the code divides by the length along the last axis of the map."""
    made = filled(VisionTextConsistency(4, 3, 3))
    label, one, other = ([0, 1, 1, 0, 0, 1, 0, 1], [0, 1, 0, 0, 1, 1, 0, 1], [0, 1, 1, 0, 0, 1, 1, 1])
    right = [a == b == c for a, b, c in zip(label, one, other, strict=True)]
    kinds = [[float(ok and y == kind) for ok, y in zip(right, label, strict=True)] for kind in (0, 1)]
    loss, _ = made(wave(1, 4, 2, 2, 2, phase=7), torch.tensor(kinds).reshape(1, 2, 2, 2, 2), wave(2, 3, phase=4)[None])
    assert loss.item() == pytest.approx(0.804240, abs=1e-5)


def test_the_released_weights_of_decoders() -> None:
    assert decoder_weights(torch.tensor([0.676389, 0.413390])).tolist() == pytest.approx([0.484747, 0.515253], abs=1e-6)

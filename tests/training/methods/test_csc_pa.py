"""CSC-PA by hand: affinities with a gradient, partners and memories of one task, and which patches are masked."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from worked import Pointwise, wave

from propl_monai import ProPL
from propl_monai.training.feature_head import MemoryBank
from propl_monai.training.methods.csc_pa import CSCPAMethod, agreement, draw_mask, partners, surroundings

TASKS = ["left atrium", "fetal head"]


def batch(seed: int, labelled: bool = False) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    image, other = (torch.randn(2, 1, 64, 64, generator=generator) for _ in range(2))
    return {"image": image, "task": TASKS} | ({"label": (other > 0).float()} if labelled else {})


def make(net: ProPL, **options: Any) -> CSCPAMethod:
    torch.manual_seed(5)
    return CSCPAMethod(copy.deepcopy(net), **options).train()


def result_of(net: ProPL, **options: Any) -> dict[str, Tensor]:
    method = make(net, **options)
    torch.manual_seed(6)
    return method(batch(1, True), batch(2), 0.5)


def test_the_affinity_has_a_gradient(net: ProPL) -> None:
    """The trap: in the released code it is detached, and teaches nothing."""
    gradients = []
    for weight in (0.0, 1.0):
        for released in (False, True):
            method = make(net, affinity_weight=weight, released_affinity=released)
            torch.manual_seed(6)
            found = method(batch(1, True), batch(2), 0.5)
            found["loss"].backward()
            gradients.append([one.grad for one in method.network.parameters() if one.grad is not None])
            assert float(found["affinity"]) > 0
    without, _, ours, released_ones = gradients
    assert not all(map(torch.equal, without, ours))
    assert all(map(torch.equal, without, released_ones))


def test_affinity_is_the_share_of_foreground_around(net: ProPL) -> None:
    """Of like vectors the plain mean; of unlike ones that of the likest."""
    method = make(net)
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 2:] = 1
    same = method._affinity(torch.ones(1, 64, 4, 4), mask)
    assert same[0, 1].tolist()[1:3] == pytest.approx([3 / 8, 5 / 8])  # away from the border
    torch.testing.assert_close(same[:, 1:3, 1:3], surroundings(mask).mean(1)[:, 1:3, 1:3])
    vectors = torch.zeros(1, 64, 4, 4)
    vectors[:, 0, :, :2], vectors[:, 1, :, 2:] = 1, 1  # two kinds, along the mask
    apart = method._affinity(vectors, mask)
    assert float(apart[0, 1, 1]) < 0.01 and float(apart[0, 1, 2]) > 0.99
    assert float(agreement(apart, apart)) == 0 < float(agreement(apart, same))


def test_partners_are_of_the_other_kind_and_of_one_task() -> None:
    for seed in range(10):
        torch.manual_seed(seed)
        found = partners(torch.tensor([0, 1, 2, 0, 1, 1]), 3).tolist()
        assert found[0] == 3 and found[1] in (4, 5) and found[2] == 2 and found[3:] == [0, 1, 1]


def test_memories_hold_edges_of_their_task(net: ProPL) -> None:
    method = make(net)
    mask, reliable = torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8)
    mask[0, :, :, 4:], reliable[0, :, :4] = (
        1,
        0,
    )  # an upright edge, of which the lower half is sure; no edge in the other
    vectors = torch.arange(64.0).reshape(1, 1, 8, 8).expand(2, 64, 8, 8)
    method._remember(vectors, mask, reliable, torch.tensor([2, 5]))
    assert sorted(method.bank.of(2)[:, 0].tolist()) == [r * 8 + c for r in range(4, 8) for c in (3, 4)]
    assert len(method.bank.of(5)) == 0


def test_doubtful_foreground_is_always_seen() -> None:
    """At the start 0.7 of its patches; at the end nothing is kept for certain."""
    probability = torch.full((1, 1, 90, 90), 0.01)
    probability[..., :10] = torch.linspace(0.6, 0.99, 90)[:, None]  # nine patches, the upper ones in doubt
    seen = torch.stack([draw_mask(probability, 0.0)[0, 0, ::10, ::10] for _ in range(200)]).mean(0)
    assert seen.shape == (9, 9) and bool((seen[:7, 0] == 1).all())
    assert 0.25 < float(seen[:, 1:].mean()) < 0.35 and float(seen[7:, 0].mean()) < 0.45
    late = torch.stack([draw_mask(probability, 1.0)[0, 0, ::10, 0] for _ in range(200)]).mean(0)
    assert bool((late < 0.5).all())


@pytest.mark.parametrize(
    "off", [{"refine": False}, {"affinity_weight": 0.0}, {"unlabelled_weight": 0.0}, {"drop": 0.0}]
)
def test_its_parts_change_the_loss(net: ProPL, off: dict[str, Any]) -> None:
    assert abs(result_of(net, **off)["loss"] - result_of(net)["loss"]) > 1e-5


def test_one_image_and_a_batch_predict_alike(net: ProPL) -> None:
    """The trap: the original skips parts of its network for a single image. Here the plain path predicts."""
    method = make(net)
    method(batch(1, True), batch(2), 0.5)
    image = batch(3)["image"]
    with torch.no_grad():
        network = method.predictor.eval()
        both = network(image, task=TASKS)
        torch.testing.assert_close(network(image[:1], task=TASKS[0]), both[:1], rtol=1e-4, atol=1e-4)


# --- numbers of the released code, shdkdh/CSC-PA at 0505d2e


def test_the_released_maps_of_correlation() -> None:
    """With attention of no value and an empty memory."""
    method = CSCPAMethod(Pointwise())
    method.query, method.key, method.value = (nn.Linear(4, 4) for _ in range(3))
    nn.init.zeros_(method.value.weight)
    nn.init.zeros_(method.value.bias)
    method.bank = MemoryBank(1, 4, 4)
    found = method.refined(wave(2, 4, 2, 3), torch.tensor([0, 0]), 1).flatten()[::5]
    expected = [
        -0.461307,
        0.485748,
        0.722616,
        -0.961083,
        -0.902401,
        -0.993331,
        -0.154607,
        0.900436,
        -0.971293,
        -0.989203,
    ]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_the_released_edges() -> None:
    """A target of 2 × 4: its own rim and what is around it, the border of the image apart, where the code adds zeros."""
    mask = torch.zeros(1, 1, 6, 7)
    mask[..., 2:4, 2:6] = 1
    around = surroundings(mask).sum(1)
    edge = (around > 0) & (around < 8)
    expected = torch.zeros(1, 6, 7, dtype=torch.bool)
    expected[:, 1:5, 1:7] = True
    assert torch.equal(edge, expected)

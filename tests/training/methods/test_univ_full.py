"""Univ-full by hand: entropies over embeddings, which follow the labelled centroids of each task."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from worked import Pointwise, wave

from propl_monai import ProPL
from propl_monai.errors import ProPLError
from propl_monai.training.methods.univ_full import UnivFullMethod

TASKS = ["left atrium", "fetal head"]


def batch(seed: int, labelled: bool = False) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    image, other = (torch.randn(2, 1, 64, 64, generator=generator) for _ in range(2))
    return {"image": image, "task": TASKS} | ({"label": (other > 0).float()} if labelled else {})


def make(net: ProPL, **options: Any) -> UnivFullMethod:
    torch.manual_seed(5)
    return UnivFullMethod(copy.deepcopy(net), **options).train()


def result_of(net: ProPL, **options: Any) -> dict[str, Tensor]:
    method = make(net, **options)
    torch.manual_seed(6)
    return method(batch(1, True), batch(2), 0.5)


def test_embeddings_follow_the_labelled_centroids(net: ProPL) -> None:
    """The trap: in the released code they stay random. Those of tasks that the batch does not show stay as they are."""
    method, first = make(net), batch(1, True)
    before = method.get_buffer("embeddings").clone()
    method(first, None, 0.5)
    after, own = method.get_buffer("embeddings"), [net.task_names.index(name) for name in TASKS]
    others = [number for number in range(len(before)) if number not in own]
    assert torch.equal(after[others], before[others]) and not torch.equal(after[own], before[own])
    with torch.no_grad():
        again = make(net)
        space = functional.normalize(again.project(again.network.features(first["image"], TASKS).v4), dim=1)
        share = functional.adaptive_avg_pool2d(first["label"], space.shape[-2:])
        centroid = functional.normalize((share * space)[0].sum((1, 2)), dim=0)
        wanted = functional.normalize(0.9 * before[own[0], 1] + 0.1 * centroid, dim=0)
    torch.testing.assert_close(after[own[0], 1], wanted)


def test_entropy_is_low_where_one_class_fits(net: ProPL) -> None:
    method = make(net)
    pair = functional.normalize(torch.eye(100)[None, :2], dim=2)
    clear, even = torch.eye(100)[0], functional.normalize(torch.eye(100)[0] + torch.eye(100)[1], dim=0)
    low, high = (float(method._entropy(one.reshape(1, 100, 1, 1), pair)) for one in (clear, even))
    assert low < 0.001 and high == pytest.approx(math.log(2))


@pytest.mark.parametrize("off", [{"within_weight": 0.0}, {"cross_weight": 0.0}, {"others": 1}, {"temperature": 1.0}])
def test_its_parts_change_the_loss(net: ProPL, off: dict[str, Any]) -> None:
    assert abs(result_of(net, **off)["loss"] - result_of(net)["loss"]) > 1e-5


def test_unlabelled_images_reach_the_encoder(net: ProPL) -> None:
    method = make(net)
    method(None, batch(2), 0.5)["loss"].backward()
    gradients = [parameter.grad for parameter in method.network.encoder.parameters()]
    assert all(one is not None for one in gradients) and method.project.weight.grad is not None


def test_a_temperature_of_0_is_refused(net: ProPL) -> None:
    with pytest.raises(ProPLError, match="univ_full temperature: 0 is not above 0"):
        make(net, temperature=0)


def test_the_numbers_of_the_released_code() -> None:
    """tarun005/USSS_ICCV19 at d6a99ad, whose last class, "None", counts for nothing. Vectors have length 1."""
    method = UnivFullMethod(Pointwise(), temperature=1.0)
    space = functional.normalize(wave(2, 4, 2, 3), dim=1)
    for phase, expected in ((1, 0.664092), (2, 0.679629)):  # within, cross
        embeddings = functional.normalize(wave(3, 4, phase=phase), dim=1)
        assert float(method._entropy(space, embeddings[:2].expand(2, 2, 4))) == pytest.approx(expected, abs=1e-6)

"""MedUniSeg*: starts as MedUniSeg, changes the tasks to relearn alone, and takes over the weights of other trainings."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import ABOUT
from torch import Tensor

from propl_monai.errors import ProPLError
from propl_monai.model.networks.meduniseg import MedUniSeg
from propl_monai.model.networks.meduniseg_star import MedUniSegStar
from propl_monai.model.networks.uniseg import UniSeg
from propl_monai.model.weights import save_weights, start_from

TASKS = ["left atrium", "fetal head", "myocardium"]
SMALL: dict[str, Any] = {"filters": (4, 8, 8, 8), "prompt_grid": (2, 3), "prompt_channels": 5}
IMAGE = torch.rand(3, 1, 40, 33, generator=torch.Generator().manual_seed(0))


def plain(seed: int = 0, **options: Any) -> MedUniSeg:
    torch.manual_seed(seed)
    return MedUniSeg(**({"tasks": TASKS} | SMALL | options)).eval()


def star(seed: int = 1, **options: Any) -> MedUniSegStar:
    torch.manual_seed(seed)
    return MedUniSegStar(**({"tasks": TASKS, "rank": 2} | SMALL | options)).eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of `plain`."""
    folder = tmp_path_factory.mktemp("plain")
    save_weights(plain(), folder, ABOUT)
    return str(folder / "model.safetensors")


def moved(net: MedUniSegStar, seed: int = 2) -> MedUniSegStar:
    """With new parts that are no longer 0."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name in net._new:
                parameter.normal_(0, 0.2)
    return net


def masks(net: MedUniSeg, tasks: list[str]) -> Tensor:
    with torch.no_grad():
        return net(IMAGE, task=tasks)


@pytest.mark.parametrize("dims", [2, 3])
def test_it_starts_as_the_network_that_it_comes_from(dims: int, tmp_path: Path) -> None:
    before = plain(spatial_dims=dims)
    save_weights(before, tmp_path, ABOUT)
    net = star(spatial_dims=dims)
    assert not net.started
    start_from(net, str(tmp_path / "model.safetensors"))
    assert net.started and torch.equal(masks(net, TASKS), masks(before, TASKS))


def test_only_tasks_to_relearn_change(weights: str) -> None:
    """Also in a mixed batch: the others get the very same masks as from the network that was frozen."""
    net = star(relearn=["myocardium"])
    start_from(net, weights)
    before, after = masks(plain(), TASKS), masks(moved(net), TASKS)
    assert torch.equal(after[:2], before[:2]) and (after[2] - before[2]).abs().max() > 1e-3


@pytest.mark.parametrize("part", ["lora_B", "transp_conv.new", "new_head"])
def test_each_new_part_has_an_effect(weights: str, part: str) -> None:
    """Switched off alone, it changes the masks."""
    net = star()
    start_from(net, weights)
    whole = masks(moved(net), TASKS)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if part in name:
                parameter.zero_()
    assert (masks(net, TASKS) - whole).abs().max() > 1e-3


def test_lora_by_hand(weights: str) -> None:
    """W + alpha / rank · B A, with weights that do not change; every convolution has it, transposed ones do not."""
    net = star(rank=2, alpha=3.0)
    start_from(net, weights)
    layer: Any = moved(net).unet.get_submodule("stages.1.conv1.conv")
    with torch.no_grad():
        found = layer(features := torch.rand(2, 4, 8, 8))
        narrow = torch.nn.functional.conv2d(features, layer.lora_A["default"].weight, stride=2, padding=1)
        wanted = layer.base_layer(features) + 1.5 * torch.nn.functional.conv2d(narrow, layer.lora_B["default"].weight)
    torch.testing.assert_close(found, wanted)
    assert torch.equal(layer.base_layer.weight, plain().unet.get_submodule("stages.1.conv1.conv").weight)
    low_rank = {name.partition(".lora_A")[0] for name, _ in net.named_parameters() if ".lora_A." in name}
    convolutions = {name for name, one in plain().named_modules() if isinstance(one, torch.nn.Conv2d)} - {"head"}
    assert low_rank == convolutions


def test_its_new_parameters_are_near_those_of_the_paper() -> None:
    """6.8 M for the 3-D network, whose transposed convolutions have twice our depth."""
    with torch.device("meta"):
        net = MedUniSegStar(spatial_dims=3, modality_key="source", sources=["one"])
    new = sum(parameter.numel() for name, parameter in net.named_parameters() if name in net._new)
    deeper = sum(each.weight.numel() for name, each in net.named_modules() if name.endswith("transp_conv.new"))
    assert (new + deeper) / 1e6 == pytest.approx(6.8, abs=0.8)


def test_frozen_parts_and_new_ones() -> None:
    net = star()
    assert all(parameter.requires_grad for parameter in net.parameters())
    for relearning in (True, False):
        net.freeze(relearning)
        for name, parameter in net.named_parameters():
            assert parameter.requires_grad is (relearning == any(w in name for w in ("lora_", ".new.", "new_head")))


def test_a_copy_and_another_have_parts_of_their_own(weights: str) -> None:
    net = moved(star())
    other = copy.deepcopy(net)
    before = masks(other, TASKS)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert torch.equal(masks(other, TASKS), before)
    assert other.another().options == other.options


@pytest.mark.parametrize("make", [plain, star])
def test_transfer_to_a_task_that_the_weights_do_not_know(weights: str, make: Any) -> None:
    """What belongs to known tasks comes by name; the fusion's channel of the new one, and a new organ's prompt, are new."""
    before, net = plain(), make(seed=5, tasks=["thyroid nodule", "myocardium"])
    start = copy.deepcopy(net)
    start_from(net, weights)
    last = net.fuse.blocks[6]
    kernel, fresh, old = (
        getattr(one, "base_layer", one).weight for one in (last, start.fuse.blocks[6], before.fuse.blocks[6])
    )
    assert torch.equal(kernel[1], old[2]) and torch.equal(kernel[0], fresh[0])
    assert net.modalities == ["heart", "thyroid"] and before.modalities == ["fetus", "heart"]
    assert torch.equal(net.mmap.prompt[0], before.mmap.prompt[1])
    assert torch.equal(net.mmap.prompt[1], start.mmap.prompt[1])
    assert not net.mmap.prompt.requires_grad and net.mmap.linear.weight.requires_grad
    assert torch.equal(net.mmap.linear.weight, before.mmap.linear.weight)
    assert torch.equal(net.head.weight, before.head.weight)
    alone = make(seed=5, tasks=["thyroid nodule"])
    kept = alone.head.weight.clone()
    start_from(alone, weights)
    assert torch.equal(alone.head.weight, kept) and not torch.equal(kept, before.head.weight)


def test_weights_of_its_own_are_taken_with_their_new_parts(tmp_path: Path) -> None:
    net = moved(star(relearn=["myocardium"]))
    save_weights(net, tmp_path, ABOUT)
    again = star(seed=7, relearn=["myocardium"])
    start_from(again, str(tmp_path / "model.safetensors"))
    assert torch.equal(masks(again, TASKS), masks(net, TASKS))


def test_what_it_refuses(weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = star()
    save_weights(UniSeg(tasks=TASKS, **SMALL), tmp_path, ABOUT)
    for refused, told in (
        (lambda: net(IMAGE, task="TN"), "network 'meduniseg_star': unknown task 'thyroid nodule'"),
        (lambda: net(IMAGE, text=torch.rand(3, 24, 384)), "network 'meduniseg_star': reads no sentences"),
        (lambda: star(relearn=["thyroid nodule"]), "relearn: unknown task of this network 'thyroid nodule'"),
        (lambda: star(rank=0), "rank, alpha: 0 and 64 are not both above 0"),
        (lambda: start_from(star(filters=(4, 8, 8, 16)), weights), r"have filters \[4, 8, 8, 8\], where"),
        (
            lambda: start_from(net, str(tmp_path / "model.safetensors")),
            "holds network 'uniseg', where 'meduniseg_star'",
        ),
    ):
        with pytest.raises(ProPLError, match=told):
            refused()
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ProPLError, match=r"package 'peft': is not installed.*pip install 'propl-monai\[lora\]'"):
        star()

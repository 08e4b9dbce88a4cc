"""MedUniSeg: the map that is added to a picture, its key, and what stands for a source that nobody has seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from factories import ABOUT
from torch.nn import functional

from propl_monai.errors import ProPLError
from propl_monai.model.networks.meduniseg import MedUniSeg
from propl_monai.model.networks.uniseg import UniSeg
from propl_monai.model.weights import load_network, load_weights, save_weights, start_from
from propl_monai.training.methods.deep_supervision import DeepSupervisionMethod

TASKS = ["left atrium", "fetal head", "myocardium"]
SMALL: dict[str, Any] = {"tasks": TASKS, "filters": (4, 8, 8, 8), "prompt_grid": (2, 3), "prompt_channels": 5}
BY_SOURCE = {"modality_key": "source", "sources": ["HC18", "CAMUS"]}
IMAGE = torch.rand(3, 1, 40, 33, generator=torch.Generator().manual_seed(0))
NUMBERS = torch.arange(3)


def make(**options: Any) -> MedUniSeg:
    """With maps as large as pictures, so that they have an effect."""
    torch.manual_seed(0)
    net = MedUniSeg(**(SMALL | options)).eval()
    with torch.no_grad():
        net.mmap.prompt.normal_()
    return net


def maps(net: MedUniSeg) -> torch.Tensor:
    """Of all modalities, (M, 1, H', W')."""
    return net.mmap(torch.eye(len(net.modalities)), net.unet.padded(IMAGE))


def test_the_map_by_hand() -> None:
    net = make()
    assert net.modalities == ["fetus", "heart"] and net.mmap.prompt.shape == (2, 512)
    padded = net.unet.padded(IMAGE)
    grids = (net.mmap.prompt @ net.mmap.linear.weight.T + net.mmap.linear.bias).reshape(2, 1, 12, 12)
    large = functional.interpolate(grids, padded.shape[-2:], mode="bilinear")
    with torch.no_grad():
        torch.testing.assert_close(net.shown(IMAGE, NUMBERS), padded + large[[1, 0, 1]])


def test_it_costs_what_the_paper_says() -> None:
    """About 80 thousand parameters for nine modalities."""
    net = make(modality_key="source", sources=[f"modality {number}" for number in range(9)])
    assert sum(each.numel() for each in net.mmap.parameters()) == pytest.approx(80e3, rel=0.05)


@pytest.mark.parametrize("dims", [2, 3])
def test_without_its_map_it_is_uniseg(dims: int) -> None:
    net = make(spatial_dims=dims)
    plain = UniSeg(**SMALL, spatial_dims=dims).eval()
    plain.load_state_dict({key: value for key, value in net.state_dict().items() if not key.startswith("mmap.")})
    with torch.no_grad():
        wanted, found = plain(IMAGE, task=TASKS), net(IMAGE, task=TASKS)
        for parameter in net.mmap.parameters():
            parameter.zero_()
        without = net(IMAGE, task=TASKS)
    assert (found - wanted).abs().max() > 1e-3 and torch.equal(without, wanted)


def test_a_source_that_is_not_known_gets_the_mean_of_all() -> None:
    net = make(**BY_SOURCE)
    assert net.modalities == ["CAMUS", "HC18"]
    with torch.no_grad():
        each, padded = maps(net), net.unet.padded(IMAGE)
        known = net.shown(IMAGE, NUMBERS, ["HC18", "elsewhere", "CAMUS"]) - padded
        told_nothing = net.shown(IMAGE, NUMBERS) - padded
    wanted = torch.stack((each[1], each.mean(0), each[0]))
    torch.testing.assert_close(known, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(told_nothing, each.mean(0).expand_as(padded), atol=1e-5, rtol=1e-4)


def test_training_tells_the_source_and_the_loss_depends_on_it() -> None:
    method = DeepSupervisionMethod(make(**BY_SOURCE)).train()
    given = {"image": IMAGE, "label": (IMAGE > 0.5).float(), "task": TASKS}
    losses = [
        method(given | named, None, 0.0)["loss"].item()
        for named in ({"source": ["CAMUS"] * 3}, {"source": ["HC18"] * 3}, {"source": ["new"] * 3}, {})
    ]
    assert losses[0] != losses[1] and losses[2] == pytest.approx(losses[3], rel=1e-5)
    method(given | {"source": ["CAMUS"] * 3}, None, 0.0)["loss"].backward()
    gradient = method.network.get_parameter("mmap.prompt").grad
    assert gradient is not None and bool(gradient[0].any()) and not gradient[1].any()


def test_weights_keep_the_sources(tmp_path: Path) -> None:
    net = make(**BY_SOURCE)
    save_weights(net, tmp_path, ABOUT)
    found, header = load_network(tmp_path / "model.safetensors")
    assert header["architecture"]["sources"] == ["CAMUS", "HC18"]
    with torch.no_grad():
        assert torch.equal(found(IMAGE, task=TASKS), net(IMAGE, task=TASKS))
    with pytest.raises(ProPLError, match=r"holds another network: .*modality_key 'source' there, 'organ' here"):
        load_weights(make(), tmp_path / "model.safetensors")


def test_what_it_refuses(tmp_path: Path) -> None:
    net = make()
    save_weights(UniSeg(**SMALL), tmp_path, ABOUT)
    for refused, told in (
        (lambda: net(IMAGE, task="TN"), "network 'meduniseg': unknown task 'thyroid nodule'"),
        (lambda: net(IMAGE, text=torch.rand(3, 24, 384)), "network 'meduniseg': reads no sentences"),
        (lambda: make(prompts="bank.safetensors"), "network 'meduniseg': reads no sentences"),
        (lambda: make(modality_key="scanner"), "modality_key: unknown key 'scanner'"),
        (lambda: make(modality_key="source"), "modality_key is source, and 0 sources are named"),
        (lambda: make(sources=["CAMUS"]), "modality_key is organ, and 1 sources are named"),
        (lambda: start_from(net, str(tmp_path / "model.safetensors")), "holds network 'uniseg', where 'meduniseg'"),
    ):
        with pytest.raises(ProPLError, match=told):
            refused()

"""UniSeg: the prior of each image's own task, from the prompt and the picture; what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from factories import TINY_ENCODER
from torch.nn import functional
from worked import filled, wave

from propl_monai.errors import ProPLError
from propl_monai.model.network import ProPL
from propl_monai.model.networks.uniseg import Fuse, UniSeg
from propl_monai.model.prompt_controls import ask
from propl_monai.model.weights import load_weights, save_weights, start_from

TWO = ("left atrium", "fetal head")
SMALL: dict[str, Any] = {"tasks": TWO, "filters": (4, 8, 8, 8), "prompt_grid": (2, 3)}
IMAGE = torch.rand(2, 1, 40, 33, generator=torch.Generator().manual_seed(0))


def make(**options: Any) -> UniSeg:
    torch.manual_seed(0)
    return UniSeg(**(SMALL | options)).eval()


@pytest.mark.parametrize("dims", [2, 3])
def test_a_mixed_batch_gives_each_image_its_own_task(dims: int) -> None:
    """The released code takes the task of the first image for all."""
    net = make(spatial_dims=dims).to(memory_format=torch.channels_last)
    with torch.no_grad():
        mixed = net(IMAGE, task=TWO)
        first = net(IMAGE, task=TWO[0])
        second = net(IMAGE, task=TWO[1])
    torch.testing.assert_close(mixed, torch.stack((first[0], second[1])), rtol=1e-4, atol=1e-5)
    assert (mixed[1] - first[1]).abs().max() > 1e-4


@pytest.mark.parametrize("dims", [2, 3])
def test_the_prior_by_hand(dims: int) -> None:
    """Fused on the grid of the prompt, of which the features' own is another; the task selects one channel."""
    torch.manual_seed(0)
    fuse, depth = Fuse(8, 3, 5, (2, 3), dims), (1,) * (dims - 2)
    features, numbers = torch.rand(2, 8, *depth, 4, 6), torch.tensor([2, 0])
    on_grid = torch.cat(
        [fuse.prompt.expand(2, -1, *depth, -1, -1), functional.interpolate(features, (*depth, 2, 3), mode=fuse.mode)], 1
    )
    priors = fuse.blocks(on_grid)
    assert priors.shape == (2, 3, *depth, 2, 3) and fuse.prompt.shape == (1, 5, *depth, 2, 3)
    chosen = torch.stack([priors[0, 2], priors[1, 0]])[:, None]
    wanted = functional.interpolate(chosen, (*depth, 4, 6), mode=fuse.mode)
    torch.testing.assert_close(fuse(features, numbers), wanted)


def test_without_the_prior_tasks_are_the_same() -> None:
    """The prior is the only place where a task acts."""
    net = make()
    with torch.no_grad():
        before = [net(IMAGE, task=task) for task in TWO]
        net.unet.decoder[0].transp_conv.conv.weight[-1].zero_()  # of the prior's channel
        after = [net(IMAGE, task=task) for task in TWO]
    assert not torch.equal(*before) and torch.equal(*after)


def test_the_prompt_is_shared_by_all_tasks() -> None:
    net = make()
    with torch.no_grad():
        before = [net(IMAGE, task=task) for task in TWO]
        net.fuse.prompt += torch.randn_like(net.fuse.prompt)
        after = [net(IMAGE, task=task) for task in TWO]
    assert all((one - other).abs().max() > 1e-4 for one, other in zip(before, after, strict=True))


def test_the_prompt_has_a_channel_for_each_task_or_as_many_as_asked_for() -> None:
    assert make().fuse.prompt.shape == (1, 2, 2, 3) and make(prompt_channels=100).fuse.prompt.shape == (1, 100, 2, 3)


def test_what_it_refuses() -> None:
    net = make()
    for refused, told in (
        (lambda: net(IMAGE, task="TN"), "network 'uniseg': unknown task 'thyroid nodule'"),
        (lambda: net(IMAGE, text=torch.rand(2, 24, 384)), "network 'uniseg': reads no sentences"),
        (lambda: make(prompts="bank.safetensors"), "network 'uniseg': reads no sentences"),
        (lambda: UniSeg.configured(net.options, "bank.safetensors", None), "network 'uniseg': reads no sentences"),
        (lambda: ask(net, "paraphrased"), "network 'uniseg': reads no sentences"),
        (lambda: make(encoder="resnet18"), "encoder 'resnet18': network 'uniseg' has stages of its own"),
        (lambda: make(prompt_grid=(1, 3)), "prompt_grid: .* is no grid of two rows and columns or more"),
        (lambda: make(prompt_channels=0), "prompt_channels: 0 is no number of channels"),
        (lambda: start_from(net, "imagenet"), "network 'uniseg' has no encoder that takes them"),
    ):
        with pytest.raises(ProPLError, match=told):
            refused()


def test_weights_of_other_shapes_or_networks_are_refused_by_name(tmp_path: Any) -> None:
    save_weights(make(), tmp_path / "ours", {})
    for options, told in (
        ({"tasks": TWO[::-1]}, "tasks"),
        ({"filters": (4, 8, 8, 16)}, "filters"),
        ({"spatial_dims": 3}, "spatial_dims"),
    ):
        with pytest.raises(ProPLError, match=f"holds another network: .*{told}"):
            load_weights(make(**options), tmp_path / "ours" / "model.safetensors")
    save_weights(ProPL(TINY_ENCODER), tmp_path / "propl", {})
    with pytest.raises(ProPLError, match="holds network 'propl', where 'uniseg' is wanted"):
        start_from(make(), str(tmp_path / "propl" / "model.safetensors"))


def test_the_numbers_of_the_released_code() -> None:
    """yeerwen/UniSeg at e3ae40d, the whole network with these weights, volumes of depth 1 and strides (1, 2, 2)."""
    tasks = ("left atrium", "left ventricle", "myocardium")
    net = filled(UniSeg(filters=(4, 8, 8, 8, 8, 8), tasks=tasks, spatial_dims=3, prompt_grid=(4, 3)))
    expected = {
        "left atrium": [-0.305354, -0.715085, -0.023712, 0.450321, 0.588023, 0.378125, 0.276022, 0.020004, 0.327945],
        "myocardium": [-0.305568, -0.714437, -0.023632, 0.450452, 0.588690, 0.375950, 0.275267, 0.022459, 0.323923],
    }
    for task, values in expected.items():
        with torch.no_grad():
            found = net(wave(2, 1, 128, 96, phase=5), task=task)[0, 0, ::50, ::40]
        assert found.flatten().tolist() == pytest.approx(values, abs=1e-4)

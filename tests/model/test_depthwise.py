"""Gradients of the faster depthwise convolutions equal torch's; all else is untouched."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from propl_monai.model import depthwise
from propl_monai.model.depthwise import Depthwise, DepthwiseSame, speed_up
from propl_monai.model.encoder import VisionEncoder

ENCODER = "tf_efficientnet_lite0"


def pair(kind: type[nn.Conv2d], edge: int, stride: int, padding: int) -> tuple[nn.Module, nn.Module]:
    """A convolution as torch has it, and the same one made faster."""
    torch.manual_seed(edge + stride)
    plain = nn.Sequential(kind(8, 8, edge, stride, padding, groups=8, bias=False))
    faster = copy.deepcopy(plain)
    speed_up(faster)
    assert type(faster[0]) in (Depthwise, DepthwiseSame)
    return plain, faster


def gradients(module: nn.Module, x: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor, Tensor]:
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        out = module(x)
    module.zero_grad()
    torch.manual_seed(9)
    out.float().mul(torch.randn(out.shape)).sum().backward()
    weight = next(module.parameters())
    assert x.grad is not None and weight.grad is not None
    return out.detach(), x.grad, weight.grad.clone()


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (5, 6)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("edge", "padding"), [(3, 1), (5, 2), (5, 0), (7, 3)])
@pytest.mark.parametrize("kind", [nn.Conv2d, Conv2dSame])
def test_gradients_equal_autograds(
    kind: type, edge: int, padding: int, stride: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32, where both are exact to the last digits; relative to the largest one."""
    monkeypatch.setattr(depthwise, "trains_in_bfloat16", lambda *_: True)
    if min(size) < edge and padding == 0 and kind is nn.Conv2d:
        pytest.skip("the kernel is larger than the image")
    plain, faster = pair(kind, edge, stride, padding)
    x = torch.randn(2, 8, *size).to(memory_format=torch.channels_last)
    wanted, found = gradients(plain, x), gradients(faster, x)
    assert torch.equal(found[0], wanted[0])
    for one, other in zip(found[1:], wanted[1:], strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("edge", [3, 5])
@pytest.mark.parametrize("kind", [nn.Conv2d, Conv2dSame])
def test_in_bfloat16_gradients_are_as_near_to_those_of_float32_as_torchs(kind: type, edge: int, stride: int) -> None:
    plain, faster = pair(kind, edge, stride, edge // 2)
    x = torch.randn(4, 8, 24, 24).to(memory_format=torch.channels_last)
    exact = gradients(plain, x)
    theirs, ours = (gradients(module, x, torch.bfloat16) for module in (plain, faster))
    assert torch.equal(theirs[0], ours[0])
    for number in (1, 2):
        error, usual = ((found[number] - exact[number]).norm() / exact[number].norm() for found in (ours, theirs))
        assert error <= max(1.5 * usual, 0.01)


def test_float32_is_left_to_torch() -> None:
    plain, faster = pair(nn.Conv2d, 5, 2, 2)
    x = torch.randn(2, 8, 16, 16)
    assert all(map(torch.equal, gradients(plain, x), gradients(faster, x)))


def test_only_the_gradients_that_are_needed_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depthwise, "trains_in_bfloat16", lambda *_: True)
    _, faster = pair(nn.Conv2d, 5, 2, 2)
    weight = next(faster.parameters()).requires_grad_(False)
    x = torch.randn(1, 8, 9, 9, requires_grad=True)
    faster(x).sum().backward()
    assert weight.grad is None and x.grad is not None
    weight.requires_grad_()
    faster(x.detach()).sum().backward()
    assert weight.grad is not None


def test_evaluation_names_and_copies_are_untouched() -> None:
    torch.manual_seed(0)
    encoder = VisionEncoder(ENCODER)
    fast = [module for module in encoder.modules() if isinstance(module, Depthwise | DepthwiseSame)]
    assert len(fast) > 10 and {module.kernel_size[0] for module in fast} == {3, 5}
    slow = copy.deepcopy(encoder)
    for module in slow.modules():
        if isinstance(module, Depthwise | DepthwiseSame):
            module.__class__ = nn.Conv2d if isinstance(module, Depthwise) else Conv2dSame
    assert list(slow.state_dict()) == list(encoder.state_dict())
    x = torch.randn(2, 1, 64, 96)
    with torch.no_grad():
        for one, other in zip(encoder.eval()(x)[:4], slow.eval()(x)[:4], strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 16, 3, groups=8, bias=False),
        nn.Conv2d(8, 8, 3, groups=4, bias=False),
        nn.Conv2d(8, 8, 3, groups=8, bias=False, dilation=2),
        nn.Conv2d(8, 8, (3, 5), groups=8, bias=False),
        nn.Conv2d(8, 8, 3, groups=8, bias=False, padding="same"),
        nn.Conv2d(8, 8, 3, groups=8, bias=False, padding=1, padding_mode="reflect"),
        nn.Conv2d(1, 1, 3, bias=False),
    ],
)
def test_other_convolutions_stay(module: nn.Conv2d) -> None:
    speed_up(nn.Sequential(module))
    assert type(module) is nn.Conv2d

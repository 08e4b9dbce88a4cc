"""A GELU and a linear layer in one step: the same answers and gradients, and less that is kept."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers import Mlp
from torch import Tensor, nn

from propl_monai.model.encoder import VisionEncoder
from propl_monai.model.gelu_linear import GeluLinear, remember_less


def both() -> tuple[Mlp, Mlp]:
    """A plain MLP and its copy that remembers less."""
    torch.manual_seed(0)
    plain = Mlp(6, 24)
    sparing = copy.deepcopy(plain)
    remember_less(nn.Sequential(sparing))
    return plain, sparing


def kept(module: nn.Module, x: Tensor) -> int:
    """Numbers that a forward pass keeps for the backward pass, parameters aside; each storage once."""
    own = {parameter.data_ptr() for parameter in module.parameters()}
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            found[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = module(x)  # held, so that no storage is used twice
    return sum(found.values()) + 0 * output.numel()


@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 4, 6)])
def test_answers_and_gradients_are_those_of_the_plain_mlp(shape: tuple[int, ...]) -> None:
    found = []
    for mlp in both():
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1), requires_grad=True)
        y = mlp(x)
        (y**2).sum().backward()
        found.append([y.detach(), x.grad, *(parameter.grad for parameter in mlp.parameters())])
    assert len(found[0]) == 6
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6) and float(one.abs().max()) > 0


def test_names_and_values_of_the_weights_stay() -> None:
    plain, sparing = both()
    assert isinstance(sparing.fc2, GeluLinear)
    assert plain.state_dict().keys() == sparing.state_dict().keys()
    assert all(torch.equal(value, sparing.state_dict()[name]) for name, value in plain.state_dict().items())


def test_half_is_kept() -> None:
    x = torch.randn(50, 6, requires_grad=True)
    plain, sparing = (kept(mlp, x) for mlp in both())
    assert plain == 50 * (6 + 24 + 24)  # the input of the first layer, of the GELU, of the second layer
    assert sparing == 50 * (6 + 24)


def test_autocast_and_no_gradient() -> None:
    plain, sparing = both()
    x = torch.randn(5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        one, other = plain(x), sparing(x)
        assert one.dtype == other.dtype == torch.bfloat16
        assert torch.allclose(one, other, atol=2e-2)
        other.float().sum().backward()
    assert sparing.fc2.weight.grad is not None and sparing.fc2.weight.grad.dtype == torch.float32
    with torch.no_grad():
        assert torch.equal(plain(x), sparing(x))


def test_which_mlps_change() -> None:
    convnext = VisionEncoder("convnext_tiny")
    assert sum(isinstance(module, GeluLinear) for module in convnext.modules()) == 18  # its blocks: 3 + 3 + 9 + 3
    other = nn.ModuleList([Mlp(4, act_layer=nn.ReLU), Mlp(4, drop=0.1), Mlp(4, bias=False)])
    remember_less(other)
    assert not any(isinstance(module, GeluLinear) for module in other.modules())

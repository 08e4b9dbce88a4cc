"""The blocks of the decoder against those of MONAI that they stand for."""

from __future__ import annotations

import pytest
import torch
from monai.networks import blocks as monai_blocks
from torch import Tensor, nn

from propl_monai.model import blocks

PAIRS = {
    "up": (
        lambda: monai_blocks.UnetrUpBlock(2, 6, 4, kernel_size=3, upsample_kernel_size=2, norm_name="BATCH"),
        lambda: blocks.UnetrUpBlock(6, 4),
        (torch.Size([2, 6, 3, 5]), torch.Size([2, 4, 6, 10])),
    ),
    "subpixel": (
        lambda: monai_blocks.SubpixelUpsample(2, 6, 3, scale_factor=4),
        lambda: blocks.SubpixelUpsample(6, 3, scale_factor=4),
        (torch.Size([2, 6, 3, 5]),),
    ),
    "out": (
        lambda: monai_blocks.UnetOutBlock(2, 6, 1),
        lambda: blocks.UnetOutBlock(6, 1),
        (torch.Size([2, 6, 3, 5]),),
    ),
}


def run(block: nn.Module, inputs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """What a block gives in training and its gradients; batch statistics are left behind in it."""
    found = block(*inputs)
    found.square().mean().backward()
    return found.detach(), [one.grad for one in block.parameters() if one.grad is not None]


@pytest.mark.parametrize("name", PAIRS)
def test_start_output_gradients_and_state_are_those_of_monai(name: str) -> None:
    """The same draws of random numbers, so that a seeded training starts from the same weights."""
    made_by_monai, made_here, shapes = PAIRS[name]
    torch.manual_seed(0)
    theirs, after = made_by_monai(), torch.rand(1)
    torch.manual_seed(0)
    ours = made_here()
    assert torch.equal(torch.rand(1), after)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    inputs = [torch.randn(shape) for shape in shapes]
    (found, gradients), (wanted, of_theirs) = run(ours, inputs), run(theirs, inputs)
    assert torch.equal(found, wanted)
    assert gradients and all(torch.equal(a, b) for a, b in zip(gradients, of_theirs, strict=True))
    state = ours.state_dict()
    assert all(torch.equal(state[key], value) for key, value in theirs.state_dict().items())

"""The U-Net of stages: nnU-Net's sizes, pictures as volumes of depth 1, and sizes that its strides do not divide."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from propl_monai.errors import ProPLError
from propl_monai.model.networks.staged_unet import PAPER, StagedUNet

SMALL = (4, 8, 8, 8)


@pytest.mark.parametrize(("dims", "millions"), [(2, 10.71), (3, 30.26)])
def test_it_has_the_parameters_of_the_paper(dims: int, millions: float) -> None:
    """10.71 M in 2-D, as MedUniSeg's table 8; in 3-D 31.17 M, with transposed convolutions of depth 2."""
    with torch.device("meta"):
        net = StagedUNet(PAPER, dims, extra=1)
    assert sum(each.numel() for each in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)
    deeper = sum(each.weight.numel() for name, each in net.named_modules() if name.endswith("transp_conv.conv"))
    if dims == 3:
        whole = (
            sum(each.numel() for each in net.parameters()) + deeper - 32 * 64 * 4
        )  # the first has depth 1 there, too
        assert whole / 1e6 == pytest.approx(31.17, abs=0.02)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("filters", [SMALL, (4, 4, 4, 4, 4, 8)])
@pytest.mark.parametrize("size", [(32, 64), (33, 17), (3, 5)])
def test_every_size_of_picture_comes_back_in_stages(dims: int, size: tuple[int, int], filters: tuple[int, ...]) -> None:
    """Depth 1 would break transposed convolutions of stride 2 along it; a single cell, the instance normalisation."""
    torch.manual_seed(0)
    net = StagedUNet(filters, dims, extra=2)
    image = net.padded(torch.rand(2, 1, *size))
    height, width = image.shape[-2:]
    assert [height, width] == [max(-(-side // 32) * 32, net.least_side) for side in size]
    features = net.encode(image)
    depth = (1,) if dims == 3 else ()
    assert features[-1].shape == (2, 8, *depth, height // net.stride, width // net.stride)
    maps = net.decode(features, torch.rand_like(features[-1][:, :2]))
    assert [tuple(one.shape) for one in maps] == [
        (2, channels, height // 2**level, width // 2**level) for level, channels in enumerate(filters[:-1])
    ]
    assert all(bool(one.isfinite().all()) for one in maps)


def test_the_prior_acts_on_the_decoder() -> None:
    torch.manual_seed(0)
    net = StagedUNet(SMALL, 2, extra=1)
    features = net.encode(torch.rand(1, 1, 32, 32))
    first, second = (net.decode(features, torch.full((1, 1, 4, 4), value)) for value in (0.0, 1.0))
    assert all(not torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_padding_repeats_the_edge_and_colours_are_averaged() -> None:
    net = StagedUNet(SMALL, 2, extra=1)
    image = torch.rand(1, 3, 20, 30)
    padded: Tensor = net.padded(image)
    torch.testing.assert_close(padded[..., :20, :30], image.mean(1, keepdim=True))
    assert torch.equal(padded[..., 20:, :30], padded[..., 19:20, :30].expand(-1, -1, 12, -1))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"spatial_dims": 4}, "spatial_dims: 4 is neither 2 nor 3"),
        ({"filters": (8, 8)}, r"filters: \[8, 8\] are not the widths of 3 stages or more"),
        ({"filters": (8, 8, "8")}, "filters: .* are not the widths"),
        ({"filters": (8, 8, 0)}, "filters: .* are not the widths"),
    ],
)
def test_wrong_shapes_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ProPLError, match=told):
        StagedUNet(**({"filters": SMALL, "spatial_dims": 2, "extra": 1} | wrong))

"""Depthwise convolutions with a faster backward pass in bfloat16 on a CPU; in all else they are those of torch and timm.

oneDNN (torch 2.14, AVX-512) needs ten times as long for the weight gradient of a 5 × 5 kernel in bfloat16 as for those of the
four 3 × 3 kernels that cover it, and has no bfloat16 kernel for the input gradient at stride 2, which is up to sixty times as
fast in float32. A training step of the compact preset takes 30 % less time. In float32 neither pays.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional

BLOCK = 3  # edge of the kernels that oneDNN handles well


class Depthwise(nn.Conv2d):
    """A depthwise convolution, square and without bias."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H', W')."""
        return _convolve(self, x, self.padding[0]) if trains_in_bfloat16(self, x) else super().forward(x)  # type: ignore[arg-type]


class DepthwiseSame(Conv2dSame):
    """The same with TensorFlow's padding, which follows the size of the input."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, ⌈H / stride⌉, ⌈W / stride⌉)."""
        if not trains_in_bfloat16(self, x):
            return super().forward(x)
        kernel, stride = self.kernel_size[0], self.stride[0]
        missing = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:]]
        margins = [part for each in reversed(missing) for part in (each // 2, each - each // 2)]
        return _convolve(self, functional.pad(x, margins) if any(margins) else x, 0)


def speed_up(backbone: nn.Module) -> None:
    """Use these classes for all depthwise convolutions of a timm model that they can stand for, in place."""
    for module in backbone.modules():
        faster = {nn.Conv2d: Depthwise, Conv2dSame: DepthwiseSame}.get(type(module))
        if faster and isinstance(module, nn.Conv2d) and _is_plain(module):
            module.__class__ = faster


def _is_plain(module: nn.Conv2d) -> bool:
    """Whether a convolution is depthwise, square, not dilated, without bias, and padded with zeros."""
    square = all(len(set(pair)) == 1 for pair in (module.kernel_size, module.stride, module.padding))
    depthwise = module.groups == module.in_channels == module.out_channels > 1
    plain = module.bias is None and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return square and depthwise and plain and module.dilation == (1, 1)


def trains_in_bfloat16(module: nn.Module, x: Tensor) -> bool:
    """Whether a backward pass in bfloat16 on a CPU may follow."""
    if not (module.training and torch.is_grad_enabled() and x.device.type == "cpu"):
        return False
    return (torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype) is torch.bfloat16


def _convolve(module: nn.Conv2d, x: Tensor, padding: int) -> Tensor:
    weight = module.weight
    if torch.is_autocast_enabled("cpu"):  # as it would cast for a convolution
        x, weight = (each.to(torch.get_autocast_dtype("cpu")) for each in (x, weight))
    return _Convolution.apply(x, weight, module.stride[0], padding)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(x, weight, None, stride, padding, 1, x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            dtype = x.dtype if ctx.stride == 1 else torch.float32
            of_x = _gradient(gradient.to(dtype), x.to(dtype), weight.to(dtype), ctx.stride, ctx.padding, 0).to(x.dtype)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(gradient, x, weight, ctx.stride, ctx.padding)
        return of_x, of_weight, None, None


def _gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, of: int) -> Tensor:
    """torch's own gradient of a depthwise convolution: of its input (0) or of its weight (1)."""
    wanted = [number == of for number in range(3)]
    sizes = ([stride] * 2, [padding] * 2, [1, 1])
    return torch.ops.aten.convolution_backward(gradient, x, weight, None, *sizes, False, [0, 0], x.shape[1], wanted)[of]


def _weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    edge = weight.shape[-1]
    if edge <= BLOCK:
        return _gradient(gradient, x, weight, stride, padding, 1)
    blocks = -(-edge // BLOCK)
    x = functional.pad(x, (padding, padding + blocks * BLOCK - edge) * 2)
    part = weight.new_empty(len(weight), 1, BLOCK, BLOCK)
    height, width = (stride * (side - 1) + BLOCK for side in gradient.shape[2:])
    rows = []
    for top in range(0, blocks * BLOCK, BLOCK):
        views = (x[:, :, top : top + height, left : left + width] for left in range(0, blocks * BLOCK, BLOCK))
        views = (view.contiguous(memory_format=torch.channels_last) for view in views)
        rows.append(torch.cat([_gradient(gradient, view, part, stride, 0, 1) for view in views], dim=3))
    return torch.cat(rows, dim=2)[:, :, :edge, :edge]

"""GELU and the following linear layer in one step that halves the memory that an MLP keeps for its backward pass."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import GELU, Mlp
from torch import Tensor, nn
from torch.nn import functional


class GeluLinear(nn.Linear):
    """`linear(gelu(x))`; of a linear layer it has the parameters and their names.

    torch keeps both input and output of the GELU, each four times as wide as the tokens of a ConvNeXt. Here the backward pass
    recomputes the output, which costs little beside its matrix products.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(…, in_features), before the GELU, to (…, out_features)."""
        if not torch.is_grad_enabled():
            return functional.linear(functional.gelu(x), self.weight, self.bias)
        kind = x.device.type
        given: list[Tensor] = [x, self.weight, self.bias]
        if torch.is_autocast_enabled(kind):  # as it would cast for a linear layer
            given = [one.to(torch.get_autocast_dtype(kind)) for one in given]
        with torch.autocast(kind, enabled=False):
            return _Remade.apply(*given)


class _Remade(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return functional.linear(functional.gelu(x), weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        rows = gradients[0].reshape(-1, weight.shape[0])
        of_weight = rows.T @ functional.gelu(x).reshape(-1, weight.shape[1])
        of_x = torch.ops.aten.gelu_backward(gradients[0] @ weight, x)
        return of_x, of_weight, rows.sum(0)


def remember_less(backbone: nn.Module) -> None:
    """Use `GeluLinear` in every timm MLP with a plain GELU and a bias, as in ConvNeXt."""
    for mlp in [module for module in backbone.modules() if isinstance(module, Mlp)]:
        # No approximation such as QuickGELU.
        plain = type(mlp.act) in (nn.GELU, GELU) and getattr(mlp.act, "approximate", "none") == "none"
        idle = all(isinstance(one, nn.Identity) or getattr(one, "p", None) == 0 for one in (mlp.drop1, mlp.norm))
        linear: nn.Module = mlp.fc2
        if plain and idle and type(linear) is nn.Linear and linear.bias is not None:
            merged = GeluLinear(linear.in_features, linear.out_features, device="meta")  # draws no random numbers
            for name, parameter in linear.named_parameters():
                merged.register_parameter(name, parameter)
            mlp.act, mlp.fc2 = nn.Identity(), merged

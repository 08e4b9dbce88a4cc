"""The network in a form that exporters can follow: prompts as a table, tasks as indices, no operation that fixes a size."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from propl_monai.errors import ProPLError
from propl_monai.model.encoder import STRIDES, Features
from propl_monai.model.network import ProPL, mean_logits
from propl_monai.model.networks.base import Segmenter
from propl_monai.model.networks.prompted import PromptedSegmenter


def exportable(network: Segmenter, decoder: str | None = None) -> nn.Module:
    """A copy of a network as a function of normalised images (B, 1, H, W), float32, and task indices (B,), int64."""
    if network.bound_to_size:
        fact = f"network '{network.name}' with these options has parts whose layout follows the image's size"
        raise ProPLError("export", fact, "predict with this package, or export another network")
    return ExportableNetwork(network, decoder) if isinstance(network, ProPL) else ExportableSegmenter(network)


class ExportableNetwork(nn.Module):
    """The encoder, the decoders that predict, and the text of every task.

    Args:
        network: copied, not changed.
        decoder: "sd", "pd", "mean", or None for the network's choice.
    """

    texts: Tensor

    def __init__(self, network: ProPL, decoder: str | None = None) -> None:
        super().__init__()
        decoder = decoder or network.chosen_decoder
        network.require_decoder(decoder)
        if network.prompts is None:
            raise ProPLError("export", "this network has no prompt bank", "call attach_prompts(bank) first")
        self.register_buffer("texts", network.prompts.table().detach().clone().cpu())
        copied = copy.deepcopy(network).eval().cpu().requires_grad_(False)
        self.backbone, self.picked = copied.encoder.backbone, copied.encoder.picked
        fix_padding(self.backbone)
        self.grey = take_grey(self.backbone)
        copied.keep_decoder(decoder)
        self.decoders = nn.ModuleList(copied.get_submodule(f"decoder_{name}") for name in copied.decoders)
        self.eval()

    def forward(self, image: Tensor, task: Tensor) -> Tensor:
        """Normalised images (B, 1, H, W), float32, and task indices (B,), int64, to logits (B, 1, H, W)."""
        text = torch.index_select(self.texts, 0, task)  # unlike texts[task], it refuses negative indices
        return self.decode(self.encode(image), text)

    def encode(self, image: Tensor) -> Features:
        """Images (B, 1, H, W) to features, as `VisionEncoder` does, where possible without three equal channels."""
        height, width = image.shape[-2:]
        # Pad always, even by 0, as an `if` would fix the size; with edge values, as the encoder itself does.
        image = functional.pad(image, (0, _missing(width), 0, _missing(height)), mode="replicate")
        maps = self.backbone(image if self.grey else image.expand(-1, 3, -1, -1))
        v1, v2, v3, v4 = (maps[index] for index in self.picked)
        return Features(v1, v2, v3, v4, height, width)

    def decode(self, features: Features, text: Tensor) -> Tensor:
        """Features of a batch and text (B, L, E) to logits (B, 1, H, W)."""
        each = [decoder(features, text) for decoder in self.decoders]
        return each[0] if len(each) == 1 else mean_logits(*each)


class ExportableSegmenter(nn.Module):
    """Any network of the registry that sees images through a `VisionEncoder` alone, or pads them as one does.

    Args:
        network: with one decoder; copied, not changed.
    """

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        if not network.task_names:
            raise ProPLError("export", "this network knows no task", "give weights that a training has written")
        self.network = copy.deepcopy(network).eval().cpu().requires_grad_(False)
        if isinstance(self.network, PromptedSegmenter) and self.network.prompts:
            self.network.add_module("prompts", _Texts(self.network.prompts.table().detach().clone()))
        fix_padding(self.network)
        self.eval()

    def forward(self, image: Tensor, task: Tensor) -> Tensor:
        """Normalised images (B, 1, H, W), float32, and task indices (B,), int64, to logits (B, 1, H, W)."""
        height, width = image.shape[-2:]
        # Here, even by 0, as the encoder's own `if` would fix the size.
        rows, columns = (_missing(side, self.network.least_side) for side in (height, width))
        image = functional.pad(image, (0, columns, 0, rows), mode="replicate")
        return self.network.segment(image, task, self.network.chosen_decoder)[..., :height, :width]


class _Texts(nn.Module):
    """The text of every task as a table; unlike texts[task], the look-up refuses negative indices."""

    texts: Tensor

    def __init__(self, texts: Tensor) -> None:
        super().__init__()
        self.register_buffer("texts", texts)

    def forward(self, numbers: Tensor) -> Tensor:
        return torch.index_select(self.texts, 0, numbers)


def _missing(side: int, least: int = STRIDES[-1]) -> int:
    """Pixels to the next multiple of the largest stride, and to `least`."""
    whole = (side + STRIDES[-1] - 1) // STRIDES[-1] * STRIDES[-1]
    return (cast(int, torch.sym_max(whole, least)) if least > STRIDES[-1] else whole) - side


def fix_padding(module: nn.Module) -> None:
    """Replace convolutions whose padding depends on the input's size (TensorFlow's "same") by ones with fixed padding.

    If the stride divides the size, as all strides of an encoder divide multiples of 32, that padding is the same for
    every size: kernel − stride pixels, the smaller half in front. Exporters cannot follow its arithmetic.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and any(kind.__name__ == "Conv2dSame" for kind in type(child).__mro__):
            setattr(module, name, _padded_convolution(child))
        else:
            fix_padding(child)


def take_grey(backbone: nn.Module) -> bool:
    """Let the first convolution take one grey channel instead of three equal ones; False if it does not take three.

    Its weights are summed in float64. The response of a colour filter to grey is a small difference of large numbers,
    which the normalisation behind it multiplies by up to a hundred: with three channels ONNX Runtime and PyTorch
    differed by more than 1e-4 in a logit.
    """
    first = [one for one in backbone.modules() if isinstance(one, nn.Conv2d) and one.in_channels == 3]
    if len(first) != 1 or first[0].groups != 1:
        return False
    summed = first[0].weight.double().sum(dim=1, keepdim=True)
    first[0].weight, first[0].in_channels = nn.Parameter(summed.float(), requires_grad=False), 1
    return True


def _padded_convolution(same: nn.Conv2d) -> nn.Sequential:
    padding: list[int] = []
    for axis in (1, 0):  # ZeroPad2d: left, right, top, bottom
        whole = max(same.dilation[axis] * (same.kernel_size[axis] - 1) + 1 - same.stride[axis], 0)
        padding += [whole // 2, whole - whole // 2]
    same.__class__ = nn.Conv2d  # whose own padding is 0 here
    return nn.Sequential(nn.ZeroPad2d((padding[0], padding[1], padding[2], padding[3])), same)

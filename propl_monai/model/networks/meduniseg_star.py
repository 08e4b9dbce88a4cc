"""MedUniSeg*: a trained MedUniSeg that stays as it is, and small parts beside it that learn some tasks anew."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from propl_monai.errors import ProPLError, unknown
from propl_monai.model.networks.meduniseg import MedUniSeg
from propl_monai.model.networks.staged_unet import PAPER
from propl_monai.model.networks.uniseg import BACKBONE
from propl_monai.tasks import NAMES, find_all

RANK, ALPHA = 32, 64  # of the paper
_share: ContextVar[Tensor | None] = ContextVar("share", default=None)  # (B,), 0 or 1; threads may share a network


class MedUniSegStar(MedUniSeg):
    """MedUniSeg with LoRA on its convolutions, and new transposed convolutions and a new head beside the old ones.

    Ye et al., "MedUniSeg", section 5.4; there is no code. What the new parts make is added to what the old ones make, for
    images of `relearn` alone: the others get the very same masks as before. The paper does not say whether every task has
    parts of its own; its 6.8 M parameters fit one set, which all of these tasks share here. The new parts start at 0, so that
    the network starts as MedUniSeg. LoRA is that of the library peft (extra `lora`), which knows no transposed convolutions.
    The paper names the tasks by comparison with one nnU-Net a task; here they are an option. What is frozen, and when, is
    decided by `MedUniSegStarMethod`.

    Args:
        encoder, tasks, prompts, filters, spatial_dims, prompt_channels, prompt_grid, default_task: see `UniSeg`.
        modality_key, sources: see `MedUniSeg`.
        relearn: names of the tasks that the new parts serve; None for all.
        rank: of LoRA.
        alpha: of LoRA; its scale is alpha / rank.
    """

    name = "meduniseg_star"
    required = MedUniSeg.required | {"relearn", "rank", "alpha"}
    related = frozenset({"meduniseg", "meduniseg_star"})
    served: Tensor

    def __init__(
        self,
        encoder: str = BACKBONE,
        tasks: Sequence[str] = NAMES,
        prompts: str | None = None,
        filters: Sequence[int] = PAPER,
        spatial_dims: int = 2,
        prompt_channels: int | None = 100,
        prompt_grid: Sequence[int] = (6, 6),
        modality_key: str = "organ",
        sources: Sequence[str] | None = None,
        relearn: Sequence[str] | None = None,
        rank: int = RANK,
        alpha: float = ALPHA,
        default_task: str | None = None,
    ) -> None:
        of_uniseg = (encoder, tasks, prompts, filters, spatial_dims, prompt_channels, prompt_grid)
        super().__init__(*of_uniseg, modality_key, sources, default_task)
        self.relearn = [task.name for task in find_all(relearn, "relearn")] if relearn is not None else list(self.tasks)
        for name in self.relearn:
            if name not in self.tasks:
                raise unknown("relearn", "task of this network", name, self.tasks)
        if type(rank) is not int or rank < 1 or not alpha > 0:
            raise ProPLError("rank, alpha", f"{rank!r} and {alpha!r} are not both above 0", f"give {RANK} and {ALPHA}")
        self.rank, self.alpha = rank, alpha
        self.register_buffer(
            "served", torch.tensor([task in self.relearn for task in self.tasks]).float(), persistent=False
        )
        old = list(self.parameters())
        for part in (self.unet, self.fuse):
            add_lora(part, rank, alpha)
        for block in self.unet.decoder:
            block.transp_conv = WithResidual(block.transp_conv)
        self.new_head = nn.Conv2d(self.unet.filters[0], 1, 1)
        for parameter in self.new_head.parameters():
            nn.init.zeros_(parameter)
        known = set(map(id, old))
        self._new = {name for name, parameter in self.named_parameters() if id(parameter) not in known}
        self.requires_grad_(True)  # peft freezes what it finds

    @property
    def options(self) -> dict[str, Any]:
        """Those of `MedUniSeg`, the tasks that are learnt anew, and the rank and scale of LoRA."""
        return super().options | {"relearn": self.relearn, "rank": self.rank, "alpha": self.alpha}

    def freeze(self, relearning: bool) -> None:
        """Let the new parts learn, and the old ones stay; or the other way round."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_((name in self._new) is relearning)

    def share(self, numbers: Tensor) -> Tensor:
        """What the new parts count for images of these tasks (B,): 1 for those that are learnt anew, 0 for others."""
        return torch.index_select(self.served, 0, numbers)

    def maps(self, image: Tensor, numbers: Tensor, sources: Sequence[str] | None = None) -> list[Tensor]:
        """See `UniSeg.maps`."""
        before = _share.set(self.share(numbers))
        try:
            return super().maps(image, numbers, sources)
        finally:
            _share.reset(before)

    def final(self, found: Tensor, numbers: Tensor) -> Tensor:
        """The decoder's map of full size to logits (B, 1, H, W)."""
        return self.head(found) + shared(self.new_head(found), self.share(numbers))

    def name_before(self, name: str) -> str:
        """What MedUniSeg calls a tensor of the state dict that both have."""
        return name.replace(".base_layer.", ".").replace(".transp_conv.old.", ".transp_conv.")

    def is_of_tasks(self, name: str) -> bool:
        """See `UniSeg.is_of_tasks`; the rows of LoRA's first matrix are those of its rank."""
        return super().is_of_tasks(name) and ".lora_A." not in name


class WithResidual(nn.Module):
    """A transposed convolution, and a new one of the same shape, which starts at 0, added to it.

    Args:
        old: a block of MONAI's DynUNet.
    """

    def __init__(self, old: Any) -> None:
        super().__init__()
        self.old, kernel = old, old.conv
        options = {"stride": kernel.stride, "padding": kernel.padding, "output_padding": kernel.output_padding}
        self.new = type(kernel)(kernel.in_channels, kernel.out_channels, kernel.kernel_size, bias=False, **options)
        nn.init.zeros_(self.new.weight)

    def forward(self, found: Tensor) -> Tensor:
        """Features (B, C, …) to larger ones."""
        return self.old(found) + shared(self.new(found), _share.get())


def shared(part: Tensor, share: Tensor | None) -> Tensor:
    """A part of features (B, …) for the images that it is for; for all where none is told."""
    return part if share is None else part * share.to(part.dtype).reshape(-1, *(1,) * (part.ndim - 1))


def add_lora(module: nn.Module, rank: int, alpha: float) -> None:
    """Give all convolutions of a module LoRA, in place, which counts for each image by its share."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer
    except ModuleNotFoundError as error:
        fact = "is not installed, and meduniseg_star takes LoRA from it"
        raise ProPLError("package 'peft'", fact, "pip install 'propl-monai[lora]'") from error
    names = [name for name, one in module.named_modules() if isinstance(one, (nn.Conv2d, nn.Conv3d))]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=names), module)  # type: ignore[arg-type]
    for one in module.modules():
        if isinstance(one, LoraLayer):
            one.lora_B["default"].register_forward_hook(_by_share)


def _by_share(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return shared(output, _share.get())

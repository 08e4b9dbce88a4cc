"""UniSeg: a prompt of all tasks is fused with what the picture shows, and each image gets the prior of its own task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from propl_monai.errors import ProPLError
from propl_monai.model.networks.base import Segmenter, no_text
from propl_monai.model.networks.staged_unet import PAPER, StagedUNet
from propl_monai.tasks import NAMES, find_all

BACKBONE = "dynunet"  # in the place of an encoder's name
LEAK = 0.01


class UniSeg(Segmenter):
    """A U-Net of stages whose decoder sees, beside the deepest features F, the prior of the image's task: {F_1 … F_N} =
    split(f([F_uni, F])), of which the task selects one channel.

    Ye et al., MICCAI 2023 (eqs. 1, 2), and the task prompt of Ye et al., "MedUniSeg" (eq. 1). Paper and released code train
    3-D volumes, one task a batch, and the code takes the task of the first image for the whole batch: here every image has
    its own. They have as many outputs as the largest task has classes, here one, by a sigmoid. F_uni has N channels as in
    UniSeg, or `prompt_channels`, and a grid of its own; features are brought to it and the prior back by interpolation, as
    MedUniSeg does with pictures. The backbone is MONAI's DynUNet with nnU-Net's widths; no weights are made for it, so it
    starts at random. Deep supervision belongs to `DeepSupervisionMethod`, whose heads serve training alone.

    Args:
        encoder: "dynunet"; any other is refused, as this network has no timm encoder.
        tasks: names, in the order of their numbers.
        prompts: None; anything else is refused.
        filters: widths of the stages.
        spatial_dims: 2, or 3 for pictures as volumes of depth 1.
        prompt_channels: K, of the universal prompt; None for the number of tasks.
        prompt_grid: (h, w) of the universal prompt.
        default_task: the task when none is given; None makes that an error.

    Attributes:
        started: whether weights were taken from another network, see `take`.
    """

    name = "uniseg"
    related = frozenset({"uniseg"})
    by_other_names: ClassVar[frozenset[str]] = frozenset()  # tensors whose rows are not of tasks, for `take`
    started = False  # from other weights
    required = frozenset({"encoder", "filters", "spatial_dims", "prompt_channels", "prompt_grid", "tasks"})

    def __init__(
        self,
        encoder: str = BACKBONE,
        tasks: Sequence[str] = NAMES,
        prompts: str | None = None,
        filters: Sequence[int] = PAPER,
        spatial_dims: int = 2,
        prompt_channels: int | None = None,
        prompt_grid: Sequence[int] = (6, 6),
        default_task: str | None = None,
    ) -> None:
        super().__init__()
        if prompts is not None:
            raise no_text(self.name)
        if encoder != BACKBONE:
            fact = f"network '{self.name}' has stages of its own"
            raise ProPLError(f"encoder '{encoder}'", fact, f"leave encoder at {BACKBONE}, and set filters")
        self.tasks = [task.name for task in find_all(tasks)]
        self.unet = StagedUNet(filters, spatial_dims, extra=1)
        self.fuse = Fuse(self.unet.filters[-1], len(self.tasks), prompt_channels, prompt_grid, spatial_dims)
        self.head = nn.Conv2d(self.unet.filters[0], 1, 1)
        self.least_side, self.default_task = self.unet.least_side, default_task

    @property
    def task_names(self) -> list[str]:
        """The tasks of the prompt."""
        return self.tasks

    @property
    def options(self) -> dict[str, Any]:
        """Widths, dimensions, shape of the prompt, and tasks."""
        return {
            "encoder": BACKBONE,
            "filters": list(self.unet.filters),
            "spatial_dims": self.unet.spatial_dims,
            "prompt_channels": self.fuse.prompt.shape[1],
            "prompt_grid": list(self.fuse.prompt.shape[-2:]),
            "tasks": self.tasks,
        }

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """As `nn.Module.to`; kernels of volumes, which have one axis more, have no place for `channels_last`."""
        if self.unet.spatial_dims == 3:
            kwargs.pop("memory_format", None)
        return super().to(*args, **kwargs) if args or kwargs else self

    def maps(self, image: Tensor, numbers: Tensor, sources: Sequence[str] | None = None) -> list[Tensor]:
        """Images (B, 1 or 3, H, W) and task numbers (B,) to the decoder's maps, full size first, of the padded image.

        `sources` names the data set of each image, for a network whose options ask for it.
        """
        features = self.unet.encode(self.shown(image, numbers, sources))
        return self.unet.decode(features, self.fuse(features[-1], numbers))

    def shown(self, image: Tensor, numbers: Tensor, sources: Sequence[str] | None = None) -> Tensor:
        """What the first stage sees of images: here nothing but the padded image."""
        return self.unet.padded(image)

    def segment(self, image: Tensor, numbers: Tensor, decoder: str) -> Tensor:
        """Images (B, 1, H, W) and task numbers (B,) to logits (B, 1, H, W), without any check."""
        height, width = image.shape[-2:]
        return self.final(self.maps(image, numbers)[0], numbers)[..., :height, :width]

    def final(self, found: Tensor, numbers: Tensor) -> Tensor:
        """The decoder's map of full size to logits (B, 1, H, W)."""
        return self.head(found)

    @torch.no_grad()
    def take(self, other: Segmenter) -> None:
        """Start from the weights of another network of this kind, whose tasks may be others: transfer (MedUniSeg, 3.5).

        What belongs to a task, its channel of the fusion, is taken by the task's name. The head is taken if the two have a
        task in common, and else starts at random, as in the paper, where the fusion is not transferred at all.
        """
        mine, theirs = self.options, other.options
        for key in ("filters", "spatial_dims", "prompt_channels", "prompt_grid"):
            if mine[key] != theirs[key]:
                fact = f"have {key} {theirs[key]!r}, where {mine[key]!r} is wanted"
                raise ProPLError("the weights to start from", fact, f"set {key} to what they have")
        found = other.state_dict()
        pairs = by_name(self.tasks, other.task_names)
        for name, own in self.state_dict().items():
            before = name if name in found else self.name_before(name)
            if before not in found or (name.startswith("head.") and not pairs):
                continue
            if self.is_of_tasks(name):
                for to, origin in pairs:
                    own[to] = found[before][origin]
            elif name not in self.by_other_names:
                own.copy_(found[before])
        self.started = True

    def name_before(self, name: str) -> str:
        """What the network to start from calls a tensor of the state dict."""
        return name

    def is_of_tasks(self, name: str) -> bool:
        """Whether a tensor of the state dict has a row for each task: the last convolution of the fusion, and its norm."""
        last = len(self.fuse.blocks) - 2  # of the places; behind it comes what has no tensors
        return name.startswith((f"fuse.blocks.{last - 1}.", f"fuse.blocks.{last}."))


def by_name(mine: Sequence[str], theirs: Sequence[str]) -> list[tuple[int, int]]:
    """The places that names have in two lists, for those that are in both."""
    return [(place, list(theirs).index(name)) for place, name in enumerate(mine) if name in theirs]


class Fuse(nn.Module):
    """The universal prompt and its fusion with features: three blocks of convolution, C → C/4 → C/4 → N, and a selection.

    Args:
        width: channels of the features.
        tasks: N.
        channels: K, of the prompt; None for N.
        grid: (h, w) of the prompt.
        spatial_dims: 2, or 3 for depth 1.
    """

    def __init__(self, width: int, tasks: int, channels: int | None, grid: Sequence[int], spatial_dims: int) -> None:
        super().__init__()
        if len(grid) != 2 or any(type(side) is not int or side < 2 for side in grid):
            raise ProPLError("prompt_grid", f"{list(grid)!r} is no grid of two rows and columns or more", "give [6, 6]")
        channels = tasks if channels is None else channels
        if type(channels) is not int or channels < 1:
            raise ProPLError("prompt_channels", f"{channels!r} is no number of channels", "give null, or 100")
        volume = spatial_dims == 3
        self.prompt = nn.Parameter(torch.randn(1, channels, *(1,) * volume, *grid))
        self.mode = "trilinear" if volume else "bilinear"
        convolution, norm = (nn.Conv3d, nn.InstanceNorm3d) if volume else (nn.Conv2d, nn.InstanceNorm2d)
        hidden = max(1, (width + channels) // 4)
        parts: list[nn.Module] = []
        for into, out in ((width + channels, hidden), (hidden, hidden), (hidden, tasks)):
            kernel = convolution(into, out, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(kernel.weight, a=LEAK)  # as the stages
            parts += [kernel, norm(out, affine=True), nn.LeakyReLU(LEAK)]
        self.blocks = nn.Sequential(*parts)

    def forward(self, features: Tensor, numbers: Tensor) -> Tensor:
        """The deepest features (B, C, …) and task numbers (B,) to the prior (B, 1, …) of each image's task."""
        on_grid = functional.interpolate(features, self.prompt.shape[2:], mode=self.mode)
        # Not a batch's size, which a trace would fix.
        prompt = self.prompt.to(on_grid.dtype).expand(on_grid.shape[0], *self.prompt.shape[1:])
        priors = self.blocks(torch.cat((prompt, on_grid), 1))
        wish = functional.one_hot(numbers, priors.shape[1]).to(priors.dtype)
        chosen = (priors * wish.reshape(*wish.shape, *(1,) * (priors.ndim - 2))).sum(1, keepdim=True)
        return functional.interpolate(chosen, features.shape[2:], mode=self.mode)

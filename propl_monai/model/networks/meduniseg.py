"""MedUniSeg: UniSeg whose pictures carry a map of their modality, from the first layer on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from propl_monai.errors import ProPLError, unknown
from propl_monai.model.networks.base import Segmenter
from propl_monai.model.networks.staged_unet import PAPER
from propl_monai.model.networks.uniseg import BACKBONE, UniSeg, by_name
from propl_monai.tasks import NAMES, find

KEYS = ("organ", "source")  # what stands for a modality
LENGTH = 512  # of a modality's prompt
SIDE = 12  # of its map, before it is enlarged
START = 0.02  # deviation of the prompts


class MedUniSeg(UniSeg):
    """UniSeg of I + MMap(p_m), p_m a learned prompt of the picture's modality m.

    Ye et al., "MedUniSeg: 2D and 3D Medical Image Segmentation via a Prompt-driven Universal Model", eq. 2 and table 7; code
    was never released. The map is a linear layer, 512 → 144, as 12 × 12 values, enlarged to the picture and added. There
    the nine modalities are CT, MRI, ultrasound …: as all pictures here are of one, the key is the target's organ, or the
    source (data set, machine). The task tells the organ. A source is told by the batches of `DeepSupervisionMethod`; where
    none is, or one that training did not see, the mean of all prompts stands for it, as in validation and prediction. The
    paper gives no start: here maps start near 0. The universal prompt has 100 channels (table 7).

    Args:
        encoder, tasks, prompts, filters, spatial_dims, prompt_channels, prompt_grid, default_task: see `UniSeg`.
        modality_key: "organ" or "source".
        sources: names of the sources, if these are the key; None otherwise.
    """

    name = "meduniseg"
    required = UniSeg.required | {"modality_key", "sources"}
    related = frozenset({"meduniseg"})
    by_other_names = frozenset({"mmap.prompt"})
    organ_of: Tensor

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
        default_task: str | None = None,
    ) -> None:
        super().__init__(encoder, tasks, prompts, filters, spatial_dims, prompt_channels, prompt_grid, default_task)
        if modality_key not in KEYS:
            raise unknown("modality_key", "key", modality_key, KEYS)
        if (modality_key == "source") != bool(sources):
            fact = f"modality_key is {modality_key}, and {len(sources or ())} sources are named"
            raise ProPLError("sources", fact, "name them if they are the key, and only then")
        self.modality_key, self.sources = modality_key, sorted(sources) if sources else None
        self.modalities = self.sources or sorted({find(task).organ for task in self.tasks})
        self.mmap = ModalityMap(len(self.modalities))
        if modality_key == "organ":
            places = [self.modalities.index(find(task).organ) for task in self.tasks]
            self.register_buffer("organ_of", torch.tensor(places), persistent=False)

    @property
    def options(self) -> dict[str, Any]:
        """Those of `UniSeg`, and what stands for a modality."""
        return super().options | {"modality_key": self.modality_key, "sources": self.sources}

    @torch.no_grad()
    def take(self, other: Segmenter) -> None:
        """See `UniSeg.take`. Prompts are taken by the name of the modality; if the tasks are others, they then stay fixed."""
        super().take(other)
        assert isinstance(other, MedUniSeg), "`related` names no other kind"
        for to, origin in by_name(self.modalities, other.modalities):
            self.mmap.prompt[to] = other.mmap.prompt[origin]
        if other.task_names != self.task_names:
            self.mmap.prompt.requires_grad_(False)

    def shown(self, image: Tensor, numbers: Tensor, sources: Sequence[str] | None = None) -> Tensor:
        """What the first stage sees: the padded image and its modality's map. `sources` count only if they are the key."""
        padded = super().shown(image, numbers)
        chosen = self._shares(numbers, sources).to(padded.dtype)
        return padded + self.mmap(chosen, padded)

    def _shares(self, numbers: Tensor, sources: Sequence[str] | None) -> Tensor:
        """What each modality's prompt counts for each image, (B, M), 0 to 1, adding up to 1."""
        count = len(self.modalities)
        if self.sources is None:
            return functional.one_hot(torch.index_select(self.organ_of, 0, numbers), count)
        mean = [1 / count] * count
        if sources is None:
            return torch.tensor([mean], device=numbers.device)
        rows = [
            [float(source == one) for one in self.sources] if source in self.sources else mean for source in sources
        ]
        return torch.tensor(rows, device=numbers.device)


class ModalityMap(nn.Module):
    """MMap: a prompt for each modality, and the linear layer that makes its map.

    Args:
        count: M, of modalities.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.prompt = nn.Parameter(START * torch.randn(count, LENGTH))
        self.linear = nn.Linear(LENGTH, SIDE * SIDE)
        nn.init.zeros_(self.linear.bias)

    def forward(self, shares: Tensor, image: Tensor) -> Tensor:
        """Shares of the prompts (B, M), or (1, M) for all, to maps (B or 1, 1, H, W) of the size of images (…, H, W)."""
        small = self.linear(shares @ self.prompt.to(shares.dtype)).unflatten(1, (1, SIDE, SIDE))
        return functional.interpolate(small, image.shape[-2:], mode="bilinear")

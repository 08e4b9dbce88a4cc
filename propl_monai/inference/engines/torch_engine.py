"""The engine that trains, too: torch, on any device, with every decoder, and with uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from propl_monai.data.grid import from_grid, normalised, to_grid
from propl_monai.errors import ProPLError, first_line
from propl_monai.inference.engines.base import PASSES, PERTURBATION, SEED, STRENGTH
from propl_monai.inference.engines.decoding import TaskDecoder
from propl_monai.model.networks.base import Segmenter
from propl_monai.model.views import VIEWS


class TorchEngine:
    """See `base.Engine`.

    Args:
        network: that knows a task; moved to the device.
        spatial_size, normalisation: of its training.
        device: such as "cpu" or "cuda:1"; None for the first GPU, else the CPU.
        decoder: "sd", "pd" or "mean"; None for the network's choice.
        tta: see `TaskDecoder`.
        uncertainty_of: one of `base.UNCERTAINTIES`.
    """

    name = "torch"

    def __init__(
        self,
        network: Segmenter,
        spatial_size: tuple[int, ...],
        normalisation: str,
        device: str | torch.device | None,
        decoder: str | None,
        tta: bool,
        uncertainty_of: str,
    ) -> None:
        if not network.task_names:
            raise ProPLError("network", "has no prompt bank, so it knows no task", "attach_prompts(bank) first")
        network.require_decoder(decoder or network.chosen_decoder)
        self.device = _usable(device)
        # Channels last makes convolutions faster on a CPU, those of the decoders by a fifth.
        self.network = network.eval().to(self.device).to(memory_format=torch.channels_last)
        self.spatial_size, self.normalisation = spatial_size, normalisation
        self.decoder, self.tta = decoder or network.chosen_decoder, tta
        self.tasks = tuple(network.task_names)
        self.uncertainty_of = uncertainty_of

    def prepare(self, grey: np.ndarray) -> Tensor:
        """See `base.Engine`."""
        # A copy, as torch takes no mirrored array and warns of one that is read-only.
        pixels = torch.tensor(np.ascontiguousarray(grey))[None].float()
        return normalised(to_grid(pixels, self.spatial_size).float() / 255, self.normalisation)

    @torch.inference_mode()
    def answer(self, images: Sequence[Tensor], tasks: list[str], uncertainty: bool) -> tuple[Tensor, np.ndarray | None]:
        """See `base.Engine`."""
        passes = PASSES if uncertainty and self.uncertainty_of == "dropout" else 0
        views = VIEWS if uncertainty and not passes else ()
        decode = TaskDecoder(tasks, self.decoder, passes, PERTURBATION, STRENGTH, self.tta, SEED, views)
        maps = decode(torch.stack(list(images)).to(self.device), self.network).cpu()
        return maps, None if decode.pooled is None else decode.pooled.cpu().numpy()

    @torch.inference_mode()
    def finish(self, maps: Tensor, size: tuple[int, int], count: int) -> tuple[Any, Any]:
        """See `base.Engine`."""
        restored = from_grid(torch.as_tensor(maps), size)
        return restored[:count].sigmoid(), restored[count:] if len(restored) > count else None

    def masks(self, maps: Tensor, size: tuple[int, int], count: int, threshold: float) -> np.ndarray:
        """See `base.Engine`."""
        return self.finish(maps[:count], size, count)[0].cpu().numpy() > threshold


def _usable(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # unknown, not there, or torch was built without it
        cure = "give cpu, or cuda on a machine with an NVIDIA GPU"
        raise ProPLError("device", f"'{device}' cannot be used ({first_line(error)})", cure) from error

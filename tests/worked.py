"""Worked examples of released codes: inputs that every machine computes alike, and a network that looks at single pixels.

The numbers in the tests were computed by the released code of the method, at the commit that the test names, on these inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from propl_monai.model.encoder import Features
from propl_monai.model.networks.base import Segmenter, Task
from propl_monai.tasks import NAMES
from propl_monai.training.cutmix import CutMix


def wave(*shape: int, phase: float = 0.0) -> Tensor:
    """sin(phase + 1.7 n + n² / 49) for n = 0, 1, … in the order of memory."""
    n = torch.arange(int(torch.tensor(shape).prod()), dtype=torch.float64)
    return (phase + 1.7 * n + n.square() / 49).sin().float().reshape(shape)


@torch.no_grad()
def filled(module: nn.Module) -> Any:
    """The module with its k-th parameter set to a wave of phase k, over the square root of what one output sums up."""
    for phase, parameter in enumerate(module.parameters()):
        inputs = parameter[0].numel() if parameter.ndim > 1 else 1
        parameter.copy_(wave(*parameter.shape, phase=phase) / inputs**0.5)
    return module


class Pointwise(Segmenter):
    """Logits = slope · grey value + shift, the same for all tasks; each of its four maps is the image."""

    name = "pointwise"
    encodes_once = True

    def __init__(self, slope: float = 4.0, shift: float = -0.5) -> None:
        super().__init__()
        self.slope, self.shift = nn.Parameter(torch.tensor(slope)), nn.Parameter(torch.tensor(shift))

    @property
    def task_names(self) -> Sequence[str]:  # type: ignore[override]
        return NAMES

    @property
    def options(self) -> dict[str, Any]:
        return {"tasks": list(NAMES)}

    @property
    def widths(self) -> tuple[int, ...]:
        return (1, 1, 1, 1)

    def features(self, image: Tensor, task: Task = None) -> Features:
        return Features(image, image, image, image, image.shape[2], image.shape[3])

    def logits(self, features: Features, task: Task = None, decoder: str | None = None) -> Tensor:
        return self.slope * features.v1 + self.shift

    def segment(self, image: Tensor, numbers: Tensor, decoder: str) -> Tensor:
        return self.slope * image + self.shift


class CrossEntropy(nn.Module):
    """L_sup of released codes without Dice, the mean over all pixels."""

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits, target, weight)


HEIGHT, WIDTH = 4, 6
TASK = "breast cancer"


def labelled() -> dict[str, Any]:
    """Two images and their masks."""
    label = (wave(2, 1, HEIGHT, WIDTH, phase=2.0) > 0.3).float()
    return {"image": wave(2, 1, HEIGHT, WIDTH), "label": label, "task": [TASK] * 2}


def unlabelled() -> dict[str, Any]:
    """Two images, as the weak view and as both strong ones."""
    views = {"image": 3.0, "image_strong": 4.0, "image_strong_2": 5.0}
    return {key: wave(2, 1, HEIGHT, WIDTH, phase=phase) for key, phase in views.items()} | {"task": [TASK] * 2}


def drawings() -> list[CutMix]:
    """Boxes that the two images give each other, for both strong views."""
    partners = torch.tensor([1, 0])
    boxes = [[[1, 1, 3, 5], [0, 2, 2, 6]], [[0, 0, 2, 3], [2, 1, 4, 6]]]
    return [CutMix(partners, torch.tensor(each)) for each in boxes]

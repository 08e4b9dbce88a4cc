"""Random changes of grey levels: what gain, dynamic range and another probe do to a picture, and what methods ask for."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import (
    MapTransform,
    RandAdjustContrastd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandomizableTransform,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from torch import Tensor
from torchvision.transforms.v2 import functional

from propl_monai.errors import ProPLError, unknown

MOST_OPERATIONS = 3


def photometric(key: str, strength: float) -> list:
    """The effects of gain, dynamic range and another probe on a picture; acts on 0…1, before normalisation."""
    if not 0 <= strength <= 1:
        raise ProPLError("photometric strength", f"{strength} is outside 0…1", "give a number from 0 (none) to 1")
    if strength == 0:
        return []
    return [
        RandAdjustContrastd(key, prob=0.7, gamma=(1 / (1 + strength), 1 + strength)),
        RandScaleIntensityd(key, factors=0.4 * strength, prob=0.5),
        RandShiftIntensityd(key, offsets=0.15 * strength, prob=0.5),
        RandGaussianSmoothd(key, sigma_x=(0.25, 1.5 * strength), sigma_y=(0.25, 1.5 * strength), prob=0.3),
        RandGaussianNoised(key, prob=0.3, std=0.08 * strength),
    ]


# Of a picture (1, H, W), uint8, and a share in [0, 1), which sets a strength in the paper's range.
OPERATIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "identity": lambda picture, _: picture,
    "autocontrast": lambda picture, _: functional.autocontrast(picture),
    "equalise": lambda picture, _: functional.equalize(picture),
    "blur": lambda picture, share: functional.gaussian_blur(picture, [9, 9], [0.1 + 1.9 * share] * 2),
    "contrast": lambda picture, share: functional.adjust_contrast(picture, 0.05 + 0.9 * share),
    "brightness": lambda picture, share: functional.adjust_brightness(picture, 0.05 + 0.9 * share),
    "sharpness": lambda picture, share: functional.adjust_sharpness(picture, 0.05 + 0.9 * share),
    "posterise": lambda picture, share: functional.posterize(picture, 4 + int(5 * share)),
    "solarise": lambda picture, share: functional.solarize(picture, 1 + int(255 * share)),
}


class RandIntensityOps(RandomizableTransform, MapTransform):
    """One to three of `OPERATIONS`, drawn anew for each picture, one behind another, each with a random strength.

    The intensity views of AugSeg (Zhao et al., CVPR 2023, Table 1), without colour and hue, which do nothing to grey. They
    act on grey levels, before normalisation: equalising or solarising a z-scored picture would destroy it.

    Args:
        keys: items (1, H, W), float in [0, 1].
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, 1.0)
        self.drawn: list[tuple[str, float]] = []

    def randomize(self, data: Any = None) -> None:
        """Draw names without doubles, and their shares."""
        super().randomize(None)
        names = self.R.choice(list(OPERATIONS), int(self.R.randint(1, MOST_OPERATIONS + 1)), replace=False)
        self.drawn = [(str(name), float(self.R.random())) for name in names]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Change each key in the same way."""
        result = dict(data)
        self.randomize()
        for key in self.key_iterator(result):
            picture = (torch.as_tensor(result[key]) * 255).round().clamp(0, 255).to(torch.uint8)
            for name, share in self.drawn:
                picture = OPERATIONS[name](picture, share)
            result[key] = picture.float() / 255
        return result


STRONG_KINDS = ("photometric", "random")


def strong(key: str, strength: float, kind: str = "photometric") -> list:
    """The changes of a strong view: `photometric` of that strength, or "random", `RandIntensityOps`."""
    if kind not in STRONG_KINDS:
        raise unknown("strong_kind", "kind of strong view", kind, STRONG_KINDS)
    return photometric(key, strength) if kind == "photometric" else [RandIntensityOps(key)]

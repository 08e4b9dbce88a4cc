"""MONAI transforms behind the network: maps back to the size of the picture, probabilities, a viewer's mask."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from torch.nn import functional

from propl_monai.data.grid import from_grid

OUTSIDE = -30.0  # logit of what was cut off before the network: a probability of 1e-13


class RestoreSized(MapTransform):
    """Maps on the network's grid back to the original size (bilinear), and to their place where the border had been cut.

    Args:
        keys: items (C, h, w), logits or other real-valued maps; they are `OUTSIDE` in what was cut off.
        size_key: where `ToGridd` left (H, W).
        box_key: where `CropSectord` left the box of the part that the network saw, if it did.
    """

    def __init__(
        self,
        keys: KeysCollection,
        size_key: str = "original_size",
        allow_missing_keys: bool = False,
        box_key: str = "sector_box",
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.size_key, self.box_key = size_key, box_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        height, width = (int(side) for side in result[self.size_key])
        top, left, bottom, right = (int(side) for side in result.get(self.box_key, (0, 0, height, width)))
        for key in self.key_iterator(result):
            maps = from_grid(torch.as_tensor(result[key]), (bottom - top, right - left))
            around = (left, width - right, top, height - bottom)
            result[key] = functional.pad(maps, around, value=OUTSIDE) if any(around) else maps
        return result


class Probabilitiesd(MapTransform):
    """Splits the inferer's maps: `probability` (K, H, W) from K logits, `uncertainty` from K variances if they follow.

    Args:
        keys: the item with (K or 2K, H, W) maps.
        count: K, the number of tasks.
    """

    def __init__(self, keys: KeysCollection, count: int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.count = count

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            logits, variances = result[key][: self.count], result[key][self.count :]
            result |= {key: logits, "probability": logits.sigmoid()}
            result |= {"uncertainty": variances.clamp_min(0)} if len(variances) else {}  # 0 in what was cut off
        return result


class ViewerMask(Transform):
    """`pred` as MONAI Label's writer takes it: the mask of the first task, uint8 (W, H) of 0 and 1, x first."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        # 0.5 itself rounds to 0: above it is the target, as in every mask of this package.
        return {**data, "pred": torch.as_tensor(data["probability"])[0].round().to(torch.uint8).T}

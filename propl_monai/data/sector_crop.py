"""A MONAI transform that cuts the black border around the sector of a scan, before the network's grid."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from propl_monai.images.sector import crop_box


class CropSectord(MapTransform):
    """Cut items to the box of the sector in "image", see `images.sector`; where none is found, they stay whole.

    Adds `original_size`, (H, W) before the cut, and `sector_box`, (first row, first column, and those behind the last), by
    which `RestoreSized` puts masks back into place.

    Args:
        keys: items (C, H, W) of one size, "image" among them, upright grey levels 0-255.
        allow_missing_keys: unlabelled items have no mask.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        grey = torch.as_tensor(result["image"])[0].round().clamp(0, 255).to(torch.uint8).numpy()
        top, left, bottom, right = crop_box(grey)
        result |= {"original_size": grey.shape, "sector_box": (top, left, bottom, right)}
        for key in self.key_iterator(result):
            result[key] = torch.as_tensor(result[key])[:, top:bottom, left:right]
        return result

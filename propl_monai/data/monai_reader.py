"""A MONAI reader over `propl_monai.images`, so that `LoadImaged` sees the pictures that the rest of this package sees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader

from propl_monai.common.files import picture_suffix
from propl_monai.errors import ProPLError, unknown
from propl_monai.images import read_image, read_mask, to_grey

KINDS = ("image", "mask")


class UltrasoundReader(ImageReader):
    """Reads one picture or mask at a time, in MONAI's axis order: x first, that is transposed from upright `(H, W)`.

    Use it as `LoadImaged(keys="image", reader="propl_monai.data.monai_reader.UltrasoundReader")`, and for labels add
    `kind="mask"`; then `EnsureChannelFirstd`, and `Transposed(indices=[0, 2, 1])` to have `(channel, H, W)`.

    Args:
        kind: "image" for `read_image`, "mask" for `read_mask` as 0.0 and 1.0.
        grey: turn colour into luminance, so that every picture has one channel; else colour pictures have three.
    """

    def __init__(self, kind: str = "image", grey: bool = True) -> None:
        super().__init__()
        if kind not in KINDS:
            raise unknown("UltrasoundReader", "kind", kind, KINDS)
        self.kind, self.grey = kind, grey

    def verify_suffix(self, filename: Sequence[Any] | Any) -> bool:
        """Whether every file name ends as a picture that `propl_monai.images` reads."""
        names = [filename] if isinstance(filename, (str, Path)) else filename
        return all(picture_suffix(str(name)) for name in names)

    def read(self, data: Sequence[Any] | Any, **kwargs: Any) -> list[Path]:
        """Only pass the paths on: decoding is left to `get_data`.

        `LoadImage` swallows whatever this method raises, and then tries MONAI's own readers: a mask that we refuse,
        or the second frame of a cine, would be read after all. Errors of `get_data` are passed on.
        """
        names = [data] if isinstance(data, (str, Path)) else data
        return [Path(name) for name in names]

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Decode.

        Returns:
            float32 `(W, H)`, or `(W, H, 3)` for colour when `grey` is off; images 0-255, masks 0 and 1. And the meta
            dictionary: `affine` and `original_affine` diag(column mm, row mm, 1, 1), the identity when the spacing is
            unknown; `spacing_known` 0 or 1; `spatial_shape` (W, H); `original_channel_dim`.
        """
        if len(img) != 1:
            raise ProPLError(", ".join(map(str, img)), f"{len(img)} files are not one picture", "load one file per key")
        spacing = None
        if self.kind == "mask":
            pixels = read_mask(img[0])
        else:
            picture = read_image(img[0])
            pixels, spacing = (to_grey(picture.pixels) if self.grey else picture.pixels), picture.spacing_mm
        row, column = spacing or (1.0, 1.0)
        affine = np.diag([column, row, 1.0, 1.0])
        meta = {
            "affine": affine,
            "original_affine": affine.copy(),
            "spatial_shape": np.array(pixels.shape[1::-1]),
            "spacing_known": int(spacing is not None),
            "original_channel_dim": "no_channel" if pixels.ndim == 2 else -1,
        }
        return np.ascontiguousarray(np.swapaxes(pixels, 0, 1)).astype(np.float32), meta

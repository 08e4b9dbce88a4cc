"""Any picture or cine to upright arrays and back; only the files of this package open image files.

One convention leaves this package, whatever the file holds: `uint8`, row 0 at the top, column 0 at the left, `(H, W)` when
the picture is grey and `(H, W, 3)` RGB when it has colour. What each way of storing a picture becomes is told on top of
`pillow`, `nifti`, `metaimage`, `dicom` and `video`, and in a table of the documentation that a test writes. For all:

| in the file | becomes |
|---|---|
| equal channels | one |
| integers above 255 (DICOM tells its depth itself) | the smallest of 8, 10, 12, 14 and 16 bits that holds the maximum of all frames is stretched to 0-255 |
| floating point | 0..1 is stretched to 0-255; anything larger is treated as integers are |
| negative or non-finite values | refused |
"""  # noqa: E501

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from propl_monai.errors import ProPLError
from propl_monai.images.opening import decode, open_file, shown
from propl_monai.images.picture import MAX_PIXELS, Cine, Frames, Picture, Stored, without_equal_channels
from propl_monai.images.write import write_mask, write_overlay, write_picture, write_png16

__all__ = [
    "MAX_PIXELS",
    "Cine",
    "Picture",
    "image_size",
    "read_frames",
    "read_image",
    "read_mask",
    "read_values",
    "to_grey",
    "write_mask",
    "write_overlay",
    "write_picture",
    "write_png16",
]


def read_image(path: str | Path) -> Picture:
    """Read a picture of one frame: PNG, JPEG, BMP, TIFF, WebP, NIfTI, MetaImage, DICOM."""
    stored = _open_still(Path(path))
    return Picture(without_equal_channels(_only(shown(stored))), stored.spacing_mm)


def read_frames(path: str | Path) -> Cine:
    """Read a cine, or a still as a cine of one frame: all that `read_image` reads, and AVI and MP4.

    A frame whose channels are equal is grey, also between frames of colour.
    """
    stored = open_file(Path(path))
    return Cine(stored.count, stored.spacing_mm, stored.seconds_per_frame, partial(_frames, stored))


def read_values(path: str | Path) -> np.ndarray:
    """Read the upright values of one frame as stored: `(H, W)` of any dtype, or uint8 `(H, W, 3)` RGB."""
    return _only(decode(_open_still(Path(path))))


def read_mask(path: str | Path) -> np.ndarray:
    """Read a binary mask: the value 0 (black) is background, and at most one other value or colour is the target.

    Returns:
        bool `(H, W)`, upright.
    """
    path = Path(path)
    stored = _open_still(path)
    if stored.lossy:
        cure = "convert it to PNG, with every value above 127 as foreground"
        raise ProPLError(path, f"is a {stored.lossy} mask, whose edges are grey instead of black and white", cure)
    values = _only(decode(stored))
    if values.ndim == 3:
        values = values.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)  # each colour its own number, black 0
    # Counting is several times faster than the sorting of `unique`, and nearly every mask has 8 bits.
    present = np.flatnonzero(np.bincount(values.ravel())) if values.dtype == np.uint8 else np.unique(values)
    if np.count_nonzero(present) > 1:
        raise _too_many_values(path, present)
    return values != 0


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width of the upright picture, from the header alone."""
    stored = _open_still(Path(path))
    return stored.height, stored.width


def to_grey(pixels: np.ndarray) -> np.ndarray:
    """Luminance (ITU-R 601) of uint8 `(H, W)` or `(H, W, 3)` as uint8 `(H, W)`; colour Doppler becomes grey."""
    return pixels if pixels.ndim == 2 else np.asarray(Image.fromarray(pixels).convert("L"))


def _open_still(path: Path) -> Stored:
    stored = open_file(path)
    if stored.count > 1:
        raise ProPLError(path, f"holds {stored.count} frames", "`propl frames FILE FOLDER` writes each as PNG")
    return stored


def _only(frames: Frames) -> np.ndarray:
    (frame,) = frames  # to the end, where a second one would be found
    return frame


def _frames(stored: Stored) -> Frames:
    return map(without_equal_channels, shown(stored))


def _too_many_values(path: Path, present: np.ndarray) -> ProPLError:
    listed = ", ".join(f"{value:g}" for value in present[:6]) + (", ..." if len(present) > 6 else "")
    fact = f"holds {len(present)} values ({listed}) where a mask holds 0 and one other"
    if len(present) <= 16 and present[-1] < 16:
        return ProPLError(path, fact, "it looks like a label map: write one mask of 0 and 255 for each task")
    return ProPLError(path, fact, "if it once was a JPEG, make every value above 127 foreground and save it as PNG")

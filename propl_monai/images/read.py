"""Read a still, a cine, stored values or a mask from a file of any format."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from propl_monai.errors import ProPLError
from propl_monai.images.opening import decode, open_file, shown
from propl_monai.images.picture import Cine, Picture, Stored, without_equal_channels


def read_image(path: str | Path) -> Picture:
    """Read a picture of one frame: PNG, JPEG, BMP, TIFF, WebP, NIfTI, MetaImage, DICOM."""
    stored = _open_still(Path(path))
    (pixels,) = shown(stored)  # to the end, where a second frame would be found
    return Picture(without_equal_channels(pixels), stored.spacing_mm, stored.spacing_note)


def read_frames(path: str | Path) -> Cine:
    """Read a cine, or a still as a cine of one frame: all that `read_image` reads, and AVI and MP4.

    A frame whose channels are equal is grey, also between frames of colour.
    """
    stored = open_file(Path(path))
    return Cine(
        stored.count,
        stored.spacing_mm,
        stored.seconds_per_frame,
        lambda: map(without_equal_channels, shown(stored)),
        stored.spacing_note,
    )


def read_values(path: str | Path) -> np.ndarray:
    """Read the upright values of one frame as stored: `(H, W)` of any dtype, or uint8 `(H, W, 3)` RGB."""
    (values,) = decode(_open_still(Path(path)))
    return values


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
    (values,) = decode(stored)
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


def _open_still(path: Path) -> Stored:
    stored = open_file(path)
    if stored.count > 1:
        raise ProPLError(path, f"holds {stored.count} frames", "`propl frames FILE FOLDER` writes each as PNG")
    return stored


def _too_many_values(path: Path, present: np.ndarray) -> ProPLError:
    listed = ", ".join(f"{value:g}" for value in present[:6]) + (", ..." if len(present) > 6 else "")
    fact = f"holds {len(present)} values ({listed}) where a mask holds 0 and one other"
    if len(present) <= 16 and present[-1] < 16:
        return ProPLError(path, fact, "it looks like a label map: write one mask of 0 and 255 for each task")
    return ProPLError(path, fact, "if it once was a JPEG, make every value above 127 foreground and save it as PNG")

"""Read a still, a cine, stored values or a mask from a file of any format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from propl_monai.errors import ProPLError
from propl_monai.images.opening import decode, open_file, shown
from propl_monai.images.picture import NOISE, Cine, Picture, Stored, without_equal_channels

Image = str | Path | np.ndarray | Picture


def read_image(path: str | Path) -> Picture:
    """Read a picture of one frame: PNG, JPEG, BMP, TIFF, WebP, NIfTI, MetaImage, DICOM."""
    stored = _open_still(Path(path))
    (pixels,) = shown(stored)  # to the end, where a second frame would be found
    return Picture(without_equal_channels(pixels), stored.spacing_mm, stored.spacing_note, stored.orientation)


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
        stored.orientation,
        stored.geometry,
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
    if np.count_nonzero(present) <= 1:
        return values != 0
    if values.dtype.kind == "f":
        high, foreground = float(present[-1]), values > present[-1] / 2
        if np.abs(values).max() < NOISE**2:
            return np.zeros(values.shape, bool)
        if high > 0 and np.all(np.abs(values - high * foreground) <= NOISE * high):
            return foreground
    raise _too_many_values(path, present)


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels `(H, W)` as stored, upright by an orientation of EXIF (1 to 8): a mask that was drawn on a turned picture."""
    turns: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        **{1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud},
        **{5: np.transpose, 6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).T, 8: np.rot90},
    }
    return np.ascontiguousarray(turns[orientation](pixels))


def turn_back(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The inverse of `turn`: upright pixels `(H, W)` as the file stores them."""
    return turn(pixels, {6: 8, 8: 6}.get(orientation, orientation))


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
    if present.dtype.kind == "f" and len(present) > 16:
        return ProPLError(path, fact, "its edges are soft: make every value above half of the greatest foreground")
    if len(present) <= 16 and present[-1] < 16:
        return ProPLError(path, fact, "it looks like a label map: write one mask of 0 and 255 for each task")
    return ProPLError(path, fact, "if it once was a JPEG, make every value above 127 foreground and save it as PNG")


def as_picture(image: Image) -> Picture:
    """The picture of a file, of an array, or itself."""
    if isinstance(image, (str, Path)):
        return read_image(image)
    picture = Picture(image) if isinstance(image, np.ndarray) else image
    if not isinstance(picture, Picture):
        raise ProPLError("image", f"a {type(image).__name__} was given", "give a file name, an array or a Picture")
    pixels = picture.pixels
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise ProPLError("image", f"{pixels.dtype} {pixels.shape} was given", "give uint8 (H, W), or (H, W, 3) RGB")
    if pixels.size == 0:
        raise ProPLError("image", f"{pixels.shape} holds no pixel", "give at least one row and one column")
    return picture

"""Pictures to PNG files, each written whole or not at all."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from propl_monai.common.files import write_atomically
from propl_monai.errors import ProPLError

OVERLAY_OPACITY = 0.35
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DIFFERENCE_TO_ROW_ABOVE = 2  # the number of that filter


def write_picture(path: str | Path, pixels: np.ndarray) -> None:
    """Write uint8 `(H, W)` or `(H, W, 3)` as an 8-bit PNG."""
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        fact = f"a picture of {pixels.dtype} {pixels.shape} was given"
        raise ProPLError(path, fact, "give uint8 (H, W) or (H, W, 3)")
    _write_png(path, pixels)


def write_mask(path: str | Path, mask: np.ndarray) -> None:
    """Write a bool `(H, W)` mask as an 8-bit PNG of 0 and 255, whole or not at all."""
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise ProPLError(path, f"a mask of {mask.dtype} {mask.shape} was given", "give bool (H, W)")
    write_atomically(Path(path), mask_png(mask))


def write_png16(path: str | Path, values: np.ndarray) -> None:
    """Write `(H, W)` values in [0, 1] (a probability, an uncertainty) as a 16-bit PNG; 65535 is 1."""
    if values.ndim != 2 or not np.all((values >= 0) & (values <= 1)):
        raise ProPLError(path, f"values of shape {values.shape} outside [0, 1] were given", "give (H, W) in [0, 1]")
    _write_png(path, np.rint(values.astype(np.float64) * 65535).astype(np.uint16))


def write_overlay(
    path: str | Path,
    image: np.ndarray,
    masks: Sequence[np.ndarray],
    colours: Sequence[tuple[int, int, int]],
) -> None:
    """Write a PNG of the picture with each mask as a tint and a one-pixel outline of its colour.

    Args:
        path: where to write.
        image: uint8 `(H, W)` or `(H, W, 3)`.
        masks: bool `(H, W)` each; later ones lie on top.
        colours: sRGB 0-255, one for each mask.
    """
    from scipy.ndimage import binary_erosion  # takes a third of a second to import

    canvas = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
    canvas = canvas.astype(np.float32)
    for mask, colour in zip(masks, colours, strict=True):
        if mask.shape != image.shape[:2]:
            raise ProPLError(path, f"a mask is {mask.shape}, the image {image.shape[:2]}", "give masks of its size")
        tint = np.asarray(colour, np.float32)
        canvas[mask] += OVERLAY_OPACITY * (tint - canvas[mask])
        canvas[mask & ~binary_erosion(mask)] = tint
    _write_png(path, np.rint(canvas).astype(np.uint8))


def png(pixels: np.ndarray, effort: int = 6) -> bytes:
    """The bytes of a PNG of uint8 `(H, W)` or `(H, W, 3)`, or uint16 `(H, W)`; `effort` is zlib's, 0 to 9."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=effort)
    return buffer.getvalue()


def mask_png(mask: np.ndarray) -> bytes:
    """The bytes of an 8-bit PNG of a bool `(H, W)` mask, 0 and 255.

    Each row is stored as its difference from the row above (PNG 9.2, filter 2), which is 0 but at outlines, and coded in
    runs. Pillow would try all filters on each row and then look for repetitions: five times the work for a larger file.
    """
    height, width = mask.shape
    levels = np.ascontiguousarray(mask).view(np.uint8)
    rows = np.empty((height, width + 1), np.uint8)
    rows[:, 0] = _DIFFERENCE_TO_ROW_ABOVE
    np.negative(levels[:1], out=rows[:1, 1:])  # 1 becomes 255
    np.subtract(levels[:-1], levels[1:], out=rows[1:, 1:])
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    pixels = packer.compress(rows.data) + packer.flush()
    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits of grey, not interlaced
    return _SIGNATURE + _chunk(b"IHDR", size) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG: length, name, content and check sum (PNG 5.3)."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _write_png(path: str | Path, pixels: np.ndarray) -> None:
    write_atomically(Path(path), png(pixels))

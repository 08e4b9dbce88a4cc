"""`Picture` and `Cine` for users, `Stored` between reader and decoder, and how deep values become 0-255."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from propl_monai.common.spacing import Spacing
from propl_monai.errors import ProPLError
from propl_monai.images.geometry import Geometry

MAX_PIXELS = 64_000_000  # of a frame: 64 MB as grey; an ultrasound frame has about one million
MAX_WHOLE_BYTES = 512_000_000  # of a cine that can only be decoded all at once
NOISE = 1e-3  # of the greatest value: what resampling and scale factors leave around 0 and 1 in floating point
NO_PAGES = (
    1 | 4
)  # bits of NewSubfileType: a page of a TIFF is a preview, or the transparency, of another one (TIFF 6.0)
COPY_AGAIN = "copy or export the file again"

Frames = Iterator[np.ndarray]


class NoPicture(ProPLError):
    """A sound file that is not meant to hold a picture, such as a report in the folder of an exam."""


@dataclass(frozen=True)
class Picture:
    """An upright picture.

    Attributes:
        pixels: uint8, `(H, W)` grey or `(H, W, 3)` RGB.
        spacing_mm: height and width of a pixel (row, column), None when the file does not say.
        spacing_note: what a user should know of the spacing in the file, to follow its name; most often empty.
        orientation: EXIF's number of the turn or mirror that made it upright, 2 to 8; 1 where it is as stored.
    """

    pixels: np.ndarray
    spacing_mm: Spacing | None = None
    spacing_note: str = ""
    orientation: int = 1


@dataclass(frozen=True)
class Cine:
    """The frames of a file, decoded one after the other each time one iterates: only one is held in memory.

    Iterating gives upright uint8 frames, `(H, W)` where grey and `(H, W, 3)` RGB where not, all of one height and width;
    it raises `ProPLError` at a frame that cannot be decoded.

    Attributes:
        count: number of frames, 1 for a still.
        spacing_mm: height and width of a pixel (row, column), None when the file does not say.
        seconds_per_frame: None when the file does not say.
        spacing_note, orientation: see `Picture`.
        geometry: of a NIfTI or MetaImage; None for other files.
    """

    count: int
    spacing_mm: Spacing | None
    seconds_per_frame: float | None
    _decode: Callable[[], Frames] = field(repr=False)
    spacing_note: str = ""
    orientation: int = 1
    geometry: Geometry | None = None

    def __iter__(self) -> Frames:
        return self._decode()

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True)
class Stored:
    """A file whose header was read, and how to decode its frames.

    Attributes:
        path: the file.
        kind: its true type in words, such as "a PNG picture".
        height: of an upright frame, in pixels.
        width: of an upright frame, in pixels.
        count: number of frames.
        values: decodes: upright values as stored, frame by frame, `(H, W)` of any dtype or uint8 `(H, W, 3)`.
        spacing_mm: row, column; None when the file does not say.
        seconds_per_frame: None when the file does not say.
        lossy: the word for a compression that blurs labels, such as "JPEG"; empty when values are exact.
        spacing_note: see `Picture`.
        orientation: see `Picture`.
        geometry: see `Cine`.
        show: turns values into uint8 where the format says how; None for the rule of `to_uint8`.
    """

    path: Path
    kind: str
    height: int
    width: int
    count: int
    values: Callable[[], Frames]
    spacing_mm: Spacing | None = None
    seconds_per_frame: float | None = None
    lossy: str = ""
    spacing_note: str = ""
    orientation: int = 1
    geometry: Geometry | None = None
    show: Callable[[np.ndarray], np.ndarray] | None = None


def check_size(path: Path, height: int, width: int) -> None:
    """Refuse frames too large to decode, or of no size, before anything is allocated for them."""
    if height * width > MAX_PIXELS:
        raise too_large(path)
    if height < 1 or width < 1:
        raise ProPLError(path, f"holds frames of {height} × {width} pixels", COPY_AGAIN)


def refuse_lines(path: Path, sizes: Sequence[int]) -> None:
    """Refuse a volume (x, y, frame) of many frames that are a line of pixels each: its picture lies across other axes."""
    if min(sizes[:2]) == 1 and max(sizes[2:], default=1) > 1:
        shape = " × ".join(map(str, sizes))
        fact = f"holds {shape} pixels (x, y, frame): frames of one line, as of a picture that lies across other axes"
        raise ProPLError(path, fact, "save it with the axes (x, y), or (x, y, frame)")


def too_large(path: Path) -> ProPLError:
    """The error for a frame of more than `MAX_PIXELS`."""
    return ProPLError(path, f"has more than {MAX_PIXELS:,} pixels", "crop or shrink it")


def require_finite(path: Path, values: np.ndarray) -> None:
    """Refuse NaN and infinity."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int(np.count_nonzero(~np.isfinite(values)))
        raise ProPLError(path, f"holds {count} values that are not finite", "replace NaN and infinity, then save again")


def full_scale(path: Path, low: float, high: float, floating: bool) -> float:
    """The value that becomes 255: 1.0 for floats up to 1, else the most that the fewest fitting bits can hold.

    Args:
        path: for the error.
        low: the least value of all frames.
        high: the greatest value of all frames.
        floating: whether the values are floating point.
    """
    if low < (-NOISE * max(high, NOISE) if floating else 0) or high > 65535:
        raise ProPLError(path, f"holds values from {low:g} to {high:g}", "shift and scale them to 0-255")
    if floating and high <= 1 + NOISE:
        return 1.0
    slack = 1 + NOISE if floating else 1
    return next(float(2**bits - 1) for bits in (8, 10, 12, 14, 16) if high <= (2**bits - 1) * slack)


def to_uint8(values: np.ndarray, full: float) -> np.ndarray:
    """Stretch 0..`full` to 0-255."""
    return np.rint(values.astype(np.float64) * (255 / full)).clip(0, 255).astype(np.uint8)


def without_equal_channels(pixels: np.ndarray) -> np.ndarray:
    """RGB `(H, W, 3)` whose channels are equal as grey `(H, W)`; anything else as it is."""
    if pixels.ndim == 3 and (pixels[..., :1] == pixels).all():
        return np.ascontiguousarray(pixels[..., 0])
    return pixels


def holds_two_values(pixels: np.ndarray) -> bool:
    """Whether uint8 `(H, W)` or `(H, W, 3)` holds black and one other value or colour: a mask, not a picture of tissue."""
    if pixels.ndim == 3:
        pixels = pixels.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    other = pixels.max()
    few = all(bool(((part == 0) | (part == other)).all()) for part in (pixels[::8, ::8], pixels))  # most differ at once
    return few and bool(other) and not bool(pixels.min())


def without_transparency(picture: Image.Image | np.ndarray) -> np.ndarray:
    """A picture with transparency, or uint8 `(H, W, 4)`, as uint8 `(H, W, 3)` on black, the background of ultrasound.

    Transparency that is the same everywhere is ignored: the program that wrote it left it unset. A picture that is black
    everywhere becomes the shape `(H, W)` that was drawn in its opacity.
    """
    layer = (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).convert("RGBA")
    low, high = layer.getchannel("A").getextrema()
    if low != high and layer.convert("RGB").getbbox() is None:
        return np.array(layer.getchannel("A"))
    if low != high:
        layer = Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer)
    return np.array(layer.convert("RGB"))


def to_grey(pixels: np.ndarray) -> np.ndarray:
    """Luminance (ITU-R 601) of uint8 `(H, W)` or `(H, W, 3)` as uint8 `(H, W)`; colour Doppler becomes grey."""
    return pixels if pixels.ndim == 2 else np.asarray(Image.fromarray(pixels).convert("L"))

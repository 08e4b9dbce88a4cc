"""Any picture file to one upright array and back; the only place that opens image files.

One convention leaves this module, whatever the file holds: `uint8`, row 0 at the top, column 0 at the left, `(H, W)` when
the picture is grey and `(H, W, 3)` RGB when it has colour. How the many ways of storing a picture come there:

| in the file | becomes |
|---|---|
| EXIF or TIFF orientation 1-8 | applied, so that the picture stands upright |
| 1 bit, palette, CMYK, YCbCr | the colours it means; equal channels become one |
| transparency (LA, RGBA, tRNS) | laid on black, the background of ultrasound |
| integers above 255 | the smallest of 8, 10, 12, 14 and 16 bits that holds the maximum is stretched to 0-255 |
| floating point | 0..1 is stretched to 0-255; anything larger is treated as integers are |
| NIfTI | one 2-D slice, stored (x, y), is transposed; the affine's directions are not applied |
| negative or non-finite values, several frames | refused |

The resolution fields of PNG, JPEG, BMP and TIFF describe paper, not tissue, and are not read.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import nibabel
import numpy as np
from PIL import Image, ImageOps
from scipy.ndimage import binary_erosion

from propl_monai.errors import ProPLError
from propl_monai.files import PICTURE_SUFFIXES, picture_suffix, require_file, true_type, write_atomically

PIL_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
MAX_PIXELS = 64_000_000  # 64 MB as grey; an ultrasound frame has about one million
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
ORIENTATION_TAG = 0x0112
OVERLAY_OPACITY = 0.35
_MM_PER_UNIT = {"mm": 1.0, "meter": 1000.0, "micron": 0.001, "unknown": 1.0}
_PIL_KINDS = ("a PNG picture", "a JPEG picture", "a BMP picture", "a TIFF picture")
_NIFTI_KINDS = ("a NIfTI picture", "gzip data")
_COPY_AGAIN = "copy or export the file again"
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Picture:
    """An upright picture.

    Attributes:
        pixels: uint8, `(H, W)` grey or `(H, W, 3)` RGB.
        spacing_mm: height and width of a pixel (row, column), None when the file does not tell.
    """

    pixels: np.ndarray
    spacing_mm: tuple[float, float] | None = None


def read_image(path: str | Path) -> Picture:
    """Read a picture of one frame (PNG, JPEG, BMP, TIFF, 2-D NIfTI).

    Raises:
        ProPLError: the file is missing, empty, cut short, not a picture (its true type is named), too large, of several
            frames, or holds negative or non-finite values.
    """
    path = Path(path)
    values, spacing = _read_values(path)
    return Picture(_without_equal_channels(_to_uint8(path, values)), spacing)


def read_mask(path: str | Path) -> np.ndarray:
    """Read a binary mask: the value 0 (black) is background, and at most one other value or colour is the target.

    Returns:
        bool `(H, W)`, upright.

    Raises:
        ProPLError: as `read_image`; or a JPEG, which blurs labels; or more values than two; or no value 0 beside two others.
    """
    path = Path(path)
    require_file(path)
    if true_type(path) == "a JPEG picture":
        cure = "convert it to PNG, with every value above 127 as foreground"
        raise ProPLError(path, "is a JPEG mask, whose edges are grey instead of black and white", cure)
    values, _ = _read_values(path)
    if values.ndim == 3:
        values = values.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)  # each colour its own number, black 0
    present = np.unique(values)
    if np.count_nonzero(present) > 1:
        raise _too_many_values(path, present)
    return values != 0


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width of the upright picture, from the header alone.

    Raises:
        ProPLError: as `read_image`, as far as the header tells.
    """
    path = Path(path)
    require_file(path)
    if _is_nifti(path):
        width, height = _decode(path, _nifti_shape)
        return height, width
    return _decode(path, _pil_size)


def to_grey(pixels: np.ndarray) -> np.ndarray:
    """Luminance (ITU-R 601) of uint8 `(H, W)` or `(H, W, 3)` as uint8 `(H, W)`; colour Doppler becomes grey."""
    return pixels if pixels.ndim == 2 else np.asarray(Image.fromarray(pixels).convert("L"))


def write_mask(path: str | Path, mask: np.ndarray) -> None:
    """Write a bool `(H, W)` mask as an 8-bit PNG of 0 and 255, whole or not at all."""
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise ProPLError(path, f"a mask of {mask.dtype} {mask.shape} was given", "give bool (H, W)")
    _write_png(path, mask.astype(np.uint8) * 255)


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
    canvas = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
    canvas = canvas.astype(np.float32)
    for mask, colour in zip(masks, colours, strict=True):
        if mask.shape != image.shape[:2]:
            raise ProPLError(path, f"a mask is {mask.shape}, the image {image.shape[:2]}", "give masks of its size")
        tint = np.asarray(colour, np.float32)
        canvas[mask] += OVERLAY_OPACITY * (tint - canvas[mask])
        canvas[mask & ~binary_erosion(mask)] = tint
    _write_png(path, np.rint(canvas).astype(np.uint8))


def _write_png(path: str | Path, pixels: np.ndarray) -> None:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    write_atomically(Path(path), buffer.getvalue())


def _read_values(path: Path) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Upright values as stored, `(H, W)` or uint8 `(H, W, 3)`, all finite, and the spacing."""
    require_file(path)
    values, spacing = _decode(path, _read_nifti) if _is_nifti(path) else (_decode(path, _read_pil), None)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int(np.count_nonzero(~np.isfinite(values)))
        raise ProPLError(path, f"holds {count} values that are not finite", "replace NaN and infinity, then save again")
    return values, spacing


def _decode(path: Path, read: Callable[[Path], _Result]) -> _Result:
    """Run a decoder; whatever it raises becomes one message with the true type of the file."""
    try:
        return read(path)
    except ProPLError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path) from error
    except Exception as error:  # decoders raise nearly every type there is when bytes are wrong
        kind = true_type(path)
        if kind not in (_NIFTI_KINDS if _is_nifti(path) else _PIL_KINDS):
            cure = "give one of " + ", ".join(PICTURE_SUFFIXES) + ", named by what it truly is"
            raise ProPLError(path, f"is {kind}", cure) from error
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ProPLError(path, f"is {kind} that is damaged or cut short ({reason})", _COPY_AGAIN) from error


@contextmanager
def _open_pil(path: Path) -> Iterator[Image.Image]:
    """Open lazily, and refuse what the header already rules out."""
    if true_type(path) == "a GIF picture":
        raise ProPLError(path, "is a GIF picture", "export the frame you mean as PNG")
    # A stream, not the path: given a path, Pillow 13.0 maps uncompressed grey TIFF into memory with width and height
    # exchanged when its orientation is 5 to 8, and the picture comes out sheared without a word.
    with path.open("rb") as stream:
        picture = Image.open(stream, formats=PIL_FORMATS)
        frames = getattr(picture, "n_frames", 1)
        if frames > 1:
            raise ProPLError(path, f"holds {frames} frames", "export the frame you mean as PNG")
        if picture.width * picture.height > MAX_PIXELS:
            raise _too_large(path)
        yield picture


def _pil_size(path: Path) -> tuple[int, int]:
    with _open_pil(path) as picture:
        if picture.format == "TIFF":  # Pillow has turned the size of these already
            return picture.height, picture.width
        sideways = _may_be_turned(path, picture) and picture.getexif().get(ORIENTATION_TAG, 1) >= 5
        return (picture.width, picture.height) if sideways else (picture.height, picture.width)


def _may_be_turned(path: Path, picture: Image.Image) -> bool:
    """False when a PNG holds none of the chunks that tell an orientation: to look for them Pillow decodes all of it."""
    if picture.format != "PNG":
        return True
    content = path.read_bytes()
    return any(mark in content for mark in (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp"))


def _read_pil(path: Path) -> np.ndarray:
    with _open_pil(path) as picture:
        upright = ImageOps.exif_transpose(picture)
    if upright.mode in DEEP_MODES:
        return np.array(upright)
    if upright.mode in ("1", "L") and "transparency" not in upright.info:
        return np.array(upright.convert("L"))
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer)
    return np.array(upright.convert("RGB"))


def _is_nifti(path: Path) -> bool:
    return picture_suffix(path.name) in (".nii", ".nii.gz")


def _nifti_shape(path: Path) -> tuple[int, int]:
    """Width and height; further axes must have length 1."""
    picture: Any = nibabel.load(path)
    shape = picture.shape
    if picture.get_data_dtype().kind not in "uif":
        raise ProPLError(path, f"is a NIfTI of {picture.get_data_dtype()} values", "export it as a grey picture")
    if len(shape) < 2 or 0 in shape or any(length != 1 for length in shape[2:]):
        raise ProPLError(path, f"is a NIfTI of shape {shape}, not one 2-D frame", "export the frame you mean")
    if shape[0] * shape[1] > MAX_PIXELS:
        raise _too_large(path)
    return int(shape[0]), int(shape[1])


def _read_nifti(path: Path) -> tuple[np.ndarray, tuple[float, float] | None]:
    width, height = _nifti_shape(path)
    if picture_suffix(path.name) == ".nii.gz":
        _check_gzip(path)
    picture: Any = nibabel.load(path)
    values = np.asanyarray(picture.dataobj).reshape(width, height).T
    return np.ascontiguousarray(values), _nifti_spacing(picture.header)


def _check_gzip(path: Path) -> None:
    """Read to the end, where gzip keeps its checksum; nibabel stops before it and lets flipped bits through."""
    with gzip.open(path) as stream:
        while stream.read(2**20):
            pass


def _nifti_spacing(header: Any) -> tuple[float, float] | None:
    column, row = (float(length) for length in header.get_zooms()[:2])
    unit = header.get_xyzt_units()[0]
    if unit == "unknown" and row == column == 1.0:  # what writers put there when nobody told them
        return None
    scale = _MM_PER_UNIT[unit]
    return (row * scale, column * scale) if np.isfinite([row, column]).all() and min(row, column) > 0 else None


def _to_uint8(path: Path, values: np.ndarray) -> np.ndarray:
    """Stretch deep or floating values to 0-255 by the table on top of this module."""
    if values.dtype == np.uint8:
        return values
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 65535:
        raise ProPLError(path, f"holds values from {low:g} to {high:g}", "shift and scale them to 0-255")
    if values.dtype.kind == "f" and high <= 1:
        full = 1.0
    else:
        full = next(float(2**bits - 1) for bits in (8, 10, 12, 14, 16) if high <= 2**bits - 1)
    return np.rint(values.astype(np.float64) * (255 / full)).astype(np.uint8)


def _without_equal_channels(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim == 3 and (pixels[..., :1] == pixels).all():
        return np.ascontiguousarray(pixels[..., 0])
    return pixels


def _too_large(path: Path) -> ProPLError:
    return ProPLError(path, f"has more than {MAX_PIXELS:,} pixels", "crop or shrink it")


def _too_many_values(path: Path, present: np.ndarray) -> ProPLError:
    shown = ", ".join(f"{value:g}" for value in present[:6]) + (", ..." if len(present) > 6 else "")
    fact = f"holds {len(present)} values ({shown}) where a mask holds 0 and one other"
    if len(present) <= 16 and present[-1] < 16:
        return ProPLError(path, fact, "it looks like a label map: write one mask of 0 and 255 for each task")
    return ProPLError(path, fact, "if it once was a JPEG, make every value above 127 foreground and save it as PNG")

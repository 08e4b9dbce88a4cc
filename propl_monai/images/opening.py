"""Which reader a file needs, decided by its bytes; its name does not count."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from propl_monai.common.files import DICOM_DIRECTORY, HEAD_BYTES, PICTURE_SUFFIXES, VIDEO_SUFFIXES, opened, type_of
from propl_monai.errors import ProPLError, first_line
from propl_monai.images.picture import COPY_AGAIN, NoPicture, Stored, full_scale, require_finite, to_uint8, too_large

PICTURES = ("a PNG picture", "a JPEG picture", "a BMP picture", "a TIFF picture", "a WebP picture")
# The readers' libraries take long to import, so each is imported when the first file of its kind comes.
_READERS = {
    **dict.fromkeys(PICTURES, "propl_monai.images.pillow"),
    **dict.fromkeys(("a NIfTI picture", "gzip data"), "propl_monai.images.nifti"),
    "a MetaImage": "propl_monai.images.metaimage",
    "a DICOM file": "propl_monai.images.dicom",
    **dict.fromkeys(("an AVI video", "an MP4 video"), "propl_monai.images.video"),
}
_AS_PNG, _AS_NIFTI = "export the frame you mean as PNG", "save it as NIfTI in one file (.nii) or as MetaImage (.mha)"
_CURES = {
    **dict.fromkeys(("a GIF picture", "an AVIF or HEIC picture", "a JPEG 2000 picture", "a JPEG XL picture"), _AS_PNG),
    **dict.fromkeys(("a JPEG-LS picture", "a NumPy array", "an HDF5 file", "a MATLAB file"), _AS_PNG),
    **dict.fromkeys(("an NRRD picture", "the header of a NIfTI or Analyze picture in two files"), _AS_NIFTI),
}


def open_file(path: Path) -> Stored:
    """Read the header of a picture or cine."""
    with opened(path) as stream:
        kind = type_of(stream.read(HEAD_BYTES))
        stream.seek(0)
        if kind.endswith(" video") and kind not in _READERS:
            raise ProPLError(
                path, f"is {kind}, which is not read", "convert it to MP4 with H.264, or its frames to PNG"
            )
        if kind in _CURES:
            raise ProPLError(path, f"is {kind}, which is not read", _CURES[kind])
        if kind == DICOM_DIRECTORY:
            raise NoPicture(path, f"is {kind}", "give the files that it lists")
        if kind not in _READERS:
            raise ProPLError(path, f"is {kind}", "give one of " + ", ".join(PICTURE_SUFFIXES + VIDEO_SUFFIXES))
        with _named_errors(path, kind):
            stored: Stored = import_module(_READERS[kind]).open_stored(path, kind, stream)
    return stored


@contextmanager
def _named_errors(path: Path, kind: str) -> Iterator[None]:
    """Decoders raise nearly every type there is when bytes are wrong."""
    try:
        yield
    except ProPLError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise too_large(path) from error
    except ModuleNotFoundError as error:  # of an installation that only predicts
        raise ProPLError(
            path, f"is {kind}, which needs the package {error.name}", f"pip install {error.name}"
        ) from error
    except UnidentifiedImageError as error:  # its message names a stream, not the file
        fact = f"is {kind} that is damaged or cut short, or stored in a way that is not read"
        raise ProPLError(path, fact, "export it again, as PNG of 8 or 16 bits") from error
    except Exception as error:
        fact = f"is {kind} that is damaged or cut short ({first_line(error)})"
        raise ProPLError(path, fact, COPY_AGAIN) from error


def decode(stored: Stored) -> Iterator[np.ndarray]:
    """Upright values as stored, frame by frame, all finite and of the size in the header."""
    number = 0
    frames = stored.values()
    while True:
        with _named_errors(stored.path, stored.kind):
            values = next(frames, None)
        if values is None:
            break
        number += 1
        if values.shape[:2] != (stored.height, stored.width):
            size, first = f"{values.shape[0]} × {values.shape[1]}", f"{stored.height} × {stored.width}"
            fact = f"frame {number} is {size}, not {first}"
            raise ProPLError(stored.path, fact, "export the frames as PNG, one per file")
        require_finite(stored.path, values)
        yield values.astype(values.dtype.newbyteorder("="), copy=False)  # torch takes no big-endian arrays
    if number != stored.count:
        fact = f"holds {number} frames where its header states {stored.count}"
        raise ProPLError(stored.path, fact, COPY_AGAIN)


def shown(stored: Stored) -> Iterator[np.ndarray]:
    """Upright uint8 frames, `(H, W)` or `(H, W, 3)`.

    Deep values of a cine are stretched by what all of its frames hold, so that brightness does not jump between them;
    this decodes such a cine twice.
    """
    if stored.show is not None:
        yield from map(stored.show, decode(stored))
        return
    full = None
    single = next(decode(stored)) if stored.count == 1 else None
    for values in [single] if single is not None else decode(stored):
        if values.dtype == np.uint8:
            yield values
            continue
        if full is None:
            full = _scale_of_all(stored, [values] if single is not None else decode(stored))
        yield to_uint8(values, full)


def _scale_of_all(stored: Stored, frames: Iterator[np.ndarray] | list[np.ndarray]) -> float:
    low, high, floating = np.inf, -np.inf, False
    for values in frames:
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        floating = floating or values.dtype.kind == "f"
    return full_scale(stored.path, low, high, floating)

"""Which reader a file needs, by what its bytes are; its name is not asked.

The readers' libraries take long to import, so each is imported when the first file of its kind comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from propl_monai.common.files import HEAD_BYTES, PICTURE_SUFFIXES, VIDEO_SUFFIXES, opened, type_of
from propl_monai.errors import ProPLError
from propl_monai.images.picture import COPY_AGAIN, Stored, damaged, full_scale, require_finite, to_uint8, too_large

PICTURES = ("a PNG picture", "a JPEG picture", "a BMP picture", "a TIFF picture", "a WebP picture")
VIDEOS = ("an AVI video", "an MP4 video")


def open_file(path: Path) -> Stored:
    """Read the header of a picture or cine."""
    with opened(path) as stream:
        kind = type_of(stream.read(HEAD_BYTES))
        stream.seek(0)
        return _open_in_our_words(path, kind, stream)


def _open_in_our_words(path: Path, kind: str, stream: BinaryIO) -> Stored:
    try:
        return _open(path, kind, stream)
    except ProPLError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise too_large(path) from error
    except UnidentifiedImageError as error:  # whose words are those of a stream, and tell nothing
        fact = f"is {kind} that is damaged or cut short, or stored in a way that is not read"
        raise ProPLError(path, fact, "export it again, as PNG of 8 or 16 bits") from error
    except Exception as error:
        raise damaged(path, kind, error) from error


def _open(path: Path, kind: str, stream: BinaryIO) -> Stored:
    if kind in PICTURES:
        from propl_monai.images.pillow import open_pillow

        return open_pillow(path, kind, stream)
    if kind in ("a NIfTI picture", "gzip data"):
        from propl_monai.images.nifti import open_nifti

        return open_nifti(path, kind, stream)
    if kind == "a MetaImage":
        from propl_monai.images.metaimage import open_metaimage

        return open_metaimage(path, kind)
    if kind == "a DICOM file":
        from propl_monai.images.dicom import open_dicom

        return open_dicom(path, kind)
    if kind in VIDEOS:
        from propl_monai.images.video import open_video

        return open_video(path, kind)
    if kind in ("a GIF picture", "an AVIF or HEIC picture"):
        raise ProPLError(path, f"is {kind}", "export the frame you mean as PNG")
    raise ProPLError(path, f"is {kind}", "give one of " + ", ".join(PICTURE_SUFFIXES + VIDEO_SUFFIXES))


def decode(stored: Stored) -> Iterator[np.ndarray]:
    """Upright values as stored, frame by frame, all finite and of the size that the header told."""
    number = 0
    frames = stored.values()
    while True:
        try:
            values = next(frames, None)
        except ProPLError:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise too_large(stored.path) from error
        except Exception as error:
            raise damaged(stored.path, stored.kind, error) from error
        if values is None:
            break
        number += 1
        if values.shape[:2] != (stored.height, stored.width):
            size, first = f"{values.shape[0]} × {values.shape[1]}", f"{stored.height} × {stored.width}"
            raise ProPLError(
                stored.path, f"frame {number} is {size}, not {first}", "export the frames as PNG, one a file"
            )
        require_finite(stored.path, values)
        yield values.astype(values.dtype.newbyteorder("="), copy=False)  # torch takes no big-endian arrays
    if number != stored.count:
        fact = f"holds {number} frames where its header tells of {stored.count}"
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

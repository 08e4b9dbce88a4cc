"""PNG, JPEG, BMP, TIFF and WebP through Pillow.

| in the file | becomes |
|---|---|
| EXIF or TIFF orientation 1-8 | applied, so that the picture stands upright |
| 1 bit, palette, CMYK, YCbCr | the colours it means |
| transparency (LA, RGBA, tRNS) | laid on black, the background of ultrasound |
| transparency that is the same everywhere | ignored: the program that wrote it left it unset |
| black everywhere, partly transparent | the opacity: a shape that was drawn in it |
| pages of a TIFF, frames of an animated PNG or WebP | frames |
| pages of a TIFF that say they are previews or transparency of another | ignored |
| further pictures in a JPEG (previews, depth maps, gain maps of phones) | ignored |
| a TIFF stack of ImageJ or tifffile that has one page for all of its frames | its frames, by `tiff` |
| texts and colour profiles of any length in a PNG | ignored: Pillow refuses long ones |
| 16 bits of colour or transparency; TIFF of 16 bits where 0 is white | refused: Pillow misreads them |
| TIFF of 16 or 64 bits in floating point, 64 bits, 8 signed bits; BigTIFF in big-endian order | read by `tiff` |

The resolution fields of these formats describe paper, not tissue, and are not read.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from propl_monai.common.spacing import positive
from propl_monai.errors import ProPLError
from propl_monai.images.picture import NO_PAGES, Stored, check_size, without_transparency

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
ORIENTATION_TAG = 0x0112
_BITS_TAG, _MEANING_TAG, _SIGN_TAG = 258, 262, 339  # TIFF 6.0: BitsPerSample, PhotometricInterpretation, SampleFormat
_WHITE_IS_ZERO, _SIGNED = 0, 2
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk with its check sum (PNG, 11.2.5)
_SUBFILE_TAG, _TEXT_TAG = 254, 270  # TIFF 6.0: NewSubfileType, ImageDescription
_LONG_TEXT = 2**20  # bytes of a text or colour profile, unpacked: Pillow refuses a PNG with more
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_NOT_EVERYWHERE = ("webp", "zstd", "lzma")  # compressions of TIFF that some builds of Pillow lack
_HEAD_BYTES = 30  # hold the size of a WebP, and bit depth and colour type of a PNG


class _NotOfPillow(ProPLError):
    """A picture that Pillow turns into other values without a warning."""


def open_stored(path: Path, kind: str, stream: BinaryIO) -> Stored:
    """Read the header; errors of Pillow are left to the caller."""
    try:
        picture = _open(path, stream)
    except (UnidentifiedImageError, _NotOfPillow) as error:
        if kind != "a TIFF picture":
            raise
        from propl_monai.images import tiff  # its library takes long to import, and few files need it

        try:
            return tiff.open_stored(path, kind)
        except tiff.NotRead:
            if isinstance(error, _NotOfPillow):
                raise error from None
            raise
    if picture.format == "PNG" and not _holds_end(stream):  # Pillow needs no more than the pixels
        raise EOFError("its end is missing")
    pages = _pages(picture)
    count = len(pages)
    if count == 1 and (frames := _frames_of_stack(picture)) > 1:
        from propl_monai.images import tiff

        if (stack := tiff.open_stack(path, kind, frames)) is not None:
            return stack
    height, width = _upright_size(stream, picture)
    pause = picture.info.get("duration", 0) if count > 1 else 0  # of the first frame, in ms
    return Stored(
        path,
        kind,
        height,
        width,
        count,
        partial(_decode, path, pages),
        seconds_per_frame=positive(pause / 1000),
        lossy=_lossy(stream, picture),
        orientation=_orientation(stream, picture),
    )


def _pages(picture: Image.Image) -> list[int]:
    """The numbers of its frames, without the previews that pages of a TIFF may be; the picture is left at the first."""
    count = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
    if picture.format != "TIFF" or count == 1:
        return list(range(count))
    kinds = []
    for index in range(count):
        picture.seek(index)
        kinds.append(picture.tag_v2.get(_SUBFILE_TAG, 0))  # type: ignore[attr-defined]
    pages = [index for index, kind in enumerate(kinds) if not kind & NO_PAGES] or list(range(count))
    picture.seek(pages[0])
    return pages


def _frames_of_stack(picture: Image.Image) -> int:
    """The frames that a TIFF of one page says it holds behind one another, as ImageJ and tifffile write them; else 1."""
    text = str(picture.tag_v2.get(_TEXT_TAG, "")) if picture.format == "TIFF" else ""  # type: ignore[attr-defined]
    if text.startswith("ImageJ="):
        return int(match[1]) if (match := re.search(r"^images=(\d{1,9})\s*$", text, re.MULTILINE)) else 1
    if not text.startswith('{"shape":'):
        return 1
    try:
        values = math.prod(int(length) for length in json.loads(text)["shape"])
    except (ValueError, TypeError):
        return 1
    return values // (picture.height * picture.width * len(picture.getbands()))


def _open(path: Path, stream: BinaryIO) -> Image.Image:
    """Open lazily, and refuse what the header already rules out."""
    # A stream, not the path: given a path, Pillow 13.0 maps uncompressed grey TIFF into memory with width and height
    # exchanged when its orientation is 5 to 8, and the picture comes out sheared, without a warning.
    head = stream.read(_HEAD_BYTES)
    if head[:4] == b"MM\x00+":
        raise _misread(path, "a BigTIFF in big-endian order")
    webp = _webp_size(head)
    if webp:
        check_size(path, *webp)  # Pillow decodes WebP while it opens it
    stream.seek(0)
    picture = Image.open(_without_long_texts(stream, head), formats=FORMATS)
    check_size(path, picture.height, picture.width)
    _refuse_misread(path, picture, head)
    return picture


def _refuse_misread(path: Path, picture: Image.Image, head: bytes = b"") -> None:
    """Refuse what Pillow turns into other values without a warning."""
    if picture.format == "PNG":
        if head[24:25] == b"\x10" and head[25] != 0:  # bit depth and colour type (PNG, 11.2.1)
            raise _misread(path, "a PNG picture of 16 bits in colour or with transparency")
    elif picture.format == "TIFF":
        tags = picture.tag_v2  # type: ignore[attr-defined]
        bits, deep = tags.get(_BITS_TAG, (1,)), picture.mode in DEEP_MODES
        if max(bits) > 8 and not deep:
            raise _misread(path, f"a TIFF picture of {max(bits)} bits in colour or with transparency")
        if tags.get(_MEANING_TAG) == _WHITE_IS_ZERO and deep:
            raise _misread(path, f"a TIFF picture of {max(bits)} bits where 0 is white")
        if _SIGNED in tags.get(_SIGN_TAG, ()) and max(bits) == 8:
            raise _misread(path, "a TIFF picture of 8 signed bits")


def _misread(path: Path, what: str) -> ProPLError:
    return _NotOfPillow(path, f"is {what}", "save it as grey of 8 or 16 bits where 0 is black, or as RGB of 8 bits")


def _decode(path: Path, pages: list[int]) -> Iterator[np.ndarray]:
    with path.open("rb") as stream:
        picture = _open(path, stream)
        for index in pages:
            if len(pages) > 1 or index:
                picture.seek(index)
                check_size(path, picture.height, picture.width)
                _refuse_misread(path, picture)
            try:
                yield _values(ImageOps.exif_transpose(picture))
            except OSError as error:
                if picture.format != "TIFF" or picture.info.get("compression") not in _NOT_EVERYWHERE:
                    raise
                fact = (
                    f"is a TIFF picture with {picture.info['compression']} compression, which this Pillow does not read"
                )
                raise ProPLError(path, f"{fact}, or damaged", "save it with LZW or Deflate, or without") from error


def _values(upright: Image.Image) -> np.ndarray:
    """`(H, W)` as stored, or uint8 `(H, W, 3)`."""
    if upright.mode in DEEP_MODES:
        return np.array(upright)
    if upright.mode in ("1", "L") and "transparency" not in upright.info:
        return np.array(upright.convert("L"))
    if upright.has_transparency_data:
        return without_transparency(upright)
    return np.array(upright.convert("RGB"))


def _upright_size(stream: BinaryIO, picture: Image.Image) -> tuple[int, int]:
    # Pillow has turned the size of a TIFF already.
    sideways = picture.format != "TIFF" and _orientation(stream, picture) >= 5
    return (picture.width, picture.height) if sideways else (picture.height, picture.width)


def _orientation(stream: BinaryIO, picture: Image.Image) -> int:
    """1 for upright, 2 to 8 for the turns and mirrors of EXIF."""
    # Without a chunk that may hold an orientation, Pillow would decode the whole PNG to look for one.
    content = _all_bytes(stream) if picture.format == "PNG" else b"eXIf"
    if not any(mark in content for mark in (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")):
        return 1
    orientation = picture.getexif().get(ORIENTATION_TAG, 1)
    return orientation if orientation in range(2, 9) else 1


def _lossy(stream: BinaryIO, picture: Image.Image) -> str:
    if picture.format in ("JPEG", "MPO"):
        return "JPEG"
    if picture.format == "TIFF" and picture.info.get("compression") == "jpeg":
        return "JPEG-compressed TIFF"
    return "lossy WebP" if picture.format == "WEBP" and "VP8 " in _webp_chunks(_all_bytes(stream)) else ""


def _holds_end(stream: BinaryIO) -> bool:
    """Whether a PNG is whole. Most end with their end; bytes may follow it, and then all are looked at."""
    place, length = stream.tell(), stream.seek(0, os.SEEK_END)
    stream.seek(max(0, length - len(_PNG_END)))
    last = stream.read()
    stream.seek(place)
    return last == _PNG_END or _PNG_END in _all_bytes(stream)


def _without_long_texts(stream: BinaryIO, head: bytes) -> BinaryIO:
    """The stream of a picture; of a PNG with long texts or colour profiles, a copy without them."""
    if not head.startswith(b"\x89PNG\r\n\x1a\n"):
        return stream
    place, length, spare = 8, stream.seek(0, os.SEEK_END), []
    while place + 8 <= length:
        stream.seek(place)
        size, name = struct.unpack(">I4s", stream.read(8))
        if name in _PNG_TEXTS and _is_long(stream.read(min(size, length)), name):
            spare.append((place, place + size + 12))
        place += size + 12
    if spare:
        content, end = _all_bytes(stream), 0
        parts = []
        for first, last in spare:
            parts.append(content[end:first])
            end = last
        stream = BytesIO(b"".join([*parts, content[end:]]))
    stream.seek(0)
    return stream


def _is_long(text: bytes, kind: bytes) -> bool:
    """Whether a text or profile has more than `_LONG_TEXT` bytes, unpacked (PNG, 11.3.3)."""
    rest = text.partition(b"\0")[2]
    if kind == b"iTXt":  # compression flag and method, then language and translated keyword
        packed, rest = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
    else:
        packed, rest = kind != b"tEXt", rest[kind != b"tEXt" :]
    if len(rest) > _LONG_TEXT or not packed:
        return len(rest) > _LONG_TEXT
    try:
        return len(zlib.decompressobj().decompress(rest, _LONG_TEXT + 1)) > _LONG_TEXT
    except zlib.error:  # left to Pillow
        return False


def _all_bytes(stream: BinaryIO) -> bytes:
    """The whole file; the stream stays where it was, as Pillow reads on from there."""
    place = stream.tell()
    stream.seek(0)
    content = stream.read()
    stream.seek(place)
    return content


def _webp_size(head: bytes) -> tuple[int, int] | None:
    """Height and width in the first 30 bytes of a WebP (RFC 9649, sections 2.5 to 2.7); None for anything else."""
    if len(head) < 30 or head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None
    if head[12:16] == b"VP8X":
        return int.from_bytes(head[27:30], "little") + 1, int.from_bytes(head[24:27], "little") + 1
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", head, 26)
    return height & 0x3FFF, width & 0x3FFF


def _webp_chunks(content: bytes) -> set[str]:
    """The names of the chunks of a WebP, those of animation frames included."""
    found, position = set(), 12
    while position + 8 <= len(content):
        name, length = struct.unpack_from("<4sI", content, position)
        found.add(name.decode("latin-1"))
        # the payload of an animation frame is 16 bytes, then chunks
        position += 24 if name == b"ANMF" else 8 + length + length % 2
    return found

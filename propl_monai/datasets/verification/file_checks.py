"""What can be said of one file alone: whether it is there and whole, what it shows, and its fingerprints.

`check_file` runs in worker processes; it takes and returns plain values, opens nothing for writing, and decodes once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from propl_monai.common.files import file_sha256, picture_suffix, true_type
from propl_monai.errors import ProPLError
from propl_monai.images import image_size, read_image, read_mask, read_values, to_grey
from propl_monai.images.opening import open_file
from propl_monai.images.picture import Stored, too_large

SMALLEST_SIDE = 8  # pixels; below it there is nothing to see, and an encoder of stride 32 sees less than one pixel
SMALL_SIDE = 32
SPECK_PIXELS = 10  # fewer are a stray click or a leftover of burned-in text, not an organ
THUMBNAIL = (32, 34)  # rows, columns; 2 × 2 of them make a block of the 16 × 17 that a 256-bit difference hash compares

IMAGE, MASK = "image", "mask"
_KIND_OF_SUFFIX = {
    ".png": "a PNG picture",
    ".jpg": "a JPEG picture",
    ".jpeg": "a JPEG picture",
    ".bmp": "a BMP picture",
    ".tif": "a TIFF picture",
    ".tiff": "a TIFF picture",
    ".webp": "a WebP picture",
}
_NO_PICTURES = (
    *("an HTML page", "plain text", "a PDF document", "a ZIP archive", "of no known picture type"),
    "a Git LFS pointer, not the file itself",
)


@dataclass(frozen=True)
class Fault:
    """A code of `findings.CODES`, what is wrong with a file, and what to do."""

    code: str
    fact: str
    cure: str


@dataclass(frozen=True)
class FileReport:
    """What was found out about one file in one role.

    Attributes:
        path: relative to the root.
        role: `IMAGE` or `MASK`.
        faults: what is wrong with it.
        stamp: size in bytes and time of change in ns, None when it is not there.
        sha256: of its bytes, empty when they cannot be read.
        size: height and width, upright, None when unknown.
        pixels: hash of the upright grey picture, empty for masks, constant pictures and what cannot be decoded.
        thumbnail: uint8 values of the picture at `THUMBNAIL`, row by row; empty where `pixels` is.
    """

    path: str
    role: str
    faults: tuple[Fault, ...] = ()
    stamp: tuple[int, int] | None = None
    sha256: str = ""
    size: tuple[int, int] | None = None
    pixels: bytes = b""
    thumbnail: bytes = b""


def check_file(job: tuple[str, str, str]) -> FileReport:
    """Read and decode one file.

    Args:
        job: folder, path relative to it, and role.
    """
    root, name, role = job
    path = Path(root, name)
    try:
        stamp = file_stamp(path)
    except FileNotFoundError:
        cure = "add the file, or drop the case; if the root folder is another one, name it"
        return FileReport(name, role, (Fault("E-MISSING", f"the {role} does not exist", cure),))
    except OSError as error:
        fault = Fault("E-DECODE", f"cannot be read ({error.strerror})", "check its permissions and the disk")
        return FileReport(name, role, (fault,))
    try:
        sha256 = file_sha256(path)
    except ProPLError as error:
        return FileReport(name, role, (Fault("E-DECODE", error.fact, error.cure),), stamp)
    check = _check_image if role == IMAGE else _check_mask
    return check(path, FileReport(name, role, tuple(_name_faults(path)), stamp, sha256))


def file_stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and time of change in ns.

    Raises:
        OSError: it is not there (`FileNotFoundError`, also when a folder on the way is a file), or may not be looked at.
    """
    try:
        status = path.stat()
    except NotADirectoryError as error:
        raise FileNotFoundError(*error.args) from error
    return status.st_size, status.st_mtime_ns


def _check_image(path: Path, report: FileReport) -> FileReport:
    try:
        grey = to_grey(read_image(path).pixels)
    except ProPLError as error:
        return _with(report, _refusal(path, role=IMAGE, error=error))
    size = (grey.shape[0], grey.shape[1])
    faults = tuple(_size_faults(*size))
    if grey.min() == grey.max():
        fact = f"holds the value {grey.flat[0]} only"
        return _with(report, *faults, Fault("W-CONSTANT", fact, "drop it, unless it is meant"), size=size)
    pixels = hashlib.blake2b(repr(size).encode() + grey.tobytes(), digest_size=16).digest()
    return _with(report, *faults, size=size, pixels=pixels, thumbnail=thumbnail_of(grey).tobytes())


def _check_mask(path: Path, report: FileReport) -> FileReport:
    try:
        mask = read_mask(path)
    except ProPLError as error:
        return _with(report, _refusal(path, role=MASK, error=error), size=_size_or_none(path))
    size = (mask.shape[0], mask.shape[1])
    foreground = int(np.count_nonzero(mask))
    if foreground == 0:
        fault = Fault(
            "W-EMPTY", "has no foreground", "drop the mask if it was never drawn; keep it if nothing is there"
        )
    elif foreground == mask.size:
        fault = Fault("W-FULL", "is all foreground", "draw it again, or drop the case")
    elif foreground < SPECK_PIXELS:
        fault = Fault("W-SPECK", f"has {foreground} foreground pixels only", "look at it: it may be a stray mark")
    else:
        return _with(report, size=size)
    return _with(report, fault, size=size)


def _refusal(path: Path, role: str, error: ProPLError) -> Fault:
    return Fault(_refusal_code(path, role, error), error.fact, error.cure)


def _refusal_code(path: Path, role: str, error: ProPLError) -> str:
    """The code of a refusal, found by a second look at the file: the readers tell it in words, for people."""
    if error.fact == too_large(path).fact:
        return "E-HUGE"
    try:
        stored = open_file(path)
    except ProPLError as refused:  # a cause is what a decoder raised; without one, it is a picture that we do not take
        return "E-DECODE" if refused.__cause__ is not None or true_type(path) in _NO_PICTURES else "E-FORMAT"
    if stored.count > 1:
        return "E-FORMAT"
    return "E-LOSSY" if role == MASK and stored.lossy else _values_code(stored, role)


def _values_code(stored: Stored, role: str) -> str:
    try:
        read_values(stored.path)
    except ProPLError as refused:
        whole = refused.__cause__ is None and not all(np.isfinite(frame).all() for frame in stored.values())
        return "E-NONFINITE" if whole else "E-DECODE"
    return "E-LABELS" if role == MASK else "E-FORMAT"


def _size_or_none(path: Path) -> tuple[int, int] | None:
    try:
        return image_size(path)
    except ProPLError:
        return None  # that it cannot be read is a fault already


def _name_faults(path: Path) -> list[Fault]:
    kind, expected = true_type(path), _KIND_OF_SUFFIX.get(picture_suffix(path.name))
    if expected in (None, kind) or kind not in _KIND_OF_SUFFIX.values():
        return []
    return [Fault("W-SUFFIX", f"is {kind}, not what its name says", "rename it: other programs believe the name")]


def _size_faults(height: int, width: int) -> list[Fault]:
    side = min(height, width)
    if side >= SMALL_SIDE:
        return []
    fact = f"is {height} × {width} (height × width)"
    return [Fault("E-TINY" if side < SMALLEST_SIDE else "W-TINY", fact, "export it at its full size, or drop the case")]


def _with(
    report: FileReport,
    *faults: Fault,
    size: tuple[int, int] | None = None,
    pixels: bytes = b"",
    thumbnail: bytes = b"",
) -> FileReport:
    known = (*report.faults, *faults)
    return FileReport(report.path, report.role, known, report.stamp, report.sha256, size, pixels, thumbnail)


def thumbnail_of(grey: np.ndarray) -> np.ndarray:
    """The mean grey value of each of `THUMBNAIL` equal areas, whatever the size of the picture."""
    rows, columns = (_shares(length, parts) for length, parts in zip(grey.shape, THUMBNAIL, strict=True))
    return np.rint(rows @ grey.astype(np.float32) @ columns.T).astype(np.uint8)


@lru_cache(maxsize=256)
def _shares(length: int, parts: int) -> np.ndarray:
    """The share of each of `length` pixels in each of `parts` equal stretches: `(parts, length)`, rows sum to 1."""
    edges = np.linspace(0, length, parts + 1)
    left = np.arange(length)
    overlap = np.minimum(edges[1:, None], left + 1) - np.maximum(edges[:-1, None], left)
    return (overlap.clip(min=0) * parts / length).astype(np.float32)

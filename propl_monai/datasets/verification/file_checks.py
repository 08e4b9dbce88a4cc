"""Checks of one file by itself: whether it exists and is complete, what it shows, and its fingerprints.

`check_file` runs in worker processes; it takes and returns plain values, opens nothing for writing, and decodes once.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from propl_monai.common.files import file_sha256, picture_suffix, true_type
from propl_monai.common.findings import Finding
from propl_monai.errors import ProPLError
from propl_monai.images import image_size, read_image, read_mask, read_values, to_grey
from propl_monai.images.opening import open_file
from propl_monai.images.picture import too_large

SMALLEST_SIDE = 8  # pixels; below it there is nothing to see, and an encoder of stride 32 sees less than one pixel
SMALL_SIDE = 32
SPECK_PIXELS = 10  # fewer are a stray click or a leftover of burned-in text, not an organ
THUMBNAIL = (32, 34)  # rows, columns; 2 × 2 of them make a block of the 16 × 17 that a 256-bit difference hash compares

IMAGE, MASK = "image", "mask"
_KIND_OF_SUFFIX = {
    **{".png": "a PNG picture", ".bmp": "a BMP picture", ".webp": "a WebP picture"},
    **dict.fromkeys((".jpg", ".jpeg"), "a JPEG picture"),
    **dict.fromkeys((".tif", ".tiff"), "a TIFF picture"),
}
_NO_PICTURES = (
    *("an HTML page", "plain text", "a PDF document", "a ZIP archive", "of no known picture type"),
    "a Git LFS pointer, not the file itself",
)


@dataclass(frozen=True)
class FileReport:
    """The result of checking one file in one role.

    Attributes:
        path: relative to the root.
        role: `IMAGE` or `MASK`.
        faults: what is wrong with it.
        stamp: size in bytes and time of change in ns, None when it does not exist.
        sha256: of its bytes, empty when they cannot be read.
        size: height and width, upright, None when unknown.
        orientation: of a picture, see `Picture`.
        pixels: hash of the upright grey picture or mask, empty for constant pictures and what cannot be decoded.
        thumbnail: uint8 values of the picture at `THUMBNAIL`, row by row; empty for masks and where `pixels` is.
    """

    path: str
    role: str
    faults: tuple[Finding, ...] = ()
    stamp: tuple[int, int] | None = None
    sha256: str = ""
    size: tuple[int, int] | None = None
    orientation: int = 1
    pixels: bytes = b""
    thumbnail: bytes = b""


def check_file(job: tuple[str, str, str]) -> FileReport:
    """Read and decode one file.

    Args:
        job: folder, path relative to it, and role.
    """
    root, name, role = job
    path, report = Path(root, name), FileReport(name, role)
    try:
        report = replace(report, stamp=file_stamp(path))
        report = replace(report, sha256=file_sha256(path))
    except FileNotFoundError:
        cure = "add the file, or drop the case; if the root folder is another one, name it"
        return _with(report, "E-MISSING", f"the {role} does not exist", cure)
    except OSError as error:
        return _with(report, "E-DECODE", f"cannot be read ({error.strerror})", "check its permissions and the disk")
    except ProPLError as error:
        return _with(report, "E-DECODE", error.fact, error.cure)
    kind, expected = true_type(path), _KIND_OF_SUFFIX.get(picture_suffix(name), "")
    if expected not in ("", kind) and kind in _KIND_OF_SUFFIX.values():
        cure = "rename it: other programs believe the name"
        report = _with(report, "W-SUFFIX", f"is {kind}, not what its name says", cure)
    return (_check_image if role == IMAGE else _check_mask)(path, report)


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
        picture = read_image(path)
        grey = to_grey(picture.pixels)
    except ProPLError as error:
        return _with(report, _refusal_code(path, IMAGE, error), error.fact, error.cure)
    size = (grey.shape[0], grey.shape[1])
    report = replace(report, size=size, orientation=picture.orientation)
    if picture.orientation != 1:
        fact = f"is turned or mirrored by its EXIF orientation {picture.orientation}"
        cure = "look whether its mask fits; for masks drawn on pixels as stored, prepare with --option masks=stored"
        report = _with(report, "W-TURNED", fact, cure)
    if min(size) < SMALL_SIDE:
        code = "E-TINY" if min(size) < SMALLEST_SIDE else "W-TINY"
        fact = f"is {size[0]} × {size[1]} (height × width)"
        report = _with(report, code, fact, "export it at its full size, or drop the case")
    if grey.min() == grey.max():
        return _with(report, "W-CONSTANT", f"holds the value {grey.flat[0]} only", "drop it, unless it is meant")
    return replace(report, pixels=_digest(grey), thumbnail=thumbnail_of(grey).tobytes())


def _check_mask(path: Path, report: FileReport) -> FileReport:
    try:
        mask = read_mask(path)
    except ProPLError as error:
        with suppress(ProPLError):  # that it cannot be read is a fault already
            report = replace(report, size=image_size(path))
        return _with(report, _refusal_code(path, MASK, error), error.fact, error.cure)
    report = replace(report, size=(mask.shape[0], mask.shape[1]), pixels=_digest(mask))
    foreground = int(np.count_nonzero(mask))
    if foreground == 0:
        cure = "drop the mask if it was never drawn; keep it if nothing is there"
        return _with(report, "W-EMPTY", "has no foreground", cure)
    if foreground == mask.size:
        return _with(report, "W-FULL", "is all foreground", "draw it again, or drop the case")
    if foreground < SPECK_PIXELS:
        fact = f"has {foreground} foreground pixels only"
        return _with(report, "W-SPECK", fact, "look at it: it may be a stray mark")
    borders, corners = (mask[0], mask[-1], mask[:, 0], mask[:, -1]), mask[[0, 0, -1, -1], [0, -1, 0, -1]]
    if corners.all() or (foreground > mask.size / 2 and all(border.any() for border in borders)):
        where = "lies in all four corners" if corners.all() else "touches all four borders"
        fact = f"covers {100 * foreground / mask.size:.0f} % of the picture and {where}"
        return _with(report, "W-INVERTED", fact, "look at it: if it is inverted, exchange foreground and background")
    return report


def _digest(pixels: np.ndarray) -> bytes:
    return hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest()


def _refusal_code(path: Path, role: str, error: ProPLError) -> str:
    """The code of a refusal, found by a second look at the file: the readers say it in words only."""
    if error.fact == too_large(path).fact:
        return "E-HUGE"
    try:
        stored = open_file(path)
    except ProPLError as refused:  # a cause is what a decoder raised; without one, it is a picture that we do not take
        return "E-DECODE" if refused.__cause__ is not None or true_type(path) in _NO_PICTURES else "E-FORMAT"
    if stored.count > 1:
        return "E-FORMAT"
    if role == MASK and stored.lossy:
        return "E-LOSSY"
    try:
        read_values(path)
    except ProPLError as refused:
        whole = refused.__cause__ is None and not all(np.isfinite(frame).all() for frame in stored.values())
        return "E-NONFINITE" if whole else "E-DECODE"
    return "E-LABELS" if role == MASK else "E-FORMAT"


def _with(report: FileReport, code: str, fact: str, cure: str) -> FileReport:
    return replace(report, faults=(*report.faults, Finding(code, report.path, fact, cure)))


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

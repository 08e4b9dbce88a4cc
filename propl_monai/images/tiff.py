"""TIFF that Pillow does not read, through tifffile: floating point of 16 and 64 bits, integers of 64, signed bytes, BigTIFF
in big-endian order; and stacks that have one page for all of their frames, which lie behind one another. One grey channel
without compression; anything else is refused by what it is.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from propl_monai.errors import ProPLError
from propl_monai.images.picture import COPY_AGAIN, NO_PAGES, Stored, check_size

_PLAIN, _BLACK_IS_ZERO = 1, 1


class NotRead(ProPLError):
    """A way of storing a picture that is not read here either."""


def open_stored(path: Path, kind: str) -> Stored:
    """Read the header; errors of tifffile are left to the caller."""
    with _pages(path) as pages:
        for page in pages:
            _check(path, page)
        first = pages[0]
        decoder = partial(_decode, path)
        return Stored(path, kind, int(first.imagelength), int(first.imagewidth), len(pages), decoder)


def open_stack(path: Path, kind: str, count: int) -> Stored | None:
    """Frames that lie behind the one that the only page describes; None where there is no more than that one.

    Args:
        path, kind: as for `open_stored`.
        count: number of frames that the description states; a program that has kept one of them may have left it there.
    """
    with _pages(path) as pages:
        page = pages[0]
        height, width, start, order = (
            int(page.imagelength),
            int(page.imagewidth),
            page.dataoffsets[0],
            page.parent.byteorder,
        )
        there = path.stat().st_size - start
        try:
            _check(path, page)
        except NotRead:
            if there < 2 * sum(page.databytecounts):
                return None
            raise
        size = height * width * page.dtype.itemsize
        if there < 2 * size or sum(page.databytecounts) not in (size, count * size):
            return None
        if there < count * size:
            fact = f"holds {there // size} frames where its description states {count}"
            raise ProPLError(path, fact, COPY_AGAIN)
        place = (start, (height, width), page.dtype.newbyteorder(order))
        return Stored(path, kind, height, width, count, partial(_decode_stack, path, count, *place))


def _decode_stack(
    path: Path, count: int, start: int, shape: tuple[int, int], dtype: np.dtype[Any]
) -> Iterator[np.ndarray]:
    with path.open("rb") as stream:
        stream.seek(start)
        for _ in range(count):
            values = np.frombuffer(stream.read(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)
            yield values.astype(
                np.float32 if values.dtype.kind == "f" and dtype.itemsize == 2 else dtype.newbyteorder("=")
            )


@contextmanager
def _pages(path: Path) -> Iterator[list[Any]]:
    logger = logging.getLogger("tifffile")  # says the same once more
    before, logger.disabled = logger.disabled, True
    try:
        with tifffile.TiffFile(path) as file:
            pages: list[Any] = list(file.pages)
            # tifffile ends at a page that it cannot reach, and says nothing: the last one must say that there is no other.
            file.filehandle.seek(file.pages.next_page_offset or 0)
            if file.filehandle.read(file.tiff.offsetsize) != bytes(file.tiff.offsetsize):
                raise ProPLError(path, "is a TIFF picture that is damaged or cut short", COPY_AGAIN)
            yield [page for page in pages if not int(page.subfiletype) & NO_PAGES] or pages
    finally:
        logger.disabled = before


def _check(path: Path, page: Any) -> None:
    if not page.imagelength * page.imagewidth:
        raise ProPLError(path, "is a TIFF picture that is damaged or cut short", COPY_AGAIN)
    check_size(path, int(page.imagelength), int(page.imagewidth))
    values = "unknown values" if page.dtype is None else f"{page.dtype} values"
    cure = (
        "save it without compression, as grey of 8 or 16 bits or floating point where 0 is black, or as RGB of 8 bits"
    )
    if page.compression != _PLAIN:
        name = getattr(page.compression, "name", str(page.compression))
        raise NotRead(path, f"is a TIFF picture of {values} with compression {name}, which is not read", cure)
    if page.samplesperpixel != 1 or page.photometric != _BLACK_IS_ZERO or page.dtype is None:
        colours = getattr(page.photometric, "name", str(page.photometric))
        fact = f"is a TIFF picture of {page.samplesperpixel} {values} a pixel ({colours}), which is not read"
        raise NotRead(path, fact, cure)
    there, stated = path.stat().st_size, max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=True)))
    holds, needs = sum(page.databytecounts), page.imagelength * page.imagewidth * page.dtype.itemsize
    if holds < needs:
        raise ProPLError(path, f"holds {holds} bytes of values where its size needs {needs}", COPY_AGAIN)
    if stated > there:
        raise ProPLError(path, f"is cut short: {there} bytes where its values end at {stated}", COPY_AGAIN)


def _decode(path: Path) -> Iterator[np.ndarray]:
    with _pages(path) as pages:
        for page in pages:
            _check(path, page)
            values = page.asarray().reshape(page.imagelength, page.imagewidth)
            yield values.astype(np.float32) if values.dtype == np.float16 else values

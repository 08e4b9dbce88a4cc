"""Ways of storing a picture that Pillow reads as other values without a word: refused by name."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_samples import COLOUR, DEEP, GREY, save_pillow

from propl_monai.errors import ProPLError
from propl_monai.images import read_image, read_mask, read_values


def deep_png(path: Path, colour_type: int) -> None:
    """One black pixel of 16 bits a channel; only the header counts."""
    channels = {2: 3, 4: 2, 6: 4}[colour_type]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, colour_type, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(bytes(1 + 2 * channels))), (b"IEND", b"")]
    parts = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def changed_tiff(path: Path, pixels: np.ndarray, old: bytes, new: bytes) -> None:
    content = save_pillow(path, pixels).read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


MISREAD: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "RGB": ("a.png", lambda path: deep_png(path, 2), "PNG picture of 16 bits in colour"),
    "grey with transparency": ("a.png", lambda path: deep_png(path, 4), "PNG picture of 16 bits in colour"),
    "RGB with transparency": ("a.png", lambda path: deep_png(path, 6), "PNG picture of 16 bits in colour"),
    "TIFF of RGB": (
        "a.tif",
        lambda path: changed_tiff(path, COLOUR, struct.pack("<HHH", 8, 8, 8), struct.pack("<HHH", 16, 16, 16)),
        "TIFF picture of 16 bits in colour",
    ),
    "white is zero": (
        "a.tif",
        lambda path: changed_tiff(path, DEEP, struct.pack("<HHIH", 262, 3, 1, 1), struct.pack("<HHIH", 262, 3, 1, 0)),
        "TIFF picture of 16 bits where 0 is white",
    ),
}


@pytest.mark.parametrize("name,make,fact", MISREAD.values(), ids=list(MISREAD))
def test_what_pillow_turns_into_other_values_is_refused(
    tmp_path: Path, name: str, make: Callable[[Path], Any], fact: str
) -> None:
    make(tmp_path / name)
    for read in (read_image, read_mask, read_values):
        with pytest.raises(ProPLError, match=fact):
            read(tmp_path / name)


def test_a_header_that_asks_for_more_values_than_there_are(tmp_path: Path) -> None:
    save_pillow(tmp_path / "a.tif", GREY.astype(np.float32))
    content = (tmp_path / "a.tif").read_bytes()
    old, new = (struct.pack("<HHIH", 258, 3, 1, bits) for bits in (32, 64))
    assert content.count(old) == 1
    (tmp_path / "a.tif").write_bytes(content.replace(old, new))
    with pytest.raises(ProPLError, match="holds 480 bytes of values where its size needs 960"):
        read_image(tmp_path / "a.tif")

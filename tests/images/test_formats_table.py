"""What each kind of input becomes: the tables of docs/formats.md are what these tests find out, and nothing else.

After a change that is meant, write them anew: `UPDATE_TABLES=1 pytest tests/images/test_formats_table.py`
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import ROOT
from picture_samples import COLOUR, DEEP, GREY, MOVING, SAMPLES, save_dicom, save_nifti, save_pages, save_pillow
from pydicom import uid

from propl_monai.errors import ProPLError
from propl_monai.images import read_frames, read_mask
from propl_monai.images.opening import decode, open_file

PAGE = ROOT / "docs" / "formats.md"
BEGIN, END = "<!-- begin: {} -->\n", "<!-- end: {} -->"


def colour(pixels: np.ndarray) -> str:
    return "grey" if pixels.ndim == 2 else "RGB"


def span(values: np.ndarray) -> str:
    return f"{values.dtype} {values.min():g} to {values.max():g}"


def read_row(kind: str, path: Path) -> str:
    """What a file becomes; lossy values differ between versions of the decoders, so they are not listed."""
    stored, cine = open_file(path), read_frames(path)
    values, frames = np.stack(list(decode(stored))), list(cine)
    shown = "near what was compressed" if stored.lossy else f"{span(values)} → {span(np.stack(frames))}"
    spacing = " × ".join(f"{length:g}" for length in cine.spacing_mm) if cine.spacing_mm else "–"
    seconds = f"{cine.seconds_per_frame:g}" if cine.seconds_per_frame else "–"
    mask = f"no, {stored.lossy}" if stored.lossy else "no, several frames" if cine.count > 1 else "yes"
    return f"| {kind} | {cine.count} | {colour(frames[0])} | {shown} | {spacing} | {seconds} | {mask} |"


def floats(path: Path) -> None:
    save_pillow(path, np.where(GREY == 5, np.nan, GREY).astype(np.float32))


REFUSED: dict[str, tuple[str, Callable[[Path], Any], Callable[[Path], Any]]] = {
    "GIF": ("a.gif", lambda path: save_pages(path, MOVING), read_frames),
    "not a finite number": ("a.tif", floats, lambda path: list(read_frames(path))),
    "negative values": ("a.nii", lambda p: save_nifti(p, GREY.astype(np.int16) - 5), lambda p: list(read_frames(p))),
    "more than 16 bits": (
        "a.nii",
        lambda p: save_nifti(p, GREY.astype(np.int32) * 999),
        lambda p: list(read_frames(p)),
    ),
    "16 bits in colour": ("a.tif", lambda path: deep_colour(path), read_frames),
    "16 bits where 0 is white": ("a.tif", lambda path: white_is_zero(path), read_frames),
    "DICOM, negative values": (
        "a.dcm",
        lambda path: save_dicom(path, GREY[None] - np.uint8(5), PixelRepresentation=1),
        lambda path: list(read_frames(path)),
    ),
    "DICOM, compressed otherwise": ("a.dcm", lambda path: other_syntax(path), read_frames),
    "a mask of more values": ("a.png", lambda path: save_pillow(path, GREY % 3), read_mask),
    "a JPEG mask": ("a.jpg", lambda path: save_pillow(path, (GREY > 50) * np.uint8(255)), read_mask),
    "text": ("a.png", lambda path: path.write_text("no picture"), read_frames),
}


def deep_colour(path: Path) -> None:
    """A TIFF whose header says 16 bits for each of three channels: the header alone decides."""
    content = save_pillow(path, COLOUR).read_bytes()
    path.write_bytes(content.replace(struct.pack("<HHH", 8, 8, 8), struct.pack("<HHH", 16, 16, 16)))


def white_is_zero(path: Path) -> None:
    """A TIFF of 16 bits whose PhotometricInterpretation is 0."""
    content = save_pillow(path, DEEP).read_bytes()
    path.write_bytes(content.replace(struct.pack("<HHIH", 262, 3, 1, 1), struct.pack("<HHIH", 262, 3, 1, 0)))


def other_syntax(path: Path) -> None:
    """A raw file that says it is JPEG-LS: the header alone decides."""
    content = save_dicom(path, GREY[None], syntax=uid.ExplicitVRLittleEndian).read_bytes()
    old, new = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.4.80"
    at = content.index(old)
    content = content[: at - 2] + len(new).to_bytes(2, "little") + new + content[at + len(old) :]
    path.write_bytes(content[:140] + (content[140] + 2).to_bytes(1, "little") + content[141:])


def refused_row(kind: str, path: Path, read: Callable[[Path], Any]) -> str:
    with pytest.raises(ProPLError) as caught:
        read(path)
    return f"| {kind} | {caught.value.fact} | {caught.value.cure} |"


def compare(name: str, rows: list[str]) -> None:
    """With the part of the page between the marks of that name; or write it."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN.format(name))
    found, after = rest.split(END.format(name))
    table = "\n".join(rows) + "\n"
    if os.environ.get("UPDATE_TABLES") == "1":
        PAGE.write_text(before + BEGIN.format(name) + table + END.format(name) + after, encoding="utf-8")
        return
    assert found == table, "write the tables anew: UPDATE_TABLES=1 pytest tests/images/test_formats_table.py"


def test_table_of_what_is_read(tmp_path: Path) -> None:
    pytest.importorskip("av")
    rows = [
        "| input | frames | colour | values as stored → shown | spacing, mm (row × column) | s per frame | may be a mask |"
    ]
    rows.append("|---|---|---|---|---|---|---|")
    for number, (kind, (name, make)) in enumerate(SAMPLES.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        make(folder / name)
        rows.append(read_row(kind, folder / name))
    compare("read", rows)


def test_table_of_what_is_refused(tmp_path: Path) -> None:
    rows = ["| input | message | cure |", "|---|---|---|"]
    for kind, (name, make, read) in REFUSED.items():
        make(tmp_path / name)
        rows.append(refused_row(kind, tmp_path / name, read))
    compare("refused", rows)

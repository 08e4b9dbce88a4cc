"""Damaged files of every format: nothing but ProPLError comes out, memory stays bounded, and nothing hangs."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, note
from hypothesis import strategies as st
from picture_samples import GREY, SAMPLES, save_dicom, save_metaimage, save_nifti, save_pillow

from propl_monai.errors import ProPLError
from propl_monai.images import read_frames, read_image, read_mask

pytest.importorskip("av")
MEMORY = 2**29  # bytes that all mutants together may add to the process
LONGEST = 2.0  # seconds of computing that a mutant may take

Files = dict[str, bytes]  # a picture by file name; two of them where the values are in a file of their own
FIELDS = [
    b"\0",
    b"\1",
    b"\xff",
    b"\0\0",
    b"\xff\xff",
    b"\xff\x7f",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
]
FIELDS += [struct.pack(form, value) for value in (1, 256, 20_000) for form in ("<H", ">H", "<I", ">I", "<f", ">d")]


def flip(content: bytearray, place: int, draw: Callable[[st.SearchStrategy], object]) -> None:
    content[place] ^= 1 << draw(st.integers(0, 7))


def truncate(content: bytearray, place: int, draw: Callable) -> None:
    del content[max(place, 1) :]


def insert(content: bytearray, place: int, draw: Callable) -> None:
    content[place:place] = draw(st.binary(min_size=1, max_size=12))


def delete(content: bytearray, place: int, draw: Callable) -> None:
    del content[max(place, 1) : place + draw(st.integers(1, 12))]


def repeat(content: bytearray, place: int, draw: Callable) -> None:
    content[place:place] = content[place : place + draw(st.integers(1, 64))]


def set_field(content: bytearray, place: int, draw: Callable) -> None:
    field = draw(st.sampled_from(FIELDS))
    content[place : place + len(field)] = field


# Flips and fields more often than the rest: most formats notice at once when everything behind has moved.
STEPS = [flip, flip, flip, set_field, set_field, set_field, truncate, insert, delete, repeat]


@st.composite
def mutants(draw: Callable, originals: dict[str, Files]) -> tuple[str, Files]:
    """A kind of file, and a few of its bytes changed, three times of four in its last third."""
    kind = draw(st.sampled_from(sorted(originals)))
    files = dict(originals[kind])
    name = draw(st.sampled_from(sorted(files)))
    content = bytearray(files[name])
    for _ in range(draw(st.integers(1, 3))):
        start = 0 if draw(st.integers(0, 3)) == 0 else len(content) * 2 // 3
        place = draw(st.integers(start, len(content) - 1))
        draw(st.sampled_from(STEPS))(content, place, draw)
    files[name] = bytes(content)
    return kind, files


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    found = {}
    for kind, (name, make) in SAMPLES.items():
        folder = tmp_path_factory.mktemp("sample")
        make(folder / name)
        found[kind] = {path.name: path.read_bytes() for path in folder.iterdir()}
    return found


def past_header(path: Path) -> bool:
    """Whether the file could be opened; every reader must refuse it in our words, or give upright frames."""
    opened = False
    for read in (read_image, read_mask):
        try:
            read(path)
        except ProPLError as error:
            assert error.where == str(path)
    try:
        cine = read_frames(path)
        opened = True
        shapes = {frame.shape[:2] for frame in cine if frame.dtype == np.uint8}
        assert len(shapes) == 1
        assert sum(1 for _ in cine) == cine.count
    except ProPLError as error:
        assert error.where == str(path)
    return opened


@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")  # what Pillow and nibabel have to say about damaged tags
def test_damaged_files_raise_nothing_but_our_error(
    originals: dict[str, Files], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    tally: Counter[str] = Counter()
    slowest = 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @given(mutants(originals))
    def check(mutant: tuple[str, Files]) -> None:
        nonlocal slowest
        kind, files = mutant
        note(kind)
        for old in tmp_path.iterdir():
            old.unlink()
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        tally["all"] += 1
        begun = time.process_time()
        tally["past the header"] += past_header(tmp_path / SAMPLES[kind][0])
        slowest = max(slowest, time.process_time() - begun)

    for kind, (name, make) in SAMPLES.items():  # loads every reader before the first measurement
        make(tmp_path / f"{len(kind)} {name}")
        past_header(tmp_path / f"{len(kind)} {name}")
    check()
    record_property("trials", tally["all"])
    assert slowest < LONGEST
    # About half do; which files Hypothesis draws changes with every constant in the package's code.
    assert tally["past the header"] * 3 >= tally["all"], tally
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY
    print(dict(tally))


# --- huge sizes in small files


def huge_png(path: Path) -> None:
    content = bytearray(save_pillow(path, GREY).read_bytes())
    content[16:24] = struct.pack(">II", 20_000, 20_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


def huge_bmp(path: Path) -> None:
    content = bytearray(save_pillow(path, GREY).read_bytes())
    content[18:26] = struct.pack("<II", 20_000, 20_000)
    path.write_bytes(content)


def huge_jpeg(path: Path) -> None:
    content = bytearray(save_pillow(path, GREY).read_bytes())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", 20_000, 20_000)
    path.write_bytes(content)


def huge_tiff(path: Path) -> None:
    content = save_pillow(path, GREY).read_bytes()
    for tag, value in ((256, 10), (257, 12)):
        old = struct.pack("<HHII", tag, 4, 1, value)
        assert content.count(old) == 1
        content = content.replace(old, struct.pack("<HHII", tag, 4, 1, 20_000))
    path.write_bytes(content)


def huge_webp(path: Path) -> None:
    size = (16_383).to_bytes(3, "little")
    frame = save_pillow(path, GREY, lossless=True).read_bytes()[12:]
    chunks = b"VP8X" + struct.pack("<I", 10) + bytes(4) + size + size + frame
    path.write_bytes(b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks)


def huge_nifti(path: Path) -> None:
    content = bytearray(save_nifti(path, GREY).read_bytes())
    content[42:46] = struct.pack("<HH", 20_000, 20_000)
    path.write_bytes(content)


def huge_mha(path: Path) -> None:
    content = save_metaimage(path, GREY).read_bytes()
    path.write_bytes(content.replace(b"DimSize = 10 12", b"DimSize = 20000 20000"))


def huge_dicom(path: Path) -> None:
    rows, columns = struct.pack("<HH2sHH", 0x28, 0x10, b"US", 2, 12), struct.pack("<HH2sHH", 0x28, 0x11, b"US", 2, 10)
    content = save_dicom(path, GREY[None]).read_bytes()
    for old in (rows, columns):
        assert content.count(old) == 1
        content = content.replace(old, old[:8] + struct.pack("<H", 20_000))
    path.write_bytes(content)


HUGE = {
    **{"a.png": huge_png, "a.bmp": huge_bmp, "a.jpg": huge_jpeg, "a.tif": huge_tiff, "a.webp": huge_webp},
    **{"a.nii": huge_nifti, "a.mha": huge_mha, "a.dcm": huge_dicom},
}
PROBE = """
import resource, sys, warnings
from propl_monai.errors import ProPLError
from propl_monai.images import dicom, metaimage, nifti, pillow, read_frames, read_image, read_mask
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    for read in (read_image, read_frames, read_mask):
        try:
            read(path)
        except ProPLError as error:
            print(error.fact)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_huge_sizes_are_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    for name, make in HUGE.items():
        make(tmp_path / name)
    command = [sys.executable, "-c", PROBE, *(str(tmp_path / name) for name in HUGE)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[:-1] == ["has more than 64,000,000 pixels"] * (3 * len(HUGE))
    assert int(said[-1]) < 50_000_000  # a frame of 20,000 × 20,000 has 400 MB

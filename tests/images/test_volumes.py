"""NIfTI and MetaImage: axes and spacing of stills and cines, and headers that name files they should not."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from picture_samples import COLOUR, DEEP, GREY, MOVING, MOVING_COLOUR, save_metaimage, save_nifti

from propl_monai.datasets.sources.folder import read_folder
from propl_monai.errors import ProPLError
from propl_monai.images import metaimage, nifti, read_frames, read_image, read_mask, read_values
from propl_monai.images import picture as picture_module

# --- NIfTI


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_of_frames(tmp_path: Path, name: str) -> None:
    cine = read_frames(save_nifti(tmp_path / name, MOVING))
    assert (cine.count, cine.spacing_mm, cine.seconds_per_frame) == (3, (0.5, 0.25), None)
    np.testing.assert_array_equal(list(cine), MOVING)
    np.testing.assert_array_equal(list(cine), MOVING)  # one may iterate again
    timed = read_frames(save_nifti(tmp_path / name, MOVING, seconds=0.04))
    assert timed.seconds_per_frame == pytest.approx(0.04)
    np.testing.assert_array_equal(list(timed), MOVING)


def test_nifti_2_and_a_wrong_name(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti2Image(GREY.T, np.diag([0.25, 0.5, 1, 1])), tmp_path / "a.nii")
    (tmp_path / "a.nii").rename(tmp_path / "a.png")
    picture = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.pixels, GREY)
    assert picture.spacing_mm == (0.5, 0.25)


def test_nifti_values_are_as_stored(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", GREY.astype(np.int16) - 5)
    np.testing.assert_array_equal(read_values(path), GREY.astype(np.int16) - 5)


def test_deep_cines_are_stretched_as_a_whole(tmp_path: Path) -> None:
    frames = np.stack([GREY.astype(np.uint16), DEEP])  # alone, the first would be read as 8 bits
    shown = list(read_frames(save_nifti(tmp_path / "a.nii.gz", frames)))
    np.testing.assert_array_equal(shown, np.rint(frames / 257.0))


def cut_gzip(path: Path) -> Path:
    content = gzip.decompress(save_nifti(path, MOVING).read_bytes())
    path.write_bytes(gzip.compress(content[:-50]))
    return path


def cut_nifti(path: Path) -> Path:
    path.write_bytes(save_nifti(path.with_suffix(".nii"), MOVING).read_bytes()[:-50])
    return path


def bomb(path: Path) -> Path:
    """A picture of 120 bytes, and after it 40 MB of zeros, in 40 kB."""
    content = gzip.decompress(save_nifti(path, GREY).read_bytes())
    path.write_bytes(gzip.compress(content + bytes(40_000_000)))
    assert path.stat().st_size < 100_000
    return path


REFUSED_NIFTI: dict[str, tuple[Callable[[Path], Path], str]] = {
    "two long axes": (lambda path: shaped(path, (4, 3, 2, 2)), "of shape (4, 3, 2, 2), not of frames"),
    "a fifth axis": (lambda path: shaped(path, (4, 3, 1, 1, 3)), "of shape (4, 3, 1, 1, 3), not of frames"),
    "one axis": (lambda path: shaped(path, (4,)), "of shape (4,)"),
    "complex": (lambda path: shaped(path, (4, 3), np.complex64), "is a NIfTI of complex64 values"),
    "cut short": (cut_nifti, "is cut short: 662 bytes where its header states 712"),
    "cut gzip": (cut_gzip, "damaged or cut short"),
    "bomb": (bomb, "unpacks to more than the 472 bytes"),
}


def shaped(path: Path, shape: tuple[int, ...], kind: type[np.generic] = np.uint8) -> Path:
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, kind), np.eye(4)), path)
    return path


@pytest.mark.parametrize(("make", "fact"), REFUSED_NIFTI.values(), ids=list(REFUSED_NIFTI))
def test_refused_nifti(
    tmp_path: Path, make: Callable[[Path], Path], fact: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nifti, "_SPARE_BYTES", 2**20)
    path = make(tmp_path / "a.nii.gz")
    with pytest.raises(ProPLError) as caught:
        list(read_frames(path))
    assert fact in caught.value.fact and caught.value.where == str(path)


# --- MetaImage


@pytest.mark.parametrize("name", ["a.mha", "a.mhd"])
@pytest.mark.parametrize("compressed", [False, True])
def test_metaimage(tmp_path: Path, name: str, compressed: bool) -> None:
    for values in (GREY, GREY[None], MOVING):
        cine = read_frames(save_metaimage(tmp_path / name, values, compressed))
        assert (cine.count, cine.spacing_mm) == (values.size // 120, (0.5, 0.25))
        np.testing.assert_array_equal(list(cine), values.reshape(-1, 12, 10))
    assert sorted(path.suffix for path in tmp_path.iterdir()) in (
        [".mha"],
        [".mhd", ".zraw" if compressed else ".raw"],
    )


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int16, np.uint32, np.float32, np.float64])
def test_metaimage_values_are_as_stored(tmp_path: Path, dtype: Any) -> None:
    path = save_metaimage(tmp_path / "a.mha", GREY.astype(dtype))
    assert read_values(path).dtype == dtype
    np.testing.assert_array_equal(read_values(path), GREY)


@pytest.mark.parametrize("compressed", [False, True])
def test_metaimage_in_colour(tmp_path: Path, compressed: bool) -> None:
    still = save_metaimage(tmp_path / "a.mha", COLOUR, compressed, colour=True)
    np.testing.assert_array_equal(read_image(still).pixels, COLOUR)
    cine = save_metaimage(tmp_path / "b.mha", MOVING_COLOUR, compressed, colour=True)
    np.testing.assert_array_equal(list(read_frames(cine)), MOVING_COLOUR)


def test_metaimage_as_mask(tmp_path: Path) -> None:
    mask = GREY > 50
    np.testing.assert_array_equal(read_mask(save_metaimage(tmp_path / "a.mhd", mask.astype(np.uint8)[None])), mask)


HEADER = """ObjectType = Image
NDims = 2
DimSize = 10 12
ElementSpacing = 0.25 0.5
ElementType = MET_UCHAR
ElementDataFile = a.raw
"""


def written(folder: Path, old: str = "", new: str = "", values: bytes = GREY.tobytes()) -> Path:
    """A header and its values as CAMUS writes them, with a part of the header replaced."""
    assert old in HEADER
    (folder / "a.raw").write_bytes(values)
    (folder / "a.mhd").write_text(HEADER.replace(old, new))
    return folder / "a.mhd"


def test_a_header_written_by_hand(tmp_path: Path) -> None:
    assert read_image(written(tmp_path)).spacing_mm == (0.5, 0.25)
    np.testing.assert_array_equal(read_image(tmp_path / "a.mhd").pixels, GREY)
    assert read_image(written(tmp_path, "ElementSpacing = 0.25 0.5\n")).spacing_mm is None
    assert read_image(written(tmp_path, "0.25 0.5", "1 1")).spacing_mm is None  # what writers put who know none
    assert read_image(written(tmp_path, "0.25 0.5", "1 0.5")).spacing_mm == (0.5, 1.0)
    skipped = read_image(written(tmp_path, "NDims = 2\n", "NDims = 2\nHeaderSize = 7\n", b"1234567" + GREY.tobytes()))
    np.testing.assert_array_equal(skipped.pixels, GREY)


REFUSED_HEADERS: dict[str, tuple[str, str, str]] = {
    "missing": ("a.raw", "b.raw", "its file of values b.raw is missing"),
    "above": ("a.raw", "../a.raw", "outside its own folder"),
    "absolute": ("a.raw", "/etc/passwd", "outside its own folder"),
    "a Windows path": ("a.raw", "C:\\a.raw", "outside its own folder"),
    "a list": ("a.raw", "LIST\na.raw", "over several files"),
    "a pattern": ("a.raw", "a%03d.raw 1 3 1", "over several files"),
    "too short": ("10 12", "10 13", "a.raw has 120 of 130 bytes"),
    "huge": ("10 12", "30000 30000", "has more than"),
    "huge cine": ("NDims = 2\nDimSize = 10 12", "NDims = 3\nDimSize = 10 12 99999999", "is cut short"),
    "no size": ("DimSize = 10 12\n", "", "missing or invalid field ('DimSize')"),
    "negative": ("10 12", "-10 -12", "missing or invalid field (DimSize)"),
    "words": ("10 12", "ten twelve", "missing or invalid field"),
    "one axis": ("NDims = 2\nDimSize = 10 12", "NDims = 1\nDimSize = 120", "missing or invalid field"),
    "two long axes": (
        "NDims = 2\nDimSize = 10 12",
        "NDims = 4\nDimSize = 10 3 2 2",
        "of 10 × 3 × 2 × 2, not of frames",
    ),
    "a field twice": ("NDims = 2\n", "NDims = 2\nNDims = 3\n", "header is damaged"),
    "no end": ("ElementDataFile = a.raw\n", "", "header is damaged"),
    "odd type": ("MET_UCHAR", "MET_STRING", "1 channels of MET_STRING"),
    "two channels": ("NDims = 2\n", "NDims = 2\nElementNumberOfChannels = 2\n", "2 channels of MET_UCHAR"),
    "text": ("NDims = 2\n", "NDims = 2\nBinaryData = False\n", "values as text"),
    "unpacks to much": (
        "NDims = 2\nDimSize = 10 12",
        "CompressedData = True\nNDims = 3\nDimSize = 10000 6000 9",
        "unpacks to 540,000,000 bytes",
    ),
    "cut stream": ("NDims = 2\n", "NDims = 2\nCompressedData = True\n", "where its header states 120"),
}


@pytest.mark.parametrize(("old", "new", "fact"), REFUSED_HEADERS.values(), ids=list(REFUSED_HEADERS))
def test_refused_metaimage(tmp_path: Path, old: str, new: str, fact: str) -> None:
    values = zlib.compress(GREY.tobytes())[:-20] if new == "NDims = 2\nCompressedData = True\n" else GREY.tobytes()
    path = written(tmp_path, old, new, values)
    with pytest.raises(ProPLError) as caught:
        list(read_frames(path))
    assert fact in caught.value.fact and caught.value.where == str(path)


def test_huge_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_metaimage(tmp_path / "a.mha", MOVING)
    monkeypatch.setattr(picture_module, "MAX_PIXELS", 119)
    monkeypatch.setattr(metaimage, "SimpleITK", None)
    with pytest.raises(ProPLError, match="more than 119 pixels"):
        read_frames(path)


def test_values_beside_a_header_are_no_picture_of_their_own(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        path = tmp_path / "BC" / "made" / folder
        path.mkdir(parents=True)
        written(path, values=(GREY > 50).tobytes())
    found = read_folder(tmp_path)
    assert [(case.image, case.mask) for case in found.cases] == [("BC/made/images/a.mhd", "BC/made/masks/a.mhd")]
    (tmp_path / "BC" / "made" / "images" / "lonely.raw").write_bytes(b"values")
    with pytest.raises(ProPLError, match=r"lonely\.raw: is not a picture"):
        read_folder(tmp_path)


def test_a_damaged_nifti_header_is_not_mended(tmp_path: Path) -> None:
    content = bytearray(save_nifti(tmp_path / "a.nii", GREY).read_bytes())
    content[0] ^= 1
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(ProPLError, match="header is damaged"):
        read_image(tmp_path / "a.nii")


@pytest.mark.parametrize("suffix", [".nii", ".mha"])
@pytest.mark.parametrize("shape", [(1, 12, 10), (12, 1, 10)])
def test_a_picture_across_other_axes_is_no_cine_of_lines(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    path = tmp_path / f"a{suffix}"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros(shape[::-1], np.uint8)), str(path))
    with pytest.raises(ProPLError, match=f"holds {' × '.join(map(str, shape))} pixels"):
        read_frames(path)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((10, 1), np.uint8)), str(path))
    assert read_frames(path).count == 1

"""Files that come from a page: every kind is opened, nothing stays on disk, bad ones are refused in words of the user."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from picture_samples import (
    COLOUR,
    GREY,
    MOVING,
    MOVING_COLOUR,
    save_dicom,
    save_metaimage,
    save_nifti,
    save_pages,
    save_pillow,
    save_video,
)
from planted_identifiers import MARKS

from propl_monai.deploy.demo import study as module
from propl_monai.deploy.demo.study import open_study, pack, unpack
from propl_monai.errors import ProPLError
from propl_monai.tasks import find

KINDS = {
    "a.png": lambda path: save_pillow(path, GREY),
    "a.jpg": lambda path: save_pillow(path, COLOUR, quality=95),
    "a.bmp": lambda path: save_pillow(path, GREY),
    "a.tif": lambda path: save_pages(path, MOVING),
    "a.webp": lambda path: save_pillow(path, COLOUR, lossless=True),
    "a.nii": lambda path: save_nifti(path, GREY),
    "a.nii.gz": lambda path: save_nifti(path, MOVING),
    "a.mha": lambda path: save_metaimage(path, MOVING, compressed=True),
    "a.dcm": lambda path: save_dicom(path, MOVING),
    "a.avi": lambda path: save_video(path, MOVING_COLOUR),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_is_opened_and_nothing_stays(name: str, tmp_path: Path) -> None:
    content = Path(KINDS[name](tmp_path / name)).read_bytes()
    folder = tmp_path / "temporary"
    folder.mkdir()
    study = open_study(content, name, folder)
    assert study.size == GREY.shape and len(study.frames) == (
        3 if name[2:] in ("tif", "nii.gz", "mha", "dcm", "avi") else 1
    )
    assert (study.spacing_mm is not None) == (name[2:] in ("nii", "nii.gz", "mha"))
    assert bool(study.dicom) == (name == "a.dcm") and list(folder.iterdir()) == []
    if name in ("a.png", "a.tif"):
        assert np.array_equal(study.frame(1), GREY)


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04" + b"\0" * 600, "is a ZIP archive"),
        (b"%PDF-1.7", "is a PDF document"),
        (b"GIF89a" + b"\0" * 20, "is a GIF picture"),
        (b"<html><script>alert(1)</script>", "is "),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 600, "damaged"),
        (gzip.compress(b"\0" * 10**6), "gzip data of no known picture type"),
        (
            b"NDims = 2\nDimSize = 4 4\nElementType = MET_UCHAR\nElementDataFile = /etc/passwd\n",
            "outside its own folder",
        ),
        (b"NDims = 2\nDimSize = 4 4\nElementType = MET_UCHAR\nElementDataFile = b.raw\n", "b.raw is missing"),
    ],
)
def test_hostile_files_are_refused_by_their_own_name(content: bytes, fact: str, tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match=fact) as caught:
        open_study(content, "C:\\secret\\a b.png", tmp_path)
    assert caught.value.where == "a b.png" and str(tmp_path) not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("..", "picture"),
        ("", "picture"),
        ("a\0b\n.png", "a_b_.png"),
        ("ü_名 (1).png", "ü_名 (1).png"),
        ("x" * 300 + ".png", "x" * 96 + ".png"),
    ],
)
def test_names_lose_what_no_file_system_takes(given: str, kept: str, tmp_path: Path) -> None:
    content = save_pillow(tmp_path / "a.png", GREY).read_bytes()
    assert open_study(content, given, tmp_path).name == kept


def test_frames_and_pixels_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = save_pages(tmp_path / "a.tif", MOVING).read_bytes()
    monkeypatch.setattr(module, "MOST_BYTES", 2 * GREY.size)
    with pytest.raises(ProPLError, match="its 3 frames take more than"):
        open_study(content, "a.tif", tmp_path)
    monkeypatch.setattr(module, "MOST_PIXELS", GREY.size - 1)
    with pytest.raises(ProPLError, match=r"too many for this page; segment it with `propl predict`"):
        open_study(content, "a.tif", tmp_path)


def test_an_error_quotes_no_patient(tmp_path: Path) -> None:
    content = save_dicom(tmp_path / "a.dcm", MOVING, PatientName=MARKS[0]).read_bytes()
    with pytest.raises(ProPLError) as caught:
        open_study(content[:-50], "a.dcm", tmp_path)
    assert not [mark for mark in MARKS if mark in str(caught.value)]


def test_packed_masks_come_back() -> None:
    mask = GREY % 3 == 0
    assert np.array_equal(unpack(pack(mask), mask.shape), mask)


def test_what_was_not_segmented_is_named(tmp_path: Path) -> None:
    study = open_study(save_pillow(tmp_path / "a.png", GREY).read_bytes(), "a.png", tmp_path)
    with pytest.raises(ProPLError, match=r"a\.png: the fetal head is not segmented on frame 1"):
        study.mask(find("FH"), 1)
    with pytest.raises(ProPLError, match="has no frame 2; it has 1"):
        study.frame(2)

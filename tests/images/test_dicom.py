"""DICOM: frames equal pydicom's bit for bit, wrong files are named, and nothing about a patient leaves the file."""

from __future__ import annotations

import logging
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_samples import (
    COLOUR,
    DEEP,
    GREY,
    MOVING,
    MOVING_COLOUR,
    compressed,
    dicom,
    palette_elements,
    raw,
    region,
    save_dicom,
)
from planted_identifiers import MARKS, SPOILS, private
from pydicom import Dataset, dcmread, dcmwrite, uid
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array

from propl_monai.errors import ProPLError
from propl_monai.images import picture as picture_module
from propl_monai.images import read_frames, read_image, read_mask, read_values

RAW, IMPLICIT, BIG = uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian
JPEG, LOSSLESS_2000, RLE = uid.JPEGBaseline8Bit, uid.JPEG2000Lossless, uid.RLELossless
FORMS = [
    *(("MONOCHROME2", syntax, 0) for syntax in (RAW, IMPLICIT, BIG, JPEG, LOSSLESS_2000, RLE)),
    *(("RGB", syntax, planar) for syntax in (RAW, IMPLICIT, BIG) for planar in (0, 1)),
    *(("YBR_FULL", RAW, planar) for planar in (0, 1)),
    *(("YBR_FULL_422", syntax, 0) for syntax in (RAW, IMPLICIT, JPEG)),
    *(("RGB", syntax, 0) for syntax in (LOSSLESS_2000, RLE)),
    *(("YBR_RCT", LOSSLESS_2000, 0), ("YBR_FULL", JPEG, 0), ("YBR_FULL", RLE, 0)),
]


@pytest.mark.parametrize(("colours", "syntax", "planar"), FORMS, ids=lambda value: getattr(value, "name", value))
@pytest.mark.parametrize("count", [1, 3])
def test_frames_equal_those_of_pydicom(tmp_path: Path, colours: str, syntax: Any, planar: int, count: int) -> None:
    samples = (MOVING if colours.startswith("MONO") else MOVING_COLOUR)[:count]
    path = save_dicom(tmp_path / "a.dcm", samples, colours, syntax, planar)
    cine = read_frames(path)
    frames = list(cine)
    assert cine.count == len(frames) == count
    np.testing.assert_array_equal(frames, pixel_array(path).reshape(samples.shape))
    if syntax != JPEG and not colours.startswith("YBR_FULL"):
        np.testing.assert_array_equal(frames, samples)
    if count == 1:
        np.testing.assert_array_equal(read_image(path).pixels, frames[0])


@pytest.mark.parametrize("syntax", [RAW, BIG, LOSSLESS_2000, RLE], ids=lambda syntax: syntax.name)
def test_16_bit_is_stretched_by_its_stored_bits(tmp_path: Path, syntax: Any) -> None:
    path = save_dicom(tmp_path / "a.dcm", DEEP[None], syntax=syntax)
    np.testing.assert_array_equal(read_image(path).pixels, np.rint(DEEP / 257.0))
    np.testing.assert_array_equal(read_values(path), DEEP)
    assert read_values(path).dtype == np.uint16
    twelve = save_dicom(tmp_path / "b.dcm", DEEP[None] // 16, syntax=RAW, bits=12)
    np.testing.assert_array_equal(read_image(twelve).pixels, np.rint((DEEP // 16) * (255 / 4095)))


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_image(save_dicom(tmp_path / "a", GREY[None], "MONOCHROME1")).pixels, 255 - GREY)
    deep = save_dicom(tmp_path / "b", DEEP[None], "MONOCHROME1")
    np.testing.assert_array_equal(read_values(deep), 65535 - DEEP)
    np.testing.assert_array_equal(read_image(deep).pixels, np.rint((65535 - DEEP) / 257.0))


def test_window(tmp_path: Path) -> None:
    """From 20000 to 40000 (PS3.3, C.11.2.1.2: centre - 0.5 ± (width - 1) / 2), so 30000 is the middle."""
    window = {"WindowCenter": 30000.5, "WindowWidth": 20001}
    values = np.array([[[0, 20000, 25000, 30000, 40000, 65535]]], np.uint16)
    assert read_image(save_dicom(tmp_path / "a", values, **window)).pixels.tolist() == [[0, 0, 64, 128, 255, 255]]
    negative = save_dicom(tmp_path / "b", values, "MONOCHROME1", **window)
    assert read_image(negative).pixels.tolist() == [[255, 255, 191, 127, 0, 0]]
    eight = save_dicom(tmp_path / "c", GREY[None], WindowCenter=50, WindowWidth=10)
    np.testing.assert_array_equal(read_image(eight).pixels, GREY)  # 8 bits are left as they are
    scaled = save_dicom(
        tmp_path / "d", values, WindowCenter=15000.5, WindowWidth=10001, RescaleSlope=0.5, RescaleIntercept=0
    )
    assert read_image(scaled).pixels.tolist() == [[0, 0, 64, 128, 255, 255]]


@pytest.mark.parametrize("width", [0, -1, [0, 9], None])
def test_a_window_of_no_width_is_ignored(tmp_path: Path, width: Any) -> None:
    path = save_dicom(tmp_path / "a", DEEP[None], WindowCenter=5, WindowWidth=width)
    np.testing.assert_array_equal(read_image(path).pixels, np.rint(DEEP / 257.0))


def test_voi_lut(tmp_path: Path) -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [3, 10, 10])
    item.add_new("LUTData", "US", [0, 1023, 512])
    values = np.array([[[0, 10, 11, 12, 13]]], np.uint16)
    pixels = read_image(save_dicom(tmp_path / "a", values, VOILUTSequence=[item])).pixels
    assert pixels.tolist() == [[0, 0, 255, 128, 128]]


@pytest.mark.parametrize("bits", [8, 16])
def test_palette(tmp_path: Path, bits: int) -> None:
    path = save_dicom(tmp_path / "a.dcm", GREY[None], "PALETTE COLOR", **palette_elements(bits))
    expected = np.stack([GREY, 255 - GREY, np.full_like(GREY, 9)], axis=2)
    np.testing.assert_array_equal(read_image(path).pixels, expected)


def test_a_file_without_suffix_is_known_by_its_mark(tmp_path: Path) -> None:
    path = save_dicom(tmp_path / "IM_0001", GREY[None])
    np.testing.assert_array_equal(read_image(path).pixels, GREY)


SPACINGS: dict[str, tuple[dict[str, Any], tuple[float, float] | None]] = {
    "none": ({}, None),
    "pixel spacing": ({"PixelSpacing": [0.5, 0.25]}, (0.5, 0.25)),
    "zero": ({"PixelSpacing": [0, 0.25]}, None),
    "default of one": ({"PixelSpacing": [1, 1]}, None),
    "one on one axis": ({"PixelSpacing": [1, 0.25]}, (1.0, 0.25)),
    "one region, in cm": ({"SequenceOfUltrasoundRegions": [region(1, 0.05, 0.025)]}, (0.5, 0.25)),
    "an axis that points up": ({"SequenceOfUltrasoundRegions": [region(1, -0.05, 0.025)]}, (0.5, 0.25)),
    "regions before pixel spacing": (
        {"SequenceOfUltrasoundRegions": [region(1, 0.05, 0.025)], "PixelSpacing": [9, 9]},
        (0.5, 0.25),
    ),
    "only tissue counts": ({"SequenceOfUltrasoundRegions": [region(3, 9, 9), region(1, 0.05, 0.025)]}, (0.5, 0.25)),
    "regions that agree": (
        {"SequenceOfUltrasoundRegions": [region(1, 0.05, 0.025), region(1, 0.05, 0.025)]},
        (0.5, 0.25),
    ),
    "regions that disagree": (
        {"SequenceOfUltrasoundRegions": [region(1, 0.05, 0.025), region(1, 0.1, 0.05)], "PixelSpacing": [9, 9]},
        None,
    ),
    "a tissue region in seconds": ({"SequenceOfUltrasoundRegions": [region(1, 0.05, 0.025, units=4)]}, None),
    "no tissue": ({"SequenceOfUltrasoundRegions": [region(3, 9, 9)], "PixelSpacing": [0.5, 0.25]}, (0.5, 0.25)),
}


@pytest.mark.parametrize(("elements", "expected"), SPACINGS.values(), ids=list(SPACINGS))
def test_spacing(tmp_path: Path, elements: dict[str, Any], expected: tuple[float, float] | None) -> None:
    path = save_dicom(tmp_path / "a.dcm", GREY[None], **elements)
    picture = read_image(path)
    assert picture.spacing_mm == (pytest.approx(expected) if expected else None)
    unsaid = not elements or elements == {"SequenceOfUltrasoundRegions": [region(1, 0.05, 0.025, units=4)]}
    assert bool(picture.spacing_note) == (expected is None and not unsaid)


def test_frame_time(tmp_path: Path) -> None:
    assert read_frames(save_dicom(tmp_path / "a", MOVING, FrameTime="33.3")).seconds_per_frame == pytest.approx(0.0333)
    assert read_frames(save_dicom(tmp_path / "b", MOVING)).seconds_per_frame is None


def test_several_frames_are_no_image(tmp_path: Path) -> None:
    path = save_dicom(tmp_path / "a.dcm", MOVING)
    for read in (read_image, read_values, read_mask):
        with pytest.raises(ProPLError, match="holds 3 frames; `propl frames FILE FOLDER` writes each as PNG"):
            read(path)


def test_lossy_masks_are_refused(tmp_path: Path) -> None:
    mask = (GREY[None] > 50) * np.uint8(255)
    assert read_mask(save_dicom(tmp_path / "a", mask)).sum() == np.count_nonzero(GREY > 50)
    with pytest.raises(ProPLError, match="is a JPEG-compressed DICOM mask"):
        read_mask(save_dicom(tmp_path / "b", mask, syntax=JPEG))


def changed(path: Path, frames: np.ndarray = GREY[None], colours: str = "MONOCHROME2", **elements: Any) -> Path:
    """A raw file with elements overwritten after its pixel data were made; None removes one."""
    made = dcmread(save_dicom(path, frames, colours))
    for name, value in elements.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of these values are wrong, as they are meant to be
        made.save_as(path)
    return path


def transferred(path: Path, syntax: Any) -> Path:
    made = dicom(GREY[None], "MONOCHROME2", syntax)
    made.PixelData = encapsulate([b"\xff\xd8\xff" + bytes(97)])
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    dcmwrite(path, made)
    return path


def cut(path: Path, to: int = -40) -> Path:
    path.write_bytes(save_dicom(path, MOVING).read_bytes()[:to])
    return path


def joined(path: Path, frames: int, told: int, syntax: Any = JPEG) -> Path:
    """So many compressed frames where the header states another number, without an offset table."""
    made = dicom(MOVING[:told] if told <= 3 else np.repeat(GREY[None], told, 0), "MONOCHROME2", syntax)
    parts = compressed(MOVING[:frames], syntax)
    made.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0" + parts[parts.index(b"\xfe\xff\x00\xe0", 4) :]
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    dcmwrite(path, made)
    return path


def larger_inside(path: Path) -> Path:
    made = dicom(GREY[None], "MONOCHROME2", JPEG)
    made.PixelData = compressed(np.zeros((1, 500, 500), np.uint8), JPEG)
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    dcmwrite(path, made)
    return path


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "JPEG-LS": (
        lambda path: transferred(path, uid.JPEGLSLossless),
        "'JPEG-LS Lossless Image Compression', which is not",
    ),
    "JPEG lossless": (lambda path: transferred(path, uid.JPEGLosslessSV1), "'JPEG Lossless, Non-Hierarchical"),
    "HEVC": (lambda path: transferred(path, uid.HEVCMP51), "'HEVC/H.265 Main Profile / Level 5.1'"),
    "deflated": (lambda path: changed_syntax(path, uid.DeflatedExplicitVRLittleEndian), "'Deflated Explicit VR"),
    "private syntax": (lambda path: transferred(path, uid.UID("1.2.3.4.5")), "private or unknown"),
    "too many frames told": (lambda path: changed(path, MOVING, NumberOfFrames=4), "360 bytes of pixel data where"),
    "too few frames told": (lambda path: changed(path, MOVING, NumberOfFrames=2), "states 2 frames of 120 bytes"),
    "frames below zero": (lambda path: changed(path, NumberOfFrames=-1), "of -1 frames"),
    "frames in words": (
        lambda path: changed_bytes(path, b"IS\x02\x003 ", b"IS\x02\x003A"),
        "NumberOfFrames is not a n",
    ),
    "too many JPEG told": (lambda path: joined(path, 2, 3), "holds 2 frames where its DICOM header states 3"),
    "too few JPEG told": (lambda path: joined(path, 3, 1), "holds 3 frames where its DICOM header states 1"),
    "larger inside": (larger_inside, "frame 1 is 500 × 500 where the DICOM header states 12 × 10"),
    "cut short": (cut, "320 of 360 bytes of pixel data"),
    "cut in the header": (lambda path: cut(path, 400), "without pixel data"),
    "cut in the meta": (lambda path: cut(path, 150), "is a DICOM file"),
    "no rows": (lambda path: changed(path, Rows=None), "without Rows"),
    "no bits": (lambda path: changed(path, BitsAllocated=None), "without BitsAllocated"),
    "odd colours": (
        lambda path: changed(path, PhotometricInterpretation="ARGB"),
        "PhotometricInterpretation is none of those that are read",
    ),
    "no pixel data": (lambda path: changed(path, PixelData=None), "without pixel data"),
    "no height": (lambda path: changed(path, Rows=0), "0 × 10 pixels"),
    "signed": (
        lambda path: changed(path, PixelRepresentation=1, PhotometricInterpretation="MONOCHROME1"),
        "8 signed bits stored in 8",
    ),
    "1 bit": (lambda path: changed(path, BitsAllocated=1, BitsStored=1), "1 unsigned bits stored in 1"),
    "grey called RGB": (lambda path: changed(path, PhotometricInterpretation="RGB"), "1 samples per pixel where"),
    "RGB called 4:2:2": (
        lambda path: changed(path, COLOUR[None], "RGB", PhotometricInterpretation="YBR_FULL_422"),
        "360 bytes of pixel data",
    ),
    "no slope": (
        lambda path: save_dicom(path, DEEP[None], WindowCenter=5, WindowWidth=9, RescaleSlope=0, RescaleIntercept=0),
        "window or rescale slope makes no sense",
    ),
}


def changed_syntax(path: Path, syntax: Any) -> Path:
    made = dicom(GREY[None], "MONOCHROME2", syntax)
    made.PixelData = raw(GREY[None], "MONOCHROME2")
    dcmwrite(path, made)
    return path


def changed_bytes(path: Path, old: bytes, new: bytes) -> Path:
    content = save_dicom(path, MOVING).read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    return path


@pytest.mark.parametrize(("make", "fact"), REFUSED.values(), ids=list(REFUSED))
def test_wrong_files_are_named(tmp_path: Path, make: Callable[[Path], Path], fact: str) -> None:
    path = make(tmp_path / "a.dcm")
    with pytest.raises(ProPLError) as caught:
        list(read_frames(path))
    assert fact in caught.value.fact and caught.value.where == str(path)


@pytest.mark.parametrize("syntax", [RAW, LOSSLESS_2000, RLE], ids=lambda syntax: syntax.name)
def test_huge_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: Any) -> None:
    path = save_dicom(tmp_path / "a.dcm", MOVING, syntax=syntax)
    monkeypatch.setattr(picture_module, "MAX_PIXELS", 119)
    with pytest.raises(ProPLError, match="more than 119 pixels"):
        read_frames(path)


@pytest.mark.parametrize("name", SPOILS)
def test_nothing_about_a_patient_leaves_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = private(tmp_path / "a.dcm", SPOILS[name])
    content = path.read_bytes()
    assert all(mark.encode() in content for mark in MARKS)
    if name == "cut":
        path.write_bytes(content[:-100])
    caplog.clear()
    capfd.readouterr()
    said = []
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        try:
            cine = read_frames(path)
            said += [repr(cine), *(str(frame.shape) for frame in cine)]
        except ProPLError as error:
            said += ["".join(traceback.format_exception(error)), repr(error.__context__), repr(error.__cause__)]
    assert len(said) == (4 if name in ("a whole file", "window") else 3)
    said += [caplog.text, *capfd.readouterr(), *(str(warning.message) for warning in caught)]
    assert not [mark for mark in (*MARKS, "SECRET") if any(mark in text for text in said)]


def test_pydicom_may_speak_again_afterwards(tmp_path: Path) -> None:
    read_frames(save_dicom(tmp_path / "a.dcm", GREY[None]))
    assert not logging.getLogger("pydicom").disabled

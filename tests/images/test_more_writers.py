"""More files of other programs, read whole: long texts in PNG, stacks in one page of a TIFF, classes of DICOM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile
from picture_samples import COLOUR, DEEP, GREY, MOVING, save_dicom
from PIL import Image, PngImagePlugin
from pydicom import dcmread, dcmwrite, uid

from propl_monai.errors import ProPLError
from propl_monai.images import read_frames, read_image, read_values
from propl_monai.images.picture import NoPicture, holds_two_values

LONG = 3_000_000  # bytes; Pillow takes one million


def png_with(path: Path, kind: str, length: int = LONG) -> Path:
    """A PNG with a long text or colour profile, as Pillow writes it."""
    texts, options = PngImagePlugin.PngInfo(), {}
    if kind == "iCCP":
        options["icc_profile"] = bytes(length)
    elif kind == "iTXt":
        texts.add_itxt("XML:com.adobe.xmp", "<x/>" + " " * length, zip=True)
    else:
        texts.add_text("workflow", "x" * length, zip=kind == "zTXt")
    Image.fromarray(GREY).save(path, pnginfo=texts, **options)
    assert kind.encode() in path.read_bytes()
    return path


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "iCCP"])
def test_a_png_with_a_long_text_is_read(tmp_path: Path, kind: str) -> None:
    path = png_with(tmp_path / "a.png", kind)
    np.testing.assert_array_equal(read_image(path).pixels, GREY)
    cut = path.read_bytes()[:-30]
    path.write_bytes(cut)
    with pytest.raises(ProPLError, match="damaged or cut short"):
        read_image(path)


def test_the_orientation_survives_beside_a_long_text(tmp_path: Path) -> None:
    exif, texts = Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x0112] = 6
    texts.add_text("workflow", "x" * LONG, zip=True)
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=exif, pnginfo=texts)
    picture = read_image(tmp_path / "a.png")
    assert picture.orientation == 6
    np.testing.assert_array_equal(picture.pixels, np.rot90(GREY, -1))


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<f4"])
@pytest.mark.parametrize("program", ["ImageJ", "tifffile"])
def test_a_stack_in_one_page_has_all_of_its_frames(tmp_path: Path, program: str, dtype: str) -> None:
    path, stack = tmp_path / "a.tif", MOVING.astype(dtype)
    order = ">" if dtype.startswith(">") else "<"
    tifffile.imwrite(path, stack, photometric="minisblack", imagej=program == "ImageJ", truncate=True, byteorder=order)
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == 1
    cine = read_frames(path)
    assert cine.count == len(MOVING)
    np.testing.assert_array_equal(np.stack(list(cine)), MOVING)
    path.write_bytes(path.read_bytes()[: -stack[0].nbytes])
    with pytest.raises(ProPLError, match="holds 2 frames where its description states 3"):
        read_frames(path)


def test_a_frame_that_kept_the_description_of_its_stack_is_one_frame(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", MOVING, imagej=True, truncate=True)
    with Image.open(tmp_path / "stack.tif") as first:
        first.save(tmp_path / "a.tif", tiffinfo={270: first.tag_v2[270]})
    assert "images=3" in str(Image.open(tmp_path / "a.tif").tag_v2[270])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, MOVING[0])


def test_a_stack_of_colour_in_one_page_is_refused_by_what_it_is(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([COLOUR] * 3), photometric="rgb", truncate=True)
    with pytest.raises(ProPLError, match="3 uint8 values a pixel"):
        read_frames(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (uid.SegmentationStorage, "is a DICOM file of results (Segmentation)"),
        (uid.RTDoseStorage, "is a DICOM file of results (RT Dose)"),
    ],
)
def test_results_in_an_exam_are_no_pictures(tmp_path: Path, name: uid.UID, says: str) -> None:
    path = save_dicom(tmp_path / "a.dcm", GREY[None])
    content = dcmread(path)
    content.SOPClassUID = content.file_meta.MediaStorageSOPClassUID = name
    dcmwrite(path, content)
    with pytest.raises(NoPicture) as caught:
        read_frames(path)
    assert caught.value.fact == says


def test_settings_of_a_scanner_are_no_pictures(tmp_path: Path) -> None:
    path = save_dicom(tmp_path / "a.dcm", GREY[None])
    content = dcmread(path)
    content.SOPClassUID = content.file_meta.MediaStorageSOPClassUID = uid.UID("1.3.46.670589.2.5.1.1")
    del content.PixelData
    dcmwrite(path, content)
    with pytest.raises(ProPLError, match="without pixel data") as caught:  # it has a size: the picture itself is gone
        read_frames(path)
    assert not isinstance(caught.value, NoPicture)
    del content.Rows
    dcmwrite(path, content)
    with pytest.raises(NoPicture, match=r"without pixel data \(private class\)"):
        read_frames(path)


def test_two_values_are_those_of_a_mask() -> None:
    mask = (GREY > 50) * np.uint8(255)
    red = np.stack([mask, np.zeros_like(mask), np.zeros_like(mask)], -1)
    assert holds_two_values(mask) and holds_two_values(mask // 255) and holds_two_values(red)
    assert not any(map(holds_two_values, (GREY, COLOUR, np.zeros_like(GREY), mask // 2 + 7, np.stack([GREY] * 3, -1))))


def test_signed_dicom_without_negative_values_is_read(tmp_path: Path) -> None:
    for number, values in enumerate((GREY, GREY.astype(np.int16), DEEP // 2)):
        bits = 8 * values.dtype.itemsize
        path = save_dicom(tmp_path / f"{number}.dcm", values[None].astype(f"u{bits // 8}"), PixelRepresentation=1)
        np.testing.assert_array_equal(read_values(path), values)
        np.testing.assert_allclose(read_image(path).pixels, GREY if number < 2 else values * (255 / 65535), atol=0.6)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(GREY.astype(np.int16)), str(tmp_path / "a.dcm"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.dcm").pixels, GREY)


def test_signed_dicom_of_negative_values_needs_a_window(tmp_path: Path) -> None:
    values = (GREY.astype(np.int16) - 60).view(np.uint16)[None]
    with pytest.raises(ProPLError, match=r"holds values from -60 to 59; .* or give it a window"):
        read_image(save_dicom(tmp_path / "a.dcm", values, PixelRepresentation=1))
    window = {"WindowCenter": 4, "WindowWidth": 128, "VOILUTFunction": "LINEAR_EXACT"}  # -60 to 68
    shown = read_image(save_dicom(tmp_path / "b.dcm", values, PixelRepresentation=1, **window)).pixels
    np.testing.assert_allclose(shown, GREY * (255 / 128), atol=0.6)

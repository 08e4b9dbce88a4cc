"""Every way of storing a picture comes out as one upright uint8 array, or is refused with its true reason."""

from __future__ import annotations

import gzip
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image

from propl_monai.errors import ProPLError
from propl_monai.images import (
    image_size,
    read_frames,
    read_image,
    read_mask,
    read_values,
    to_grey,
    write_mask,
    write_overlay,
    write_picture,
    write_png16,
)
from propl_monai.images import picture as picture_module

GREY = np.arange(12 * 10, dtype=np.uint8).reshape(12, 10)
COLOUR = np.stack([GREY, GREY[::-1], np.full_like(GREY, 7)], axis=2)
HALF = np.zeros((12, 10), bool)
HALF[:6] = True


def save(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def save_nifti(path: Path, values: np.ndarray, column: float = 1.0, row: float = 1.0, unit: str = "mm") -> Path:
    """`values` is upright (H, W); the file holds (x, y)."""
    picture = nibabel.Nifti1Image(values.T, np.diag([column, row, 1, 1]))
    picture.header.set_xyzt_units(unit)
    nibabel.save(picture, path)
    return path


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tif", ".tiff"])
@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_lossless_formats(tmp_path: Path, suffix: str, pixels: np.ndarray) -> None:
    picture = read_image(save(tmp_path / f"a{suffix}", pixels))
    assert picture.pixels.dtype == np.uint8 and picture.spacing_mm is None
    np.testing.assert_array_equal(picture.pixels, pixels)
    assert image_size(tmp_path / f"a{suffix}") == (12, 10)


def test_jpeg_is_near(tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 64 * 48).reshape(64, 48).astype(np.uint8)
    pixels = read_image(save(tmp_path / "a.jpg", smooth, quality=95)).pixels
    assert pixels.shape == (64, 48) and np.abs(pixels.astype(int) - smooth).max() <= 4


def test_true_type_counts_not_the_name(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.nii", "a.dcm", "a.avi", "a"):
        path = save(tmp_path / name, GREY, format="PNG")
        np.testing.assert_array_equal(read_image(path).pixels, GREY)


def test_equal_channels_become_one(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.repeat(GREY[..., None], 3, axis=2))
    np.testing.assert_array_equal(read_image(path).pixels, GREY)


def test_odd_modes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(HALF).save(path)  # 1 bit
    np.testing.assert_array_equal(read_image(path).pixels, HALF * np.uint8(255))

    indexed = Image.new("P", (10, 12))
    indexed.putpalette([10, 20, 30, 200, 100, 50])
    indexed.putdata(HALF.astype(np.uint8).ravel().tolist())
    indexed.save(path)
    pixels = read_image(path).pixels
    assert pixels[0, 0].tolist() == [200, 100, 50] and pixels[-1, 0].tolist() == [10, 20, 30]

    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "a.tif")
    np.testing.assert_allclose(read_image(tmp_path / "a.tif").pixels, COLOUR, atol=1)


def test_transparency_is_laid_on_black(tmp_path: Path) -> None:
    alpha = np.full((12, 10), 255, np.uint8)
    alpha[:, :5] = 0
    save(tmp_path / "rgba.png", np.dstack([COLOUR, alpha]))
    pixels = read_image(tmp_path / "rgba.png").pixels
    assert not pixels[:, :5].any()
    np.testing.assert_array_equal(pixels[:, 5:], COLOUR[:, 5:])
    Image.fromarray(np.dstack([GREY, alpha]), "LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_image(tmp_path / "la.png").pixels, np.where(alpha, GREY, 0))
    Image.fromarray(GREY).save(tmp_path / "key.png", transparency=50)
    np.testing.assert_array_equal(read_image(tmp_path / "key.png").pixels, np.where(GREY == 50, 0, GREY))


@pytest.mark.parametrize(
    "highest,full", [(255, 255), (256, 1023), (1000, 1023), (4000, 4095), (4096, 16383), (65535, 65535)]
)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".nii"])
def test_deep_integers_are_stretched_by_their_depth(tmp_path: Path, highest: int, full: int, suffix: str) -> None:
    values = np.linspace(0, highest, 120).round().astype(np.uint16).reshape(12, 10)
    path = tmp_path / f"a{suffix}"
    pixels = read_image(save_nifti(path, values) if suffix == ".nii" else save(path, values)).pixels
    np.testing.assert_array_equal(pixels, np.rint(values * (255 / full)).astype(np.uint8))


def test_floats(tmp_path: Path) -> None:
    unit = np.linspace(0, 1, 120, dtype=np.float32).reshape(12, 10)
    expected = np.rint(unit * 255.0)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.tif", unit)).pixels, expected)
    np.testing.assert_array_equal(read_image(save(tmp_path / "b.tif", unit * 255)).pixels, np.rint(unit * 255))
    np.testing.assert_array_equal(read_image(save_nifti(tmp_path / "a.nii.gz", unit)).pixels, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_all_orientations_come_out_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = np.zeros((32, 48), np.uint8)
    upright[:8, :16] = 255  # a mark in the top left corner
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a{suffix}", np.ascontiguousarray(stored), exif=exif)
    pixels = read_image(path).pixels
    assert image_size(path) == pixels.shape == (32, 48)
    np.testing.assert_array_equal(pixels > 127, upright > 127)


def test_nifti_is_transposed_and_has_spacing(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", GREY, column=0.25, row=0.5)
    picture = read_image(path)
    np.testing.assert_array_equal(picture.pixels, GREY)
    assert picture.spacing_mm == (0.5, 0.25)
    assert image_size(path) == (12, 10)
    np.testing.assert_array_equal(read_image(save_nifti(tmp_path / "b.nii", GREY[None])).pixels, GREY)
    assert read_image(save_nifti(tmp_path / "c.nii", GREY, 0.25, 0.5, "micron")).spacing_mm == (0.0005, 0.00025)
    assert read_image(save_nifti(tmp_path / "d.nii", GREY, unit="unknown")).spacing_mm is None
    assert read_image(save_nifti(tmp_path / "e.nii", GREY)).spacing_mm == (1.0, 1.0)
    assert "1 × 1 mm may be the default" in read_image(tmp_path / "e.nii").spacing_note
    assert "counts as unknown" in read_image(tmp_path / "d.nii").spacing_note
    assert picture.spacing_note == ""


def test_the_default_of_a_metaimage_is_no_spacing(tmp_path: Path) -> None:
    image = SimpleITK.GetImageFromArray(GREY)
    SimpleITK.WriteImage(image, str(tmp_path / "a.mha"))
    picture, cine = read_image(tmp_path / "a.mha"), read_frames(tmp_path / "a.mha")
    assert picture.spacing_mm is None and "counts as unknown" in picture.spacing_note
    assert (cine.spacing_mm, cine.spacing_note) == (None, picture.spacing_note)
    image.SetSpacing((1.0, 0.5))
    SimpleITK.WriteImage(image, str(tmp_path / "b.mha"))
    assert (read_image(tmp_path / "b.mha").spacing_mm, read_image(tmp_path / "b.mha").spacing_note) == ((0.5, 1.0), "")


def _gif(path: Path) -> None:
    Image.fromarray(GREY).save(path, format="GIF")


def _webp(path: Path) -> None:
    path.write_bytes(b"RIFF\x00\x00\x00\x00WEBPVP8 ")


def _frames(kind: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        Image.fromarray(GREY).save(path, format=kind, save_all=True, append_images=[Image.fromarray(GREY[::-1].copy())])

    return write


def _nan(path: Path) -> None:
    values = GREY.astype(np.float32)
    values[3, 4] = np.nan
    values[0, 0] = np.inf
    Image.fromarray(values).save(path, format="TIFF")


REFUSED: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "missing": ("a.png", lambda path: None, "does not exist"),
    "folder": ("a.png", lambda path: path.mkdir(), "is a folder"),
    "empty": ("a.png", lambda path: path.write_bytes(b""), "is empty"),
    "HTML": ("a.png", lambda path: path.write_bytes(b"\n<!DOCTYPE html><html></html>"), "is an HTML page"),
    "HTML as NIfTI": ("a.nii.gz", lambda path: path.write_bytes(b"<html></html>"), "is an HTML page"),
    "text": ("a.jpg", lambda path: path.write_bytes(b"not a picture"), "is plain text"),
    "Git LFS": ("a.png", lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "Git LFS"),
    "DICOM": (
        "a.png",
        lambda path: path.write_bytes(b"\0" * 128 + b"DICM"),
        "is a DICOM file without a Transfer Syntax",
    ),
    "unknown": ("a.png", lambda path: path.write_bytes(b"\x00\x01\x02"), "of no known picture type"),
    "NIfTI as PNG": ("a.png", lambda path: path.write_bytes(b"\1" * 344 + b"n+1\0"), "is a NIfTI picture"),
    "gzip of no picture": ("a.nii.gz", lambda path: path.write_bytes(gzip.compress(b"text")), "gzip data of no known"),
    "GIF": ("a.png", _gif, "is a GIF picture"),
    "WebP": ("a.png", _webp, "is a WebP picture that is damaged"),
    "animated PNG": ("a.png", _frames("PNG"), "holds 2 frames"),
    "TIFF of two pages": ("a.tif", _frames("TIFF"), "holds 2 frames"),
    "NIfTI volume": ("a.nii", lambda path: save_nifti(path, np.zeros((3, 4, 5), np.uint8)), "holds 3 frames"),
    "complex NIfTI": ("a.nii", lambda path: save_nifti(path, GREY.astype(np.complex64)), "complex64 values"),
    "negative": ("a.nii", lambda path: save_nifti(path, GREY.astype(np.int16) - 5), "values from -5 to 114"),
    "beyond 16 bits": ("a.nii", lambda path: save_nifti(path, GREY.astype(np.int32) * 1000), "from 0 to 119000"),
    "not finite": ("a.tif", _nan, "holds 2 values that are not finite"),
}


@pytest.mark.parametrize("name,make,fact", REFUSED.values(), ids=list(REFUSED))
def test_refused_with_the_true_reason(tmp_path: Path, name: str, make: Callable[[Path], Any], fact: str) -> None:
    make(tmp_path / name)
    with pytest.raises(ProPLError) as caught:
        read_image(tmp_path / name)
    assert fact in caught.value.fact and caught.value.where == str(tmp_path / name)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", GREY)

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ProPLError, match=r"cannot be read .Permission denied"):
        read_image(path)


@pytest.mark.parametrize("limit", ["MAX_PIXELS", "PIL"])
@pytest.mark.parametrize("name", ["a.png", "a.nii.gz"])
def test_huge_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, name: str
) -> None:
    path = tmp_path / name
    save(path, GREY) if name == "a.png" else save_nifti(path, GREY)
    monkeypatch.setattr(picture_module, "MAX_PIXELS", 119)
    if limit == "PIL":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("was decoded"))
    for read in (read_image, image_size, read_mask):
        with pytest.raises(ProPLError, match="more than 119 pixels"):
            read(path)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif", "a.nii.gz", "a.nii"])
def test_truncation_is_found_or_harmless(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 256, (40, 30), np.uint8)
    whole = (save_nifti if ".nii" in name else save)(path, noise).read_bytes()
    expected = read_image(path).pixels
    harmless = 0
    for length in range(1, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:length])
        try:
            np.testing.assert_array_equal(read_image(path).pixels, expected)
            harmless += 1
        except ProPLError as error:
            assert error.where == str(path)
    assert harmless <= 2  # a cut in the very last bytes


@pytest.mark.filterwarnings("ignore::UserWarning")  # what Pillow has to say about damaged tags
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif", "a.nii.gz", "a.nii"])
def test_flipped_bits_raise_nothing_but_our_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 256, (40, 30), np.uint8)
    whole = (save_nifti if ".nii" in name else save)(path, noise).read_bytes()
    expected = read_image(path).pixels
    draw = random.Random(0)
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            pixels = read_image(path).pixels
        except ProPLError:
            continue
        if name in ("a.png", "a.nii.gz"):  # formats with a checksum
            np.testing.assert_array_equal(pixels, expected)


def _palette_mask(path: Path) -> Path:
    picture = Image.new("P", (10, 12))
    picture.putpalette([255, 255, 255, 0, 0, 0])  # index 0 is white, the target
    picture.putdata((~HALF).astype(np.uint8).ravel().tolist())
    picture.save(path)
    return path


MASKS: dict[str, Callable[[Path], Path]] = {
    "0 and 255": lambda folder: save(folder / "a.png", HALF * np.uint8(255)),
    "0 and 1": lambda folder: save(folder / "a.png", HALF * np.uint8(1)),
    "0 and 7": lambda folder: save(folder / "a.png", HALF * np.uint8(7)),
    "1 bit": lambda folder: save(folder / "a.png", HALF),
    "16 bit": lambda folder: save(folder / "a.png", HALF * np.uint16(65535)),
    "float": lambda folder: save(folder / "a.tif", HALF * np.float32(1)),
    "RGB": lambda folder: save(folder / "a.png", np.repeat((HALF * np.uint8(255))[..., None], 3, axis=2)),
    "one colour": lambda folder: save(folder / "a.png", HALF[..., None] * np.array([0, 0, 64], np.uint8)),
    "RGBA": lambda folder: save(
        folder / "a.png", np.dstack([HALF * np.uint8(255)] * 3 + [np.full((12, 10), 255, np.uint8)])
    ),
    "in the alpha": lambda folder: save(
        folder / "a.png", np.dstack([np.full((12, 10, 3), 255, np.uint8), HALF * np.uint8(255)])
    ),
    "palette": lambda folder: _palette_mask(folder / "a.png"),
    "NIfTI": lambda folder: save_nifti(folder / "a.nii.gz", HALF * np.uint8(1)),
}


@pytest.mark.parametrize("make", MASKS.values(), ids=list(MASKS))
def test_masks(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    mask = read_mask(make(tmp_path))
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, HALF)


def test_empty_and_full_masks(tmp_path: Path) -> None:
    assert not read_mask(save(tmp_path / "a.png", np.zeros((12, 10), np.uint8))).any()
    assert read_mask(save(tmp_path / "b.png", np.full((12, 10), 255, np.uint8))).all()


@pytest.mark.parametrize(
    "levels,cure", [((0, 1, 2, 3), "label map"), ((0, 128, 255), "above 127"), ((1, 2), "label map")]
)
def test_masks_of_more_values_are_refused(tmp_path: Path, levels: tuple[int, ...], cure: str) -> None:
    values = np.resize(np.array(levels, np.uint8), (12, 10))
    with pytest.raises(ProPLError, match=f"holds {len(levels)} values .{levels[0]}, {levels[1]}") as caught:
        read_mask(save(tmp_path / "a.png", values))
    assert cure in caught.value.cure


def test_jpeg_mask_is_refused_by_its_true_type(tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match=r"JPEG mask.*every value above 127"):
        read_mask(save(tmp_path / "a.png", HALF * np.uint8(255), format="JPEG"))


def test_write_mask_is_read_back(tmp_path: Path) -> None:
    write_mask(tmp_path / "new" / "a.png", HALF)
    np.testing.assert_array_equal(read_mask(tmp_path / "new" / "a.png"), HALF)
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "a.png").pixels, HALF * np.uint8(255))
    for wrong in (HALF.astype(np.uint8), HALF[None]):
        with pytest.raises(ProPLError, match="give bool"):
            write_mask(tmp_path / "b.png", wrong)
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (70, 1), (37, 64)])
def test_masks_of_any_size_are_8_bit_png(tmp_path: Path, size: tuple[int, int]) -> None:
    """Also those that lie in memory otherwise, such as a mirrored one; noise, and both extremes."""
    noise = np.random.default_rng(0).random(size) > 0.5
    for mask in (noise, noise[::-1, ::-1], np.asfortranarray(noise), np.zeros(size, bool), np.ones(size, bool)):
        write_mask(tmp_path / "a.png", mask)
        with Image.open(tmp_path / "a.png") as picture:
            assert picture.mode == "L" and picture.info == {}
            np.testing.assert_array_equal(np.asarray(picture), mask * np.uint8(255))


def test_write_png16(tmp_path: Path) -> None:
    write_png16(tmp_path / "a.png", np.array([[0, 0.5, 1]]))
    with Image.open(tmp_path / "a.png") as picture:
        assert np.asarray(picture).tolist() == [[0, 32768, 65535]]  # 32767.5 goes to the even neighbour
    for wrong in (np.array([[1.1]]), np.array([[np.nan]]), np.zeros(3)):
        with pytest.raises(ProPLError, match="outside"):
            write_png16(tmp_path / "a.png", wrong)


def test_write_overlay(tmp_path: Path) -> None:
    image = np.full((5, 5), 100, np.uint8)
    mask = np.zeros((5, 5), bool)
    mask[1:4, 1:4] = True
    write_overlay(tmp_path / "a.png", image, [mask], [(200, 0, 100)])
    pixels = read_image(tmp_path / "a.png").pixels
    assert pixels[0, 0].tolist() == [100, 100, 100]  # outside
    assert pixels[1, 1].tolist() == [200, 0, 100]  # the outline
    assert pixels[2, 2].tolist() == [135, 65, 100]  # 100 + 0.35 * (colour - 100)
    write_overlay(tmp_path / "b.png", COLOUR, [], [])
    np.testing.assert_array_equal(read_image(tmp_path / "b.png").pixels, COLOUR)
    with pytest.raises(ProPLError, match="give masks of its size"):
        write_overlay(tmp_path / "c.png", image, [mask[:4]], [(1, 2, 3)])


def test_to_grey() -> None:
    assert to_grey(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)).tolist() == [[76, 150, 29]]
    assert to_grey(GREY) is GREY


def test_webp(tmp_path: Path) -> None:
    for pixels in (GREY, COLOUR):
        path = save(tmp_path / "a.webp", pixels, lossless=True)
        np.testing.assert_array_equal(read_image(path).pixels, pixels)
        assert image_size(path) == (12, 10)
    mask = save(tmp_path / "b.webp", HALF * np.uint8(255), lossless=True)
    np.testing.assert_array_equal(read_mask(mask), HALF)


@pytest.mark.parametrize("alpha", [False, True])
def test_lossy_masks_are_refused(tmp_path: Path, alpha: bool) -> None:
    white = np.full((12, 10, 4 if alpha else 3), 255, np.uint8)
    white[0, 0, -1] = 0  # transparency puts the picture into an extended file
    with pytest.raises(ProPLError, match="is a lossy WebP mask"):
        read_mask(save(tmp_path / "a.webp", white))
    with pytest.raises(ProPLError, match="is a JPEG-compressed TIFF mask"):
        read_mask(save(tmp_path / "a.tif", white[..., 0], compression="jpeg"))


def test_frames_of_a_still(tmp_path: Path) -> None:
    cine = read_frames(save(tmp_path / "a.png", COLOUR))
    assert (cine.count, len(cine), cine.spacing_mm, cine.seconds_per_frame) == (1, 1, None, None)
    (frame,) = cine
    np.testing.assert_array_equal(frame, COLOUR)


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.webp"])
def test_frames_of_pages(tmp_path: Path, name: str) -> None:
    stack = [GREY, GREY[::-1].copy(), GREY[:, ::-1].copy()]
    options = {"lossless": True} if name == "a.webp" else {}
    first, *rest = map(Image.fromarray, stack)
    first.save(tmp_path / name, save_all=True, append_images=rest, **options)
    cine = read_frames(tmp_path / name)
    assert cine.count == 3
    np.testing.assert_array_equal(list(cine), stack)
    np.testing.assert_array_equal(list(cine), stack)  # one may iterate again


def test_one_frame_is_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [Image.fromarray(np.full((500, 500), level, np.uint8)) for level in range(20)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    tracemalloc.start()
    try:
        levels = [int(frame[0, 0]) for frame in read_frames(tmp_path / "a.tif")]
        assert tracemalloc.get_traced_memory()[1] < 5 * 250_000
    finally:
        tracemalloc.stop()
    assert levels == list(range(20))


def test_pages_of_different_sizes_are_refused(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.tif", save_all=True, append_images=[Image.fromarray(GREY[:5].copy())])
    frames = iter(read_frames(tmp_path / "a.tif"))
    np.testing.assert_array_equal(next(frames), GREY)
    with pytest.raises(ProPLError, match="frame 2 is 5 × 10, not 12 × 10"):
        next(frames)


def test_values_are_as_stored(tmp_path: Path) -> None:
    for values in (GREY, GREY.astype(np.uint16) * 500, COLOUR, np.repeat(GREY[..., None], 3, axis=2)):
        found = read_values(save(tmp_path / "a.png", values))
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)
    np.testing.assert_array_equal(read_values(save_nifti(tmp_path / "a.nii", GREY.astype(np.float32) - 5)), GREY - 5.0)


def test_write_picture_is_read_back(tmp_path: Path) -> None:
    for pixels in (GREY, COLOUR):
        write_picture(tmp_path / "new" / "a.png", pixels)
        np.testing.assert_array_equal(read_image(tmp_path / "new" / "a.png").pixels, pixels)
    for wrong in (GREY.astype(np.uint16), COLOUR[..., :2], GREY[0]):
        with pytest.raises(ProPLError, match="give uint8"):
            write_picture(tmp_path / "b.png", wrong)
    assert not (tmp_path / "b.png").exists()

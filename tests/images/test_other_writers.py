"""Files as scanners, phones and other libraries write them, which were once called damaged: read like any other."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
import tifffile
from picture_samples import COLOUR, GREY, MOVING, save_dicom, save_video
from PIL import Image
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_dataset

from propl_monai.common.files import true_type
from propl_monai.errors import ProPLError
from propl_monai.images import read_frames, read_image, read_mask

HALF = np.zeros((12, 10), bool)
HALF[:6] = True


# --- MetaImage


def tracked(path: Path, fields: str) -> Path:
    """A sequence with fields of its own, as freehand tracking writes them."""
    head = "ObjectType = Image\nNDims = 3\nBinaryData = True\nElementSpacing = 0.25 0.5 1\nDimSize = 10 12 3\n"
    head += f"ElementType = MET_UCHAR\n{fields}ElementDataFile = LOCAL\n"
    path.write_bytes(head.encode() + MOVING.tobytes())
    return path


def test_a_tracked_sequence_has_a_long_header(tmp_path: Path) -> None:
    transform = "ProbeToTrackerTransform = 1 0 0 0.25 0 1 0 0 0 0 1 0 0 0 0 1"
    path = tracked(tmp_path / "a.mha", "".join(f"Seq_Frame{n:04d}_{transform}\n" for n in range(1500)))
    assert path.stat().st_size > 65536
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))), MOVING)
    np.testing.assert_array_equal(list(read_frames(path)), MOVING)


def test_fields_of_the_user_may_repeat_and_have_any_name(tmp_path: Path) -> None:
    path = tracked(tmp_path / "a.mha", "Note = 1\nNote = 2\nMy Field = 3\nSeq.Frame-1 = x = y\nEmpty =\n")
    np.testing.assert_array_equal(list(read_frames(path)), MOVING)
    with pytest.raises(ProPLError, match=r"header is damaged: it gives DimSize twice, as .* and .*; keep one of them"):
        read_frames(tracked(tmp_path / "b.mha", "DimSize = 10 12 1\n"))
    with pytest.raises(ProPLError, match="whose header is damaged"):
        read_frames(tracked(tmp_path / "c.mha", "no field\n"))


@pytest.mark.parametrize(("field", "size"), [("Name", 300), ("Comment", 251), ("Tracker", 40_000)])
def test_a_field_that_itk_cannot_hold_is_refused_before_it_is_given_to_it(
    tmp_path: Path, field: str, size: int
) -> None:
    fact = rf"has {size} bytes in the header field {field}, where ITK reads \d+; shorten it"
    with pytest.raises(ProPLError, match=fact):
        read_frames(tracked(tmp_path / "a.mha", f"{field} = {'x' * size}\n"))
    np.testing.assert_array_equal(list(read_frames(tracked(tmp_path / "b.mha", f"{field} = {'x' * 250}\n"))), MOVING)


# --- video


def cut(source: Path, target: Path, seconds: float) -> Path:
    """Remux from the key frame before a moment on; an edit list hides what comes before the moment."""
    import av

    with av.open(str(source)) as whole, av.open(str(target), "w") as part:
        old = whole.streams.video[0]
        new, start = part.add_stream_from_template(old), int(seconds / old.time_base)
        whole.seek(start, stream=old)
        for packet in whole.demux(old):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, new
                part.mux(packet)
    return target


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_a_cut_without_encoding_is_whole(tmp_path: Path, suffix: str) -> None:
    frames = np.stack([np.full((32, 32, 3), 4 * number, np.uint8) for number in range(50)])
    whole = save_video(tmp_path / "whole.mp4", frames, "libx264", "yuv420p")
    path = cut(whole, tmp_path / f"cut{suffix}", 0.9)
    cine = read_frames(path)
    shown = [int(np.median(frame)) for frame in cine]
    assert cine.count == len(shown) < 50 and abs(shown[-1] - 4 * 49) <= 4 and shown == sorted(shown)


def test_a_video_that_is_cut_short_is_still_found(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (20, 64, 64, 3), dtype=np.uint8)
    content = save_video(tmp_path / "whole.mp4", frames, "libx264", "yuv420p").read_bytes()
    place = content.index(b"moov") - 4
    size = int.from_bytes(content[place : place + 4], "big")
    index = bytearray(content[place : place + size])  # moved to the front, as for streaming
    table = index.index(b"stco") + 8
    for entry in range(int.from_bytes(index[table : table + 4], "big")):
        at = table + 4 + 4 * entry
        index[at : at + 4] = (int.from_bytes(index[at : at + 4], "big") + size).to_bytes(4, "big")
    first = int.from_bytes(content[:4], "big")
    streamed = content[:first] + bytes(index) + content[first:place]
    (tmp_path / "streamed.mp4").write_bytes(streamed)
    assert read_frames(tmp_path / "streamed.mp4").count == 20
    (tmp_path / "short.mp4").write_bytes(streamed[: len(streamed) // 2])
    with pytest.raises(ProPLError, match=r"is cut short|damaged"):
        list(read_frames(tmp_path / "short.mp4"))


@pytest.mark.parametrize("size", [b"\xff\xff\xff\xff", bytes(4)])
def test_an_avi_that_was_streamed_states_no_length(tmp_path: Path, size: bytes) -> None:
    frames = np.stack([np.full((32, 32, 3), 40 * number, np.uint8) for number in range(3)])
    content = bytearray(save_video(tmp_path / "a.avi", frames).read_bytes())
    content[4:8] = size
    (tmp_path / "b.avi").write_bytes(content)
    np.testing.assert_array_equal(np.stack(list(read_frames(tmp_path / "b.avi"))), frames[..., 0])


# --- JPEG and TIFF


def test_the_first_picture_of_a_phone_is_read(tmp_path: Path) -> None:
    first, preview = Image.fromarray(np.repeat(GREY, 4, 1)), Image.fromarray(GREY)
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview], quality=100)
    assert Image.open(tmp_path / "a.jpg").format == "MPO"
    assert read_frames(tmp_path / "a.jpg").count == 1
    assert np.abs(read_image(tmp_path / "a.jpg").pixels.astype(int) - np.repeat(GREY, 4, 1)).max() <= 4


def test_big_tiff(tmp_path: Path) -> None:
    for number, pixels in enumerate((GREY, GREY.astype(np.uint16) * 500, COLOUR)):
        tifffile.imwrite(tmp_path / f"{number}.tif", pixels, bigtiff=True)
        tifffile.imwrite(tmp_path / "plain.tif", pixels)
        found, plain = read_image(tmp_path / f"{number}.tif").pixels, read_image(tmp_path / "plain.tif").pixels
        np.testing.assert_array_equal(found, plain)
    tifffile.imwrite(tmp_path / "pages.tif", MOVING, bigtiff=True, photometric="minisblack")
    np.testing.assert_array_equal(list(read_frames(tmp_path / "pages.tif")), MOVING)
    tifffile.imwrite(tmp_path / "big.tif", GREY, bigtiff=True, byteorder=">")
    np.testing.assert_array_equal(read_image(tmp_path / "big.tif").pixels, GREY)


def test_transparency_that_was_left_unset_is_ignored(tmp_path: Path) -> None:
    clear = np.dstack([COLOUR, np.zeros_like(GREY)])
    Image.fromarray(clear).save(tmp_path / "a.png")
    Image.fromarray(np.dstack([GREY, np.zeros_like(GREY)])).save(tmp_path / "b.png")
    rows = np.ascontiguousarray(clear[::-1][..., [2, 1, 0, 3]]).tobytes()
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    info = struct.pack("<IiiHHIIiiII", 124, 10, 12, 1, 32, 3, len(rows), 0, 0, 0, 0) + masks
    info += b"BGRs" + bytes(124 - len(info) - 4)
    (tmp_path / "c.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 14 + 124 + len(rows), 0, 0, 138) + info + rows)
    for name, expected in (("a.png", COLOUR), ("b.png", GREY), ("c.bmp", COLOUR)):
        np.testing.assert_array_equal(read_image(tmp_path / name).pixels, expected)
    shape = np.dstack([np.full((12, 10, 3), 255, np.uint8), HALF.astype(np.uint8) * 255])
    Image.fromarray(shape).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), HALF)
    Image.fromarray(np.dstack([np.zeros_like(COLOUR), HALF.astype(np.uint8) * 255])).save(tmp_path / "black.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "black.png"), HALF)
    for alpha in (0, 128, 255):  # an empty mask
        Image.new("RGBA", (10, 12), (0, 0, 0, alpha)).save(tmp_path / "empty.png")
        assert not read_mask(tmp_path / "empty.png").any() and not read_image(tmp_path / "empty.png").pixels.any()


def test_a_quicktime_movie_of_old_is_a_video_and_text_is_not(tmp_path: Path) -> None:
    frames = np.stack([np.full((32, 32, 3), 40 * number, np.uint8) for number in range(3)])
    content = save_video(tmp_path / "a.mov", frames, "libx264", "yuv420p").read_bytes()
    (tmp_path / "b.MOV").write_bytes(content[int.from_bytes(content[:4], "big") :])  # without the ftyp atom
    assert true_type(tmp_path / "b.MOV") == "an MP4 video"
    (tmp_path / "c.txt").write_text("Let us skip this")
    assert true_type(tmp_path / "c.txt") == "plain text"


# --- NIfTI


def save_float(path: Path, upright: np.ndarray) -> Path:
    nibabel.save(
        nibabel.Nifti1Image(np.ascontiguousarray(upright.T).astype(np.float32), np.diag([0.5, 0.5, 1, 1])), path
    )
    return path


NOISE = np.random.default_rng(0).normal(0, 1e-6, HALF.shape)
FLOATS: dict[str, np.ndarray] = {
    "noise around 0 and 1": HALF + NOISE,
    "noise around 0 and 255": 255 * (HALF + NOISE),
    "no exact 0": np.where(HALF, 1.0000001, 1e-12),
    "one of a little less than 1": np.where(HALF, 0.99996, 0),
}


@pytest.mark.parametrize("values", FLOATS.values(), ids=list(FLOATS))
def test_masks_with_float_noise(tmp_path: Path, values: np.ndarray) -> None:
    path = save_float(tmp_path / "a.nii.gz", values)
    np.testing.assert_array_equal(read_mask(path), HALF)
    assert set(np.unique(read_image(path).pixels)) == {0, 255}


def test_an_empty_mask_with_noise_is_empty(tmp_path: Path) -> None:
    path = save_float(tmp_path / "a.nii", NOISE / 100)
    assert not read_mask(path).any() and not read_image(path).pixels.any()


def test_soft_edges_and_labels_are_still_refused(tmp_path: Path) -> None:
    soft = np.linspace(0, 1, 120).reshape(12, 10)
    with pytest.raises(ProPLError, match="its edges are soft: make every value above half"):
        read_mask(save_float(tmp_path / "a.nii", soft))
    with pytest.raises(ProPLError, match="it looks like a label map"):
        read_mask(save_float(tmp_path / "b.nii", np.where(HALF, 1.0, 2.0)))
    with pytest.raises(ProPLError, match=r"holds values from -0\.1 to 1"):
        read_image(save_float(tmp_path / "c.nii", np.where(HALF, 1.0, -0.1)))


# --- DICOM


def edited(
    path: Path, change: Callable[[Any], Any], frames: np.ndarray = GREY[None], *given: Any, **options: Any
) -> Path:
    save_dicom(path, frames, *given, **options)
    elements = pydicom.dcmread(path)
    change(elements)
    elements.save_as(path)
    return path


@pytest.mark.parametrize("count", [0, None])
def test_a_number_of_frames_that_is_left_open(tmp_path: Path, count: int | None) -> None:
    def leave_open(elements: Any) -> None:
        elements.NumberOfFrames = count

    np.testing.assert_array_equal(read_image(edited(tmp_path / "a", leave_open)).pixels, GREY)
    np.testing.assert_array_equal(list(read_frames(edited(tmp_path / "b", leave_open, MOVING))), MOVING)
    rle = edited(tmp_path / "c", leave_open, MOVING, "MONOCHROME2", pydicom.uid.RLELossless)
    np.testing.assert_array_equal(list(read_frames(rle)), MOVING)


def test_colour_without_planar_configuration(tmp_path: Path) -> None:
    path = edited(tmp_path / "a", lambda elements: elements.pop("PlanarConfiguration"), COLOUR[None], "RGB")
    np.testing.assert_array_equal(read_image(path).pixels, COLOUR)


def test_segmented_palette(tmp_path: Path) -> None:
    elements: dict[str, Any] = {}
    for name, first, last in (("Red", 0, 65535), ("Green", 65535, 0), ("Blue", 9 * 257, 9 * 257)):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        # one entry as it is, then 255 on a line to the last
        elements[f"Segmented{name}PaletteColorLookupTableData"] = struct.pack("<6H", 0, 1, first, 1, 255, last)
    pixels = read_image(save_dicom(tmp_path / "a", GREY[None], "PALETTE COLOR", **elements)).pixels
    expected = np.dstack([GREY, 255 - GREY, np.full_like(GREY, 9)])
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def bare(path: Path, implicit: bool, little: bool = True) -> Path:
    """A data set alone, as old archives and network dumps hold it: no preamble, no transfer syntax."""
    elements, buffer = pydicom.dcmread(save_dicom(path, GREY[None])), io.BytesIO()
    stream = DicomFileLike(buffer)
    stream.is_implicit_VR, stream.is_little_endian = implicit, little
    write_dataset(stream, pydicom.Dataset({element.tag: element for element in elements}))
    path.write_bytes(buffer.getvalue())
    return path


def test_files_without_preamble(tmp_path: Path) -> None:
    whole = save_dicom(tmp_path / "whole", GREY[None], PixelSpacing=[0.5, 0.25]).read_bytes()
    (tmp_path / "from_mark").write_bytes(whole[128:])
    (tmp_path / "from_meta").write_bytes(whole[132:])
    paths = [tmp_path / "from_mark", tmp_path / "from_meta"]
    paths += [bare(tmp_path / "explicit", implicit=False), bare(tmp_path / "implicit", implicit=True)]
    for path in paths:
        assert true_type(path) == "a DICOM file"
        np.testing.assert_array_equal(read_image(path).pixels, GREY)
    assert read_image(paths[0]).spacing_mm == read_image(paths[1]).spacing_mm == (0.5, 0.25)
    short = (tmp_path / "from_meta").read_bytes()[:-20]
    (tmp_path / "short").write_bytes(short)
    with pytest.raises(ProPLError, match="is cut short: 100 of 120 bytes of pixel data"):
        read_image(tmp_path / "short")


@pytest.mark.parametrize("colours", ["MONOCHROME2", "MONOCHROME1"])
def test_few_bits_in_sixteen_are_not_shown_black(tmp_path: Path, colours: str) -> None:
    shallow = read_image(save_dicom(tmp_path / "a", GREY.astype(np.uint16)[None], colours)).pixels
    np.testing.assert_array_equal(shallow, GREY if colours == "MONOCHROME2" else 255 - GREY)
    deep = np.stack([GREY.astype(np.uint16), GREY.astype(np.uint16) * 34])  # up to 4046: 12 bits, for both frames
    cine = list(read_frames(save_dicom(tmp_path / "b", deep)))
    np.testing.assert_array_equal(cine[1], np.rint(deep[1] / 4095 * 255))
    np.testing.assert_array_equal(cine[0], np.rint(deep[0] / 4095 * 255))


def test_a_dicom_directory_says_what_it_is(tmp_path: Path) -> None:
    from pydicom.fileset import FileSet

    save_dicom(tmp_path / "a.dcm", GREY[None], PatientID="x", StudyInstanceUID="1.2", SeriesInstanceUID="1.3")
    elements = pydicom.dcmread(tmp_path / "a.dcm")
    elements.update({"StudyDate": "20200101", "StudyTime": "1200", "StudyID": "1", "Modality": "US", "SeriesNumber": 1})
    elements.InstanceNumber = 1
    files = FileSet()
    files.add(elements)
    files.write(tmp_path / "exam")
    assert true_type(tmp_path / "exam" / "DICOMDIR") == "a DICOM directory, which lists the files of an exam"
    with pytest.raises(ProPLError, match="is a DICOM directory, which lists the files of an exam; give the files"):
        read_image(tmp_path / "exam" / "DICOMDIR")


# --- kinds of the same faults that other writers leave


def test_a_metaimage_of_labels_of_64_bits_or_with_transparency(tmp_path: Path) -> None:
    for kind in (np.int64, np.uint64):
        path = str(tmp_path / f"{kind.__name__}.mha")
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(HALF.astype(kind)), path)
        np.testing.assert_array_equal(read_mask(path), HALF)
    clear = np.dstack([COLOUR, np.full_like(GREY, 255)])
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(clear, isVector=True), str(tmp_path / "a.mha"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.mha").pixels, COLOUR)
    same = tracked(tmp_path / "b.mha", "ElementSpacing = 0.25 0.5 1\n")  # twice, and both times the same
    np.testing.assert_array_equal(list(read_frames(same)), MOVING)


def test_nifti_of_colour(tmp_path: Path) -> None:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(COLOUR, isVector=True), str(tmp_path / "itk.nii.gz"))
    np.testing.assert_array_equal(read_image(tmp_path / "itk.nii.gz").pixels, COLOUR)
    for names in ("RGB", "RGBA"):
        pixels = COLOUR if names == "RGB" else np.dstack([COLOUR, np.full_like(GREY, 255)])
        packed = np.ascontiguousarray(pixels.swapaxes(0, 1)).view([(name, "u1") for name in names])
        nibabel.save(nibabel.Nifti1Image(packed.reshape(10, 12, 1), np.eye(4)), tmp_path / f"{names}.nii")
        np.testing.assert_array_equal(read_image(tmp_path / f"{names}.nii").pixels, COLOUR)


@pytest.mark.parametrize("kind", ["float16", "float64", "int8", "int64", "uint64"])
def test_tiff_of_a_depth_that_pillow_does_not_read(tmp_path: Path, kind: str) -> None:
    tifffile.imwrite(tmp_path / "mask.tif", HALF.astype(kind))
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.tif"), HALF)
    tifffile.imwrite(tmp_path / "a.tif", MOVING.astype(kind), photometric="minisblack")
    np.testing.assert_array_equal(list(read_frames(tmp_path / "a.tif")), MOVING)
    content = (tmp_path / "a.tif").read_bytes()
    for missing in (20, 400):  # an end of the list of pages, and whole pages of it
        (tmp_path / "a.tif").write_bytes(content[:-missing])
        with pytest.raises(ProPLError, match=r"cut short|damaged"):
            list(read_frames(tmp_path / "a.tif"))
    tifffile.imwrite(tmp_path / "b.tif", GREY.astype(kind), compression="zlib")
    with pytest.raises(ProPLError, match=f"of {kind} values with compression ADOBE_DEFLATE, which|of 8 signed"):
        read_image(tmp_path / "b.tif")


def test_previews_in_a_tiff_are_no_frames(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(COLOUR, photometric="rgb")
        writer.write(np.ascontiguousarray(COLOUR[::2, ::2]), photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, COLOUR)


@pytest.mark.parametrize("size", [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4)])
def test_a_streamed_avi_that_is_cut_short_is_found(tmp_path: Path, size: bytes) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (5, 32, 32, 3), dtype=np.uint8)
    content = bytearray(save_video(tmp_path / "a.avi", frames).read_bytes())
    content[4:8] = size
    place = content.index(b"movi") - 4
    content[place : place + 4] = size
    (tmp_path / "b.avi").write_bytes(content)
    assert read_frames(tmp_path / "b.avi").count == 5
    (tmp_path / "b.avi").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(ProPLError, match=r"is cut short: .* bytes where its last frame ends at"):
        read_frames(tmp_path / "b.avi")


def test_an_avi_whose_length_counts_its_header(tmp_path: Path) -> None:
    frames = np.stack([np.full((32, 32, 3), 40 * number, np.uint8) for number in range(3)])
    content = bytearray(save_video(tmp_path / "a.avi", frames).read_bytes())
    content[4:8] = len(content).to_bytes(4, "little")
    (tmp_path / "a.avi").write_bytes(content)
    assert read_frames(tmp_path / "a.avi").count == 3


def test_transparency_that_is_the_same_everywhere_is_ignored(tmp_path: Path) -> None:
    for alpha in (0, 1, 128):
        Image.fromarray(np.dstack([COLOUR, np.full_like(GREY, alpha)])).save(tmp_path / "a.png")
        np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, COLOUR)


@pytest.mark.parametrize("name", ["PixelRepresentation", "BitsStored", "SamplesPerPixel", "PhotometricInterpretation"])
def test_dicom_without_an_element_that_itk_fills_in(tmp_path: Path, name: str) -> None:
    path = edited(tmp_path / "a.dcm", lambda elements: elements.pop(name))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).squeeze(), GREY)
    np.testing.assert_array_equal(read_image(path).pixels, GREY)
    coloured = edited(tmp_path / "b.dcm", lambda elements: elements.pop(name), COLOUR[None], "RGB")
    np.testing.assert_array_equal(read_image(coloured).pixels, COLOUR)


def test_dicom_without_a_number_of_frames(tmp_path: Path) -> None:
    for syntax in (pydicom.uid.ExplicitVRLittleEndian, pydicom.uid.RLELossless):
        path = edited(tmp_path / "a", lambda elements: elements.pop("NumberOfFrames"), MOVING, "MONOCHROME2", syntax)
        np.testing.assert_array_equal(list(read_frames(path)), MOVING)

    def lengthen(elements: Any) -> None:
        del elements.NumberOfFrames
        elements.PixelData += bytes(64)

    with pytest.raises(ProPLError, match="424 bytes of pixel data, which are no whole frames of 120 bytes"):
        read_frames(edited(tmp_path / "b", lengthen, MOVING))


def test_dicom_whose_last_padding_byte_is_missing(tmp_path: Path) -> None:
    odd = np.ascontiguousarray(GREY[:11, :9])
    path = save_dicom(tmp_path / "a", odd[None])
    path.write_bytes(path.read_bytes()[:-1])
    np.testing.assert_array_equal(read_image(path).pixels, odd)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ProPLError, match="is cut short: 98 of 100 bytes"):
        read_image(path)


def test_explicit_dicom_under_the_name_of_implicit(tmp_path: Path) -> None:
    content = save_dicom(tmp_path / "a", GREY[None], syntax=pydicom.uid.ExplicitVRLittleEndian).read_bytes()
    assert content.count(b"1.2.840.10008.1.2.1\0") == 1
    (tmp_path / "a").write_bytes(content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0"))
    np.testing.assert_array_equal(read_image(tmp_path / "a").pixels, GREY)


def test_planar_configuration_says_nothing_of_jpeg(tmp_path: Path) -> None:
    """pydicom goes by it, and gives noise; ITK does not."""
    blocks = np.zeros((16, 16, 3), np.uint8)
    blocks[:8, :, 0], blocks[8:, :, 2] = 200, 200
    jpeg = pydicom.uid.JPEGBaseline8Bit
    path = edited(
        tmp_path / "a",
        lambda elements: setattr(elements, "PlanarConfiguration", 1),
        blocks[None],
        "YBR_FULL_422",
        jpeg,
    )
    assert np.abs(read_image(path).pixels.astype(int) - blocks).mean() < 10


def test_a_palette_of_16_bits_that_uses_8(tmp_path: Path) -> None:
    elements: dict[str, Any] = {}
    for name, values in (("Red", range(256)), ("Green", range(255, -1, -1)), ("Blue", [9] * 256)):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        elements[f"{name}PaletteColorLookupTableData"] = np.array(values, np.uint16).tobytes()
    path = save_dicom(tmp_path / "a", GREY[None], "PALETTE COLOR", **elements)
    np.testing.assert_array_equal(read_image(path).pixels, np.dstack([GREY, 255 - GREY, np.full_like(GREY, 9)]))


OTHER_TYPES: dict[str, tuple[bytes, str]] = {
    "nrrd": (b"NRRD0005\ntype: uchar\n", "is an NRRD picture, which is not read; save it as NIfTI in one file"),
    "hdr": (b"\x5c\x01\0\0" + bytes(344), "is the header of a NIfTI or Analyze picture in two files"),
    "mkv": (b"\x1a\x45\xdf\xa3" + bytes(40), "is a Matroska or WebM video, which is not read; convert it to MP4"),
    "jp2": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "is a JPEG 2000 picture, which is not read; export the frame"),
    "npy": (b"\x93NUMPY\x01\0" + bytes(40), "is a NumPy array, which is not read"),
}


@pytest.mark.parametrize(("suffix", "content", "words"), [(s, *rest) for s, rest in OTHER_TYPES.items()])
def test_other_types_are_called_what_they_are(tmp_path: Path, suffix: str, content: bytes, words: str) -> None:
    (tmp_path / f"a.{suffix}").write_bytes(content)
    with pytest.raises(ProPLError, match=words):
        read_frames(tmp_path / f"a.{suffix}")

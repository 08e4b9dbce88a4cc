"""Writes small pictures and cines of every kind that `propl_monai.images` reads, for its tests, its table and its fuzzing."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
import tifffile
from PIL import Image
from pydicom import Dataset, FileDataset, uid
from pydicom.encaps import encapsulate
from pydicom.pixels import convert_color_space

HEIGHT, WIDTH = 12, 10
GREY = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
COLOUR = np.stack([GREY, GREY[::-1], np.full_like(GREY, 7)], axis=2)
DEEP = GREY.astype(np.uint16) * 500  # to 59500: 16 bits
MOVING = np.stack([np.roll(GREY, shift, axis=1) for shift in range(3)])  # (T, H, W)
MOVING_COLOUR = np.stack([COLOUR, COLOUR[:, ::-1], COLOUR[::-1]])


def save_pillow(path: Path, pixels: np.ndarray, mode: str = "", **options: Any) -> Path:
    """Through Pillow, in another mode if one is named."""
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def save_pages(path: Path, frames: Sequence[np.ndarray], **options: Any) -> Path:
    """Several frames in one file."""
    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=rest, **options)
    return path


def save_nifti(path: Path, values: np.ndarray, spacing: tuple[float, float] = (0.5, 0.25), seconds: float = 0) -> Path:
    """`values` is `(H, W)` or `(T, H, W)`; the file holds (x, y), (x, y, T), or (x, y, 1, T) where seconds are given."""
    stored = np.moveaxis(values, 0, -1).swapaxes(0, 1) if values.ndim == 3 else values.T
    if seconds:
        stored = stored[:, :, None, :]
    picture = nibabel.Nifti1Image(stored, np.diag([spacing[1], spacing[0], 1, 1]))
    picture.header.set_xyzt_units("mm", "sec" if seconds else None)
    if seconds:
        picture.header.set_zooms((spacing[1], spacing[0], 1, seconds))
    nibabel.save(picture, path)
    return path


def save_metaimage(path: Path, values: np.ndarray, compressed: bool = False, colour: bool = False) -> Path:
    """Through SimpleITK: `(H, W)`, `(T, H, W)`, or with one axis more if `colour`; row 0.5 mm, column 0.25 mm."""
    picture = SimpleITK.GetImageFromArray(values, isVector=colour)
    picture.SetSpacing((0.25, 0.5, 1.0)[: picture.GetDimension()])
    SimpleITK.WriteImage(picture, str(path), useCompression=compressed)
    return path


def dicom(
    frames: np.ndarray, colours: str, syntax: Any, planar: int = 0, bits: int = 0, **elements: Any
) -> FileDataset:
    """A DICOM file of `(T, H, W)` or `(T, H, W, 3)` values as the samples that they are, without its pixel data."""
    known = syntax.is_transfer_syntax and not syntax.is_private
    order = (syntax.is_implicit_VR, syntax.is_little_endian) if known else (False, True)
    made = FileDataset("", {}, b"\0" * 128, None, *order)
    made.file_meta = Dataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = uid.UltrasoundMultiFrameImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = uid.UID("1.2.3.4")
    made.Modality = "US"
    made.NumberOfFrames, made.Rows, made.Columns = frames.shape[:3]
    made.SamplesPerPixel = 3 if frames.ndim == 4 else 1
    if frames.ndim == 4:
        made.PlanarConfiguration = planar
    made.PhotometricInterpretation = colours
    made.BitsAllocated = 8 * frames.dtype.itemsize
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, 0
    for name, value in elements.items():
        setattr(made, name, value)
    return made


def raw(frames: np.ndarray, colours: str, planar: int = 0, big: bool = False) -> bytes:
    """Pixel data without compression, padded to an even length; the samples are given as RGB where coloured."""
    if colours.startswith("YBR"):
        frames = np.stack([convert_color_space(frame, "RGB", "YBR_FULL") for frame in frames])
    if colours == "YBR_FULL_422":  # of two neighbours: both Y, and the Cb and Cr of the first (PS3.3, C.7.6.3.1.2)
        first, second = frames[:, :, 0::2], frames[:, :, 1::2]
        frames = np.stack([first[..., 0], second[..., 0], first[..., 1], first[..., 2]], axis=-1)
    elif planar:
        frames = np.moveaxis(frames, 3, 1)
    content = (frames.astype(frames.dtype.newbyteorder(">")) if big else frames).tobytes()
    return content + b"\0" * (len(content) % 2)


def compressed(frames: np.ndarray, syntax: Any) -> bytes:
    """Encapsulated JPEG or JPEG 2000 of each frame."""
    options: dict[str, Any] = {"format": "JPEG2000", "no_jp2": True, "irreversible": False}
    if syntax == uid.JPEGBaseline8Bit:
        options = {"format": "JPEG", "quality": 95}
    parts = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, **options)
        parts.append(buffer.getvalue())
    return encapsulate(parts)


def save_dicom(
    path: Path,
    frames: np.ndarray,
    colours: str = "MONOCHROME2",
    syntax: Any = uid.ExplicitVRLittleEndian,
    planar: int = 0,
    **elements: Any,
) -> Path:
    """A whole DICOM file of `(T, H, W)` samples or `(T, H, W, 3)` RGB."""
    made = dicom(frames, colours, syntax, planar, **elements)
    big = syntax == uid.ExplicitVRBigEndian
    if syntax == uid.RLELossless:
        made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        made.PixelData = raw(frames, colours, planar)
        made["PixelData"].VR = "OW"
        made.compress(uid.RLELossless, generate_instance_uid=False)
    elif syntax in (uid.JPEGBaseline8Bit, uid.JPEG2000Lossless, uid.JPEG2000):
        made.PixelData = compressed(frames, syntax)
        made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    else:
        made.PixelData = raw(frames, colours, planar, big)
        made["PixelData"].VR = "OB" if frames.dtype == np.uint8 and not syntax.is_implicit_VR else "OW"
    made.save_as(path, enforce_file_format=True)
    return path


def region(data_type: int, row_cm: float, column_cm: float, units: int = 3) -> Dataset:
    """An item of the sequence of ultrasound regions: 2-D, of tissue where `data_type` is 1."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType = 1, data_type
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = units
    item.PhysicalDeltaX, item.PhysicalDeltaY = column_cm, row_cm
    return item


def palette_elements(bits: int = 8) -> dict[str, Any]:
    """A palette of 256 entries: red is the index, green its opposite, blue 9; of 16 bits each 257 times that."""
    ramp = np.arange(256, dtype=np.uint16)
    entries = {"Red": ramp, "Green": 255 - ramp, "Blue": np.full(256, 9, np.uint16)}
    elements: dict[str, Any] = {}
    for name, values in entries.items():
        data = values.astype(np.uint8) if bits == 8 else values * np.uint16(257)
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        elements[f"{name}PaletteColorLookupTableData"] = data.tobytes()
    return elements


def save_video(path: Path, frames: np.ndarray, codec: str = "ffv1", pixels: str = "bgr0") -> Path:
    """`(T, H, W, 3)` RGB at 25 frames a second."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixels
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


Sample = tuple[str, Callable[[Path], Any]]
_RAW, _IMPLICIT, _BIG = uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian
_ALPHA = np.full((HEIGHT, WIDTH), 255, np.uint8)
_ALPHA[:, :5] = 0


def _turned(path: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6
    return save_pillow(path, np.ascontiguousarray(np.rot90(GREY, 1)), exif=exif)


def _indexed(path: Path) -> Path:
    picture = Image.fromarray(GREY).convert("P")
    picture.putpalette([level for index in range(256) for level in (index, 255 - index, 9)])
    picture.save(path)
    return path


def _phone(path: Path) -> Path:
    Image.fromarray(GREY).save(path, format="MPO", save_all=True, append_images=[Image.fromarray(GREY[:6])], quality=95)
    return path


def _big(path: Path) -> Path:
    tifffile.imwrite(path, GREY, bigtiff=True)
    return path


def _without_preamble(path: Path) -> Path:
    path.write_bytes(save_dicom(path, GREY[None]).read_bytes()[132:])
    return path


def _dicom(frames: np.ndarray, *given: Any, **options: Any) -> Callable[[Path], Any]:
    return lambda path: save_dicom(path, frames, *given, **options)


# What the table of the documentation shows: the words for a kind of input, and how to make one.
SAMPLES: dict[str, Sample] = {
    "PNG, 8-bit grey": ("a.png", lambda path: save_pillow(path, GREY)),
    "PNG, RGB": ("a.png", lambda path: save_pillow(path, COLOUR)),
    "PNG, RGB with equal channels": ("a.png", lambda path: save_pillow(path, np.dstack([GREY] * 3))),
    "PNG, 1 bit": ("a.png", lambda path: save_pillow(path, GREY > 50)),
    "PNG, palette": ("a.png", _indexed),
    "PNG, RGBA": ("a.png", lambda path: save_pillow(path, np.dstack([COLOUR, _ALPHA]))),
    "PNG, LA": ("a.png", lambda path: save_pillow(path, np.dstack([GREY, _ALPHA]))),
    "PNG, 16-bit grey": ("a.png", lambda path: save_pillow(path, DEEP)),
    "PNG, animated": ("a.png", lambda path: save_pages(path, MOVING, duration=40)),
    "JPEG, grey": ("a.jpg", lambda path: save_pillow(path, GREY)),
    "JPEG, RGB": ("a.jpg", lambda path: save_pillow(path, COLOUR)),
    "JPEG, CMYK": ("a.jpg", lambda path: save_pillow(path, COLOUR, "CMYK")),
    "JPEG with EXIF orientation 6": ("a.jpg", _turned),
    "JPEG with a second picture (MPO)": ("a.jpg", _phone),
    "BMP": ("a.bmp", lambda path: save_pillow(path, COLOUR)),
    "TIFF, 8 bit": ("a.tif", lambda path: save_pillow(path, GREY)),
    "TIFF, 16 bit": ("a.tif", lambda path: save_pillow(path, DEEP)),
    "TIFF, floating point": ("a.tif", lambda path: save_pillow(path, GREY.astype(np.float32) / 119)),
    "BigTIFF, 8 bit": ("a.tif", _big),
    "TIFF, CMYK": ("a.tif", lambda path: save_pillow(path, COLOUR, "CMYK")),
    "TIFF, several pages": ("a.tif", lambda path: save_pages(path, MOVING)),
    "TIFF, several pages of 16 bit": ("a.tif", lambda path: save_pages(path, MOVING.astype(np.uint16) * 500)),
    "WebP, lossless": ("a.webp", lambda path: save_pillow(path, COLOUR, lossless=True)),
    "WebP, lossy": ("a.webp", lambda path: save_pillow(path, COLOUR)),
    "WebP, animated": ("a.webp", lambda path: save_pages(path, MOVING, lossless=True, duration=40)),
    "NIfTI, (x, y)": ("a.nii.gz", lambda path: save_nifti(path, GREY)),
    "NIfTI, (x, y, frame)": ("a.nii.gz", lambda path: save_nifti(path, MOVING)),
    "NIfTI, (x, y, 1, time)": ("a.nii", lambda path: save_nifti(path, MOVING, seconds=0.02)),
    "MHA, (x, y)": ("a.mha", lambda path: save_metaimage(path, GREY)),
    "MHA, RGB": ("a.mha", lambda path: save_metaimage(path, COLOUR, colour=True)),
    "MHA, (x, y, frame), compressed": ("a.mha", lambda path: save_metaimage(path, MOVING, compressed=True)),
    "MHD and RAW, (x, y, 1)": ("a.mhd", lambda path: save_metaimage(path, GREY[None])),
    "MHD and RAW, (x, y, frame)": ("a.mhd", lambda path: save_metaimage(path, MOVING)),
    "DICOM, MONOCHROME2, explicit little endian": ("a.dcm", _dicom(GREY[None], PixelSpacing=[0.5, 0.25])),
    "DICOM, without preamble": ("a.dcm", _without_preamble),
    "DICOM, MONOCHROME1": ("a.dcm", _dicom(GREY[None], "MONOCHROME1")),
    "DICOM, MONOCHROME2, cine, implicit little endian": (
        "a.dcm",
        _dicom(MOVING, "MONOCHROME2", _IMPLICIT, FrameTime=40, SequenceOfUltrasoundRegions=[region(1, 0.05, 0.025)]),
    ),
    "DICOM, MONOCHROME2, 16 bit, big endian": ("a.dcm", _dicom(DEEP[None], "MONOCHROME2", _BIG)),
    "DICOM, MONOCHROME2, 16 bit with a window": (
        "a.dcm",
        _dicom(DEEP[None], WindowCenter=30000, WindowWidth=20001, VOILUTFunction="LINEAR"),
    ),
    "DICOM, RGB, planar 0": ("a.dcm", _dicom(COLOUR[None], "RGB")),
    "DICOM, RGB, planar 1, cine": ("a.dcm", _dicom(MOVING_COLOUR, "RGB", planar=1)),
    "DICOM, YBR_FULL": ("a.dcm", _dicom(COLOUR[None], "YBR_FULL")),
    "DICOM, YBR_FULL_422": ("a.dcm", _dicom(COLOUR[None], "YBR_FULL_422")),
    "DICOM, PALETTE COLOR": ("a.dcm", _dicom(GREY[None], "PALETTE COLOR", **palette_elements())),
    "DICOM, JPEG, grey cine": ("a.dcm", _dicom(MOVING, "MONOCHROME2", uid.JPEGBaseline8Bit)),
    "DICOM, JPEG, YBR_FULL_422": ("a.dcm", _dicom(COLOUR[None], "YBR_FULL_422", uid.JPEGBaseline8Bit)),
    "DICOM, JPEG 2000 lossless, grey of 16 bit": ("a.dcm", _dicom(DEEP[None], "MONOCHROME2", uid.JPEG2000Lossless)),
    "DICOM, JPEG 2000 lossless, YBR_RCT": ("a.dcm", _dicom(COLOUR[None], "YBR_RCT", uid.JPEG2000Lossless)),
    "DICOM, RLE, grey cine": ("a.dcm", _dicom(MOVING, "MONOCHROME2", uid.RLELossless)),
    "DICOM, RLE, RGB": ("a.dcm", _dicom(COLOUR[None], "RGB", uid.RLELossless)),
    "AVI": ("a.avi", lambda path: save_video(path, MOVING_COLOUR)),
    "MP4": (
        "a.mp4",
        lambda path: save_video(path, np.stack([np.zeros((32, 32, 3), np.uint8)] * 3), "libx264", "yuv420p"),
    ),
}

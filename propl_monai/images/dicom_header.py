"""The pixel description and pixel size of a DICOM file, and nothing else: names, dates and identifiers are never read.

pydicom reads these elements only, and its messages are silenced: its warnings, log records and exceptions may quote
values. Numbers of the standard: DICOM PS3.3, C.7.6.3 (image pixel) and C.8.5.5 (ultrasound regions).
"""

from __future__ import annotations

import logging
import math
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import Dataset, dcmread
from pydicom.filereader import read_dataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

from propl_monai.common.spacing import Spacing, is_spacing, positive, stated_spacing
from propl_monai.errors import ProPLError
from propl_monai.images.picture import COPY_AGAIN, MAX_WHOLE_BYTES, NoPicture

UNDEFINED_LENGTH = 0xFFFFFFFF
_MARK = b"DICM"  # after a preamble of 128 bytes (PS3.10, 7.1)
PIXEL_TAGS = {0x7FE00008: "float", 0x7FE00009: "double float", 0x7FE00010: ""}
PIXEL_KEYWORDS = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("ModalityLUTSequence", "RescaleIntercept", "RescaleSlope"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in ("Red", "Green", "Blue")),
    *(
        f"{kind}{colour}PaletteColorLookupTableData"
        for kind in ("", "Segmented")
        for colour in ("Red", "Green", "Blue")
    ),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)
_SIZE_KEYWORDS = ("SequenceOfUltrasoundRegions", "PixelSpacing", "FrameTime")
# In the names of classes that hold no pixels (PS3.6, table A-1).
_NO_PICTURES = (
    *("SR", "Report", "Presentation State", "Key Object", "Encapsulated", "Waveform", "Procedure Log", "Raw Data"),
    *("Registration", "Fiducials", "Real World Value", "Structure Set", "Plan", "Protocol"),
)
# In those that hold pixels which are results, not pictures.
_RESULTS = ("Segmentation", "Parametric Map", "RT Dose")
_EXPLICIT = (b"OB\0\0", b"OW\0\0", b"OF\0\0", b"OD\0\0", b"UN\0\0")  # between tag and length of explicit pixel data
_PLANE, _TISSUE, _CENTIMETRES = 1, 1, 3  # Region Spatial Format, Region Data Type, Physical Units X and Y Direction
_ALONE = threading.RLock()


@dataclass(frozen=True, eq=False)
class Header:
    """The elements of `PIXEL_KEYWORDS`, and where the pixel data lie.

    Attributes:
        elements: for pydicom.
        syntax: the UID of the transfer syntax.
        numbers: Rows, Columns, NumberOfFrames (0: the file leaves it open), SamplesPerPixel, BitsAllocated,
            BitsStored, PixelRepresentation.
        colours: the photometric interpretation.
        start: position of the first byte of the pixel data in the file.
        vr: value representation of the pixel data, empty where the syntax has none.
        length: of the pixel data in bytes; `UNDEFINED_LENGTH` when they are encapsulated.
        there: bytes from `start` to the end of the file.
        spacing_mm: row, column; None when the file does not say.
        spacing_note: see `Picture`.
        seconds_per_frame: None when the file does not say.
    """

    elements: Dataset
    syntax: UID
    numbers: dict[str, int]
    colours: str
    start: int
    vr: str
    length: int
    there: int
    spacing_mm: Spacing | None
    spacing_note: str
    seconds_per_frame: float | None


@contextmanager
def silence() -> Iterator[None]:
    """Keep pydicom's warnings and log records from everyone, one thread a time."""
    logger = logging.getLogger("pydicom")
    with _ALONE, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, logger.disabled = logger.disabled, True
        try:
            yield
        finally:
            logger.disabled = before


def with_preamble(path: Path, stream: BinaryIO) -> BinaryIO:
    """The stream of a DICOM file; of one without preamble, or without all before the data set, a copy with both."""
    head = stream.read(132)
    if head[128:] == _MARK:
        return stream
    if stream.seek(0, os.SEEK_END) > MAX_WHOLE_BYTES:
        fact = f"is a DICOM file without preamble, of more than {MAX_WHOLE_BYTES:,} bytes"
        raise ProPLError(path, fact, "write it again with a preamble, with dcmconv of DCMTK")
    stream.seek(0)
    return BytesIO(bytes(128) + (b"" if head.startswith(_MARK) else _MARK) + stream.read())


def read_syntax(path: Path, stream: BinaryIO) -> UID:
    """The UID of the transfer syntax; of a file that does not state it, which pydicom finds in its first element."""
    stream.seek(132)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    if "TransferSyntaxUID" in meta:
        return meta.TransferSyntaxUID
    stream.seek(0)
    implicit, little = dcmread(stream, stop_before_pixels=True, specific_tags=[]).original_encoding
    if not stream.read(1):  # no pixel data either
        raise ProPLError(path, "is a DICOM file without a Transfer Syntax UID", COPY_AGAIN)
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def read_header(path: Path, stream: BinaryIO, syntax: UID) -> Header:
    """Read the elements before the pixel data; errors of pydicom are left to the caller, who must not quote them."""
    stream.seek(0)
    wanted: list[Any] = [*PIXEL_KEYWORDS, *_SIZE_KEYWORDS, "SOPClassUID"]
    elements = dcmread(stream, stop_before_pixels=True, specific_tags=wanted)
    tag, start, vr, length = _pixel_element(stream, syntax)
    there = stream.seek(0, os.SEEK_END) - start
    if syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):  # either may be written under the name of the other
        syntax = ExplicitVRLittleEndian if vr else ImplicitVRLittleEndian
    elements.file_meta.TransferSyntaxUID = syntax
    uid = UID(elements.file_meta.get("MediaStorageSOPClassUID") or elements.get("SOPClassUID") or "")
    name = "private class" if uid.is_private else uid.name.removesuffix(" Storage")
    if tag not in PIXEL_TAGS:
        raise _without_pixels(path, name, elements)
    if any(word in name for word in _RESULTS):
        raise NoPicture(path, f"is a DICOM file of results ({name})", "give the file that holds the picture")
    if PIXEL_TAGS[tag]:
        raise ProPLError(path, f"holds {PIXEL_TAGS[tag]} pixel data", "export it with integer pixel data")
    _complete(elements)
    names = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation")
    numbers = {name: _number(path, elements, name) for name in names}
    numbers["NumberOfFrames"] = _number(path, elements, "NumberOfFrames") if elements.get("NumberOfFrames") else 0
    seconds = positive(float(elements.get("FrameTime") or 0) / 1000)
    colours = str(elements.get("PhotometricInterpretation", ""))
    return Header(elements, syntax, numbers, colours, start, vr, length, there, *_spacing(elements), seconds)


def _without_pixels(path: Path, name: str, elements: Dataset) -> ProPLError:
    """By the standard's name of its class, a file without pixel data is a report or the like, or a picture cut short.

    Scanners keep settings and raw data in classes of their own, without a size in pixels.
    """
    fact, cure = "is a DICOM file without pixel data", "give the file that holds the picture"
    own = name == "private class" and "Rows" not in elements
    if own or any(word in name for word in _NO_PICTURES):
        return NoPicture(path, f"{fact} ({name})", cure)
    return ProPLError(path, fact, cure)


def _complete(elements: Dataset) -> None:
    """Fill in what a writer has left out, as ITK does: pydicom decodes nothing without it."""
    if not elements.get("PhotometricInterpretation"):
        colour = "YBR_FULL_422" if elements.file_meta.TransferSyntaxUID == JPEGBaseline8Bit else "RGB"
        elements.PhotometricInterpretation = colour if elements.get("SamplesPerPixel") == 3 else "MONOCHROME2"
    colours = str(elements.PhotometricInterpretation)
    given = {
        "SamplesPerPixel": 1 if colours.startswith(("MONO", "PALETTE")) else 3,
        "BitsStored": elements.get("BitsAllocated"),
        "PixelRepresentation": 0,
    }
    for name, value in given.items():
        if elements.get(name) is None and value is not None:
            setattr(elements, name, value)


def _pixel_element(stream: BinaryIO, syntax: UID) -> tuple[int, int, str, int]:
    """Tag, start, value representation and length of the element at which pydicom stopped; tag 0 at the end of the file."""
    head = stream.read(12)
    if len(head) < 12:
        return 0, 0, "", 0
    order: Any = "little" if syntax.is_little_endian else "big"
    tag = int.from_bytes(head[:2], order) << 16 | int.from_bytes(head[2:4], order)
    if head[4:8] not in _EXPLICIT:
        return tag, stream.tell() - 4, "", int.from_bytes(head[4:8], order)
    return tag, stream.tell(), head[4:6].decode("latin-1"), int.from_bytes(head[8:12], order)


def _number(path: Path, elements: Dataset, name: str) -> int:
    if elements.get(name) is None:
        raise ProPLError(path, f"is a DICOM file without {name}", COPY_AGAIN)
    try:
        return int(elements[name].value)
    except (TypeError, ValueError):
        problem = ProPLError(path, f"is a DICOM file whose {name} is not a number", COPY_AGAIN)
    raise problem  # out here it has no cause, which would quote the value


def _spacing(elements: Dataset) -> tuple[Spacing | None, str]:
    """From the regions of tissue, None where they disagree; without such regions from Pixel Spacing; and a note."""
    found = [_region_spacing(region) for region in elements.get("SequenceOfUltrasoundRegions") or ()]
    tissue = [spacing for spacing in found if spacing is not None]
    if tissue:
        first = tissue[0]
        same = all(math.isclose(a, b, rel_tol=1e-3) for other in tissue for a, b in zip(other, first, strict=True))
        differ = "its regions of tissue differ in their pixel sizes, which count as unknown"
        return (first, "") if same and is_spacing(first) else (None, differ if is_spacing(first) else "")
    row_column = elements.get("PixelSpacing")
    return stated_spacing(*map(float, row_column)) if row_column and len(row_column) == 2 else (None, "")


def _region_spacing(region: Dataset) -> Spacing | None:
    """Of a region of tissue in two dimensions: NaN where its units are no lengths; None for any other region."""
    if region.get("RegionSpatialFormat") != _PLANE or region.get("RegionDataType") != _TISSUE:
        return None
    units = region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection")
    if units != (_CENTIMETRES, _CENTIMETRES):
        return math.nan, math.nan
    row, column = (float(region.get(name) or math.nan) for name in ("PhysicalDeltaY", "PhysicalDeltaX"))
    return abs(row) * 10, abs(column) * 10  # a negative one says that the axis points up or left
